"""Signals that ask a run to save and end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


class Stop:
    """Whether a signal has come, and which."""

    signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def on_signal() -> Iterator[Stop]:
    """Yields a `Stop` that SIGTERM and Ctrl-C set; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def ask(number, frame):
        if stop and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
