"""metrics.csv and updates.csv: what happened, line by line, also when a run is resumed."""

from __future__ import annotations

import csv
import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from granet_train import files
from granet_train.errors import UsageError
from granet_train.listeners import Listener
from granet_train.results import Epoch, Update

Row = TypeVar("Row")

# How a cell is read, by the type of its field. Fields of other types are not written.
_READ: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    float | None: lambda text: float(text) if text else None,
}


class CsvLog(Listener):
    """Keeps both files up to date, whole at any moment: written beside and renamed each epoch.

    What an earlier session wrote stays, except for what the resumed run will do again.

    Args:
        metrics: Path of metrics.csv, a line for each epoch of each run.
        updates: Path of updates.csv, a line for each mask update of each run.

    Attributes:
        epochs: The `Epoch` lines so far, of earlier sessions too.
        updates: The `Update` lines so far, likewise.

    Raises:
        UsageError: If a file is there that cannot be read.
    """

    def __init__(self, metrics: Path, updates: Path):
        self._paths = (metrics, updates)
        self.epochs: list[Epoch] = read(metrics, Epoch)
        self.updates: list[Update] = read(updates, Update)

    def begin(self, run, epochs, steps_per_epoch, step):
        self.epochs = _until(self.epochs, run, step)
        self.updates = _until(self.updates, run, step)

    def update(self, update):
        self.updates.append(update)
        # At once: a checkpoint may count it as done before the epoch ends.
        write(self._paths[1], Update, self.updates)

    def epoch(self, epoch):
        self.epochs.append(epoch)
        self._write()

    def close(self):
        self._write()

    def lengthen(self, before: int, after: int) -> None:
        """The runs become longer: what is a fraction of a whole training becomes smaller.

        Args:
            before: Epochs that they were to have.
            after: Epochs that they are to have.
        """
        self.epochs = [
            dataclasses.replace(epoch, training_flops=epoch.training_flops * before / after)
            for epoch in self.epochs
        ]
        self._write()

    def _write(self):
        metrics, updates = self._paths
        write(metrics, Epoch, self.epochs)
        write(updates, Update, self.updates)


def _until(rows: list[Row], run: str, step: int) -> list[Row]:
    """Without what the run will do again: what is after `step`, or all where it begins anew."""
    return [row for row in rows if row.run != run or 0 < step >= row.step]


def columns(kind: type) -> dict[str, Callable[[str], Any]]:
    """The fields of a dataclass that fit into a cell, and how each is read.

    Example:

    >>> list(columns(Update))[-3:]
    ['nonzeros', 'sparsity', 'inference_flops']
    """
    types = typing.get_type_hints(kind)
    names = (field.name for field in dataclasses.fields(kind))
    return {name: _READ[types[name]] for name in names if types[name] in _READ}


def write(path: Path, kind: type, rows: Sequence[Any]) -> None:
    """Writes a line for each of the rows, dataclasses of this kind. None is an empty cell."""
    with files.replacing(path) as beside, open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = list(columns(kind))
        writer.writerow(names)
        writer.writerows([getattr(row, name) for name in names] for row in rows)


def read(path: Path, kind: type[Row]) -> list[Row]:
    """The rows that `write` has written; none if there is no such file.

    Raises:
        UsageError: If the file holds something else.
    """
    parsers = columns(kind)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
            if header != list(parsers):
                raise ValueError(f"the columns must be {', '.join(parsers)}")
            return [
                kind(**{n: parsers[n](cell) for n, cell in zip(parsers, line, strict=True)})
                for line in lines
            ]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise UsageError(
            f"Cannot go on with the file of an earlier run: {error}. Move it away. Received: {path}"
        ) from error
