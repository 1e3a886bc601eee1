"""What a person sees of a study: how many cells are done, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TextIO

from granet_train.bar_line import BarLine, time_left
from granet_train.studies.grid import Cell
from granet_train.terminal import Screen

_LINES = 20  # in all, where the line cannot be rewritten


class Bar:
    """Rewrites one line on a terminal; elsewhere prints about twenty lines.

    Args:
        cells: All cells of the study.
        to_do: Those that are not done yet.
        stream: Where to write; None is stdout as it is now.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        to_do: Sequence[Cell],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        # Cells in this process may write to another stdout while they run.
        self.screen = Screen(stream)
        self.clock = clock
        self.cells, self.done = len(cells), len(cells) - len(to_do)
        self.effort = sum(cell.effort for cell in to_do)
        self.spent = 0.0
        self.shares: dict[str, tuple[Cell, float]] = {}
        self.started = clock()
        self.shown = self.done

    def progress(self, cell: Cell, share: float) -> None:
        """A cell has begun, or gone on.

        Args:
            cell: The cell.
            share: What is done of it, from 0 to 1.
        """
        self.shares[cell.name] = (cell, share)
        if self.screen.rewrites:
            self._show(cell.label)

    def finished(self, cell: Cell) -> None:
        """A cell is done."""
        self.shares.pop(cell.name, None)
        self.spent += cell.effort
        self.done += 1
        if self.screen.rewrites or self.done == self.cells or self._due():
            self._show(cell.label)

    def failed(self, cell: Cell, reason: str) -> None:
        """A cell could not be done."""
        self.shares.pop(cell.name, None)
        self.spent += cell.effort
        self.note(f"failed: {cell.label}: {reason}")

    def note(self, text: str) -> None:
        """A line of its own."""
        self.screen.print(text)

    def close(self) -> None:
        """Leaves the line as it is."""
        self.screen.close()

    def _due(self) -> bool:
        return (self.done - self.shown) * _LINES >= self.cells

    def _show(self, label: str):
        self.shown = self.done
        begun = sum(cell.effort * share for cell, share in self.shares.values())
        spent = self.spent + begun
        elapsed = self.clock() - self.started
        clock = f"{time_left(elapsed, spent, self.effort - spent)} left"
        cells = f"{self.done:>{len(str(self.cells))}}/{self.cells} cells"
        self.screen.show(BarLine(self.done / self.cells, (cells, clock, label)))
