"""comparison.png: accuracy by sparsity, and by what training costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from granet_tf.studies.compare.table import Mean
from granet_tf.studies.figures import drawn, tidy
from granet_tf.training.plot import COLORS, DENSE_COLOR, TEXT

_MARKERS = "osD^vP*X"


def draw(path: Path, means: Sequence[Mean], title: str) -> None:
    """Writes two panels: accuracy against sparsity, and against FLOPs of training.

    Bars are one standard deviation to each side. What has no sparsity to vary, such as dense
    training, is a dashed line on the left.

    Args:
        path: Without suffix: `.png` and `.svg` are written.
        means: Of `table.means`.
        title: What was trained.
    """
    with drawn(path, title, (10, 4.2)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for axes in (left, right):
            tidy(axes)
        left.set_ylabel("Test accuracy (%)")
        left.set_xlabel("Sparsity")
        right.set_xlabel("FLOPs of training, relative to dense")
        sparsities = sorted({m.final_sparsity for m in means if m.final_sparsity is not None})
        places = {sparsity: place for place, sparsity in enumerate(sparsities)}
        left.set_xticks(list(places.values()), [f"{sparsity:g}" for sparsity in sparsities])
        left.set_xlim(-0.5, max(len(sparsities), 1) - 0.5)
        methods = list(dict.fromkeys(m.method for m in means))
        looks = zip(itertools.cycle(COLORS), itertools.cycle(_MARKERS), strict=False)
        shift = 0.5 / max(len(methods), 1)
        for i, method in enumerate(methods):
            mine = [m for m in means if m.method == method]
            color, marker = next(looks)
            if all(m.sparsity == 0 for m in mine):
                color = DENSE_COLOR
            style = {"color": color, "marker": marker, "markersize": 5, "capsize": 2}
            if mine[0].final_sparsity is None:
                _anywhere(left, right, mine[0], style)
                continue
            offset = (i - (len(methods) - 1) / 2) * shift
            x = [places[m.final_sparsity] + offset for m in mine]
            left.errorbar(x, _percent(mine), _bars(mine), linestyle="none", label=method, **style)
            costs = [m.training_flops for m in mine]
            right.errorbar(costs, _percent(mine), _bars(mine), linewidth=0.8, **style)
        handles, labels = left.get_legend_handles_labels()
        columns = min(len(labels), 5)
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=max(columns, 1),
            frameon=False,
            labelcolor=TEXT,
        )


def _anywhere(left, right, mean: Mean, style):
    """One that has no sparsity to vary."""
    color = style["color"]
    left.axhline(100 * mean.test_accuracy, color=color, linestyle="--", label=mean.method)
    right.errorbar([mean.training_flops], _percent([mean]), _bars([mean]), **style)


def _percent(means: Sequence[Mean]) -> list[float]:
    return [100 * m.test_accuracy for m in means]


def _bars(means: Sequence[Mean]) -> list[float]:
    return [100 * (m.deviation or 0.0) for m in means]
