"""Flags of a study: its own, and those of granet-train for the trainings that it is made of."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Sequence
from typing import Any

from absl.flags import FlagValues

from granet_tf.methods.parameters import parameters_of
from granet_train import durations, flag_help, flagfiles
from granet_train import flags as training_flags
from granet_train.errors import UsageError
from granet_train.flag_rules import list_rule
from granet_train.flagfiles import Arguments
from granet_train.options import Reading, as_dict, define, option, unknown
from granet_train.training_options import BUDGETS, Options

_OF_STUDIES = ("devices", "jobs", "scheduler", "workdir", "overwrite")
_NAME = re.compile(r"--?([A-Za-z_]\w*)")
# What every study decides for itself, or has no use for.
UNUSED = frozenset(
    {"method", "compare", "seed", "final_sparsity", "strategy", "workers", "worker_index"}
    | {"connect_timeout", "tpu", "tpu_zone", "tpu_project", "verbose", "extend", *BUDGETS}
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
        scheduler: Address of the Dask scheduler whose workers run the cells, if any.
        workdir: Directory of the study.
        overwrite: Whether to replace an earlier one.
        dataset: Name of the data set.
        model: Name of the network.
    """

    rest: tuple[Arguments, ...]
    devices: tuple[str, ...]
    jobs: int
    scheduler: str | None
    workdir: str
    overwrite: bool
    dataset: str
    model: str


def shared(values: StudyOptions, rest: Sequence[Arguments], training: Options) -> dict[str, Any]:
    """{field of `StudySettings`: its value}.

    Args:
        values: The study's own options.
        rest: From `read`.
        training: The options of granet-train that it comes to.
    """
    return {
        "rest": tuple(rest),
        **{name: getattr(values, name) for name in _OF_STUDIES},
        **{name: getattr(training, name) for name in ("dataset", "model")},
    }


def identity_of(training: Options, unused: Collection[str] = UNUSED) -> dict[str, Any]:
    """{flag of granet-train: value} of all that a cell's result depends on.

    Args:
        training: The flags of a cell.
        unused: Those that the study decides for itself, or has no use for.
    """
    skip = {*unused, *FREE_OF_TRAINING}
    return {name: value for name, value in as_dict(training).items() if name not in skip}


def is_seed(number: Any) -> bool:
    """Whether it can seed Keras and NumPy."""
    return isinstance(number, int) and 0 <= number < 2**32


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What all studies are asked for."""

    seeds: tuple[str, ...] = option(
        ("0",),
        "Seeds of weights, batches and masks.",
        rule=list_rule(is_seed, "must be a list of different whole numbers from 0 to 4294967295"),
    )
    jobs: int = option(1, "How many processes run cells side by side.", at_least=1)
    devices: tuple[str, ...] = option(
        (),
        "GPUs that the processes take turns on, as in CUDA_VISIBLE_DEVICES: 0,1,2. By default each "
        "sees all of them.",
        rule=(all, "must be a list of devices such as 0,1"),
    )
    scheduler: str | None = option(
        None,
        "Address of a Dask scheduler, tcp://HOST:8786, whose workers run the cells in place of "
        "--jobs. All see the directory of the study under the same name.",
    )
    workdir: str = option(
        "work/study",
        "Directory of the study. The same command goes on with what is not done yet.",
        unit="name",
    )
    overwrite: bool = option(False, "Whether to replace an earlier study in it.")


def read(
    argv: Sequence[str], options: type, unused: Collection[str], usage: str
) -> tuple[Any, list[Arguments]]:
    """The study's own options, and the rest, which is for granet-train.

    Prints the help and exits where that was asked for.

    Args:
        argv: The command line without the program's name.
        options: The dataclass of the study's own options.
        unused: Flags of granet-train that must not stand on the command line. Those of a flagfile
            are left out.
        usage: What --help shows above the flags.

    Raises:
        UsageError: On anything that cannot be meant.
    """
    flag_help.show_rows(argv)
    rest: list[Arguments] = []
    reading = Reading(options)
    training = define(Options)
    for each in flagfiles.expand(argv):
        _check_names(each, reading.values, training)
        left = reading.take(each, known_only=True)
        left = _used(left, each.place, unused, training)
        rest += [Arguments(tuple(left), each.place)] if left else []
    if reading.wants_help:
        flag_help.show(help_text(options, unused, usage))
    values = reading.checked()
    if values.scheduler is not None and (values.jobs > 1 or values.devices):
        raise UsageError(
            "--scheduler has no use for --jobs and --devices: its workers are as many as there are "
            f"cells side by side, each with the GPU it was started with. Received: --jobs="
            f"{values.jobs} --devices={','.join(values.devices)} --scheduler={values.scheduler}"
        )
    return values, rest


def help_text(options: type, unused: Collection[str], usage: str) -> str:
    """What --help shows: the study's flags, then those of granet-train that it passes on."""
    own = flag_help.text_of(options, usage=usage)
    passed_on = flag_help.text_of(
        Options,
        hidden={*unused, *parameters_of(options)},
        usage=f"Of granet-train, for each training; durations are\n{durations.SYNTAX}:\n",
    )
    return f"{own}\n{passed_on}"


def of_cell(rest: Sequence[Arguments], *more: str, for_any: Collection[str] = ()) -> Options:
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


def _check_names(arguments: Arguments, own: FlagValues, training: FlagValues) -> None:
    known = {*own, *training, *flagfiles.NAMES}
    for token in arguments.tokens:
        if not (match := _NAME.match(token)):
            continue
        name = match[1]
        negated = name.removeprefix("no")
        if name in known or (negated in known and negated != name):
            continue
        place = f" ({arguments.place})" if arguments.place else ""
        raise UsageError(unknown(name, sorted(known), f"{token}{place}"))


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
