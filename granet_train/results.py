"""What a run came to: figures by mask update, by epoch, and at its end."""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import granet_tf
from granet_train import files
from granet_train.cost import Cost
from granet_train.mask_updates import Masks


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv.

    Attributes:
        run: Name of the run.
        epoch: Epochs done.
        step: Optimizer steps done.
        seconds: Time of training so far, over all sessions of a run that was resumed.
        images_per_second: Training speed of this epoch, all devices together.
        learning_rate: That of the last step.
        loss: Mean loss on the training batches of the epoch.
        accuracy: Fraction of them classified correctly, as training went.
        validation_loss: Loss on what was held out of the training set; None where nothing was.
        validation_accuracy: Accuracy there.
        test_loss: Loss on the test set.
        test_accuracy: Accuracy there.
        sparsity: Fraction of zeros among the prunable weights.
        nonzeros: Number of active prunable weights.
        inference_flops: FLOPs of inference as a fraction of the dense network's.
        training_flops: FLOPs of training so far, as a fraction of a whole dense training as long
            as this one is to be.
        itop_rate: Fraction of the prunable weights that have ever been active; None where that is
            not kept track of.
    """

    run: str
    epoch: int
    step: int
    seconds: float
    images_per_second: float
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float
    test_accuracy: float
    sparsity: float
    nonzeros: int
    inference_flops: float
    training_flops: float
    itop_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Update:
    """One update of the masks; one line of updates.csv, but for `layers`.

    That of step 0, which changes nothing, tells of the masks that training begins with.

    Attributes:
        run: Name of the run.
        step: Optimizer steps done.
        epoch: The same in epochs.
        pruned: By how much the number of active weights fell.
        regenerated: How many weights are active now that were not before.
        changed: Fraction of all prunable weights whose mask is not what it was.
        nonzeros: Number of active prunable weights, afterwards as all that follows.
        sparsity: Fraction of zeros among the prunable weights.
        inference_flops: FLOPs of inference as a fraction of the dense network's.
        layers: Sparsity by weight path.
    """

    run: str
    step: int
    epoch: float
    pruned: int
    regenerated: int
    changed: float
    nonzeros: int
    sparsity: float
    inference_flops: float
    layers: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: Name of the run.
        epochs: How many it had.
        test_accuracy: Fraction of test samples classified correctly after the last epoch.
        test_loss: Loss on the test samples after the last epoch.
        best_test_accuracy: The highest one of all epochs that were as sparse as the last. It was
            chosen on the test set, so it flatters.
        best_test_epoch: The first epoch that had it.
        validation_accuracy: As `test_accuracy`, on what was held out; None where nothing was.
        best_validation_accuracy: As `best_test_accuracy`, on what was held out.
        best_validation_epoch: The first epoch that had it.
        sparsity: Fraction of zeros among the prunable weights.
        weights: Number of prunable weights, those included that have been removed since.
        nonzeros: Number of active ones among them.
        flops_dense: FLOPs of inference for one sample, zeros included.
        flops_sparse: FLOPs of inference for one sample that the masks keep.
        inference_flops: The latter as a fraction of the former.
        training_flops: FLOPs of training as a fraction of a dense training of the same length.
        training_flops_absolute: FLOPs of training, over all samples.
        seconds: Time of training.
        images_per_second: Training speed: images over time, evaluation apart.
        itop_rate: Fraction of the prunable weights that were ever active; None where not tracked.
    """

    name: str
    epochs: int
    test_accuracy: float
    test_loss: float
    best_test_accuracy: float
    best_test_epoch: int
    validation_accuracy: float | None
    best_validation_accuracy: float | None
    best_validation_epoch: int | None
    sparsity: float
    weights: int
    nonzeros: int
    flops_dense: int
    flops_sparse: int
    inference_flops: float
    training_flops: float
    training_flops_absolute: float
    seconds: float
    images_per_second: float
    itop_rate: float | None = None


def best(epochs: Sequence[Epoch], figure: str) -> Epoch | None:
    """The first of the epochs of one run with the highest `figure`, among those as sparse as the
    last; None where the figure was not measured.

    Args:
        epochs: All epochs of one run.
        figure: "test_accuracy" or "validation_accuracy".
    """
    sparse = [epoch for epoch in epochs if epoch.nonzeros == epochs[-1].nonzeros]
    measured = [epoch for epoch in sparse if getattr(epoch, figure) is not None]
    return max(measured, key=lambda epoch: getattr(epoch, figure), default=None)


def finished(epochs: Sequence[Epoch], model: keras.Model, cost: Cost, batch_size: int) -> Run:
    """The figures of a run at its end.

    Args:
        epochs: All of its epochs.
        model: What it trained.
        cost: What that model costs.
        batch_size: Samples of one optimizer step.
    """
    last = epochs[-1]
    by_test = best(epochs, "test_accuracy")
    by_validation = best(epochs, "validation_accuracy")
    # Not those of `model`, which may be of the epoch that was selected.
    flops = round(last.inference_flops * cost.reference)
    images = last.step * batch_size
    return Run(
        name=last.run,
        epochs=last.epoch,
        test_accuracy=last.test_accuracy,
        test_loss=last.test_loss,
        best_test_accuracy=by_test.test_accuracy,
        best_test_epoch=by_test.epoch,
        validation_accuracy=last.validation_accuracy,
        best_validation_accuracy=by_validation and by_validation.validation_accuracy,
        best_validation_epoch=by_validation and by_validation.epoch,
        sparsity=last.sparsity,
        weights=Masks.of(model).size,
        nonzeros=last.nonzeros,
        flops_dense=cost.reference,
        flops_sparse=flops,
        inference_flops=last.inference_flops,
        training_flops=last.training_flops,
        training_flops_absolute=last.training_flops * cost.dense_training(images),
        seconds=last.seconds,
        images_per_second=statistics.harmonic_mean([epoch.images_per_second for epoch in epochs]),
        itop_rate=last.itop_rate,
    )


def versions() -> dict[str, str]:
    """What the figures of a run depend on besides its flags."""
    modules = {"granet_tf": granet_tf, "keras": keras, "tensorflow": tf, "numpy": np}
    known = {name: module.__version__ for name, module in modules.items()}
    return known | {"python": platform.python_version()}


def write_summary(
    path: Path, runs: Sequence[Run], *, flags: Mapping[str, Any], wall_seconds: float, **more: Any
) -> None:
    """Writes summary.json: the first run is the one asked for, the others are its twins.

    Args:
        path: The file.
        runs: The finished runs.
        flags: Value of each flag by its name.
        wall_seconds: Time that the command took, everything included.
        more: Anything else, under its own name.
    """
    content = {
        "runs": {run.name: dataclasses.asdict(run) for run in runs},
        "flags": dict(flags),
        "versions": versions(),
        "wall_seconds": round(wall_seconds, 1),
        **more,
    }
    with files.replacing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
