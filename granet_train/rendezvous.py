"""Hosts of one run wait for one another, and see that they were told the same.

TensorFlow waits for its cluster in C++: without end, without saying for whom, deaf to signals. So
hosts meet here first. One listens at its address, the others call it, and it tells all of them at
once to go on, or why not.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from granet_train.errors import UsageError

_PATIENCE = 5.0  # seconds for a line to arrive
_RETRY = 0.2  # seconds between calls


def meet(addresses: Sequence[str], index: int, timeout: float, settings: Mapping[str, Any]) -> None:
    """Returns when all hosts have come.

    Args:
        addresses: host:port of each of them, in the same order everywhere. The first listens there,
            and has stopped when this returns.
        index: Which of them this one is.
        timeout: Seconds to wait for the others.
        settings: What must be the same on all of them, by name; values that JSON can hold.

    Raises:
        UsageError: If some do not come in time, or were told something else.

    Example:

    >>> meet(["localhost:2222"], 0, 1.0, {})
    """
    if len(addresses) == 1:
        return
    deadline = time.monotonic() + timeout
    settings = json.loads(json.dumps(dict(settings)))
    if index == 0:
        objection = _lead(addresses, deadline, timeout, settings)
    else:
        objection = _follow(addresses[0], index, deadline, timeout, settings)
    if objection:
        raise UsageError(objection)


def _lead(addresses, deadline, timeout, settings) -> str:
    """Answers calls until all hosts have called; returns what all are told: "" or an objection."""
    calls: dict[int, tuple[socket.socket, dict]] = {}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listening(addresses[0]))
        while len(calls) < len(addresses) - 1 and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with contextlib.suppress(TimeoutError):
                connection = stack.enter_context(listener.accept()[0])
                greeting = _receive(connection, min(left, _PATIENCE))
                # Whoever else calls is none of ours.
                if isinstance(greeting, dict) and greeting.get("host") in range(1, len(addresses)):
                    calls[greeting["host"]] = connection, greeting["settings"]
        told = {addresses[host]: other for host, (_, other) in sorted(calls.items())}
        missing = [address for address in addresses[1:] if address not in told]
        objection = _missing(missing, timeout) or _difference(addresses[0], settings, told)
        for connection, _ in calls.values():
            _send(connection, objection)
    return objection


def _follow(leader, index, deadline, timeout, settings) -> str:
    """Calls the first host until it says what it tells all."""
    host, _, port = leader.rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, int(port)), min(left, _PATIENCE)) as connection:
                _send(connection, {"host": index, "settings": settings})
                # It may have begun to wait a little later.
                answer = _receive(connection, left + _PATIENCE)
        except OSError:
            answer = None
        if isinstance(answer, str):
            return answer
        time.sleep(_RETRY)
    return _missing([leader], timeout)


def _listening(address) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        return socket.create_server(("", int(port)), family=family)
    except OSError as error:
        raise UsageError(
            f"This host must be able to listen at its own address: {error.strerror or error}. "
            f"Received: {address}"
        ) from error


def _missing(addresses: Sequence[str], timeout: float) -> str:
    if not addresses:
        return ""
    return (
        f"All workers must be started, and must reach the first, within --connect_timeout="
        f"{timeout:g} seconds. Received: no answer from {', '.join(addresses)}"
    )


def _difference(leader: str, settings: dict, told: Mapping[str, dict]) -> str:
    """The first flag that hosts were given different values of.

    Example:

    >>> _difference("a:1", {"epochs": 2}, {"b:1": {"epochs": 2}, "c:1": {"epochs": 3}})
    'All workers must be given the same flags. Received: --epochs=2 on a:1, --epochs=3 on c:1'
    """
    for address, other in told.items():
        for name in sorted({*settings, *other}):
            if settings.get(name) != other.get(name):
                return (
                    "All workers must be given the same flags. Received: "
                    f"--{name}={settings.get(name)} on {leader}, "
                    f"--{name}={other.get(name)} on {address}"
                )
    return ""


def _send(connection: socket.socket, message: Any) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, timeout: float) -> Any:
    """What the other side has sent; None if it is nothing that `_send` sends."""
    connection.settimeout(timeout)
    try:
        with connection.makefile("rb") as lines:
            return json.loads(lines.readline())
    except (OSError, ValueError):
        return None
