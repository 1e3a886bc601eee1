"""The flags of granet-compare, and the cells that they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from granet_train import flagfiles, rows, training_options
from granet_train.errors import UsageError
from granet_train.flag_checks import USES, check_use
from granet_train.flag_rules import list_rule, numbers, suggestion
from granet_train.flagfiles import Arguments
from granet_train.flags import DENSE, RUNS
from granet_train.options import option
from granet_train.studies import flags as study_flags
from granet_train.studies.compare import report, reproduction
from granet_train.studies.compare.cells import ALL, Training, Variant, trainings
from granet_train.studies.compare.passed_on import DEFAULTS, OF_METHODS, check_used
from granet_train.studies.compare.reproduction import TableSettings
from granet_train.studies.flags import UNUSED, StudyOptions, StudySettings

WORKDIR = "work/compare"
USAGE = """\
granet-compare trains with each method, at each sparsity and from each seed, and makes a table.

  granet-compare --flagfile=configs/compare/digits.flags --jobs=2
  granet-compare --row=table2/cifar10/vgg19/90/granet_si0 --seeds=0,1,2
  granet-compare --table=table2 --dataset=cifar10 --methods=gmp,granet_si0 --data_dir=/data/tfds
  granet-compare --methods=dense,granet,granet:initial_sparsity=0.5,gmp --sparsities=0.9,0.95

Each training is one of granet-train, with a directory of its own. Flags that a method has no use
for are left out of its trainings. With --table they are the rows of a table of the paper, whose
numbers stand beside; --methods, --sparsities, --dataset and --model choose some of them.
"""
METHODS = (DENSE, "static", "set", "rigl", "gmp", "granet", "granet:initial_sparsity=0.5")
SPARSITIES = ("0.9", "0.98")


@dataclasses.dataclass(frozen=True)
class Settings(StudySettings):
    """What the command line came to.

    Attributes:
        variants: The methods, in the order of the table.
        sparsities: Final sparsities.
        seeds: Seeds.
    """

    variants: tuple[Variant, ...]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]

    report: ClassVar[Callable] = staticmethod(report.of_methods)

    def cells(self) -> list[Training]:
        """All trainings."""
        return trainings(self.variants, self.sparsities, self.seeds)

    def of_cell(self, cell: Training, workdir: Path | None = None) -> training_options.Options:
        """The flags of granet-train for one cell."""
        where = () if workdir is None else (f"--workdir={workdir}",)
        return study_flags.of_cell(
            [*DEFAULTS, *self.rest], *cell.arguments, *where, for_any={"method"}
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same when the study goes on: {flag: value}.

        Methods, sparsities and seeds may be others: that only adds cells.
        """
        values = study_flags.of_cell([*DEFAULTS, *self.rest], for_any={"method"})
        return study_flags.identity_of(values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What granet-compare is asked for."""

    SECTIONS = ("What to compare",)

    seeds: tuple[str, ...] = ("0", "1", "2")
    workdir: str | None = option(
        None,
        "Directory of the study. The same command goes on with what is not done yet. By default "
        f"{WORKDIR}, of a table {WORKDIR}_TABLE.",
        unit="name",
    )
    table: str | None = option(
        None,
        "The table of the paper whose rows to run and to show beside its numbers; their names are "
        "those that granet-train --row=list shows.",
        choices=rows.tables(),
    )
    methods: tuple[str, ...] | None = option(
        None,
        f"Any of {', '.join(RUNS)}, also with flags of their own, granet:initial_sparsity=0.5; or "
        f"{ALL}. Of a table also as its rows have them, granet_si05. By default "
        f"{','.join(METHODS)}, of a table {ALL}.",
        rule=(bool, "must name a method"),
    )
    sparsities: tuple[str, ...] | None = option(
        None,
        f"Final sparsities, in (0, 1). By default {','.join(SPARSITIES)}, of a table all.",
        rule=list_rule(
            lambda sparsity: 0 < sparsity < 1, "must be a list of different sparsities in (0, 1)"
        ),
    )


def read(argv: Sequence[str]) -> Settings | TableSettings:
    """What a command line asks for; prints the help and exits where that was asked for.

    Raises:
        UsageError: On anything that cannot be meant, as far as can be told without the data.

    Example:

    >>> settings = read(["--methods=dense,gmp", "--sparsities=0.9", "--end=0.5", "--seeds=0,1"])
    >>> [cell.name for cell in settings.cells()]
    ['dense_seed0', 'gmp_s0.9_seed0', 'dense_seed1', 'gmp_s0.9_seed1']
    """
    values, rest = study_flags.read(argv, Options, UNUSED, USAGE)
    if values.table is None:
        return _of_methods(values, rest)
    if row := flagfiles.row_of(argv):
        raise UsageError(
            "--table runs rows of its own, and must not be given with --row. "
            f"Received: --table={values.table} --row={row}"
        )
    workdir = values.workdir or f"{WORKDIR}_{values.table}"
    return reproduction.read(values.table, dataclasses.replace(values, workdir=workdir), rest)


def _of_methods(values: Options, rest: Sequence[Arguments]) -> Settings:
    values = dataclasses.replace(
        values,
        workdir=values.workdir or WORKDIR,
        methods=values.methods or METHODS,
        sparsities=values.sparsities or SPARSITIES,
    )
    variants = _variants(values.methods)
    training = study_flags.of_cell(rest, for_any={"method"})
    methods = ",".join(variant.text for variant in variants)
    check_used({variant.method for variant in variants}, f"--methods={methods}", rest)
    settings = Settings(
        variants=variants,
        sparsities=numbers(values.sparsities),
        seeds=numbers(values.seeds),
        **study_flags.shared(values, rest, training),
    )
    for cell in settings.cells():
        _check(settings, cell)
    return settings


def _variants(items: Sequence[str]) -> tuple[Variant, ...]:
    names = tuple(dict.fromkeys([DENSE, *RUNS])) if list(items) == [ALL] else tuple(items)
    variants = tuple(map(Variant, names))
    for variant in variants:
        if variant.method not in RUNS:
            raise UsageError(
                f"--methods must be a list of any of {', '.join(RUNS)}, or {ALL}. "
                f"{suggestion(variant.method, RUNS)} Received: --methods={','.join(items)}"
            )
    if len(set(variants)) < len(variants):
        raise UsageError(
            f"--methods must name each method once. Received: --methods={','.join(items)}"
        )
    return variants


def _check(settings: Settings, cell: Training) -> None:
    """Flags of its own must be some that the method has a use for, and fit together."""
    own = {argument.lstrip("-").partition("=")[0] for argument in cell.variant.arguments}
    known = USES["method"][cell.variant.method]
    check_use(own, f"--method={cell.variant.method}", OF_METHODS, known)
    try:
        settings.of_cell(cell)
    except UsageError as error:
        raise UsageError(f"{cell.label}: {error}") from error
