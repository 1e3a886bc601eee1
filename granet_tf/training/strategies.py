"""tf.distribute strategies, by name: one device, several, several hosts, a TPU."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl.flags import FlagValues

from granet_tf.training.errors import UsageError

_PROBE_EVERY = 1.0  # seconds


def make(values: FlagValues) -> Any:
    """The `tf.distribute.Strategy` that the flags ask for.

    Must run before TensorFlow's first operation, as several hosts and TPUs demand.

    Raises:
        UsageError: If there is no such device, or if other hosts cannot be reached in time.
    """
    return STRATEGIES[values.strategy](values)


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one that writes what a run leaves behind."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_id in (None, 0)


def _none(values):
    import tensorflow as tf

    return tf.distribute.get_strategy()


def _mirrored(values):
    import tensorflow as tf

    devices = [
        f"{kind}:{i}"
        for kind in ("GPU", "CPU")
        for i in range(len(tf.config.list_logical_devices(kind)))
    ]
    kind = devices[0].split(":")[0]
    return tf.distribute.MirroredStrategy([name for name in devices if name.startswith(kind)])


def _multiworker(values):
    import tensorflow as tf

    if values.workers:
        task = {"type": "worker", "index": values.worker_index}
        cluster = {"cluster": {"worker": values.workers}, "task": task}
        os.environ["TF_CONFIG"] = json.dumps(cluster)
    cluster = json.loads(os.environ["TF_CONFIG"])
    addresses = [a for group in cluster["cluster"].values() for a in group]
    own = cluster["cluster"][cluster["task"]["type"]][cluster["task"]["index"]]
    others = [address for address in addresses if address != own]
    with _giving_up_on(others, values.connect_timeout):
        options = tf.distribute.experimental.CommunicationOptions(
            timeout_seconds=values.connect_timeout
        )
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)


def _tpu(values):
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(
            values.tpu, zone=values.tpu_zone, project=values.tpu_project
        )
        return tf.distribute.TPUStrategy(resolver)
    # The resolver fails in ways that have no common class: cloud errors, name look-ups, RPCs.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            "There must be a TPU by this name that this machine can reach, `local` on a TPU VM; "
            f"--tpu_zone and --tpu_project say where it is. {type(error).__name__}: {reason} "
            f"Received: --tpu={values.tpu} --tpu_zone={values.tpu_zone} "
            f"--tpu_project={values.tpu_project}"
        ) from error


STRATEGIES: dict[str, Callable[[FlagValues], Any]] = {
    "none": _none,
    "mirrored": _mirrored,
    "multiworker": _multiworker,
    "tpu": _tpu,
}


@contextlib.contextmanager
def _giving_up_on(addresses: Sequence[str], timeout: float) -> Iterator[None]:
    """Ends the process if what runs inside takes longer than `timeout` seconds.

    TensorFlow waits for its cluster in C++, where no exception gets through.
    """
    connected = threading.Event()

    def watch():
        deadline = time.monotonic() + timeout
        reachable: set[str] = set()
        while not connected.wait(_PROBE_EVERY):
            reachable |= {a for a in addresses if a not in reachable and _answers(a)}
            if time.monotonic() > deadline:
                missing = [a for a in addresses if a not in reachable] or list(addresses)
                print(
                    f"error: Workers must be reachable within --connect_timeout={timeout:g} "
                    f"seconds of this one's start. Received: no answer from {', '.join(missing)}",
                    flush=True,
                    file=sys.__stderr__,
                )
                os._exit(UsageError.exit_code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        connected.set()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_EVERY):
            return True
    except OSError:
        return False
