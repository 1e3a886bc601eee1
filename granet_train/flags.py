"""The flags of granet-train: what there are, and what they come to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from granet_train import flag_checks, flag_help, flagfiles, learning_rates, method_options, options
from granet_train.durations import TrainingLength
from granet_train.flag_checks import check_length as check_length
from granet_train.flag_checks import check_use as check_use
from granet_train.learning_rates import Course
from granet_train.method_options import BY_PARAMETER as BY_PARAMETER
from granet_train.method_options import METHOD_FLAGS as METHOD_FLAGS
from granet_train.method_options import METHODS as METHODS
from granet_train.options import as_dict as as_dict
from granet_train.training_options import DENSE as DENSE
from granet_train.training_options import RUNS as RUNS
from granet_train.training_options import SMALL_DENSE as SMALL_DENSE
from granet_train.training_options import Options


def parse(argv: Sequence[str]) -> tuple[Options, frozenset[str]]:
    """Flags from a command line without the program's name, and which of them were given.

    Where --method stands on the command line itself, those from a flagfile do not count as given:
    the file was written for another method, and what the new one cannot use is left out. The same
    goes for --optimizer, --strategy and the like, each with the flags that depend on it.

    Raises:
        UsageError: On anything that cannot be meant, as far as can be told without the data.

    Example:

    >>> values, given = parse(["--method=gmp", "--end=20e"])
    >>> values.end, values.epochs, sorted(given)
    ('20e', 30, ['end', 'method'])
    """
    return parse_arguments(flagfiles.expand(argv))


def parse_arguments(
    arguments: Sequence[flagfiles.Arguments], *, for_any: Collection[str] = ()
) -> tuple[Options, frozenset[str]]:
    """`parse`, of a command line whose flagfiles are read already.

    Args:
        arguments: From `flagfiles.expand`.
        for_any: Flags such as "method" whose value may have no use for others that were given.

    Raises:
        UsageError: As `parse`.
    """
    values, reading = options.read(Options, arguments)
    if reading.wants_help:
        return values, frozenset()

    def given(owner: str) -> frozenset[str]:
        return frozenset(reading.typed if owner in reading.typed else reading.places)

    flag_checks.check_owners(values, given, for_any)
    flag_checks.check_together(values)
    return values, given("method")


def help_text() -> str:
    """What --help shows."""
    return flag_help.text_of(Options)


def runs(values: Options) -> tuple[str, ...]:
    """The run asked for, then its twins, each once."""
    return tuple(dict.fromkeys([values.method, *values.compare]))


def method_parameters(name: str, values: Options, length: TrainingLength) -> dict[str, Any]:
    """Arguments for the class `METHODS[name]`: those of the flags that it has, durations in steps.

    Example:

    >>> values, _ = parse(["--end=0.5", "--frequency=2e", "--pinned=0:0.0"])
    >>> method_parameters("granet", values, TrainingLength(epochs=40, steps_per_epoch=22))
    {'seed': 0, 'pinned': {0: 0.0}, 'end_step': 440, 'frequency': 44}
    """
    return {"seed": values.seed, **method_options.arguments(name, values, length)}


def course(values: Options, length: TrainingLength) -> Course:
    """What the learning rate schedule needs to know, in steps, scaled with the batch.

    Example:

    >>> values, _ = parse(["--batch_size=256", "--learning_rate_per=64", "--warmup=5e"])
    >>> course(values, TrainingLength(epochs=100, steps_per_epoch=10))
    Course(highest=0.4, steps=1000, warmup=50, milestones=(500, 750))
    """
    return Course(
        learning_rates.scaled(values.learning_rate, values.batch_size, values.learning_rate_per),
        length.steps,
        length.point(values.warmup),
        tuple(map(length.point, values.milestones)),
    )
