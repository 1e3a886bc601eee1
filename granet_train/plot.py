"""training.png and flops.png: what becomes of all runs over training."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

from granet_train.figures import COLORS, DENSE_COLOR, drawn, tidy
from granet_train.results import Epoch, Update


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        run: Name of the run.
        epochs: Where on the x axis, rising.
        values: Fractions.
        is_dense: Whether the run prunes nothing.
        holds: Whether a value holds until the next one, rather than moving towards it.
    """

    run: str
    epochs: Sequence[float]
    values: Sequence[float]
    is_dense: bool
    holds: bool = False


def draw_training(path: Path, epochs: Sequence[Epoch], title: str) -> None:
    """Writes training.png: accuracy and sparsity by epoch.

    Args:
        path: The `.png` file.
        epochs: Figures of all runs; the run asked for comes first.
        title: What was trained.
    """
    runs = _by_run(epochs)
    accuracy = [_by_epoch(rows, "test_accuracy") for rows in runs.values()]
    sparsity = [_by_epoch(rows, "sparsity") for rows in runs.values()]
    with _panels(path, title, epochs) as (upper, lower):
        _draw(upper, "Accuracy on the test set", accuracy, "{:.1%}", _range_of_interest(accuracy))
        _draw(lower, "Sparsity", sparsity, "{:.1%}", (-0.04, 1.0))


def draw_flops(path: Path, epochs: Sequence[Epoch], updates: Sequence[Update], title: str) -> None:
    """Writes flops.png: FLOPs of inference and sparsity as the masks change.

    Args:
        path: The `.png` file.
        epochs: Figures of all runs; the run asked for comes first.
        updates: All mask updates of these runs.
        title: What was trained.

    Reference:

    - [Liu et al., 2021, Figure 15](https://arxiv.org/abs/2106.10404)
    """
    runs, changes = _by_run(epochs), _by_run(updates)
    flops, sparsity = (
        [over_training(rows, changes.get(run, []), figure) for run, rows in runs.items()]
        for figure in ("inference_flops", "sparsity")
    )
    with _panels(path, title, epochs) as (upper, lower):
        name = "FLOPs of inference, as a fraction of the dense network's"
        _draw(upper, name, flops, "{:.1%}", (-0.03, 1.04))
        _draw(lower, "Sparsity", sparsity, "{:.1%}", (-0.04, 1.0))


def over_training(epochs: Sequence[Epoch], updates: Sequence[Update], figure: str) -> Curve:
    """A figure of one run from update to update, and up to its end.

    Where masks never changed, it is as it was from the beginning.
    """
    points = {row.step: (row.epoch, getattr(row, figure)) for row in (*epochs, *updates)}
    if not updates:
        points[0] = (0, getattr(epochs[0], figure))
    places, values = zip(*(points[step] for step in sorted(points)), strict=True)
    return Curve(epochs[0].run, places, values, _is_dense(epochs), holds=True)


def _by_epoch(epochs: Sequence[Epoch], figure: str) -> Curve:
    places, values = zip(*((row.epoch, getattr(row, figure)) for row in epochs), strict=True)
    return Curve(epochs[0].run, places, values, _is_dense(epochs))


def _by_run(rows: Sequence) -> dict[str, list]:
    runs: dict[str, list] = {}
    for row in rows:
        runs.setdefault(row.run, []).append(row)
    return runs


def _is_dense(epochs: Sequence[Epoch]) -> bool:
    return all(epoch.sparsity == 0 for epoch in epochs)


@contextlib.contextmanager
def _panels(path: Path, title: str, epochs: Sequence[Epoch]) -> Iterator:
    """Two panels over the epochs, one above the other; the file is written at the end."""
    with drawn(path.with_suffix(""), title, (8, 6), (path.suffix,)) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        lower.set_xlabel("Epoch")
        lower.set_xlim(0, max(epoch.epoch for epoch in epochs))
        yield upper, lower


def _draw(axes, name: str, curves: Sequence[Curve], label: str, limits: tuple[float, float]):
    axes.set_title(name, loc="left", fontsize=10)
    tidy(axes)
    axes.yaxis.set_major_formatter(lambda value, position: f"{100 * value:g}%")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(*limits)
    colors = itertools.cycle(COLORS)
    # The run asked for is drawn last, on top.
    for i, curve in enumerate(curves):
        axes.plot(
            curve.epochs,
            curve.values,
            color=DENSE_COLOR if curve.is_dense else next(colors),
            linestyle="--" if curve.is_dense else "-",
            linewidth=2.2 if i == 0 else 1.6,
            drawstyle="steps-post" if curve.holds else "default",
            marker="o" if len(curve.values) == 1 else None,
            zorder=len(curves) - i + 2,
            label=f"{curve.run}  {label.format(curve.values[-1])}",
        )
    _label_ends(axes)


def _range_of_interest(curves: Sequence[Curve]) -> tuple[float, float]:
    """Accuracies after the first tenth of training, where they tell the runs apart."""
    later = [value for curve in curves for value in curve.values[len(curve.values) // 10 :]]
    lowest, highest = min(later), max(later)
    margin = max(0.05 * (highest - lowest), 0.002)
    return lowest - margin, min(highest + margin, 1.0 + margin)


def _label_ends(axes):
    """Names the lines at their ends instead of in a legend, moved apart where they would touch."""
    low, high = axes.get_ylim()
    # Of those that end alike, the first is at the top.
    lines = sorted(axes.lines, key=lambda line: (line.get_ydata()[-1], line.get_zorder()))
    ends = [(line.get_ydata()[-1] - low) / (high - low) for line in lines]
    # A line of text is about 1.4 times as high as its font; the panel is measured as it will be.
    axes.figure.draw_without_rendering()
    height = axes.get_window_extent().height / axes.figure.dpi * 72
    gap = 1.4 * matplotlib.rcParams["font.size"] / height
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
    """Rising places in [0, 1], each moved as little as it takes for any two to be `gap` apart.

    Example:

    >>> spread([0.25, 0.5, 0.5], gap=0.125)
    [0.25, 0.4375, 0.5625]
    >>> spread([0.9375, 0.9375, 1.0], gap=0.125)
    [0.75, 0.875, 1.0]
    """
    upward = _pushed(places, gap, float("-inf"))
    downward = _pushed_down(places, gap, float("inf"))
    middle = [(up + down) / 2 for up, down in zip(upward, downward, strict=True)]
    return _pushed_down(_pushed(middle, gap, 0.0), gap, 1.0)


def _pushed(places: Sequence[float], gap: float, least: float) -> list[float]:
    """Moved up until each is at least `gap` above the one before, and the first at `least`."""
    moved = []
    for place in places:
        moved.append(max(place, least))
        least = moved[-1] + gap
    return moved


def _pushed_down(places: Sequence[float], gap: float, most: float) -> list[float]:
    return [-place for place in _pushed([-place for place in places[::-1]], gap, -most)[::-1]]
