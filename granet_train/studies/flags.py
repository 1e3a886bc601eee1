"""Flags of a study: its own, and those of granet-train for the trainings that it is made of."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import flags
from absl.flags import FlagValues

from granet_train import flag_rules, flagfiles
from granet_train import flags as training_flags
from granet_train.errors import UsageError
from granet_train.flag_definitions import HELP, SECTIONS
from granet_train.flag_definitions import define as define_training
from granet_train.flag_help import text_of
from granet_train.flag_rules import Rule
from granet_train.flagfiles import Arguments

_NAME = re.compile(r"--?([A-Za-z_]\w*)")
# What every study decides for itself, or has no use for.
UNUSED = frozenset(
    {"method", "compare", "seed", "final_sparsity", "strategy", "workers", "worker_index"}
    | {"connect_timeout", "tpu", "tpu_zone", "tpu_project"}
)
# Flags of granet-train that change nothing of what a cell comes to.
FREE_OF_TRAINING = frozenset(
    {"data_dir", "download", "skip_corrupt", "checkpoint_every", "keep_checkpoints", "xla"}
    | {"steps_per_loop", "tensorboard", "export_tflite", "plot", "workdir", "overwrite"}
)


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What the command line of any study came to.

    Attributes:
        rest: Arguments for granet-train, the same for all cells.
        devices: GPUs that jobs take turns on.
        jobs: How many cells are run side by side.
        workdir: Directory of the study.
        overwrite: Whether to replace an earlier one.
        dataset: Name of the data set.
        model: Name of the network.
    """

    rest: tuple[Arguments, ...]
    devices: tuple[str, ...]
    jobs: int
    workdir: str
    overwrite: bool
    dataset: str
    model: str


def shared(values: FlagValues, rest: Sequence[Arguments], training: FlagValues) -> dict[str, Any]:
    """{field of `StudySettings`: its value}.

    Args:
        values: The study's own flags.
        rest: From `read`.
        training: The flags of granet-train that it comes to.
    """
    return {
        "rest": tuple(rest),
        "devices": tuple(values.devices),
        **{name: values[name].value for name in ("jobs", "workdir", "overwrite")},
        **{name: training[name].value for name in ("dataset", "model")},
    }


def identity_of(training: FlagValues, unused: Collection[str] = UNUSED) -> dict[str, Any]:
    """{flag of granet-train: value} of all that a cell's result depends on.

    Args:
        training: The flags of a cell.
        unused: Those that the study decides for itself, or has no use for.
    """
    skip = {*unused, *FREE_OF_TRAINING, *HELP, "flagfile", "undefok"}
    return {name: training[name].value for name in sorted(training) if name not in skip}


def define(section: str, workdir: str) -> tuple[FlagValues, Callable[..., None]]:
    """Flags that all studies have, and a function that defines more in the same section.

    Args:
        section: What --help puts above them.
        workdir: The default work directory.

    Example:

    >>> values, own = define("What to compare", "work/compare")
    >>> own(flags.DEFINE_integer, "k", 3, "How many.")
    >>> values["jobs"].value, values["k"].value
    (1, 3)
    """
    values = FlagValues()
    values.set_gnu_getopt(True)  # Else nothing after "--epochs 5" would be read.
    values.mark_as_parsed()  # A study may be asked for without any.

    def add(definer, *args):
        definer(*args, flag_values=values, module_name=section)

    add(flags.DEFINE_list, "seeds", ["0"], "Seeds of weights, batches and masks.")
    add(flags.DEFINE_integer, "jobs", 1, "How many processes run cells side by side.")
    add(
        flags.DEFINE_list,
        "devices",
        [],
        "GPUs that the processes take turns on, as in CUDA_VISIBLE_DEVICES: 0,1,2. By default each "
        "sees all of them.",
    )
    add(
        flags.DEFINE_string,
        "workdir",
        workdir,
        "Directory of the study. The same command goes on with what is not done yet.",
    )
    add(flags.DEFINE_bool, "overwrite", False, "Whether to replace an earlier study in it.")
    for name in HELP:
        add(flags.DEFINE_bool, name, False, "Show this text.")
    return values, add


def read(
    argv: Sequence[str],
    values: FlagValues,
    rules: Mapping[str, Rule],
    unused: Collection[str],
    usage: str,
) -> list[Arguments]:
    """Sets the flags of the study; returns the rest, which is for granet-train.

    Prints the help and exits where that was asked for.

    Args:
        argv: The command line without the program's name.
        values: The study's own flags, at their defaults; set in place.
        rules: What values of its own must satisfy.
        unused: Flags of granet-train that must not stand on the command line. Those of a flagfile
            are left out.
        usage: What --help shows above the flags.

    Raises:
        UsageError: On anything that cannot be meant.
    """
    rest: list[Arguments] = []
    places: dict[str, str] = {}
    training = define_training()
    for each in flagfiles.expand(argv):
        _check_names(each, values, training)
        before = {name: values[name].present for name in values}
        left = training_flags.read_into(values, each, known_only=True)
        changed = (name for name in values if values[name].present > before[name])
        places.update(dict.fromkeys(changed, each.place))
        left = _used(left, each.place, unused, training)
        rest += [Arguments(tuple(left), each.place)] if left else []
    if any(values[name].value for name in HELP):
        print(help_text(values, unused, usage), end="", flush=True)
        sys.exit()
    flag_rules.check_rules(values, places, {**_RULES, **rules})
    return rest


def help_text(values: FlagValues, unused: Collection[str], usage: str) -> str:
    """What --help shows: the study's flags, then those of granet-train that it passes on."""
    sections = list(dict.fromkeys(values.flags_by_module_dict()))
    own = text_of(values, sections, hidden=HELP, usage=usage)
    passed_on = text_of(
        define_training(),
        SECTIONS,
        hidden={*HELP, *unused, *values},
        usage="Of granet-train, for each training:\n",
    )
    return f"{own}\n{passed_on}"


def of_cell(rest: Sequence[Arguments], *more: str, for_any: Collection[str] = ()) -> FlagValues:
    """The flags of granet-train for one cell.

    Args:
        rest: From `read`.
        *more: What is this cell's own, such as "--seed=1"; it wins.
        for_any: As for `granet_train.flags.parse_arguments`.

    Raises:
        UsageError: As `granet_train.flags.parse`.
    """
    values, _ = training_flags.parse_arguments([*rest, Arguments(tuple(more))], for_any=for_any)
    return values


def numbers(texts: Sequence[str]) -> tuple[float, ...]:
    """The items of a list as numbers; whole ones as int.

    Example:

    >>> numbers(["0", "0.5"])
    (0, 0.5)
    """
    return tuple(int(text) if re.fullmatch(r"\d+", text) else float(text) for text in texts)


def list_rule(is_right: Callable[[float], bool], text: str) -> Rule:
    """A rule for a list of different numbers, at least one.

    Args:
        is_right: What each must satisfy.
        text: What to say if it does not.
    """

    def check(items: Sequence[str]) -> bool:
        try:
            parsed = numbers(items)
        except ValueError:
            return False
        return bool(parsed) and len(set(parsed)) == len(parsed) and all(map(is_right, parsed))

    return check, text


def is_seed(number: Any) -> bool:
    """Whether it can seed Keras and NumPy."""
    return isinstance(number, int) and 0 <= number < 2**32


_RULES: dict[str, Rule] = {
    "seeds": list_rule(is_seed, "must be a list of different whole numbers from 0 to 4294967295"),
    "jobs": (lambda jobs: jobs >= 1, "must be 1 or more"),
    "workdir": (bool, "must not be empty"),
    "devices": (lambda names: all(names), "must be a list of devices such as 0,1"),
}


def _check_names(arguments: Arguments, own: FlagValues, training: FlagValues) -> None:
    known = {*own, *training, "flagfile"}
    for token in arguments.tokens:
        if not (match := _NAME.match(token)):
            continue
        name = match[1]
        negated = name.removeprefix("no")
        if name in known or (negated in known and negated != name):
            continue
        place = f" ({arguments.place})" if arguments.place else ""
        instead = flag_rules.suggestion(name, sorted(known), before="--")
        raise UsageError(f"There is no flag --{name}. {instead} Received: {token}{place}")


def _used(tokens, place, unused, training):
    """Without flags that the study has no use for, which may come from a flagfile only."""
    kept, tokens = [], list(tokens)
    while tokens:
        token = tokens.pop(0)
        match = _NAME.match(token)
        name = match[1] if match else ""
        if name.removeprefix("no") in unused and name not in unused:
            name = name.removeprefix("no")
        if name not in unused:
            kept.append(token)
            continue
        if not place:
            raise UsageError(f"This study has no use for --{name}. Received: {token}")
        if "=" not in token and not training[name].boolean and tokens:
            tokens.pop(0)
    return kept
