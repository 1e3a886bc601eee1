"""The flags of granet-train: what there are, and what they come to."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags
from absl.flags import FlagValues

from granet_train import flag_checks, flag_rules, flagfiles, learning_rates
from granet_train.durations import TrainingLength
from granet_train.errors import UsageError
from granet_train.flag_checks import OWN_FLAGS, USES
from granet_train.flag_checks import check_length as check_length
from granet_train.flag_checks import check_use as check_use
from granet_train.flag_definitions import HELP, SECTIONS, define
from granet_train.flag_help import text_of
from granet_train.flag_rules import sparsities, suggestion
from granet_train.learning_rates import Course

DENSE = "dense"
# Names of classes in `granet_tf`: the classes themselves need TensorFlow.
METHODS = {
    "granet": "GraNet",
    "gmp": "GMP",
    "rigl": "RigL",
    "set": "SET",
    "static": "StaticSparse",
    "magnitude": "MagnitudeAtInit",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "acdc": "ACDC",
    "deep_r": "DeepR",
    "dpf": "DPF",
    "dsr": "DSR",
    "itop": "ITOP",
    "mest": "MEST",
    "snfs": "SNFS",
    "str": "STR",
    "top_kast": "TopKAST",
}
# The dense network with as many parameters as a sparse one.
SMALL_DENSE = "small_dense"
RUNS = (*METHODS, DENSE, SMALL_DENSE)

# {flag: parameter of a method}
METHOD_FLAGS = {
    "final_sparsity": "final_sparsity",
    "initial_sparsity": "initial_sparsity",
    "begin": "begin_step",
    "end": "end_step",
    "frequency": "frequency",
    "drop_fraction": "drop_fraction",
    "final_drop_fraction": "final_drop_fraction",
    "scope": "scope",
    "distribution": "distribution",
    "pinned": "pinned",
    "capped": "capped",
    "pattern": "pattern",
    "score_batches": "batches",
    "rounds": "rounds",
    "temperature": "temperature",
    **{name: name for name in OWN_FLAGS},
}
# {parameter: flag, as it is written}
BY_PARAMETER = {parameter: f"--{flag}" for flag, parameter in METHOD_FLAGS.items()}
# {flag: how its value becomes steps}: points in training are stretched, periods are not.
DURATIONS: dict[str, Callable[[TrainingLength, str], int]] = {
    "begin": TrainingLength.point,
    "end": TrainingLength.point,
    "warmup": TrainingLength.point,
    "sparse_phase": TrainingLength.point,
    "dense_phase": TrainingLength.point,
    "frequency": TrainingLength.period,
    "checkpoint_every": TrainingLength.period,
}


def parse(argv: Sequence[str]) -> tuple[FlagValues, frozenset[str]]:
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
) -> tuple[FlagValues, frozenset[str]]:
    """`parse`, of a command line whose flagfiles are read already.

    Args:
        arguments: From `flagfiles.expand`.
        for_any: Flags such as "method" whose value may have no use for others that were given.

    Raises:
        UsageError: As `parse`.
    """
    values, places = _parsed(arguments)
    if wants_help(values):
        return values, frozenset()
    _, written_here = _parsed([each for each in arguments if not each.place])

    def given(owner: str) -> frozenset[str]:
        return frozenset(written_here if owner in written_here else places)

    flag_rules.check_each(values, places)
    flag_checks.check_owners(values, given, for_any)
    flag_checks.check_together(values)
    return values, given("method")


def wants_help(values: FlagValues) -> bool:
    """Whether the user asked for `help_text`."""
    return any(values[name].value for name in HELP)


def help_text() -> str:
    """What --help shows."""
    return text_of(define(), SECTIONS, hidden=HELP)


def runs(values: FlagValues) -> tuple[str, ...]:
    """The run asked for, then its twins, each once."""
    return tuple(dict.fromkeys([values.method, *values.compare]))


def as_dict(values: FlagValues) -> dict[str, Any]:
    """All flags and their values, to be written down."""
    skip = {*HELP, "flagfile", "undefok"}
    return {name: values[name].value for name in sorted(values) if name not in skip}


def method_parameters(name: str, values: FlagValues, length: TrainingLength) -> dict[str, Any]:
    """Arguments for the class `METHODS[name]`: those of the flags that it has, durations in steps.

    Example:

    >>> values, _ = parse(["--end=0.5", "--frequency=2e", "--pinned=0:0.0"])
    >>> method_parameters("granet", values, TrainingLength(epochs=40, steps_per_epoch=22))
    {'seed': 0, 'end_step': 440, 'frequency': 44, 'pinned': {0: 0.0}}
    """
    parameters = {"seed": values.seed}
    for flag, parameter in METHOD_FLAGS.items():
        value = values[flag].value
        if flag not in USES["method"][name] or value in (None, []):
            continue
        if flag in DURATIONS:
            value = DURATIONS[flag](length, value)
        elif flag in ("pinned", "capped"):
            value = sparsities(value)
        parameters[parameter] = value
    return parameters


def course(values: FlagValues, length: TrainingLength) -> Course:
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


def _parsed(arguments: Sequence[flagfiles.Arguments]) -> tuple[FlagValues, dict[str, str]]:
    """The flags, and {flag that was given: where}."""
    values, places = define(), {}
    for each in arguments:
        before = {name: values[name].present for name in values}
        rest = read_into(values, each)
        if rest:
            raise UsageError(
                f"Everything is a flag here, such as --method=granet. Received: {' '.join(rest)}"
            )
        changed = (name for name in values if values[name].present > before[name])
        places.update(dict.fromkeys(changed, each.place))
    return values, places


def read_into(
    values: FlagValues, arguments: flagfiles.Arguments, *, known_only: bool = False
) -> list[str]:
    """Sets the flags that the arguments name; returns the arguments that are left.

    Args:
        values: The flags, set in place.
        arguments: What to read.
        known_only: Whether flags that `values` does not have are left, too.

    Raises:
        UsageError: On a flag that cannot be read.
    """
    try:
        return values(["granet-train", *arguments.tokens], known_only=known_only)[1:]
    except flags.Error as error:
        raise UsageError(explained(error, values, arguments)) from error


def explained(error: flags.Error, values: FlagValues, arguments: flagfiles.Arguments) -> str:
    """absl's error in our words: the flag, what was expected, what was received and where."""
    place = f" ({arguments.place})" if arguments.place else ""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        instead = suggestion(name, [*values, "flagfile"], before="--")
        received = next(t for t in arguments.tokens if t.lstrip("-").startswith(name))
        return f"There is no flag --{name}. {instead} Received: {received}{place}"
    # absl says "flag --NAME=VALUE: why" or "Missing value for flag --NAME".
    text = " ".join(str(error).split())
    if match := re.match(r"flag --(\w+)=(.*?): |Missing value for flag --?(\w+)", text):
        name, value = match[1] or match[3], match[2]
        received = f"--{name} without a value" if value is None else f"--{name}={value}"
        return f"--{name} must be {_expected(values[name])}. Received: {received}{place}"
    return f"{text}. Received: {' '.join(arguments.tokens)}{place}"


def _expected(flag: flags.Flag) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return f"one of {', '.join(choices)}"
    return "true or false" if flag.boolean else flag.parser.syntactic_help
