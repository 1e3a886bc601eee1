"""--table: the rows of one of the paper's tables as cells, each one run of granet-train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from granet_train import flagfiles, options, rows, training_options
from granet_train.errors import UsageError
from granet_train.flag_rules import numbers, suggestion
from granet_train.flagfiles import Arguments
from granet_train.rows import Row
from granet_train.studies import flags as study_flags
from granet_train.studies.compare import report
from granet_train.studies.compare.cells import ALL, Variant
from granet_train.studies.compare.passed_on import DEFAULTS, check_used
from granet_train.studies.flags import FREE_OF_TRAINING, UNUSED, StudySettings

# Flags of granet-train that choose rows.
_CHOOSING = ("dataset", "model")


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """One training of a row.

    Attributes:
        row: The row.
        seed: --seed.
        method: --method of the row.
        network: What FLOPs are relative to: the same for all rows of a network and a data set.
        length: Of training, relative to that of rows that say nothing of it.
        needs: The training that this one begins with, of the same seed.
        begins_with: The flags that say so: masks_from, weights_from or both.
    """

    row: Row
    seed: int
    method: str
    network: str
    length: float = 1.0
    needs: Reproduction | None = None
    begins_with: tuple[str, ...] = ()

    @property
    def compared(self) -> str:
        """What the lines of tables are about."""
        return self.row.name

    @property
    def sparsity(self) -> float | None:
        return self.row.sparsity

    @property
    def name(self) -> str:
        return f"{self.row.table}_{self.row.file}_seed{self.seed}"

    @property
    def label(self) -> str:
        return f"{self.row.name}, seed {self.seed}"

    @property
    def effort(self) -> float:
        return self.length

    def arguments(self, workdir: Path | None) -> tuple[str, ...]:
        """For granet-train, on top of those of the row.

        Args:
            workdir: Of this training, beside which those of the others are; None while there is
                none.
        """
        seed = f"--seed={self.seed}"
        if workdir is None:
            return (seed,)
        where = (seed, f"--workdir={workdir}")
        if self.needs is None:
            return where
        source = workdir.parents[1] / self.needs.name / workdir.name
        return (*where, *(f"--{name}={source}" for name in self.begins_with))


@dataclasses.dataclass(frozen=True)
class TableSettings(StudySettings):
    """What a command line with --table came to.

    Attributes:
        table: Such as "table2".
        trainings: Those of its rows that were chosen, each after the one that it needs.
        passed_on: Flags of granet-train that were given for all of them.
    """

    table: str
    trainings: tuple[Reproduction, ...]
    passed_on: tuple[str, ...]

    report: ClassVar[Callable] = staticmethod(report.beside_the_paper)

    def cells(self) -> list[Reproduction]:
        """All trainings."""
        return list(self.trainings)

    def of_cell(self, cell: Reproduction, workdir: Path | None = None) -> training_options.Options:
        """The flags of granet-train for one cell."""
        return study_flags.of_cell(
            [*DEFAULTS, *flagfiles.of_row(cell.row), *self.rest],
            *cell.arguments(workdir),
            for_any={"method"},
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same when the study goes on: {flag: value}.

        Rows and seeds may be others: that only adds cells.
        """
        values = options.as_dict(options.read(training_options.Options, self.rest)[0])
        free = {*UNUSED, *FREE_OF_TRAINING, *_CHOOSING}
        return {"table": self.table, **{k: values[k] for k in self.passed_on if k not in free}}


def read(table: str, values: Any, rest: Sequence[Arguments]) -> TableSettings:
    """The settings for one of the paper's tables.

    Args:
        table: One of `rows.tables()`.
        values: The comparison's own options, which choose rows.
        rest: Flags of granet-train for all rows, of which --dataset and --model choose rows, too.

    Raises:
        UsageError: On anything that cannot be meant.
    """
    training, reading = options.read(training_options.Options, rest)
    own = {row: study_flags.of_cell(flagfiles.of_row(row)) for row in rows.of_table(table)}
    chosen = _of_sparsities(_of_methods(own, table, values.methods), table, values.sparsities)
    for name in _CHOOSING:
        if name in reading.places:
            chosen = _with(chosen, name, getattr(training, name), table)
    trainings = tuple(_trainings(chosen, numbers(values.seeds), set(reading.places)))
    check_used({cell.method for cell in trainings}, f"--table={table}", rest)
    shared = study_flags.shared(values, rest, training)
    names = {name: _listed(getattr(each, name) for each in chosen.values()) for name in _CHOOSING}
    made = TableSettings(
        **{**shared, **names},
        table=table,
        trainings=trainings,
        passed_on=tuple(sorted(reading.places)),
    )
    for cell in {cell.row: cell for cell in made.cells()}.values():
        try:
            made.of_cell(cell)
        except UsageError as error:
            raise UsageError(f"{cell.row.name}: {error}") from error
    return made


def _listed(names) -> str:
    return ", ".join(dict.fromkeys(names))


def _of_methods(own: Mapping[Row, Any], table: str, items: Sequence[str] | None) -> dict[Row, Any]:
    """The rows of --methods."""
    if items is None or list(items) == [ALL]:
        return dict(own)
    found = {item: _of_method(own, item) for item in items}
    for item in (item for item, those in found.items() if not those):
        variants = dict.fromkeys(row.variant for row in own)
        raise UsageError(
            f"--methods must be of --table={table}: {', '.join(variants)}. "
            f"{suggestion(item, variants)} Received: --methods={','.join(items)}"
        )
    return {row: each for row, each in own.items() if any(row in those for those in found.values())}


def _of_sparsities(
    chosen: Mapping[Row, Any], table: str, items: Sequence[str] | None
) -> dict[Row, Any]:
    """The rows of --sparsities, and those that take none, to compare with."""
    if items is None:
        return dict(chosen)
    has = sorted({row.sparsity for row in chosen if row.sparsity is not None})
    asked = numbers(items)
    if not set(asked) <= set(has):
        raise UsageError(
            f"--sparsities must be of the rows chosen from --table={table}: "
            f"{', '.join(f'{s:g}' for s in has) or 'they take none'}. "
            f"Received: --sparsities={','.join(items)}"
        )
    return {row: each for row, each in chosen.items() if row.sparsity in (None, *asked)}


def _of_method(own: Mapping[Row, Any], item: str) -> set[Row]:
    """The rows of an item of --methods: as in their names, or a method with flags of its own."""
    named = {row for row in own if row.variant == item}
    if named:
        return named
    variant = Variant(item)
    if variant.method not in training_options.RUNS:
        return set()
    wanted, reading = options.read(training_options.Options, [Arguments(variant.arguments)])
    return {
        row
        for row, each in own.items()
        if all(getattr(each, name) == getattr(wanted, name) for name in reading.places)
    }


def _with(chosen: Mapping[Row, Any], name: str, value: str, table: str) -> dict[Row, Any]:
    those = {row: each for row, each in chosen.items() if getattr(each, name) == value}
    if not those:
        raise UsageError(
            f"--{name} must be that of rows chosen from --table={table}: "
            f"{_listed(getattr(each, name) for each in chosen.values())}. "
            f"Received: --{name}={value}"
        )
    return those


def _trainings(
    chosen: Mapping[Row, Any], seeds: Sequence[int], given: Collection[str]
) -> Iterator[Reproduction]:
    """Seed by seed, so that a study that is stopped has something to show."""
    cells = {}
    for seed in seeds:
        for row, each in chosen.items():
            is_given = any(name in given for name in _begins_with(each)[:1])
            needs = None if is_given else _source(each, seed, given)
            cells |= dict.fromkeys([needs] if needs else [])
            cells[_training(row, each, seed, given, needs)] = None
    return iter(cells)


def _training(row, own, seed, given, needs=None) -> Reproduction:
    length = 1.0 if "schedule_multiplier" in given else own.schedule_multiplier
    network = f"{own.model} on {own.dataset}"
    return Reproduction(row, seed, own.method, network, length, needs, _begins_with(own))


def _begins_with(own: Any) -> tuple[str, ...]:
    """Flags that name a run to begin with, the one first without which there is none."""
    return tuple(name for name in ("masks_from", "weights_from") if getattr(own, name))


def _source(own: Any, seed: int, given: Collection[str]) -> Reproduction | None:
    """The training of the row that a row begins with."""
    named = {getattr(own, name) for name in _begins_with(own)}
    for row in rows.all_rows().values():
        if row.workdir in named:
            return _training(row, study_flags.of_cell(flagfiles.of_row(row)), seed, given)
    return None
