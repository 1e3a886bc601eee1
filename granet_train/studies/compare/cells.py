"""The cells of a comparison: each is one run of granet-train."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Protocol

from granet_train.flag_checks import USES
from granet_train.studies.grid import Cell

ALL = "all"


class Compared(Cell, Protocol):
    """A cell of any comparison."""

    @property
    def method(self) -> str:
        """--method."""

    @property
    def compared(self) -> str:
        """What the lines of tables are about."""

    @property
    def sparsity(self) -> float | None:
        """The final sparsity that tables have; None where there is none to choose."""

    @property
    def seed(self) -> int:
        """--seed."""

    @property
    def network(self) -> str:
        """The same for all whose FLOPs are compared."""

    @property
    def length(self) -> float:
        """Of training, relative to that of the others."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method with some flags of its own.

    Attributes:
        text: As it was written, such as "granet:initial_sparsity=0.5".

    Example:

    >>> variant = Variant("granet:initial_sparsity=0.5:drop_fraction=0.3")
    >>> variant.method, variant.arguments
    ('granet', ('--method=granet', '--initial_sparsity=0.5', '--drop_fraction=0.3'))
    """

    text: str

    @property
    def method(self) -> str:
        """Its name for --method."""
        return self.text.partition(":")[0]

    @property
    def arguments(self) -> tuple[str, ...]:
        """For granet-train."""
        name, *options = self.text.split(":")
        return (f"--method={name}", *(f"--{option}" for option in options))

    @property
    def has_sparsity(self) -> bool:
        """Whether there is a final sparsity to vary: not in dense training, nor in STR."""
        return "final_sparsity" in USES["method"][self.method]


@dataclasses.dataclass(frozen=True)
class Training:
    """One run.

    Attributes:
        variant: What is compared.
        sparsity: --final_sparsity; None where the method has none.
        seed: --seed.
        needs: No other one.
        network: The same for all.
        length: Of training, relative to that of the others.
    """

    variant: Variant
    sparsity: float | None
    seed: int

    needs: None = dataclasses.field(default=None, init=False, repr=False)
    network: str = dataclasses.field(default="", init=False, repr=False)
    length: float = dataclasses.field(default=1.0, init=False, repr=False)

    @property
    def method(self) -> str:
        """--method."""
        return self.variant.method

    @property
    def compared(self) -> str:
        """What the lines of tables are about."""
        return self.variant.text

    @property
    def name(self) -> str:
        sparsity = () if self.sparsity is None else (f"s{self.sparsity:g}",)
        variant = self.variant.text.replace(":", "_").replace("/", "_")
        return "_".join([variant, *sparsity, f"seed{self.seed}"])

    @property
    def label(self) -> str:
        sparsity = "" if self.sparsity is None else f" at {self.sparsity:g}"
        return f"{self.variant.text}{sparsity}, seed {self.seed}"

    @property
    def effort(self) -> float:
        return 1.0

    @property
    def arguments(self) -> tuple[str, ...]:
        """For granet-train, but for the work directory."""
        sparsity = () if self.sparsity is None else (f"--final_sparsity={self.sparsity:g}",)
        return (*self.variant.arguments, *sparsity, f"--seed={self.seed}")


def trainings(
    variants: tuple[Variant, ...], sparsities: tuple[float, ...], seeds: tuple[int, ...]
) -> list[Training]:
    """All cells, seed by seed, so that a comparison that is stopped has something to show.

    Example:

    >>> cells = trainings((Variant("dense"), Variant("gmp")), (0.9, 0.98), (0, 1))
    >>> [cell.name for cell in cells[:3]], len(cells)
    (['dense_seed0', 'gmp_s0.9_seed0', 'gmp_s0.98_seed0'], 6)
    """
    return [
        Training(variant, sparsity, seed)
        for seed, variant in itertools.product(seeds, variants)
        for sparsity in (sparsities if variant.has_sparsity else (None,))
    ]
