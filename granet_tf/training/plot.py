"""training.png: accuracy and sparsity of all runs over training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

from granet_tf.training import files
from granet_tf.training.results import Epoch

# Told apart by lightness, too; the first is for the run asked for, the grey for a dense one.
_COLORS = ("#0b6e99", "#e07b39", "#7a5195", "#5b8c3a", "#c0446b")
_DENSE_COLOR = "#8a8f98"
_TEXT = "#30343a"
_GRID = "#e4e6ea"


def draw(path: Path, epochs: Sequence[Epoch], title: str) -> None:
    """Writes the plot.

    Args:
        path: The `.png` file.
        epochs: Figures of all runs; the run asked for comes first.
        title: What was trained.
    """
    # Not pyplot: it would choose a window system, and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs: dict[str, list[Epoch]] = {}
    for epoch in epochs:
        runs.setdefault(epoch.run, []).append(epoch)

    with matplotlib.rc_context({"font.size": 10, "text.color": _TEXT, "axes.labelcolor": _TEXT}):
        figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        accuracy, sparsity = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        figure.suptitle(title, x=0.015, ha="left", fontsize=12, fontweight="bold")
        for axes, name in ((accuracy, "Accuracy on the test set"), (sparsity, "Sparsity")):
            _style(axes, name)
        _lines(accuracy, runs, lambda epoch: epoch.test_accuracy, "{:.1%}")
        _lines(sparsity, runs, lambda epoch: epoch.sparsity, "{:.0%}")
        accuracy.set_ylim(*_range_of_interest(runs))
        sparsity.set_ylim(-0.04, 1.0)
        sparsity.set_xlabel("Epoch")
        sparsity.set_xlim(0, max(epoch.epoch for epoch in epochs))
        for axes, gap in ((accuracy, 0.07), (sparsity, 0.1)):
            _label_ends(axes, gap)
        with files.replacing(path) as beside:
            figure.savefig(beside)


def _style(axes, name):
    axes.set_title(name, loc="left", fontsize=10)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(colors=_TEXT, length=0)
    axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:g}%")
    axes.xaxis.get_major_locator().set_params(integer=True)


def _lines(axes, runs, value: Callable[[Epoch], float], label: str):
    colors = iter(_COLORS)
    # The run asked for is drawn last, on top.
    for i, (name, epochs) in enumerate(runs.items()):
        color = _DENSE_COLOR if name == "dense" else next(colors)
        values = [value(epoch) for epoch in epochs]
        axes.plot(
            [epoch.epoch for epoch in epochs],
            values,
            color=color,
            linewidth=2.2 if i == 0 else 1.6,
            marker="o" if len(values) == 1 else None,
            zorder=len(runs) - i + 2,
            label=f"{name}  {label.format(values[-1])}",
        )


def _range_of_interest(runs) -> tuple[float, float]:
    """Accuracies after the first tenth of training, where they tell the runs apart."""
    later = [
        epoch.test_accuracy for epochs in runs.values() for epoch in epochs[len(epochs) // 10 :]
    ]
    lowest, highest = min(later), max(later)
    margin = max(0.05 * (highest - lowest), 0.002)
    return lowest - margin, min(highest + margin, 1.0 + margin)


def _label_ends(axes, gap: float):
    """Names the lines at their ends instead of in a legend, moved apart where they would touch.

    Args:
        axes: The panel.
        gap: Least distance of two labels, as a fraction of the panel's height.
    """
    low, high = axes.get_ylim()
    lines = sorted(axes.lines, key=lambda line: line.get_ydata()[-1])
    ends = [(line.get_ydata()[-1] - low) / (high - low) for line in lines]
    for line, place in zip(lines, spread(ends, gap), strict=True):
        axes.annotate(
            line.get_label(),
            (1, place),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=line.get_color(),
            fontweight="bold",
            annotation_clip=False,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising places in [0, 1], moved up and then down until any two are `gap` apart.

    Example:

    >>> spread([0.5, 0.875, 0.9375], gap=0.125)
    [0.5, 0.875, 1.0]
    >>> spread([0.9375, 0.9375, 1.0], gap=0.125)
    [0.75, 0.875, 1.0]
    """
    least = float("-inf")
    moved = []
    for place in places:
        least = max(place, least)
        moved.append(least)
        least += gap
    most = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], most)
        most = moved[i] - gap
    return moved
