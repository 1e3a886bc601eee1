"""The tables printed at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras
from rich.console import Group, RenderableType

import granet_tf
from granet_tf.reports.summary import WeightSummary
from granet_train.cost import Cost, active_weights
from granet_train.results import Run
from granet_train.terminal import Rows

# What a narrow terminal does not show, the first of them first; summary.json has it all.
_DISPENSABLE = ("nonzeros", "train FLOPs", "in epoch", "best", "against dense", "time")


def layer_table(model: keras.Model, cost: Cost) -> RenderableType:
    """Weights, nonzeros, sparsity and FLOPs of each layer that costs anything, by the masks."""
    summary, active = granet_tf.summarize(model), active_weights(model)
    sizes = {row.path: row.size for row in summary.rows}
    pruned = {row.path for row in summary.rows if row.pruned}
    flops = cost.report(active)
    lines = [("layer", "weights", "nonzeros", "sparsity", "dense FLOPs", "sparse FLOPs", "ratio")]
    for name, paths, row in (
        *((layer.layer, sizes.keys() & set(layer.weights), layer) for layer in flops.rows),
        ("total", pruned, flops),
    ):
        size = sum(sizes[path] for path in paths)
        nonzeros = sum(active.get(path, sizes[path]) for path in paths)
        lines.append((name, *_counts(size, nonzeros), *_costs(row)))
    table = Rows(lines, dispensable=("dense FLOPs", "nonzeros", "ratio"))
    return Group(table, f"not pruned: {_others(summary.rows)}")


def comparison_table(runs: Sequence[Run]) -> RenderableType:
    """One line a run; the one asked for, which comes first in `runs`, comes last here.

    Accuracies are those after the last epoch, and the best ones of the epochs that were as sparse.
    FLOPs are fractions of what the dense network needs.
    """
    dense = next((run for run in runs if run.nonzeros == run.weights), None)
    columns = {
        "run": lambda run: run.name,
        "validation": lambda run: _percent(run.validation_accuracy),
        "test accuracy": lambda run: _percent(run.test_accuracy),
        "against dense": lambda run: _points(run, dense),
        "best": lambda run: _percent(run.best_test_accuracy),
        "in epoch": lambda run: f"{run.best_test_epoch:,}",
        "sparsity": lambda run: f"{run.sparsity:.4f}",
        "nonzeros": lambda run: f"{run.nonzeros:,}",
        "test FLOPs": lambda run: f"{run.inference_flops:.1%}",
        "train FLOPs": lambda run: f"{run.training_flops:.1%}",
        "time": lambda run: _time(run.seconds),
    }
    if all(run.validation_accuracy is None for run in runs):
        del columns["validation"]
    lines = [
        tuple(columns),
        *(tuple(cell(run) for cell in columns.values()) for run in (*runs[1:], runs[0])),
    ]
    return Rows(lines, dispensable=_DISPENSABLE)


def file_table(workdir: Path, written: Mapping[str, str]) -> RenderableType:
    """Where each file is, how large, and what it holds. A directory is as large as its files."""
    lines = [(name, f"{size_of(workdir / name):,} bytes", text) for name, text in written.items()]
    return Group(f"{workdir}/", Rows(lines, texts=(0, 2), indent=2, has_head=False))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    entries = path.rglob("*") if path.is_dir() else [path]
    return sum(entry.stat().st_size for entry in entries if entry.is_file())


def _others(rows: Iterable[WeightSummary]) -> str:
    sizes: dict[str, int] = {}
    for row in rows:
        if not row.pruned:
            sizes[row.reason] = sizes.get(row.reason, 0) + row.size
    return ", ".join(f"{size:,} ({reason})" for reason, size in sizes.items()) or "nothing"


def _points(run: Run, dense: Run | None) -> str:
    """The difference in percentage points."""
    if dense is None or run is dense:
        return ""
    return f"{100 * (run.test_accuracy - dense.test_accuracy):+.2f} points"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"


def _time(seconds: float) -> str:
    """With the unit that suits.

    Example:

    >>> _time(73.2), _time(5400.0)
    ('73 s', '1.5 h')
    """
    return f"{seconds:,.0f} s" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _counts(size: int, nonzeros: int) -> tuple[str, str, str]:
    if not size:
        return "", "", ""
    return f"{size:,}", f"{nonzeros:,}", f"{1 - nonzeros / size:.4f}"


def _costs(row) -> tuple[str, str, str]:
    ratio = f"{row.sparse / row.dense:.1%}" if row.dense else ""
    return f"{row.dense:,}", f"{row.sparse:,}", ratio
