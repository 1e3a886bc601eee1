"""What the benchmarks share: timing side by side."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# TensorFlow's first operation complains, as an error, where there is no GPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Seconds(NamedTuple):
    """Time of one call: on the clock, and of all CPU cores together."""

    wall: float
    cpu: float


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: Mapping[str, int] | None = None,
) -> dict[str, list[Seconds]]:
    """Times all variants in every round, in an order that changes.

    What else the machine does thus falls on all of them, and ratios within a round hold.

    Args:
        variants: Functions by name.
        rounds: Number of rounds.
        calls: Calls in a round, where not 1; their median counts.
    """
    taken: dict[str, list[Seconds]] = {name: [] for name in variants}
    names = list(variants)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times = [_time(variants[name]) for _ in range((calls or {}).get(name, 1))]
            taken[name].append(Seconds(*map(statistics.median, zip(*times, strict=True))))
    return taken


def ratios(seconds: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round."""
    return [s / b for s, b in zip(seconds, base, strict=True)]


def middle_half(values: Sequence[float]) -> str:
    """First and third quartile, as text."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{low:.3f}–{high:.3f}"


def _time(function):
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)
