"""layers.csv: how sparse each weight is and what it costs, as in Table 10 of the paper."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras

import granet_tf
from granet_tf.wrapping.spared import REASON
from granet_train import files
from granet_train.cost import Cost, active_weights

COLUMNS = (
    "run", "layer", "shape", "weights", "nonzeros", "sparsity", "dense_flops", "sparse_flops",
)  # fmt: skip

NOT_PRUNED = "(not pruned)"
BACKBONE = "(backbone)"
OVERALL = "(overall)"


@dataclasses.dataclass(frozen=True)
class LayerRow:
    """One line: a prunable weight, or what several come to.

    Attributes:
        layer: Path of the weight, or one of the names in parentheses (see `rows`).
        shape: Its shape; None where there is not one.
        weights: Number of prunable weights.
        nonzeros: Number of active ones.
        dense_flops: FLOPs of inference for one sample, zeros included.
        sparse_flops: Those that the masks keep.
    """

    layer: str
    shape: tuple[int, ...] | None
    weights: int
    nonzeros: int
    dense_flops: int
    sparse_flops: int

    @property
    def sparsity(self) -> float | None:
        """Fraction of zeros; None where nothing is prunable."""
        return 1 - self.nonzeros / self.weights if self.weights else None


def rows(model: keras.Model, cost: Cost) -> list[LayerRow]:
    """A line for each prunable weight in the model's order, and then

    - "(not pruned)": the FLOPs of everything else,
    - "(backbone)": all but the last prunable weight, or but what is spared as the model's output,
    - "(overall)": all.

    Args:
        model: The model, as it is now.
        cost: What it costs.
    """
    weights = granet_tf.summarize(model).rows
    pruned = [row for row in weights if row.pruned]
    spared = [row.path for row in weights if row.reason == REASON]
    active = active_weights(model)
    report = cost.report(active)
    flops = {path: [0, 0] for path in [*(row.path for row in pruned), *spared]}
    for weight in (weight for layer in report.rows for weight in layer.costs):
        if weight.path in flops:
            flops[weight.path][0] += weight.dense
            flops[weight.path][1] += weight.sparse
    lines = [
        LayerRow(row.path, row.shape, row.size, active.get(row.path, row.size), *flops[row.path])
        for row in pruned
    ]
    known = _sum("", lines)
    others = LayerRow(
        NOT_PRUNED, None, 0, 0, report.dense - known.dense_flops, report.sparse - known.sparse_flops
    )
    backbone = _sum(BACKBONE, [*(lines if spared else lines[:-1]), others])
    backbone = dataclasses.replace(
        backbone,
        dense_flops=backbone.dense_flops - sum(flops[path][0] for path in spared),
        sparse_flops=backbone.sparse_flops - sum(flops[path][1] for path in spared),
    )
    return [*lines, others, backbone, _sum(OVERALL, [*lines, others])]


def write(path: Path, runs: Iterable[tuple[str, Sequence[LayerRow]]]) -> None:
    """Writes the lines of each run, given by its name."""
    with files.replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for run, lines in runs:
            writer.writerows(_cells(run, line) for line in lines)


def _cells(run: str, line: LayerRow) -> dict:
    cells = {name: getattr(line, name) for name in COLUMNS if name != "run"}
    return cells | {"run": run, "shape": "×".join(map(str, line.shape or ()))}


def _sum(name: str, lines: Sequence[LayerRow]) -> LayerRow:
    return LayerRow(
        name,
        None,
        sum(line.weights for line in lines),
        sum(line.nonzeros for line in lines),
        sum(line.dense_flops for line in lines),
        sum(line.sparse_flops for line in lines),
    )
