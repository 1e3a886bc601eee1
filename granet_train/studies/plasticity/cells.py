"""The cells of a plasticity study: trainings, and prunings in the middle of them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

REGENERATION = ("no", "yes")
_WORDS = {"no": "without", "yes": "with"}

# {measure: up to which epoch a network pruned after `epoch` is trained, of a training of `length`}
MEASURES: dict[str, Callable[[int, int, int], int]] = {
    "plasticity": lambda epoch, recovery, length: epoch + recovery,
    "final": lambda epoch, recovery, length: length,
}


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A training without pruning, from which all prunings at its sparsity begin.

    Attributes:
        sparsity: That of its masks, in [0, 1).
        seed: Seed of weights, batches and masks.
        epochs: How long it is.
    """

    sparsity: float
    seed: int
    epochs: int

    needs: None = dataclasses.field(default=None, init=False, repr=False)

    @property
    def name(self) -> str:
        return f"pretrained_s{self.sparsity:g}_seed{self.seed}"

    @property
    def label(self) -> str:
        return f"pre-training at sparsity {self.sparsity:g}, seed {self.seed}"

    @property
    def effort(self) -> float:
        return self.epochs


@dataclasses.dataclass(frozen=True)
class Pruning:
    """One pruning and what comes of it.

    Attributes:
        needs: The training that it interrupts.
        epoch: After which epoch.
        rate: Share of the active weights to prune, in (0, 1).
        regenerate: "yes" or "no".
        measure: A key of `MEASURES`.
        last_epoch: Up to which epoch it is trained on.
    """

    needs: Pretraining
    epoch: int
    rate: float
    regenerate: str
    measure: str
    last_epoch: int

    @property
    def name(self) -> str:
        return (
            f"{self.measure}_s{self.needs.sparsity:g}_seed{self.needs.seed}_epoch{self.epoch}"
            f"_p{self.rate:g}_{_WORDS[self.regenerate]}"
        )

    @property
    def label(self) -> str:
        return (
            f"{self.measure}: sparsity {self.needs.sparsity:g}, epoch {self.epoch}, rate "
            f"{self.rate:g} {_WORDS[self.regenerate]} regeneration, seed {self.needs.seed}"
        )

    @property
    def effort(self) -> float:
        return self.last_epoch - self.epoch


@dataclasses.dataclass(frozen=True)
class Axes:
    """What a study varies.

    Attributes:
        sparsities: Of pre-trained networks.
        rates: Of pruning.
        regenerate: Of `REGENERATION`.
        measures: Of `MEASURES`.
        seeds: A study in itself each.
        epochs: After which to prune, rising.
        recovery: k, epochs to train on for the plasticity.
        length: Epochs of the whole training.
    """

    sparsities: tuple[float, ...]
    rates: tuple[float, ...]
    regenerate: tuple[str, ...]
    measures: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: tuple[int, ...]
    recovery: int
    length: int

    def pretrainings(self) -> list[Pretraining]:
        """One for each sparsity and seed."""
        return [
            Pretraining(sparsity, seed, self.length)
            for seed, sparsity in itertools.product(self.seeds, self.sparsities)
        ]

    def prunings(self) -> list[Pruning]:
        """All there are."""
        return [
            Pruning(
                pretraining,
                epoch,
                rate,
                regenerate,
                measure,
                MEASURES[measure](epoch, self.recovery, self.length),
            )
            for pretraining in self.pretrainings()
            for measure, epoch, rate, regenerate in itertools.product(
                self.measures, self.epochs, self.rates, self.regenerate
            )
        ]

    def cells(self) -> list[Pretraining | Pruning]:
        """Trainings first.

        Example:

        >>> axes = Axes((0, 0.5), (0.2,), ("no", "yes"), ("final",), (0,), (5, 10), 30, 160)
        >>> [cell.name for cell in axes.cells()][:3]
        ['pretrained_s0_seed0', 'pretrained_s0.5_seed0', 'final_s0_seed0_epoch5_p0.2_without']
        >>> len(axes.cells())
        10
        """
        return [*self.pretrainings(), *self.prunings()]
