"""`export_report`: what is in an exported file, layer by layer, and how it will run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import keras

from granet_tf.export import execution, html, layers
from granet_tf.export.engines import EngineComparison, compare
from granet_tf.export.execution import Graph, verdict_on
from granet_tf.export.flatbuffer import read_weights
from granet_tf.export.formats import FORMATS
from granet_tf.export.running import Latency, Runner, machine, measure_within
from granet_tf.export.tflite import Converted, TFLiteReport, converted
from granet_tf.own_classes import check_keras
from granet_tf.reports.flops import count_flops
from granet_tf.reports.table import aligned
from granet_tf.stripping import masked_weights
from granet_tf.writing import check_suffix, writing

# Seconds that measuring latency may take, about.
_BUDGET = 3.0


@dataclasses.dataclass(frozen=True)
class LayerExport:
    """One weight of the file.

    Attributes:
        layer: Path of the Keras layer, or the tensor's name in the file where it is not known.
        weight: Name of the weight in the layer, such as "kernel".
        operation: What reads it in the file, such as "CONV_2D".
        shape: In TFLite's layout.
        dtype: Of the stored values.
        encoding: "dense", "sparse", or "sparse, blocks of 4".
        size: Number of weights.
        nonzeros: How many are not zero in the file.
        rounded_to_zero: How many more are not zero in Keras: int8 and float16 have no room for
            them.
        bytes_before: Bytes in the same format, stored densely.
        bytes_after: Bytes in the file, indices included.
        flops_dense: FLOPs for one sample if there were no zeros.
        flops_sparse: FLOPs for one sample that involve a nonzero weight.
        x86: How it is computed there: "sparse kernel", "densified" or "dense".
        arm: The same on ARM.
        why: The reason.
        advice: What to change to get more; None where there is nothing.
    """

    layer: str
    weight: str
    operation: str
    shape: tuple[int, ...]
    dtype: str
    encoding: str
    size: int
    nonzeros: int
    rounded_to_zero: int
    bytes_before: int
    bytes_after: int
    flops_dense: int
    flops_sparse: int
    x86: str
    arm: str
    why: str
    advice: str | None

    @property
    def name(self) -> str:
        """Of the layer and the weight."""
        return f"{self.layer}/{self.weight}" if self.weight else self.layer

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1.0 - self.nonzeros / self.size


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_report` found; `print` shows it as text.

    Attributes:
        file: Sizes, largest difference from Keras and accuracies.
        rows: A `LayerExport` for each weight with two axes or more, in the model's order.
        latency: Of one inference here, of the file ("sparse") and of the same without sparse
            encoding ("dense"), in turns; empty where it was not measured.
        machine: Where it was measured.
        threads: With how many threads.
        shapes: Shape of the sample that FLOPs and latency are for, by the name of the input.
        engines: The same in all engines that are installed, LiteRT among them; None where it was
            not measured, or where the format is not float32.
    """

    file: TFLiteReport
    rows: tuple[LayerExport, ...]
    latency: dict[str, Latency]
    machine: str
    threads: int
    shapes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    engines: EngineComparison | None = None

    @property
    def size(self) -> int:
        """Number of weights in `rows`."""
        return sum(row.size for row in self.rows)

    @property
    def nonzeros(self) -> int:
        """How many of them are not zero."""
        return sum(row.nonzeros for row in self.rows)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among them."""
        return 1.0 - self.nonzeros / self.size if self.size else 0.0

    @property
    def speedup(self) -> float | None:
        """Median latency of the dense file over that of this one; None if not measured."""
        if not self.latency:
            return None
        return self.latency["dense"].median / self.latency["sparse"].median

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change to get more, what concerns most FLOPs first."""
        stake: dict[str, int] = {}
        for row in self.rows:
            if row.advice:
                stake[row.advice] = stake.get(row.advice, 0) + row.flops_dense + 1
        in_layers = sorted(stake, key=lambda text: -stake[text])
        return (*in_layers, *(self._elsewhere() if any(map(_is_expanded, self.rows)) else ()))

    def _elsewhere(self) -> Iterator[str]:
        """What another engine would make of the zeros that LiteRT expands."""
        if self.engines is None:
            return
        if "MNN" in self.engines.left_out:
            yield f"Zeros anywhere: {_MNN}. Not measured: {self.engines.left_out['MNN']}."
            return
        dense, sparse = (self.engines.best(self.threads, w) for w in ("dense", "sparse"))
        if sparse.engine == "MNN" and sparse.latency.high < dense.latency.low:
            yield (
                f"Zeros anywhere: {_MNN}; here {sparse.latency.median:.3g} ms, where the fastest "
                f"dense file ({dense.engine}) takes {dense.latency.median:.3g}."
            )

    @property
    def about_difference(self) -> str:
        """What the largest difference from Keras means."""
        count = f"{self.file.samples:,} sample{'s' if self.file.samples > 1 else ''}"
        return (
            f"The difference is that of the one output value furthest from Keras's on {count}; the "
            "range is from Keras's smallest output value to its largest. "
            f"{FORMATS[self.file.format].rounding} Compare accuracies to see whether it matters."
        )

    @property
    def about_sample(self) -> str:
        """Which inputs FLOPs and latency are for."""
        shapes = (f"{name} {'×'.join(map(str, shape))}" for name, shape in self.shapes.items())
        return f"FLOPs and latency are for inputs of this shape: {', '.join(shapes)}."

    def __str__(self) -> str:
        table = [("layer", "operation", "x86", "ARM", *_NUMBERS)]
        for row in self.rows:
            table.append((row.name, row.operation, row.x86, row.arm, *_numbers(row)))
        text = f"{self.file}\n{self.about_difference}\n\n{aligned(table, text_columns=4)}"
        if self.shapes:
            text += f"\n\n{self.about_sample}"
        if self.latency:
            lines = [f"{name}: {latency}" for name, latency in self.latency.items()]
            text += (
                f"\n\nLatency on {self.machine}, {self.threads} thread"
                f"{'s' if self.threads > 1 else ''}, median and middle half:\n  "
                + "\n  ".join(lines)
                + f"\n  dense / sparse: {self.speedup:.2f}"
            )
        if self.engines is not None and len({row.engine for row in self.engines.rows}) > 1:
            text += f"\n\n{self.engines}"
        if self.advice:
            text += "\n\nTo get more:\n" + "\n".join(f"- {each}" for each in self.advice)
        return text

    def to_json(self) -> str:
        """Everything as JSON.

        Example:

        >>> import json
        >>> report = ExportReport(TFLiteReport("m.tflite", 9, 8, 7, 0.0), (), {}, "x86_64", 1)
        >>> json.loads(report.to_json())["file"]["sparse_bytes"]
        8
        """
        content = dataclasses.asdict(self)
        for row, written in zip(self.rows, content["rows"], strict=True):
            written["sparsity"] = row.sparsity
        more = {"sparsity": self.sparsity, "speedup": self.speedup, "advice": self.advice}
        return json.dumps({**content, **more}, indent=2) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it: one HTML page with plots, JSON or text, by the path's suffix.

        Args:
            path: Ends in ".html", ".json" or ".txt". An existing file is replaced.

        Raises:
            ValueError: On another suffix, or if it cannot be written.
            ImportError: If Jinja2 or Matplotlib is not installed, which a page is made with.
        """
        path = check_saves_as(path)
        with writing(path) as beside, open(beside, "w", encoding="utf-8") as file:
            file.write(_WRITERS[os.path.splitext(path)[1]](self))


_WRITERS = {
    ".html": html.page,
    ".json": ExportReport.to_json,
    ".txt": lambda report: f"{report}\n",
}
SUFFIXES = tuple(_WRITERS)
"""What a file may end with that a report is saved to."""
_CHECKS = {".html": html.check_installed}
# What there is besides LiteRT.
_MNN = (
    "granet_tf.export_mnn writes a file for MNN, an engine that skips zeros of float32 "
    "convolutions and dense layers"
)
_NUMBERS = ("weights", "sparsity", "bytes before", "after", "dense FLOPs", "sparse")


def check_saves_as(path: str | os.PathLike[str]) -> str:
    """The path as text, if `ExportReport.save` takes it.

    Raises:
        ValueError, ImportError: As `save`.

    Example:

    >>> check_saves_as("report.json")
    'report.json'
    """
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in _WRITERS:
        raise ValueError(
            f"`path` must end with {', '.join(_WRITERS)}. Received: path={os.fspath(path)!r}"
        )
    _CHECKS.get(suffix, lambda: None)()
    return check_suffix(path, suffix)


def _is_expanded(row: LayerExport) -> bool:
    return row.x86 == execution.DENSIFIED


def _numbers(row: LayerExport) -> tuple[str, ...]:
    counts = (row.bytes_before, row.bytes_after, row.flops_dense, row.flops_sparse)
    return (f"{row.size:,}", f"{row.sparsity:.4f}", *(f"{count:,}" for count in counts))


def export_report(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    latency: bool = True,
    threads: int = 1,
    **options: Any,
) -> ExportReport:
    """Writes a `.tflite` file as `export_tflite` does, and reports on each of its layers.

    Args:
        model: As for `export_tflite`.
        path: As for `export_tflite`.
        latency: Whether to measure the latency of the file and of the same without sparse
            encoding, on the first sample, under the default delegate; of a float32 file also that
            in the other engines that are installed, see `compare_engines`. Takes some seconds.
        threads: Threads to measure it with.
        **options: The other arguments of `export_tflite`.

    Returns:
        An `ExportReport`: prints as text, and `save` writes HTML, JSON or text.

    Raises:
        TypeError, ValueError, RuntimeError: As `export_tflite`.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="head")])
    >>> sparse = granet_tf.StaticSparse(0.9, pattern=granet_tf.Block((4, 1)))
    >>> model = granet_tf.wrap(model, sparse)
    >>> report = export_report(model, "/tmp/head.tflite", latency=False)
    >>> [(row.weight, row.x86, row.encoding, row.flops_sparse) for row in report.rows]
    [('kernel', 'sparse kernel', 'sparse, blocks of 4', 816)]
    """
    path = check_suffix(path, ".tflite")
    check_keras(model)
    with writing(path) as beside, masked_weights(model) as plain:
        made = converted(plain, **options)
        rows = _rows(plain, made)
        engines, taken = None, {}
        if latency and made.format == "float32":
            engines = compare(plain, made, [threads], _BUDGET)
            taken = {r.weights: r.latency for r in engines.rows if r.engine == "LiteRT"}
        elif latency:
            taken = _latency(made, threads)
        with open(beside, "wb") as file:
            file.write(made.content)
    found = made.report(path)
    return ExportReport(found, rows, taken, machine(), threads, made.shapes, engines)


def _rows(model: keras.Model, made: Converted) -> tuple[LayerExport, ...]:
    weights = read_weights(made.content)
    graph = Graph.of(model, weights)
    # A model whose inputs have open dimensions has no FLOPs but for some size.
    shapes = made.inputs.shapes_of(made.feed) if made.inputs.has_open_dimensions else None
    counted = count_flops(model, shapes).rows
    flops = {cost.path: cost for row in counted for cost in row.costs if cost.path}
    rows = []
    for match in _in_model_order(layers.matched(model, weights), model):
        weight, variable = match.stored, match.variable
        verdict = verdict_on(weight, graph)
        cost = flops.get(variable.path) if variable is not None else None
        layer, name = (
            (weight.name, "") if variable is None else variable.path.rsplit("/", maxsplit=1)
        )
        rows.append(
            LayerExport(
                layer=layer,
                weight=name,
                operation=", ".join(weight.operators),
                shape=weight.values.shape,
                dtype=weight.values.dtype.name,
                encoding=_encoding(weight),
                size=weight.values.size,
                nonzeros=weight.nonzeros,
                rounded_to_zero=match.rounded_to_zero,
                bytes_before=weight.values.nbytes,
                bytes_after=weight.nbytes,
                flops_dense=cost.dense if cost else 0,
                flops_sparse=cost.sparse if cost else 0,
                **dataclasses.asdict(verdict),
            )
        )
    return tuple(rows)


def _in_model_order(matches: list[layers.Match], model: keras.Model) -> list[layers.Match]:
    """What was not found in the model comes last."""
    place = {id(variable): i for i, variable in enumerate(model.variables)}
    return sorted(matches, key=lambda match: place.get(id(match.variable), len(place)))


def _encoding(weight: Any) -> str:
    if not weight.sparse:
        return execution.DENSE
    return "sparse" if weight.block == 1 else f"sparse, blocks of {weight.block}"


def _latency(made: Converted, threads: int) -> dict[str, Latency]:
    runners = {
        "dense": Runner(made.dense, threads=threads, shapes=made.shapes),
        "sparse": Runner(made.content, made.resolver, threads, made.shapes),
    }
    return measure_within(runners, made.feed, _BUDGET)
