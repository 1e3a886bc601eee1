"""What a comparison came to: each training, and the means over seeds as in Table 2."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from granet_tf.reports.table import aligned
from granet_train.studies.compare.cells import Compared
from granet_train.studies.grid import Grid


@dataclasses.dataclass(frozen=True)
class Row:
    """One training; one line of trainings.csv.

    Attributes:
        method: As in --methods, or the name of a row.
        final_sparsity: What was asked for; None where the method has none, as in dense training.
        seed: Its seed.
        test_accuracy: Of the selected epoch, by default the last.
        epoch: Which one that is.
        sparsity: Fraction of zeros among the prunable weights.
        weights: Number of prunable weights.
        nonzeros: Number of active ones among them.
        inference_flops: FLOPs of inference as a fraction of the dense network's, the largest where
            there are several.
        training_flops: FLOPs of training as a fraction of a dense training of that network, of the
            same length; where rows of a table differ in length, of the shorter one.
        seconds: Time of training.
        emptied: Number of weights of which nothing is left.
    """

    method: str
    final_sparsity: float | None
    seed: int
    test_accuracy: float
    epoch: int
    sparsity: float
    weights: int
    nonzeros: int
    inference_flops: float
    training_flops: float
    seconds: float
    emptied: int = 0


@dataclasses.dataclass(frozen=True)
class Mean:
    """A method at one sparsity, over its seeds; one line of comparison.csv.

    Attributes:
        method: As in --methods, or the name of a row.
        final_sparsity: What was asked for; None where the method has none.
        seeds: How many trainings there are.
        test_accuracy: Their mean.
        deviation: Their sample standard deviation; None for a single one.
        sparsity: Mean fraction of zeros among the prunable weights.
        training_flops: Mean, relative to a dense training.
        inference_flops: Mean, relative to the dense network.
    """

    method: str
    final_sparsity: float | None
    seeds: int
    test_accuracy: float
    deviation: float | None
    sparsity: float
    training_flops: float
    inference_flops: float


def rows(grid: Grid, cells: Sequence[Compared]) -> list[Row]:
    """A line for each training that is done, in their order."""
    results = {cell: grid.result(cell) for cell in cells}
    done = {cell: result for cell, result in results.items() if result is not None}
    # A network made smaller is compared with the whole one.
    whole: dict[str, int] = {}
    for cell, result in done.items():
        whole[cell.network] = max(result["flops_dense"], whole.get(cell.network, 1))
    return [_row(cell, result, whole[cell.network]) for cell, result in done.items()]


def _row(cell: Compared, result: Mapping[str, Any], whole: int) -> Row:
    figures = {**result, "emptied": len(result.get("emptied", ()))}
    share = figures.pop("flops_dense") / whole
    for name in ("inference_flops", "training_flops"):
        figures[name] *= share
    figures["training_flops"] *= cell.length
    return Row(
        method=cell.compared,
        final_sparsity=None if cell.sparsity is None else float(cell.sparsity),
        seed=cell.seed,
        **figures,
    )


def warnings(grid: Grid, cells: Sequence[Compared]) -> list[str]:
    """A line for each training that is done and has layers of which nothing is left."""
    results = {cell: grid.result(cell) or {} for cell in cells}
    return [
        f"warning: {cell.label}: all of {', '.join(result['emptied'])} has been pruned: nothing "
        "passes through any more"
        for cell, result in results.items()
        if result.get("emptied")
    ]


def means(rows: Sequence[Row]) -> list[Mean]:
    """Over the seeds; methods and sparsities in the order in which they first come.

    Example:

    >>> rows = [Row("gmp", 0.5, seed, accuracy, 9, 0.5, 8, 4, 0.5, 0.75, 1.0)
    ...         for seed, accuracy in enumerate([0.25, 0.5, 0.75])]
    >>> [(mean.test_accuracy, mean.deviation) for mean in means(rows)]
    [(0.5, 0.25)]
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.final_sparsity), []).append(row)
    return [_mean(*key, group) for key, group in groups.items()]


def _mean(method: str, sparsity: float | None, group: Sequence[Row]) -> Mean:
    def mean(name: str) -> float:
        return statistics.fmean(getattr(row, name) for row in group)

    accuracies = [row.test_accuracy for row in group]
    return Mean(
        method=method,
        final_sparsity=sparsity,
        seeds=len(group),
        test_accuracy=mean("test_accuracy"),
        deviation=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        sparsity=mean("sparsity"),
        training_flops=mean("training_flops"),
        inference_flops=mean("inference_flops"),
    )


def text(means: Sequence[Mean]) -> str:
    """The table for a terminal."""
    return aligned(_cells(means, bold=str), text_columns=1)


def markdown(means: Sequence[Mean]) -> str:
    """The table for a page; the best accuracy at each sparsity is bold."""
    return page(_cells(means, bold="**{}**".format))


def page(cells: Sequence[Sequence[str]]) -> str:
    """Lines of cells in Markdown, the first being the head; numbers are flush right.

    Example:

    >>> print(page([("method", "accuracy"), ("gmp", "93.59")]), end="")
    | method | accuracy |
    | --- | ---: |
    | gmp | 93.59 |
    """
    head, *lines = cells
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ruler, *lines))


def _cells(means: Sequence[Mean], bold) -> list[tuple[str, ...]]:
    """A line for each method; three columns for each sparsity."""
    sparsities = sorted({m.final_sparsity for m in means if m.final_sparsity is not None})
    methods = list(dict.fromkeys(m.method for m in means))
    found = {(m.method, m.final_sparsity): m for m in means}
    best = {s: max(m.test_accuracy for m in means if m.final_sparsity == s) for s in sparsities}
    head = ["method"]
    for sparsity in sparsities:
        head += [f"accuracy at {sparsity:g}", "train FLOPs", "test FLOPs"]
    lines = [tuple(head)]
    for method in methods:
        line = [_label(method, found.get((method, None)))]
        for sparsity in sparsities:
            mean = found.get((method, sparsity), found.get((method, None)))
            line += _figures(mean, bold, best[sparsity]) if mean else ["", "", ""]
        lines.append(tuple(line))
    if not sparsities:
        lines = [("method", "accuracy", "train FLOPs", "test FLOPs")]
        lines += [(_label(m.method, m), *_figures(m, bold, None)) for m in means]
    return lines


def _label(method: str, at_none: Mean | None) -> str:
    """How sparse a method gets is said where it takes no sparsity, and yet is not dense."""
    if at_none is None or not at_none.sparsity:
        return method
    return f"{method}, {at_none.sparsity:.3f} sparse"


def accuracy_of(mean: Mean) -> str:
    """In percent, with the deviation where there is one.

    Example:

    >>> accuracy_of(Mean("gmp", 0.9, 2, 0.9359, 0.001, 0.9, 0.5, 0.1))
    '93.59 ± 0.10'
    """
    deviation = "" if mean.deviation is None else f" ± {100 * mean.deviation:.2f}"
    return f"{100 * mean.test_accuracy:.2f}{deviation}"


def _figures(mean: Mean, bold, best: float | None) -> list[str]:
    accuracy = accuracy_of(mean)
    is_best = mean.final_sparsity is not None and mean.test_accuracy == best
    accuracy = bold(accuracy) if is_best else accuracy
    return [accuracy, f"{mean.training_flops:.2f}×", f"{mean.inference_flops:.2f}×"]
