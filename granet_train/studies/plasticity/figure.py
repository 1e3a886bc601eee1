"""The figures of the paper's Section 3: what pruning did, by epoch, rate and sparsity."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

from granet_train.figures import COLORS, MARKERS, TEXT, drawn, tidy
from granet_train.studies.plasticity.table import Row

_DROP = "#c0392b"
NAMES = {
    "plasticity": "Pruning plasticity",
    "final": "Final performance gap",
}
_ROWS = {"no": "without regeneration", "yes": "with regeneration"}


def draw(path: Path, rows: Sequence[Row], drops: Sequence[float], measure: str, title: str) -> None:
    """Writes a panel for each pre-trained sparsity, without regeneration above and with it below.

    A line is a pruning rate, its mean over the seeds; the band around it goes from the lowest to
    the highest of them. Red lines are where the learning rate drops.

    Args:
        path: Without suffix: `.png` and `.svg` are written.
        rows: Of `table.rows`; those of other measures are left out.
        drops: Epochs at which the learning rate drops.
        measure: "plasticity" or "final".
        title: What was studied.

    Reference:

    - [Liu et al., 2021, Figures 2 and 3](https://arxiv.org/abs/2106.10404)
    """
    rows = [row for row in rows if row.measure == measure]
    columns = _values(rows, "pretrained_sparsity")
    lines = [name for name in _ROWS if any(row.regenerated == name for row in rows)]
    # Another marker where colours come again.
    looks = dict(zip(_values(rows, "rate"), itertools.product(MARKERS, COLORS), strict=False))
    size = (1.2 + 2.5 * len(columns), 0.9 + 2.3 * len(lines))
    with drawn(path, f"{NAMES[measure]}: {title}", size) as figure:
        panels = figure.subplots(len(lines), len(columns), sharex=True, sharey="col", squeeze=False)
        for (i, regenerated), (j, sparsity) in itertools.product(
            enumerate(lines), enumerate(columns)
        ):
            axes = panels[i][j]
            mine = [
                row
                for row in rows
                if (row.regenerated, row.pretrained_sparsity) == (regenerated, sparsity)
            ]
            _panel(axes, mine, looks, drops)
            if i == 0:
                axes.set_title(f"Pre-trained sparsity {sparsity:g}", fontsize=10)
            if j == 0:
                axes.set_ylabel(f"{_ROWS[regenerated]}\n(points)")
            if i == len(lines) - 1:
                axes.set_xlabel("Pruned after epoch")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), 2 * len(columns)),
            frameon=False,
            labelcolor=TEXT,
        )


def curve(rows: Sequence[Row]) -> list[tuple[int, float, float, float]]:
    """(epoch, mean, lowest, highest) of the differences, in percentage points, over the seeds.

    Example:

    >>> figures = ("final", 0.0, 10, 0.1, 0.5, "no", 0, 0.75, 0.1, 0.5, -0.25, 0.5, 9, 9, 0, 0)
    >>> curve([Row(*figures)])
    [(10, -25.0, -25.0, -25.0)]
    """
    points = []
    for epoch in _values(rows, "epoch"):
        found = [100 * row.difference for row in rows if row.epoch == epoch]
        points.append((epoch, statistics.fmean(found), min(found), max(found)))
    return points


def _panel(axes, rows, looks, drops):
    tidy(axes)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.axhline(0, color=TEXT, linewidth=0.8)
    for drop in drops:
        axes.axvline(drop, color=_DROP, linewidth=1, linestyle="--")
    for rate, (marker, color) in looks.items():
        points = curve([row for row in rows if row.rate == rate])
        if not points:
            continue
        epochs, means, lowest, highest = zip(*points, strict=True)
        axes.plot(epochs, means, color=color, marker=marker, markersize=3, label=f"rate {rate:g}")
        axes.fill_between(epochs, lowest, highest, color=color, alpha=0.15, linewidth=0)


def _values(rows: Sequence[Row], name: str) -> list:
    return sorted({getattr(row, name) for row in rows})
