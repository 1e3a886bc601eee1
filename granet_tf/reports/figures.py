"""Figures of the library: one look. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Told apart by lightness, too; the grey is for what is dense, or was before.
COLORS = ("#0b6e99", "#e07b39", "#7a5195", "#5b8c3a", "#c0446b")
DENSE_COLOR = "#8a8f98"
TEXT = "#30343a"
GRID = "#e4e6ea"

Path = str | os.PathLike[str]


def new_figure(title: str, size: tuple[float, float]) -> Figure:
    """An empty figure with a title.

    Args:
        title: What stands above it.
        size: Inches.

    Raises:
        ImportError: If Matplotlib is not installed.

    Example:

    >>> new_figure("Sparsity", (6, 2)).get_suptitle()
    'Sparsity'
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "Plots are drawn by Matplotlib, which is not installed: "
            "pip install 'granet_tf[report]'. Received: no module matplotlib"
        )
    # Not pyplot: it would choose a window system, and keep the figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=TEXT)
    return figure


def tidy(axes: Any, grid: str = "y") -> None:
    """Takes away what is not data.

    Args:
        axes: Of Matplotlib.
        grid: Which lines stay: those of "y" or "x".

    Example:

    >>> axes = new_figure("Sparsity", (6, 2)).subplots()
    >>> tidy(axes)
    >>> axes.spines["top"].get_visible()
    False
    """
    axes.grid(axis=grid, color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=TEXT, length=0)


def saved(figure: Figure, to_file: Path | None) -> Figure:
    """The figure itself, which is written to a file if there is one to write."""
    if to_file is not None:
        figure.savefig(to_file)
    return figure
