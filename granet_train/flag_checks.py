"""Which flags may stand together; the first contradiction is raised as a UsageError.

What can only be told once the data is there, and with it the number of steps, is in `check_length`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import Any

from granet_tf.methods.parameters import parameters_of
from granet_train import durations, models, optimizers
from granet_train.durations import TrainingLength
from granet_train.errors import UsageError
from granet_train.flag_rules import suggestion
from granet_train.training_options import BUDGETS, DATA_SETS, Options


def _uses() -> dict[str, Mapping[str, frozenset[str]]]:
    """{option: {its value: flags that only it and some other values have a use for}}"""
    declared = parameters_of(Options)
    owners = dict.fromkeys(owner for each in declared.values() for owner in each.only_for)
    return {
        owner: {
            value: frozenset(
                k for k, each in declared.items() if value in each.only_for.get(owner, ())
            )
            for value in declared[owner].choices or DATA_SETS
        }
        for owner in owners
    }


USES = _uses()


def check_use(
    given: Collection[str], owner: str, flags_of: Collection[str], known: Collection[str]
) -> None:
    """Raises UsageError if a flag was given that its owner has no use for.

    Args:
        given: Names of the flags that were given.
        owner: The flag that says who is to use them, with its value: "--method=static".
        flags_of: Names of the flags that some owner uses.
        known: Names of those that this one uses.
    """
    unused = sorted(set(given) & set(flags_of) - set(known))
    if unused:
        names = ", ".join(f"--{name}" for name in unused)
        raise UsageError(f"{owner} has no use for {names}. Received: {owner} with {names}")


def check_owners(
    values: Options,
    given: Callable[[str], Collection[str]],
    for_any: Collection[str] = (),
) -> None:
    """Flags that the method, the optimizer, the strategy and so on have no use for.

    Args:
        values: The flags.
        given: Names of the flags that count as given when it comes to the flag of this name.
        for_any: Those of method, optimizer and so on whose value may have no use for a flag.
    """
    for owner, table in USES.items():
        if owner in for_any:
            continue
        value = getattr(values, owner)
        all_of = frozenset().union(*table.values())
        check_use(given(owner), f"--{owner}={value}", all_of, table.get(value, all_of))


def check_together(values: Options) -> None:
    """Flags that contradict one another, as far as can be told without the data."""
    for check in (
        *(_network, _folder, _sparsities, _patterns, _budget, _retraining, _distillation),
        *(_momentum, _selection, _workers, _tpu, _xla, _whole_epochs),
    ):
        check(values)
    _order(values, lambda text: _share(text, values.epochs), Fraction(1))


def check_length(values: Options, length: TrainingLength) -> None:
    """Durations against one another and against the length of training, all in steps.

    Raises:
        UsageError: If the warm-up or a milestone is not within training, pruning ends before it
            begins, or a period is shorter than a step.
    """
    _order(values, length.point, length.steps)
    for name in sorted({"frequency", "checkpoint_every"} - _unused(values)):
        text = getattr(values, name)
        if text is not None and length.period(text) < 1:
            raise UsageError(
                f"--{name} must be at least one step, but training has {length.steps:,} steps, "
                f"{length.steps_per_epoch:,} an epoch. Received: --{name}={text}"
            )


def _unused(values) -> frozenset[str]:
    """Flags that only other methods have a use for."""
    return frozenset().union(*USES["method"].values()) - USES["method"][values.method]


def _network(values):
    names = models.names()
    if values.model not in names:
        raise UsageError(
            "--model must be a network of granet_tf or of keras.applications. "
            f"{suggestion(values.model, names)} Received: --model={values.model}"
        )


def _folder(values):
    if values.dataset == "folder" and not values.data_dir:
        raise UsageError(
            "--dataset=folder needs --data_dir: the directory that holds train/CLASS/ and "
            "test/CLASS/ with images in them. Received: --dataset=folder without --data_dir"
        )


def _patterns(values):
    """What only patterns of whole filters have a use for."""
    filters = {"filter", "coupled_filter"}
    for name, is_given, patterns in (
        ("criterion", values.criterion is not None, filters),
        ("round_to", values.round_to > 1, filters),
        ("shrink_at", bool(values.shrink_at), {"coupled_filter"}),
    ):
        if is_given and values.pattern not in patterns:
            raise UsageError(
                f"--{name} is for --pattern={' or '.join(sorted(patterns))}. "
                f"Received: --{name}={_text(getattr(values, name))} --pattern={values.pattern}"
            )


def _text(value) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _sparsities(values):
    initial, final = values.initial_sparsity, values.final_sparsity
    if initial is not None and final is not None and initial > final:
        raise UsageError(
            "--initial_sparsity must not be above --final_sparsity: pruning only removes. "
            f"Received: --initial_sparsity={initial} --final_sparsity={final}"
        )


def _budget(values):
    names = [name for name in BUDGETS if getattr(values, name) is not None]
    names += ["final_sparsity"] * (values.final_sparsity is not None)
    if len(names) > 1:
        given = " ".join(f"--{name}={getattr(values, name)}" for name in names)
        raise UsageError(
            f"--{names[0]} must be given alone: the final sparsity follows from it. "
            f"Received: {given}"
        )


def _retraining(values):
    if values.weights_at != "end" and not values.weights_from:
        raise UsageError(
            "--weights_at needs --weights_from, the work directory of a finished run. "
            f"Received: --weights_at={values.weights_at}"
        )


def _distillation(values):
    for name in ("distillation_weight", "distillation_temperature"):
        if getattr(values, name) is not None and not values.teacher:
            raise UsageError(
                f"--{name} needs --teacher, a work directory or a .keras file. "
                f"Received: --{name}={getattr(values, name)}"
            )


def _momentum(values):
    uses = "nesterov" in optimizers.OPTIONS[values.optimizer]
    if uses and values.nesterov and not values.momentum:
        momentum = "" if values.momentum is None else f" --momentum={values.momentum}"
        raise UsageError(f"--nesterov needs a --momentum above 0. Received: --nesterov{momentum}")


def _selection(values):
    if values.select_on == "validation" and not values.validation_fraction:
        raise UsageError(
            "--select_on=validation needs a --validation_fraction above 0, to hold out training "
            "images. Received: --select_on=validation "
            f"--validation_fraction={values.validation_fraction}"
        )


def _workers(values):
    if values.strategy != "multiworker":
        return
    received = "--strategy=multiworker"
    received += f" --workers={','.join(values.workers)}" if values.workers else ""
    received += "" if values.worker_index is None else f" --worker_index={values.worker_index}"
    if bool(values.workers) != (values.worker_index is not None) or not (
        values.workers or os.environ.get("TF_CONFIG")
    ):
        raise UsageError(
            "--strategy=multiworker needs both --workers, the same list on every host, and "
            "--worker_index, this one's place in it from 0; or else the environment variable "
            f"TF_CONFIG. Received: {received}"
        )
    if values.workers and values.worker_index >= len(values.workers):
        raise UsageError(
            f"--worker_index must be below the number of --workers, {len(values.workers)}. "
            f"Received: {received}"
        )


def _tpu(values):
    if values.strategy == "tpu" and not values.tpu:
        raise UsageError(
            "--strategy=tpu needs --tpu: the name of a TPU, or local for one of this machine. "
            "Received: --strategy=tpu"
        )


def _xla(values):
    if values.xla and values.strategy in ("mirrored", "multiworker"):
        raise UsageError(
            "--xla must not be given with --strategy=mirrored or multiworker: TensorFlow cannot "
            f"compile their steps. Received: --xla --strategy={values.strategy}"
        )


def _whole_epochs(values):
    try:
        TrainingLength.stretched(values.epochs, 1, values.schedule_multiplier)
    except ValueError as error:
        raise UsageError(f"--schedule_multiplier {error}") from error


def _order(values, point: Callable[[str], Any], end: Any):
    """What must come before what.

    Args:
        values: The flags.
        point: When a duration is over; None if that cannot be told yet.
        end: When training is over.
    """
    if "begin" not in _unused(values) and values.begin and values.end:
        begin, pruned = point(values.begin), point(values.end)
        if None not in (begin, pruned) and begin > pruned:
            raise UsageError(
                "--begin must not be after --end. "
                f"Received: --begin={values.begin} --end={values.end}{_shown([begin, pruned])}"
            )
    warm = point(values.warmup)
    if warm is not None and warm >= end:
        raise UsageError(
            "--warmup must be shorter than training. "
            f"Received: --warmup={values.warmup} --epochs={values.epochs}{_shown([warm, end])}"
        )
    if values.learning_rate_schedule == "step":
        times = [time for time in map(point, values.milestones) if time is not None]
        rising = all(a < b for a, b in itertools.pairwise(times))
        if not rising or not all(0 < time < end for time in times):
            raise UsageError(
                "--milestones must rise and lie within training, after its beginning and before "
                f"its end. Received: --milestones={','.join(values.milestones)} "
                f"--epochs={values.epochs}{_shown([*times, end])}"
            )


def _share(text: str, epochs: int) -> Fraction | None:
    """The duration as a share of training; None for steps, of which there may be any number.

    Stretching does not change it.
    """
    amount, unit = durations.parse(text)
    return {"training": amount, "epochs": amount / epochs}.get(unit)


def _shown(times) -> str:
    """Times in steps, where they are known."""
    if not all(isinstance(time, int) for time in times):
        return ""
    return f", that is steps {', '.join(f'{time:,}' for time in times)}"
