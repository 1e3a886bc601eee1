"""Runs the cells of a plasticity study on the training binary's loop."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import granet_tf
from granet_tf.masks.patterns import Element, Filter, Pattern
from granet_tf.plasticity import Experiment, dense_gradients
from granet_train import device as devices
from granet_train import files, flags, loop
from granet_train.checkpoints import Checkpoints, Position
from granet_train.cost import Cost
from granet_train.csv_log import CsvLog
from granet_train.data import Data
from granet_train.errors import TrainingStopped, UsageError
from granet_train.flag_rules import sparsities
from granet_train.in_flags import in_flags
from granet_train.listeners import Listener
from granet_train.quiet_tensorflow import without_notes
from granet_train.results import Epoch
from granet_train.run import Run, load, set_up, training_length
from granet_train.stopping import Stop
from granet_train.studies.grid import Grid
from granet_train.studies.plasticity.cells import Pretraining, Pruning
from granet_train.studies.plasticity.flags import Settings

PATTERNS: dict[str, Pattern] = {"element": Element(), "filter": Filter()}
# In the directory of a cell, removed when it is done.
_PRUNED = "pruned.json"
_AT_EPOCHS = "epochs"

Tell = Callable[[float], None]


def open_run(grid: Grid, settings: Settings) -> Callable[[Any, Tell, Stop], None]:
    """Makes what runs the cells of this study; see `granet_train.studies.jobs.Run`."""
    benches: dict[int, _Bench] = {}

    def run(cell: Pretraining | Pruning, tell: Tell, stop: Stop) -> None:
        function, seed = _RUNS[type(cell)]
        if seed(cell) not in benches:
            benches.clear()
            keras.backend.clear_session()
            benches[seed(cell)] = _Bench(settings, seed(cell))
        function(benches[seed(cell)], cell, grid, tell, stop)

    return run


class _Bench:
    """Data and one compiled model, on which cells of one seed are run one after another."""

    def __init__(self, settings: Settings, seed: int):
        self.settings, self.values = settings, settings.of_seed(seed)
        self.strategy = tf.distribute.get_strategy()
        with without_notes():
            set_up(self.values)
        self.data = _reused(load(self.values))
        self.length = training_length(self.values, self.data)
        flags.check_length(self.values, self.length)
        self.model = self.new_model(0.0)
        self.experiment = Experiment(self.model, self.test_accuracy)
        # Traced once: cells differ in the values of variables only.
        self.device = self.new_device(self.model)
        self.cost = Cost.of(self.model)

    def new_model(self, sparsity: float) -> granet_tf.SparseModel:
        """A model with random weights and masks."""
        settings = self.settings
        try:
            method = granet_tf.StaticSparse(
                sparsity,
                distribution=settings.distribution,
                pinned=sparsities(settings.pinned),
                pattern=PATTERNS[settings.pattern],
                seed=self.values.seed,
            )
            return Run("static", method, self.values, self.data, self.length).compiled()
        except ValueError as error:
            arguments = {"final_sparsity": "--sparsities", "pinned": "--pinned"}
            raise UsageError(in_flags(str(error), arguments)) from error

    def new_device(self, model) -> devices.Device:
        return devices.Device(
            self.strategy,
            model,
            self.data.batch_size,
            self.values.label_smoothing,
            self.values.xla,
        )

    def training(
        self, name: str, model, device, checkpoints: Checkpoints, epochs: int
    ) -> loop.Training:
        """What goes on from the checkpoints to the end of `epochs`."""
        plan = loop.Plan(
            epochs=epochs,
            steps_per_loop=self.values.steps_per_loop,
            checkpoint_every=self.length.period(self.values.checkpoint_every),
            select_on="last",
        )
        return loop.Training(name, model, device, self.data, plan, checkpoints, self.cost)

    def test_accuracy(self) -> float:
        batches = self.device.batches(lambda context: self.data.evaluate("test", context))
        steps = -(-self.data.sizes["test"] // self.data.batch_size)
        return self.device.evaluate(iter(batches), steps).accuracy

    def gradients(self, step: int) -> dict[str, tf.Tensor]:
        """Dense gradients of the batch that comes next."""
        epoch, done = divmod(step, self.data.steps_per_epoch)
        batches = self.data.train(epoch, done, tf.distribute.InputContext()).take(1)

        def loss(labels, logits):
            logits = tf.cast(logits, tf.float32)
            return devices.crossentropy(labels, logits, self.values.label_smoothing)

        return dense_gradients(self.model, batches, loss)


def _reused(data: Data) -> Data:
    """The same, but each dataset is made once for all cells, which takes longer than to read it."""
    context = tf.distribute.InputContext()
    train = functools.cache(lambda epoch, step: data.train(epoch, step, context))
    evaluate = functools.cache(lambda split: data.evaluate(split, context))
    return dataclasses.replace(
        data,
        train=lambda epoch, step, context: train(epoch, step),
        evaluate=lambda split, context: evaluate(split),
    )


class _Share(Listener):
    """Tells what is done of a cell, epoch by epoch."""

    def __init__(self, training: loop.Training, tell: Tell):
        self.first = training.position.batches // training.data.steps_per_epoch
        self.last, self.tell = training.plan.epochs, tell

    def epoch(self, epoch):
        self.tell((epoch.epoch - self.first) / (self.last - self.first))


class _AtEpochs(Listener):
    """Keeps checkpoints of some epochs."""

    def __init__(self, folder: Path, epochs: tuple[int, ...], model):
        self.folder, self.epochs, self.model = folder, epochs, model

    def epoch(self, epoch):
        if epoch.epoch in self.epochs:
            position = Position(batches=epoch.step)
            folder = self.folder / str(epoch.epoch)
            Checkpoints(folder, _variables(self.model), position, keep=1).save()


def _pretrain(bench: _Bench, cell: Pretraining, grid: Grid, tell: Tell, stop: Stop) -> None:
    folder, axes = grid.folder(cell), bench.settings.axes
    # Not the bench's own: it must begin as it was drawn.
    model = bench.new_model(cell.sparsity)
    position = Position()
    checkpoints = Checkpoints(folder / files.CHECKPOINTS, _variables(model), position, keep=1)
    checkpoints.restore()
    at_epochs = _AtEpochs(folder / _AT_EPOCHS, axes.epochs, model)
    device = bench.new_device(model)
    training = bench.training(cell.name, model, device, checkpoints, cell.epochs)
    epochs = _trained(training, folder, tell, stop, at_epochs)
    result = {
        "accuracy": {epoch.epoch: epoch.test_accuracy for epoch in epochs},
        "sparsity": epochs[-1].sparsity,
        "drops": _drops(bench),
    }
    grid.finish(cell, result, remove=[files.CHECKPOINTS])


def _prune(bench: _Bench, cell: Pruning, grid: Grid, tell: Tell, stop: Stop) -> None:
    folder, source = grid.folder(cell), grid.folder(cell.needs) / _AT_EPOCHS / str(cell.epoch)
    variables, position = _variables(bench.model), Position()
    checkpoints = Checkpoints(folder / files.CHECKPOINTS, variables, position, keep=1)
    if checkpoints.restore():
        pruned = json.loads((folder / _PRUNED).read_text(encoding="utf-8"))
    else:
        _restore_pretrained(source, variables, position)
        pruned = _prune_now(bench, cell, position)
        folder.mkdir(parents=True, exist_ok=True)
        with files.replacing(folder / _PRUNED) as beside:
            beside.write_text(json.dumps(pruned), encoding="utf-8")
    bench.experiment.hold(cell.measure, after=cell.epoch * bench.data.steps_per_epoch)
    model, device = bench.model, bench.device
    training = bench.training(cell.name, model, device, checkpoints, cell.last_epoch)
    epochs = _trained(training, folder, tell, stop)
    result = {**pruned, "accuracy": epochs[-1].test_accuracy}
    grid.finish(cell, result, remove=[files.CHECKPOINTS, files.UPDATES, _PRUNED])


def _trained(
    training: loop.Training, folder: Path, tell: Tell, stop: Stop, *listeners: Listener
) -> Sequence[Epoch]:
    """Trains to the last epoch; returns the figures of all epochs, of earlier sessions too."""
    folder.mkdir(parents=True, exist_ok=True)
    log = CsvLog(folder / files.METRICS, folder / files.UPDATES)
    training.go_on([*listeners, log, _Share(training, tell)], stop)
    return log.epochs


def _restore_pretrained(source: Path, variables, position: Position) -> None:
    remedy = f"Remove {source.parents[1]}, and it is made again. Received: {source}"
    try:
        if Checkpoints(source, variables, position, keep=1).restore():
            return
    except UsageError as error:
        # The remedy for a training would cost all of the study.
        raise UsageError(f"The checkpoint to prune cannot be read. {remedy}") from error
    raise UsageError(f"The checkpoint to prune is gone. {remedy}")


_RUNS: dict[type, tuple[Callable, Callable[[Any], int]]] = {
    Pretraining: (_pretrain, lambda cell: cell.seed),
    Pruning: (_prune, lambda cell: cell.needs.seed),
}


def _prune_now(bench, cell, position) -> dict[str, Any]:
    gradients = bench.gradients(position.batches) if cell.regenerate == "yes" else None
    try:
        pruned = bench.experiment.prune(cell.rate, scope=bench.settings.scope, gradients=gradients)
    except ValueError as error:
        arguments = {"rate": "--rates", "scope": "--scope"}
        raise TrainingStopped(in_flags(str(error), arguments)) from error
    return {
        "learning_rate": pruned.learning_rate,
        "accuracy_pruned": pruned.metric,
        "sparsity": pruned.sparsity,
        **dataclasses.asdict(pruned.done),
        "emptied": len(pruned.done.emptied),
    }


def _variables(model) -> list[tf.Variable]:
    return [v.value for v in (*model.variables, *model.optimizer.variables)]


def _drops(bench: _Bench) -> list[float]:
    """Epochs at which the learning rate drops at once."""
    if bench.values.learning_rate_schedule != "step":
        return []
    course = flags.course(bench.values, bench.length)
    return [milestone / bench.data.steps_per_epoch for milestone in course.milestones]
