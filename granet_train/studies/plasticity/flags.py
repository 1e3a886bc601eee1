"""The flags of granet-plasticity, and the cells that they ask for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from granet_tf.methods import DISTRIBUTIONS
from granet_train import training_options
from granet_train.durations import TrainingLength
from granet_train.errors import UsageError
from granet_train.flag_checks import USES
from granet_train.flag_rules import list_rule, numbers, subset
from granet_train.options import option
from granet_train.studies import flags as study_flags
from granet_train.studies.flags import UNUSED, StudyOptions, StudySettings
from granet_train.studies.plasticity.cells import MEASURES, REGENERATION, Axes

USAGE = """\
granet-plasticity prunes networks in the middle of training and measures how they recover.

  granet-plasticity --flagfile=configs/plasticity/digits.flags
  granet-plasticity --flagfile=configs/plasticity/cifar10_resnet20.flags --jobs=4 --workdir=work/p

Networks are trained at each of --sparsities; after each of --prune_at they are pruned once at each
of --rates, without and with regenerating as many connections by gradient, and trained on. What it
finds is a table, plasticity.csv, and the figures of the paper's Section 3.
"""

# {pattern: pre-trained sparsities of the paper}
SPARSITIES = {"element": ("0", "0.5", "0.9", "0.98"), "filter": ("0", "0.1", "0.5", "0.7")}
# The classifier keeps its outputs where whole filters go: there is one for each class.
PINNED = {"element": (), "filter": ("-1:0.0",)}
SCOPES = {"element": "global", "filter": "layer"}

_OF_METHODS = frozenset().union(*USES["method"].values())
_UNUSED = UNUSED | (_OF_METHODS - {"scope", "distribution", "pinned", "pattern"}) | {
    "select_on", "tensorboard", "export_tflite", "plot", "keep_checkpoints",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings(StudySettings):
    """What the command line came to.

    Attributes:
        axes: The cells.
        pattern: "element" or "filter".
        scope: "global" or "layer".
        distribution: How sparsities of pre-trained networks are spread over layers.
        pinned: Weights of a sparsity of their own, written as for granet-train.
    """

    axes: Axes
    pattern: str
    scope: str
    distribution: str
    pinned: tuple[str, ...]

    def of_seed(self, seed: int) -> training_options.Options:
        """The flags of granet-train for trainings with this seed."""
        return study_flags.of_cell(self.rest, "--method=static", f"--seed={seed}")

    def identity(self) -> dict[str, Any]:
        """What must be the same when the study goes on: {flag: value}.

        Sparsities, rates, measures, seeds and regeneration may be others: that only adds cells.
        """
        return study_flags.identity_of(self.of_seed(0), _UNUSED) | {
            "pattern": self.pattern,
            "scope": self.scope,
            "distribution": self.distribution,
            "pinned": list(self.pinned),
            "prune_at": list(self.axes.epochs),
            "recovery_epochs": self.axes.recovery,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    """What granet-plasticity is asked for."""

    SECTIONS = ("What to measure",)

    workdir: str = "work/plasticity"
    pattern: str = option(
        "element",
        "What is pruned as one: single weights, or whole filters by the sum of |w| over each; of "
        "the latter the last layer has none to spare.",
        choices=tuple(SPARSITIES),
    )
    sparsities: tuple[str, ...] | None = option(
        None,
        "Sparsities that networks are pre-trained at, static and random. By default "
        f"{','.join(SPARSITIES['element'])}, of filters {','.join(SPARSITIES['filter'])}.",
        rule=list_rule(
            lambda sparsity: 0 <= sparsity < 1, "must be a list of different sparsities in [0, 1)"
        ),
    )
    rates: tuple[str, ...] = option(
        ("0.2", "0.5", "0.9", "0.98"),
        "Shares of the active weights to prune, each in (0, 1).",
        rule=list_rule(
            lambda rate: 0 < rate < 1,
            "must be a list of different shares of the active weights, each in (0, 1)",
        ),
    )
    prune_at: tuple[str, ...] = option(
        tuple(str(i / 8) for i in range(1, 8)),
        "When to prune: fractions of training (0.5) or epochs (30e).",
        unit="moments",
    )
    recovery_epochs: int = option(
        30,
        "k: epochs to train on at the learning rate of that moment, for the plasticity.",
        at_least=1,
    )
    measures: tuple[str, ...] = option(
        tuple(MEASURES),
        "plasticity (the accuracy after k epochs, less that before pruning), final (the accuracy "
        "at the end of training, less that of the unpruned network), or both.",
        rule=subset(MEASURES),
    )
    regenerate: tuple[str, ...] = option(
        REGENERATION,
        "no, yes, or both: whether as many connections are regenerated as pruned.",
        rule=subset(REGENERATION),
    )
    scope: str | None = option(
        None,
        "Whether pruning ranks all weights together or each layer for itself. By default global, "
        "of filters layer, as the paper has it (Appendix A).",
        choices=tuple(SCOPES.values()),
    )
    distribution: str = option(
        "uniform",
        "How the sparsity of pre-trained networks is spread over the layers.",
        choices=tuple(DISTRIBUTIONS),
    )
    pinned: tuple[str, ...] | None = option(
        None,
        "Weights of a sparsity of their own, which are not pruned, written as for granet-train.",
    )


def read(argv: Sequence[str]) -> Settings:
    """What a command line asks for; prints the help and exits where that was asked for.

    Raises:
        UsageError: On anything that cannot be meant, as far as can be told without the data.

    Example:

    >>> settings = read(["--epochs=8", "--rates=0.5,0.9", "--sparsities=0", "--recovery_epochs=2"])
    >>> settings.axes.epochs, len(settings.axes.cells())
    ((1, 2, 3, 4, 5, 6, 7), 57)
    """
    values, rest = study_flags.read(argv, Options, _UNUSED, USAGE)
    training = study_flags.of_cell(rest, "--method=static")
    length = TrainingLength.stretched(training.epochs, 1, training.schedule_multiplier)
    pinned = values.pinned if values.pinned is not None else PINNED[values.pattern]
    axes = Axes(
        sparsities=numbers(values.sparsities or SPARSITIES[values.pattern]),
        rates=numbers(values.rates),
        regenerate=values.regenerate,
        measures=values.measures,
        seeds=numbers(values.seeds),
        epochs=_epochs(values.prune_at, length),
        recovery=values.recovery_epochs,
        length=length.epochs,
    )
    return Settings(
        axes=axes,
        pattern=values.pattern,
        scope=values.scope or SCOPES[values.pattern],
        distribution=values.distribution,
        pinned=pinned,
        **study_flags.shared(values, rest, training),
    )


def _epochs(texts: Sequence[str], length: TrainingLength) -> tuple[int, ...]:
    """Whole epochs, rising, each once."""
    epochs = sorted({length.point(text) for text in texts})
    if not 0 < epochs[0] <= epochs[-1] < length.epochs:
        raise UsageError(
            f"--prune_at must lie within training, after the first of its {length.epochs} epochs "
            f"and before the end. Received: --prune_at={','.join(texts)}, that is epochs "
            f"{', '.join(map(str, epochs))}"
        )
    return tuple(epochs)
