"""A directory of cells, each run once and never again: a study can stop and go on at any point."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from granet_train import files
from granet_train.errors import UsageError

CELLS = "cells"
RESULT = "result.json"


class Cell(Protocol):
    """One training, or the part of one that others share; a record that can be pickled."""

    @property
    def name(self) -> str:
        """Another one for each cell; it names a directory."""

    @property
    def label(self) -> str:
        """The same, for people."""

    @property
    def effort(self) -> float:
        """How long it takes against other cells, such as its number of epochs."""

    @property
    def needs(self) -> Cell | None:
        """A cell that must be done first."""


AnyCell = TypeVar("AnyCell", bound=Cell)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where cells keep what they write.

    Attributes:
        directory: That of the study.

    Example:

    >>> import tempfile, types
    >>> cell = types.SimpleNamespace(name="first", needs=None)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     grid = Grid(Path(directory))
    ...     grid.finish(cell, {"accuracy": 0.5})
    ...     grid.result(cell), grid.to_do([cell])
    ({'accuracy': 0.5}, [])
    """

    directory: Path

    def folder(self, cell: Cell) -> Path:
        """The directory of a cell."""
        return self.directory / CELLS / cell.name

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What the cell came to; None while it is not done.

        Raises:
            UsageError: If its file is there but cannot be read.
        """
        path = self.folder(cell) / RESULT
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UsageError(
                f"The result of a cell cannot be read: {error}. Remove it, and the cell is run "
                f"again. Received: {path}"
            ) from error

    def finish(self, cell: Cell, result: Mapping[str, Any], remove: Collection[str] = ()) -> None:
        """Notes what the cell came to, from when on it is done.

        Args:
            cell: The cell.
            result: Can be written as JSON.
            remove: Names of what is not needed any more in its directory.
        """
        folder = self.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(folder / RESULT) as beside:
            beside.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        for name in remove:
            files.remove(folder / name)

    def to_do(self, cells: Sequence[AnyCell]) -> list[AnyCell]:
        """Those that are not done yet, in the same order."""
        return [cell for cell in cells if self.result(cell) is None]
