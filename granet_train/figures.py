"""Figures of studies: one look, each as PNG and as SVG."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from granet_train import files
from granet_train.plot import GRID, TEXT

SUFFIXES = (".png", ".svg")
# The same file each time.
_SETTINGS = {
    "font.size": 10,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "svg.hashsalt": "granet_tf",
}
MARKERS = "osD^vP*X"
_TITLE_LETTERS = 9  # an inch, of the bold title
_METADATA = {".png": {}, ".svg": {"Date": None}}


@contextlib.contextmanager
def drawn(path: Path, title: str, size: tuple[float, float]) -> Iterator[Figure]:
    """A figure to draw on, written at the end.

    Args:
        path: Without suffix; written are those of `SUFFIXES`.
        title: What stands above it, in more lines than one where it is longer than the figure.
        size: Inches.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        title = textwrap.fill(title, int(_TITLE_LETTERS * size[0]))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        yield figure
        for suffix in SUFFIXES:
            with files.replacing(path.with_name(path.name + suffix)) as beside:
                figure.savefig(beside, metadata=_METADATA[suffix])


def tidy(axes) -> None:
    """Takes away what is not data."""
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=TEXT, length=0)
