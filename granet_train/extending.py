"""--extend: a run is trained on to more epochs than it was begun with.

Pruning keeps to the schedule of the length that the run began with, so that masks are as sparse as
they were to be, when they were to be, and the best epoch so far stays a candidate. All else,
regeneration and the learning rate among it, follows the schedule of the new length from where the
run is.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from granet_train import advice, files
from granet_train.durations import TrainingLength, exactly
from granet_train.errors import UsageError
from granet_train.options import as_dict
from granet_train.training_options import Options

LENGTH = ("epochs", "schedule_multiplier")
# In run.json, beside the flags: those of LENGTH that the run began with, once it was extended.
BEGAN = "extended_from"


@dataclasses.dataclass(frozen=True)
class Extension:
    """How much longer a run becomes in this session.

    Attributes:
        before: Epochs that it was to have.
        after: Epochs that it is to have.
    """

    before: int
    after: int

    def reopen(self, workdir: Path) -> None:
        """The run is finished no more."""
        files.remove(workdir / files.SUMMARY)


def asked_for(
    values: Options, earlier: Mapping[str, Any], free: Collection[str]
) -> Extension | None:
    """How much longer the run becomes; None where it goes on as it was, or is another one.

    Args:
        values: The flags.
        earlier: From `files.earlier`.
        free: Names of flags that may differ.

    Raises:
        UsageError: If it would become shorter, if --extend is not given, or if there is no
            checkpoint to go on from.
    """
    different = files.different(as_dict(values), earlier, {*free, BEGAN})
    if not earlier.keys() >= set(LENGTH) or not different or not set(different) <= set(LENGTH):
        return None
    before, after = (_epochs(flags) for flags in (earlier, vars(values)))
    if before == after:
        return None
    received = ", ".join(f"--{n}={getattr(values, n)} instead of {earlier[n]}" for n in different)
    workdir = Path(values.workdir).expanduser()
    done = _done(workdir, values.method)
    if after < before:
        raise UsageError(
            f"A run can be made longer, but not shorter, and that in the work directory has "
            f"{before} epochs, {done} of them done. Choose another --workdir, or replace it with "
            f"--overwrite. Received: {received}"
        )
    if not values.extend:
        raise UsageError(
            f"The work directory holds another run, of {before} epochs, {done} of them done. To "
            f"go on with it for more --epochs, add --extend. "
            f"{advice.what_extending_does(values, before, after)} Received: {received}"
        )
    if not (workdir / files.CHECKPOINTS / values.method / "checkpoint").exists():
        raise UsageError(
            "--extend needs a checkpoint to go on from, and there is none. Begin anew with "
            f"--overwrite. Received: --extend with {workdir / files.CHECKPOINTS}"
        )
    return Extension(before, after)


def told(values: Options, extension: Extension) -> str:
    """What is told of an extension when it begins."""
    before, after = extension.before, extension.after
    does = advice.what_extending_does(values, before, after)
    return f"Extended from {before} to {after} epochs. {does}"


def began_with(earlier: Mapping[str, Any], extension: Extension | None) -> dict[str, Any]:
    """What is to be noted of the length that the run began with; {} if it never was extended.

    Example:

    >>> began_with({"epochs": 4, "schedule_multiplier": 1.0}, Extension(4, 9))
    {'extended_from': {'epochs': 4, 'schedule_multiplier': 1.0}}
    """
    if BEGAN in earlier:
        return {BEGAN: earlier[BEGAN]}
    return {BEGAN: {name: earlier[name] for name in LENGTH}} if extension else {}


def planned_length(settings: Mapping[str, Any], steps_per_epoch: int) -> TrainingLength:
    """The length that the run began with, by which it prunes.

    Args:
        settings: The flags, and what `began_with` noted.
        steps_per_epoch: Optimizer steps of an epoch.

    Example:

    >>> began = {"epochs": 4, "schedule_multiplier": 1.0}
    >>> planned_length({**began, "epochs": 9, "extended_from": began}, 5).steps
    20
    """
    flags = settings.get(BEGAN, settings)
    return TrainingLength.stretched(flags["epochs"], steps_per_epoch, flags["schedule_multiplier"])


def _epochs(flags: Mapping[str, Any]) -> int:
    return int(flags["epochs"] * Fraction(exactly(flags["schedule_multiplier"])))


def _done(workdir: Path, run: str) -> int:
    """Epochs done, as far as that can be told."""
    try:
        with open(workdir / files.METRICS, newline="", encoding="utf-8") as file:
            done = [int(line["epoch"]) for line in csv.DictReader(file) if line["run"] == run]
    except (OSError, KeyError, ValueError):
        return 0
    return max(done, default=0)
