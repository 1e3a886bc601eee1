"""A table of the paper's once more: what each row came to, beside the paper's number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from decimal import Decimal

from granet_train import rows
from granet_train.studies.compare.table import Mean, accuracy_of


@dataclasses.dataclass(frozen=True)
class Line:
    """A row over its seeds; one line of comparison.csv.

    Attributes:
        row: Its name.
        seeds: How many trainings there are.
        test_accuracy: Their mean.
        deviation: Their sample standard deviation; None for a single one.
        paper_accuracy: The paper's mean; None where it has none.
        paper_deviation: The paper's deviation; None where it has none.
        sparsity: Mean fraction of zeros among the prunable weights.
        training_flops: Mean, relative to a dense training.
        paper_training_flops: The paper's; None where it has none.
        inference_flops: Mean, relative to the dense network.
        paper_inference_flops: The paper's; None where it has none.
    """

    row: str
    seeds: int
    test_accuracy: float
    deviation: float | None
    paper_accuracy: float | None
    paper_deviation: float | None
    sparsity: float
    training_flops: float
    paper_training_flops: float | None
    inference_flops: float
    paper_inference_flops: float | None


def line(mean: Mean) -> Line:
    """What a row came to, beside the paper's number.

    Example:

    >>> found = line(Mean("table5/95/rigl", 0.95, 3, 0.7, 0.01, 0.95, 0.25, 0.12))
    >>> found.test_accuracy, found.paper_accuracy, found.paper_training_flops
    (0.7, 0.697, 0.12)
    """
    published = rows.named(mean.method).published
    return Line(
        row=mean.method,
        seeds=mean.seeds,
        test_accuracy=mean.test_accuracy,
        deviation=mean.deviation,
        paper_accuracy=_fraction(published.accuracy),
        paper_deviation=_fraction(published.deviation),
        sparsity=mean.sparsity,
        training_flops=mean.training_flops,
        paper_training_flops=_number(published.training_flops),
        inference_flops=mean.inference_flops,
        paper_inference_flops=_number(published.test_flops),
    )


def _fraction(percent: Decimal | None) -> float | None:
    return _number(None if percent is None else percent / 100)


def _number(exact: Decimal | None) -> float | None:
    return None if exact is None else float(exact)


def cells(means: Sequence[Mean]) -> list[tuple[str, ...]]:
    """The table, its head first, with as many digits of the paper's numbers as the paper has.

    Example:

    >>> cells([Mean("table5/95/rigl", 0.95, 1, 0.7, None, 0.95, 0.25, 0.12)])[1]
    ('table5/95/rigl', '70.00', '69.7', '0.25×', '0.12×', '0.12×', '0.12×')
    """
    head = ("row", "accuracy", "paper", "train FLOPs", "paper", "test FLOPs", "paper")
    return [head, *map(_cells, means)]


def _cells(mean: Mean) -> tuple[str, ...]:
    published = rows.named(mean.method).published
    return (
        mean.method,
        accuracy_of(mean),
        str(published),
        f"{mean.training_flops:.2f}×",
        _times(published.training_flops),
        f"{mean.inference_flops:.2f}×",
        _times(published.test_flops),
    )


def _times(exact: Decimal | None) -> str:
    return "" if exact is None else f"{exact}×"
