"""The tables printed at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import keras

import granet_tf
from granet_tf.summary import WeightSummary
from granet_tf.table import aligned
from granet_tf.training.flags import DENSE
from granet_tf.training.results import Run


def layer_table(model: keras.Model) -> str:
    """Weights, nonzeros, sparsity and FLOPs of each layer that computes with weights."""
    weights = {row.path: row for row in granet_tf.summarize(model).rows}
    lines = [("layer", "weights", "nonzeros", "sparsity", "dense FLOPs", "sparse FLOPs", "ratio")]
    flops = granet_tf.count_flops(model)
    for layer in flops.rows:
        rows = [weights[path] for path in layer.weights if path in weights]
        size, nonzeros = sum(row.size for row in rows), sum(row.nonzeros for row in rows)
        lines.append((layer.layer, *_counts(size, nonzeros), *_costs(layer)))
    pruned = [row for row in weights.values() if row.pruned]
    totals = _counts(sum(row.size for row in pruned), sum(row.nonzeros for row in pruned))
    lines.append(("total", *totals, *_costs(flops)))
    return aligned(lines, text_columns=1) + f"\nnot pruned: {_others(weights.values())}"


def comparison_table(runs: Sequence[Run]) -> str:
    """One line a run; the one asked for, which comes first in `runs`, comes last here."""
    dense = next((run for run in runs if run.name == DENSE), None)
    lines = [
        ("run", "test accuracy", "against dense", "sparsity", "nonzeros", "FLOPs ratio", "time")
    ]
    lines += [
        (
            run.name,
            f"{run.test_accuracy:.2%}",
            _points(run, dense),
            f"{run.sparsity:.4f}",
            f"{run.nonzeros:,}",
            f"{run.flops_sparse / run.flops_dense:.1%}",
            f"{run.seconds:.0f} s",
        )
        for run in (*runs[1:], runs[0])
    ]
    return aligned(lines, text_columns=1)


def file_table(workdir: Path, written: Mapping[str, str]) -> str:
    """Where each file is, how large, and what it holds."""
    lines = [
        (name, f"{(workdir / name).stat().st_size:,} bytes", text) for name, text in written.items()
    ]
    widths = [max(len(line[i]) for line in lines) for i in (0, 1)]
    rows = (f"  {n:<{widths[0]}}  {s:>{widths[1]}}  {text}" for n, s, text in lines)
    return "\n".join([f"{workdir}/", *rows])


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


def _counts(size: int, nonzeros: int) -> tuple[str, str, str]:
    if not size:
        return "", "", ""
    return f"{size:,}", f"{nonzeros:,}", f"{1 - nonzeros / size:.4f}"


def _costs(row) -> tuple[str, str, str]:
    ratio = f"{row.sparse / row.dense:.1%}" if row.dense else ""
    return f"{row.dense:,}", f"{row.sparse:,}", ratio
