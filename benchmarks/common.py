"""What the benchmarks share: a quiet start of TensorFlow, and timing side by side."""

from __future__ import annotations

import contextlib
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Import TensorFlow in here: its notes are dropped, unless the import fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # The level alone is not enough: some notes are logged before it is read.
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException:
            log.seek(0)
            os.write(stderr, log.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def interleaved(
    variants: Mapping[str, Callable[[], object]], rounds: int, calls: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Seconds of each variant's fastest call in each round.

    Every round runs all variants, each round in another order, so that what else the machine does
    falls on all of them. The fastest of a few calls is what the code costs when nothing else runs.

    Args:
        variants: Functions by name.
        rounds: Number of rounds.
        calls: Calls in a round, where not 1.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            many = (calls or {}).get(name, 1)
            seconds[name].append(min(_seconds(variants[name]) for _ in range(many)))
    return seconds


def ratios(seconds: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round, sorted."""
    return sorted(s / b for s, b in zip(seconds, base, strict=True))


def spread(values: Sequence[float], form: str = "{:.3f}") -> str:
    """The middle half of the values, as text."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{form.format(low)}–{form.format(high)}"


def _seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
