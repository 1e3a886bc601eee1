"""Signals that ask a run to save and end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextvars import ContextVar

from granet_train.errors import Interrupted

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether a signal has come, and which."""

    signal: signal.Signals | None = None
    _ends: bool = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def ask(self, number: int) -> None:
        """Tells that the signal of this number has come."""
        self.signal = signal.Signals(number)
        if self._ends:
            self._end()

    @contextlib.contextmanager
    def ends_at_once(self) -> Iterator[None]:
        """Within it, a signal raises Interrupted: for what takes long before there is a state.

        Example:

        >>> stop = Stop()
        >>> with contextlib.suppress(Interrupted), stop.ends_at_once():
        ...     stop.ask(signal.SIGTERM)
        ...     print("This is not reached.")
        >>> stop.signal.name
        'SIGTERM'
        """
        self._ends = True
        try:
            if self:
                self._end()
            yield
        finally:
            self._ends = False

    def _end(self):
        raise Interrupted(
            f"Stopped by {self.signal.name} before the first step. There is nothing to save yet: "
            "the same command begins anew.",
            self.signal,
        )


_asked_by: ContextVar[Stop | None] = ContextVar("asked_by", default=None)


@contextlib.contextmanager
def asked_by(stop: Stop) -> Iterator[None]:
    """Within it, what asks for `on_signal` is given this `Stop` instead.

    Example:

    >>> with asked_by(Stop()), on_signal() as stop:
    ...     bool(stop)
    False
    """
    token = _asked_by.set(stop)
    try:
        yield
    finally:
        _asked_by.reset(token)


@contextlib.contextmanager
def on_signal() -> Iterator[Stop]:
    """Yields a `Stop` that SIGTERM and Ctrl-C set; a second Ctrl-C ends the process at once.

    Must be entered in the main thread, or within `asked_by`.
    """
    if (given := _asked_by.get()) is not None:
        yield given
        return
    stop = Stop()
    # Python looks at signals between two of its own instructions, of which there is none while a
    # device takes its steps. A thread learns of them when they come.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def ask(number, frame):
        stop.ask(number)

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    answers = threading.Thread(target=_answer, args=(reader,), daemon=True)
    answers.start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        answers.join()
        os.close(reader)
        for number, handler in before.items():
            signal.signal(number, handler)


def _answer(reader: int) -> None:
    """Tells the user that a signal has come, on stderr; ends the process at the second Ctrl-C."""
    asked = False
    while received := os.read(reader, 1):
        number = received[0]
        if number == signal.SIGINT and asked:
            _say("Ended.")
            os._exit(128 + number)
        if number in _SIGNALS and not asked:
            asked = True
            _say("Saving, then ending. Ctrl-C again ends at once.")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
