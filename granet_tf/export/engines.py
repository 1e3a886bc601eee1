"""A sparse model in the engines that are installed, side by side: `compare_engines`."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from granet_tf.export import mnn, tflite
from granet_tf.export.mnn_running import MNNRunner
from granet_tf.export.running import Latency, Runner, machine, measure_within
from granet_tf.reasons import reason_of
from granet_tf.reports.table import aligned
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import masked_weights

# Makes a loaded file, given how many threads compute it.
Load = Callable[[int], Callable[[dict], Mapping[str, np.ndarray]]]
DENSE, SPARSE = "dense", "sparse"


@dataclasses.dataclass(frozen=True)
class EngineLatency:
    """One inference in one engine.

    Attributes:
        engine: Its name.
        weights: "dense" or "sparse", as they are stored and, where the engine can, computed.
        threads: With how many threads.
        latency: In milliseconds.
    """

    engine: str
    weights: str
    threads: int
    latency: Latency


@dataclasses.dataclass(frozen=True)
class EngineComparison:
    """What `compare_engines` found; `print` shows it as text.

    Attributes:
        rows: Of each engine and number of threads, dense and where it can sparse.
        left_out: {engine: why it is not among them}.
        machine: Where it was measured.
        shapes: Shape of the sample, by the name of the input.

    Example:

    >>> times = {"LiteRT": 20.0, "MNN": 30.0}
    >>> rows = [EngineLatency(e, "dense", 1, Latency(t, t, t, 9)) for e, t in times.items()]
    >>> rows.append(EngineLatency("MNN", "sparse", 1, Latency(8.0, 8.0, 8.0, 9)))
    >>> found = EngineComparison(tuple(rows), {}, "x86_64", {})
    >>> found.best(1, "dense").engine, found.gain(1)
    ('LiteRT', 2.5)
    """

    rows: tuple[EngineLatency, ...]
    left_out: Mapping[str, str]
    machine: str
    shapes: Mapping[str, tuple[int, ...]]

    def best(self, threads: int, weights: str) -> EngineLatency:
        """The fastest with that many threads: of dense files, or of sparse ones."""
        rows = [r for r in self.rows if (r.threads, r.weights) == (threads, weights)]
        return min(rows, key=lambda row: row.latency.median)

    def gain(self, threads: int) -> float:
        """How many times faster the best sparse file is than the best dense one."""
        dense, sparse = (self.best(threads, weights) for weights in (DENSE, SPARSE))
        return dense.latency.median / sparse.latency.median

    @property
    def threads(self) -> tuple[int, ...]:
        """The numbers of threads that it was measured with."""
        return tuple(dict.fromkeys(row.threads for row in self.rows))

    @property
    def by_file(self) -> Mapping[tuple[str, str], Mapping[int, Latency]]:
        """{(engine, weights): {threads: latency}}"""
        found: dict[tuple[str, str], dict[int, Latency]] = {}
        for row in self.rows:
            found.setdefault((row.engine, row.weights), {})[row.threads] = row.latency
        return found

    def __str__(self) -> str:
        numbers = sorted(self.threads)
        table = [("engine", "weights", *map(_in_words, numbers))]
        for file, latencies in self.by_file.items():
            table.append((*file, *(str(latencies[number]) for number in numbers)))
        lines = [
            f"Engines on {self.machine}, median and middle half:",
            aligned(table, text_columns=len(table[0])),
            "",
        ]
        for threads in numbers:
            dense, sparse = (self.best(threads, weights) for weights in (DENSE, SPARSE))
            lines.append(
                f"With {_in_words(threads)}, the fastest sparse file "
                f"({sparse.engine}) is {self.gain(threads):.2f} times as fast as the fastest dense "
                f"one ({dense.engine})."
            )
        lines += [f"{engine} is left out: {why}." for engine, why in self.left_out.items()]
        return "\n".join(lines)


def _in_words(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def compare_engines(
    model: keras.Model,
    *,
    sample_inputs: Any = None,
    threads: Sequence[int] | None = None,
    seconds: float = 3.0,
) -> EngineComparison:
    """Measures a model in LiteRT, and in MNN and OpenVINO where they are installed.

    Dense files have all weights stored, zeros too; whether zeros of sparse ones are skipped is for
    the engine to say. All are float32, computed on the CPU, and those that are sparse have been
    compared with Keras. They take turns, so that what else the machine does falls on all of them.

    Args:
        model: As for `export_tflite`.
        sample_inputs: As for `export_tflite`; the first sample is measured.
        threads: Numbers of threads. None is one, and as many as there are cores.
        seconds: How long measuring may take for each number of threads, about.

    Returns:
        An `EngineComparison`.

    Raises:
        TypeError, ValueError, RuntimeError: As `export_tflite`; `ValueError` also if `threads` is
            not of positive whole numbers.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    >>> found = granet_tf.compare_engines(model, threads=[1], seconds=0.1)
    >>> {(row.engine, row.weights) for row in found.rows} >= {("LiteRT", "sparse")}
    True
    """
    check_keras(model)
    numbers = _checked(threads)
    with masked_weights(model) as plain:
        made = tflite.converted(plain, sample_inputs=sample_inputs)
        return compare(plain, made, numbers, seconds)


def compare(
    model: keras.Model,
    made: tflite.Converted,
    threads: Sequence[int],
    seconds: float,
    engines: Mapping[str, FilesOf] | None = None,
) -> EngineComparison:
    """`compare_engines` of a plain model whose float32 `.tflite` file is made already."""
    loads: dict[tuple[str, str], Load] = {}
    left_out = {}
    for engine, files_of in (engines or ENGINES).items():
        try:
            loads |= {(engine, weights): load for weights, load in files_of(model, made).items()}
        except UNUSABLE as error:
            left_out[engine] = why_left_out(error)
    rows = []
    for number in threads:
        runners = {key: load(number) for key, load in loads.items()}
        taken = measure_within(runners, made.feed, seconds)
        rows += [EngineLatency(*key, number, latency) for key, latency in taken.items()]
    return EngineComparison(tuple(rows), left_out, machine(), made.shapes)


UNUSABLE = (ImportError, ValueError, RuntimeError)
"""What is raised where an engine is missing, or lacks what a model needs."""


def why_left_out(error: Exception) -> str:
    """The reason, to stand in a sentence.

    Example:

    >>> why_left_out(ValueError("it lacks Einsum. Received: model=<Functional>"))
    'it lacks Einsum'
    """
    return reason_of(error).partition(" Received:")[0].rstrip(".")


def all_threads() -> list[int]:
    """One thread, and as many as there are cores."""
    return [*dict.fromkeys((1, os.cpu_count() or 1))]


def _checked(threads):
    numbers = all_threads() if threads is None else [*threads]
    if not numbers or not all(isinstance(n, int) and n > 0 for n in numbers):
        raise ValueError(
            f"`threads` must be a list of positive whole numbers. Received: threads={threads}"
        )
    return numbers


def _litert(model, made) -> dict[str, Load]:
    del model
    return {
        DENSE: lambda threads: Runner(made.dense, threads=threads, shapes=made.shapes),
        SPARSE: lambda threads: Runner(made.content, made.resolver, threads, made.shapes),
    }


def in_mnn(model: keras.Model, made: tflite.Converted) -> mnn.ConvertedMNN:
    """The model's own file for MNN.

    Raises:
        ImportError, ValueError, RuntimeError: `UNUSABLE`.
    """
    _check_installed("MNN", "mnn")
    # It is checked on one sample of the same shapes.
    sample = keras.tree.pack_sequence_as(made.inputs.signature, [*made.feed.values()])
    sample = sample[0] if len(sample) == 1 else sample
    return mnn.converted(model, sample_inputs=sample, tflite=made.dense)


def of_mnn(own: mnn.ConvertedMNN) -> dict[str, Load]:
    """What MNN loads."""
    return {
        DENSE: lambda threads: MNNRunner(own.dense, own.source, threads),
        SPARSE: lambda threads: MNNRunner(own.content, own.source, threads),
    }


def _openvino(model, made) -> dict[str, Load]:
    del model
    _check_installed("openvino", "openvino")
    return {DENSE: lambda threads: OpenVINORunner(made.dense, threads)}


FilesOf = Callable[[keras.Model, tflite.Converted], dict[str, Load]]
MNN = "MNN"
ENGINES: Mapping[str, FilesOf] = {
    "LiteRT": _litert,
    MNN: lambda model, made: of_mnn(in_mnn(model, made)),
    "OpenVINO": _openvino,
}
"""{engine: function of a plain model and its `.tflite` file that makes its own files}."""


def _check_installed(package, extra):
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"it is not installed (pip install 'granet_tf[{extra}]')")


@functools.cache
def _openvino_core():
    """The one of the process. Each sets a stack for signals, and two that end in the order they
    began in leave one that is gone: then the next signal ends the process (OpenVINO 2026.4)."""
    import openvino

    return openvino.Core()


class OpenVINORunner:
    """A dense `.tflite` file in OpenVINO, with the methods of `running.Runner`.

    Args:
        content: The file.
        threads: Threads it computes with.

    Raises:
        RuntimeError: If OpenVINO cannot load it.
    """

    def __init__(self, content: bytes, threads: int = 1):
        core = _openvino_core()
        with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
            file.write(content)
            file.flush()
            network = core.read_model(file.name)
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Else bfloat16, on processors that have it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._request = core.compile_model(network, "CPU", options).create_infer_request()

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by number, of inputs in the order of the file."""
        outputs = self._request.infer(list(feed.values())).values()
        return {f"output_{i}": np.array(value) for i, value in enumerate(outputs)}

    def invoke(self) -> None:
        """Computes once more on the inputs of the last call."""
        self._request.infer()
