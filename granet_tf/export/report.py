"""`export_report`: what is in an exported file, layer by layer, and how it will run."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from granet_tf.export import execution, html, layers, mnn_execution
from granet_tf.export.engines import (
    ENGINES,
    MNN,
    UNUSABLE,
    EngineComparison,
    FilesOf,
    all_threads,
    compare,
    in_mnn,
    of_mnn,
    why_left_out,
)
from granet_tf.export.execution import Graph, verdict_on
from granet_tf.export.flatbuffer import read_weights
from granet_tf.export.formats import FORMATS
from granet_tf.export.mnn import ConvertedMNN
from granet_tf.export.running import Latency, Runner, machine, measure_within
from granet_tf.export.tflite import Converted, TFLiteReport, converted
from granet_tf.reports.flops import count_flops
from granet_tf.reports.table import aligned
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import masked_weights
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
        mnn: How MNN computes it, on x86 with AVX2 and on ARM, from an `.mnn` file of the same
            model; None where there is no such file: of other formats than float32, or where MNN
            is not installed or lacks an operation.
        mnn_why: The reason, or why there is no such file.
        mnn_advice: What to change to get more of MNN; None where there is nothing.
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
    mnn: str | None = None
    mnn_why: str | None = None
    mnn_advice: str | None = None

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
        in_litert = [(row.advice, row.flops_dense) for row in self.rows]
        in_mnn = [(row.mnn_advice, row.flops_dense) for row in self.rows]
        elsewhere = self._elsewhere() if any(map(_is_expanded, self.rows)) else ()
        return (*_by_stake(in_litert), *_by_stake(in_mnn), *elsewhere)

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
    def about_execution(self) -> str:
        """Which share of the FLOPs is computed by kernels that skip zeros, in each engine."""
        total = sum(row.flops_dense for row in self.rows)
        if not total:
            return ""
        found = []
        for where, runs in _PLACES.items():
            sparse = [row.flops_dense for row in self.rows if runs(row) == execution.SPARSE]
            if any(map(runs, self.rows)):
                found.append(f"{sum(sparse) / total:.0%} {where}")
        return f"Of the FLOPs, sparse kernels compute {', '.join(found)}."

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
        table = [("layer", "operation", "x86", "ARM", "MNN", *_NUMBERS)]
        for row in self.rows:
            runs = (row.x86, row.arm, row.mnn or "-")
            table.append((row.name, row.operation, *runs, *_numbers(row)))
        text = f"{self.file}\n{self.about_difference}\n\n{aligned(table, text_columns=5)}"
        if self.about_execution:
            text += f"\n\n{self.about_execution}"
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
_PLACES = {
    "in LiteRT on x86": lambda row: row.x86,
    "in LiteRT on ARM": lambda row: row.arm,
    "in MNN": lambda row: row.mnn,
}
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


def _by_stake(given: Iterable[tuple[str | None, int]]) -> list[str]:
    """Advice, what concerns most FLOPs first.

    Example:

    >>> _by_stake([("prune", 3), (None, 9), ("train", 4), ("prune", 2)])
    ['prune', 'train']
    """
    stake: dict[str, int] = {}
    for text, flops in given:
        if text:
            stake[text] = stake.get(text, 0) + flops + 1
    return sorted(stake, key=lambda text: -stake[text])


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
            in the other engines that are installed, with as many threads as there are cores, too:
            see `compare_engines`. Takes some seconds.
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
        is_float = made.format == "float32"
        own = _in_mnn(plain, made) if is_float else _ONLY_FLOAT
        rows = _rows(plain, made, own)
        engines, taken = None, {}
        if latency and is_float:
            numbers = [*(n for n in all_threads() if n != threads), threads]
            engines = compare(plain, made, numbers, _BUDGET, ENGINES | {MNN: _files(own)})
            rows_here = [r for r in engines.rows if r.threads == threads]
            taken = {r.weights: r.latency for r in rows_here if r.engine == "LiteRT"}
        elif latency:
            taken = _latency(made, threads)
        with open(beside, "wb") as file:
            file.write(made.content)
    found = made.report(path)
    return ExportReport(found, rows, taken, machine(), threads, made.shapes, engines)


_ONLY_FLOAT = ValueError("Only float32 files are compared with MNN's")


def _in_mnn(model: keras.Model, made: Converted) -> ConvertedMNN | Exception:
    """The same model's file for MNN, or why there is none."""
    try:
        return in_mnn(model, made)
    except UNUSABLE as error:
        return error


def _files(own: ConvertedMNN | Exception) -> FilesOf:
    def files(*_):
        if isinstance(own, Exception):
            raise own
        return of_mnn(own)

    return files


def _mnn_verdicts(
    model: keras.Model, own: ConvertedMNN | Exception
) -> Callable[[keras.Variable | None], dict[str, str | None]]:
    """A function of a variable that gives what a row says of MNN."""
    if isinstance(own, Exception):
        return lambda variable: {"mnn_why": f"{why_left_out(own)}."}
    found = mnn_execution.verdicts(model, own.content)

    def of(variable):
        path = None if variable is None else variable.path
        verdict = found.get(path, mnn_execution.ELSEWHERE)
        return {"mnn": verdict.runs, "mnn_why": verdict.why, "mnn_advice": verdict.advice}

    return of


def _rows(
    model: keras.Model, made: Converted, own: ConvertedMNN | Exception
) -> tuple[LayerExport, ...]:
    weights = read_weights(made.content)
    graph = Graph.of(model, weights)
    # A model whose inputs have open dimensions has no FLOPs but for some size.
    shapes = made.inputs.shapes_of(made.feed) if made.inputs.has_open_dimensions else None
    counted = count_flops(model, shapes).rows
    flops = {cost.path: cost for row in counted for cost in row.costs if cost.path}
    of_mnn_file = _mnn_verdicts(model, own)
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
                **of_mnn_file(variable),
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
