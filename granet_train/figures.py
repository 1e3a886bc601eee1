"""Figures of runs and studies: one look."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib

# Not pyplot: it would choose a window system, and keep the figure alive.
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from granet_train import files

# Told apart by lightness, too; the first is for the run asked for, the grey for a dense one.
COLORS = ("#0b6e99", "#e07b39", "#7a5195", "#5b8c3a", "#c0446b")
DENSE_COLOR = "#8a8f98"
TEXT = "#30343a"
GRID = "#e4e6ea"
MARKERS = "osD^vP*X"
SUFFIXES = (".png", ".svg")
"""Of the files of a study's figure."""

# The same file each time.
_SETTINGS = {
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "svg.hashsalt": "granet_tf",
}
_SAVING = {".png": {}, ".svg": {"metadata": {"Date": None}}}
_TITLE_LETTERS = 9  # an inch, of the bold title


@contextlib.contextmanager
def drawn(
    path: Path, title: str, size: tuple[float, float], suffixes: Sequence[str] = SUFFIXES
) -> Iterator[Figure]:
    """A figure to draw on, written at the end.

    Args:
        path: Without suffix.
        title: What stands above it, in more lines than one where it is longer than the figure.
        size: Inches.
        suffixes: Of the files that are written.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        title = textwrap.fill(title, int(_TITLE_LETTERS * size[0]))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        yield figure
        for suffix in suffixes:
            with files.replacing(path.with_name(path.name + suffix)) as beside:
                figure.savefig(beside, **_SAVING[suffix])


def tidy(axes) -> None:
    """Takes away what is not data."""
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=TEXT, length=0)
