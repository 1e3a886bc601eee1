"""comparison.png: accuracy by sparsity, and by what training costs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from granet_train.figures import COLORS, DENSE_COLOR, MARKERS, TEXT, drawn, tidy
from granet_train.studies.compare.table import Mean

_COLUMNS = 5
_LINE = 0.21  # inches, of the legend
_SPREAD = 0.75  # of the room that a sparsity has


def draw(path: Path, means: Sequence[Mean], title: str) -> None:
    """Writes two panels: accuracy against sparsity, and against FLOPs of training.

    Bars are one standard deviation to each side. What has no sparsity to vary, such as dense
    training, is a dashed line on the left.

    Args:
        path: Without suffix: `.png` and `.svg` are written.
        means: Of `table.means`.
        title: What was trained.
    """
    methods = list(dict.fromkeys(m.method for m in means))
    lines = -(-len(methods) // _COLUMNS)
    with drawn(path, title, (10, 3.8 + _LINE * lines)) as figure:
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
        # Of five colours and eight markers, forty methods have each their own pair.
        looks = zip(itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False)
        shift = _SPREAD / max(len(methods), 1)
        for i, method in enumerate(methods):
            mine = [m for m in means if m.method == method]
            color, marker = next(looks)
            # A network made smaller is dense, too, but not the one that all are compared with.
            if all(m.sparsity == 0 and m.final_sparsity is None for m in mine):
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
        by_label = dict(zip(labels, handles, strict=True))
        figure.legend(
            [by_label[method] for method in methods],
            methods,
            loc="outside lower center",
            ncols=max(min(len(methods), _COLUMNS), 1),
            frameon=False,
            labelcolor=TEXT,
        )


def _anywhere(left, right, mean: Mean, style):
    """One that has no sparsity to vary."""
    # Marked at its ends, so that the legend shows what stands on the right.
    line = {name: style[name] for name in ("color", "marker", "markersize")}
    left.axhline(100 * mean.test_accuracy, linestyle="--", linewidth=1, label=mean.method, **line)
    right.errorbar([mean.training_flops], _percent([mean]), _bars([mean]), **style)


def _percent(means: Sequence[Mean]) -> list[float]:
    return [100 * m.test_accuracy for m in means]


def _bars(means: Sequence[Mean]) -> list[float]:
    return [100 * (m.deviation or 0.0) for m in means]
