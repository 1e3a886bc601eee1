"""What a run came to: figures by epoch, and at its end."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

import granet_tf
from granet_tf.training import files


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv. `accuracy` is on the training batches, `test_accuracy` is not."""

    run: str
    epoch: int
    step: int
    seconds: float
    learning_rate: float
    loss: float
    accuracy: float
    test_loss: float
    test_accuracy: float
    sparsity: float


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run. Its accuracy is that of the last epoch, not of the best one.

    Attributes:
        name: Name of the method.
        test_accuracy: Fraction of test samples classified correctly.
        test_loss: Loss on the test samples.
        sparsity: Fraction of zeros among the prunable weights.
        weights: Number of prunable weights.
        nonzeros: Number of active ones among them.
        flops_dense: FLOPs of inference for one sample, zeros included.
        flops_sparse: FLOPs that involve a nonzero weight, or no weight.
        seconds: Time it took.
    """

    name: str
    test_accuracy: float
    test_loss: float
    sparsity: float
    weights: int
    nonzeros: int
    flops_dense: int
    flops_sparse: int
    seconds: float


def finished(name: str, model: keras.Model, last: Epoch) -> Run:
    """The run's figures, counted in the model as it is now."""
    summary, flops = granet_tf.summarize(model), granet_tf.count_flops(model)
    return Run(
        name=name,
        test_accuracy=last.test_accuracy,
        test_loss=last.test_loss,
        sparsity=summary.sparsity,
        weights=summary.size,
        nonzeros=summary.nonzeros,
        flops_dense=flops.dense,
        flops_sparse=flops.sparse,
        seconds=last.seconds,
    )


def write_metrics(path: Path, epochs: Sequence[Epoch]) -> None:
    """Writes metrics.csv: a line for each epoch of each run."""
    with files.replacing(path) as beside, open(beside, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Epoch)])
        writer.writeheader()
        writer.writerows(dataclasses.asdict(epoch) for epoch in epochs)


def write_summary(path: Path, runs: Sequence[Run], **more: Any) -> None:
    """Writes summary.json: the first run is the one asked for, the others are its twins."""
    content = {"runs": {run.name: dataclasses.asdict(run) for run in runs}, **more}
    with files.replacing(path) as beside, open(beside, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
