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

from granet_tf.reports.figures import COLORS as COLORS  # The first is for the run asked for.
from granet_tf.reports.figures import DENSE_COLOR as DENSE_COLOR
from granet_tf.reports.figures import GRID as GRID
from granet_tf.reports.figures import TEXT as TEXT
from granet_tf.reports.figures import tidy as tidy
from granet_train import files

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
