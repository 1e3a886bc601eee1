"""Running a `.tflite` file in the interpreter that applications use."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from granet_tf.reasons import reason_of

DEFAULT, WITHOUT_DELEGATE = "AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
"""Names in `OpResolverType`: with XNNPACK, as every application has it that says nothing else, and
with LiteRT's own kernels only."""


class Runner:
    """A loaded file.

    Args:
        content: The file.
        resolver: `DEFAULT` or `WITHOUT_DELEGATE`.
        threads: Threads it computes with.
        shapes: {name of an input: its shape at first}. What is not named is as the file has it,
            where dimensions that are left open are 1.

    Raises:
        RuntimeError: If LiteRT cannot load it.
    """

    def __init__(
        self,
        content: bytes,
        resolver: str = DEFAULT,
        threads: int = 1,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ):
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        try:
            self._interpreter = Interpreter(
                model_content=content,
                experimental_op_resolver_type=OpResolverType[resolver],
                num_threads=threads,
            )
            self._resize(shapes or {})
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RuntimeError(
                f"The converted model does not run in LiteRT: {reason_of(error)}. Received: a "
                f"file of {len(content):,} bytes, loaded with OpResolverType.{resolver}"
            ) from error

    def _resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Before the first allocation, as some operations take no window of 1 × 1."""
        if not shapes:
            return
        details = self._interpreter.get_signature_runner().get_input_details()
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(details[name]["index"], list(shape))

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, of inputs by name.

        Raises:
            RuntimeError: If an operation fails.
        """
        try:
            # Not kept: `invoke` refuses to run while it is there.
            return self._interpreter.get_signature_runner()(**feed)
        except (RuntimeError, ValueError) as error:
            shapes = {name: array.shape for name, array in feed.items()}
            raise RuntimeError(
                f"The converted model does not run in LiteRT: {reason_of(error)}. "
                f"Received: inputs of shape {shapes}"
            ) from error

    def invoke(self) -> None:
        """Computes once more on the inputs of the last call."""
        self._interpreter.invoke()

    def operations(self) -> list[str]:
        """Names of the operations, in the order in which they run."""
        return [each["op_name"] for each in self._interpreter._get_ops_details()]


@dataclasses.dataclass(frozen=True)
class Latency:
    """Times of one inference, in milliseconds.

    Attributes:
        median: Half of the times are below.
        low, high: First and third quartile: half of the times lie between them.
        runs: How many times were taken.
        fastest: The least of them: what other work on the machine has not slowed down.
    """

    median: float
    low: float
    high: float
    runs: int
    fastest: float | None = None

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latency:
        """From single times.

        Example:

        >>> Latency.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Latency(median=3.0, low=2.0, high=4.0, runs=5, fastest=1.0)
        """
        low, median, high = statistics.quantiles(milliseconds, n=4, method="inclusive")
        return cls(median, low, high, len(milliseconds), min(milliseconds))

    def __str__(self) -> str:
        return f"{self.median:.3g} ms ({self.low:.3g} to {self.high:.3g})"


def measure(
    runners: Mapping[str, Runner], feed: Mapping[str, Any], *, rounds: int = 30, calls: int = 1
) -> dict[str, Latency]:
    """Latency of several files on the same inputs, in turns.

    What else the machine does thus falls on all of them.

    Args:
        runners: Loaded files by name.
        feed: Their inputs by name.
        rounds: How often each has its turn.
        calls: Inferences in a turn; their mean is one time.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.5))
    >>> _ = granet_tf.export_tflite(model, "/tmp/measured.tflite", encoding="sparse")
    >>> with open("/tmp/measured.tflite", "rb") as file:
    ...     runner = Runner(file.read())
    >>> measure({"sparse": runner}, {"x": np.ones((1, 4), "float32")}, rounds=5)["sparse"].runs
    5
    """
    for runner in runners.values():
        runner(feed)
        runner.invoke()
    taken: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            runner = runners[name]
            runner.invoke()  # Brings its weights back into the cache.
            begin = time.perf_counter()
            for _ in range(calls):
                runner.invoke()
            taken[name].append(1e3 * (time.perf_counter() - begin) / calls)
    return {name: Latency.of(values) for name, values in taken.items()}


# Milliseconds that one time should be, at least.
_LONG_ENOUGH = 2.0


def measure_within(
    runners: Mapping[Any, Runner], feed: Mapping[str, Any], seconds: float
) -> dict[Any, Latency]:
    """`measure`, as many rounds as fit into that many seconds, but at least five and at most 40."""
    one = max(_milliseconds(runner, feed) for runner in runners.values())
    calls = max(1, round(_LONG_ENOUGH / max(one, 1e-3)))
    turn = sum((calls + 1) * one for _ in runners) / 1e3
    return measure(runners, feed, rounds=min(40, max(5, round(seconds / turn))), calls=calls)


def _milliseconds(runner: Runner, feed: Any) -> float:
    runner(feed)
    begin = time.perf_counter()
    runner.invoke()
    return 1e3 * (time.perf_counter() - begin)


def machine() -> str:
    """The processor, as far as the system tells."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return f"{line.partition(':')[2].strip()} ({platform.machine()})"
    return platform.processor() or platform.machine()


def _lines(path: str) -> Sequence[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return ()
