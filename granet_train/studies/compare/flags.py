"""The flags of granet-compare, and the cells that they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from granet_train import training_options
from granet_train.errors import UsageError
from granet_train.flag_checks import USES, check_use
from granet_train.flag_rules import list_rule, numbers, suggestion
from granet_train.flagfiles import Arguments
from granet_train.flags import DENSE, RUNS
from granet_train.options import option
from granet_train.studies import flags as study_flags
from granet_train.studies.compare.cells import Training, Variant, trainings
from granet_train.studies.flags import UNUSED, StudyOptions, StudySettings

USAGE = """\
granet-compare trains with each method, at each sparsity and from each seed, and makes a table.

  granet-compare --flagfile=configs/compare/digits.flags --jobs=2
  granet-compare --flagfile=configs/table2/cifar10_vgg19_90_granet_si0.flags --seeds=0,1,2
  granet-compare --methods=dense,granet,granet:initial_sparsity=0.5,gmp --sparsities=0.9,0.95

Each training is one of granet-train, with a directory of its own. Flags that a method has no use
for are left out of its trainings.
"""
ALL = "all"
# What a cell writes unless it is asked for more: figures and models.
_DEFAULTS = (Arguments(("--notensorboard", "--noexport_tflite", "--noplot"), "by default"),)
_OF_METHODS = frozenset().union(*USES["method"].values())


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

    def cells(self) -> list[Training]:
        """All trainings."""
        return trainings(self.variants, self.sparsities, self.seeds)

    def of_cell(self, cell: Training, workdir: Path | None = None) -> training_options.Options:
        """The flags of granet-train for one cell."""
        where = () if workdir is None else (f"--workdir={workdir}",)
        return study_flags.of_cell(
            [*_DEFAULTS, *self.rest], *cell.arguments, *where, for_any={"method"}
        )

    def identity(self) -> dict[str, Any]:
        """What must be the same when the study goes on: {flag: value}.

        Methods, sparsities and seeds may be others: that only adds cells.
        """
        values = study_flags.of_cell([*_DEFAULTS, *self.rest], for_any={"method"})
        return study_flags.identity_of(values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What granet-compare is asked for."""

    SECTIONS = ("What to compare",)

    seeds: tuple[str, ...] = ("0", "1", "2")
    workdir: str = "work/compare"
    methods: tuple[str, ...] = option(
        (DENSE, "static", "set", "rigl", "gmp", "granet", "granet:initial_sparsity=0.5"),
        f"Any of {', '.join(RUNS)}, also with flags of their own, granet:initial_sparsity=0.5; or "
        f"{ALL}.",
        rule=(bool, "must name a method"),
    )
    sparsities: tuple[str, ...] = option(
        ("0.9", "0.98"),
        "Final sparsities, in (0, 1).",
        rule=list_rule(
            lambda sparsity: 0 < sparsity < 1, "must be a list of different sparsities in (0, 1)"
        ),
    )


def read(argv: Sequence[str]) -> Settings:
    """What a command line asks for; prints the help and exits where that was asked for.

    Raises:
        UsageError: On anything that cannot be meant, as far as can be told without the data.

    Example:

    >>> settings = read(["--methods=dense,gmp", "--sparsities=0.9", "--end=0.5", "--seeds=0,1"])
    >>> [cell.name for cell in settings.cells()]
    ['dense_seed0', 'gmp_s0.9_seed0', 'dense_seed1', 'gmp_s0.9_seed1']
    """
    values, rest = study_flags.read(argv, Options, UNUSED, USAGE)
    variants = _variants(values.methods)
    training = study_flags.of_cell(rest, for_any={"method"})
    _check_used(variants, rest)
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


def _check_used(variants: Sequence[Variant], rest: Sequence[Arguments]) -> None:
    """A flag that none of the methods has a use for is a mistake, if it was typed."""
    used = frozenset().union(*(USES["method"][variant.method] for variant in variants))
    typed = {
        token.lstrip("-").partition("=")[0]
        for arguments in rest
        if not arguments.place
        for token in arguments.tokens
        if token.startswith("-")
    }
    methods = ",".join(variant.text for variant in variants)
    check_use(typed, f"--methods={methods}", _OF_METHODS, used)


def _check(settings: Settings, cell: Training) -> None:
    """Flags of its own must be some that the method has a use for, and fit together."""
    own = {argument.lstrip("-").partition("=")[0] for argument in cell.variant.arguments}
    known = USES["method"][cell.variant.method]
    check_use(own, f"--method={cell.variant.method}", _OF_METHODS, known)
    try:
        settings.of_cell(cell)
    except UsageError as error:
        raise UsageError(f"{cell.label}: {error}") from error
