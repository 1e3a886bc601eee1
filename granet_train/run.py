"""One run: what its flags come to, its model, and its training from wherever it is to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

import granet_tf
from granet_tf.methods import Method
from granet_tf.methods.parameters import parameters_of
from granet_tf.wrapping.compiling import prune_at_start
from granet_tf.wrapping.spared import spare_outputs
from granet_train import data as data_sets
from granet_train import (
    distillation,
    files,
    flags,
    loop,
    models,
    optimizers,
    retraining,
    strategies,
    weight_decay,
)
from granet_train import learning_rates as rates
from granet_train.checkpoints import Checkpoints, Position
from granet_train.cost import Cost
from granet_train.data import Data
from granet_train.device import Device, crossentropy
from granet_train.durations import TrainingLength
from granet_train.errors import UsageError
from granet_train.in_flags import in_flags
from granet_train.listeners import Listener
from granet_train.networks import small_dense
from granet_train.stopping import Stop
from granet_train.training_options import Options
from keras_layers.prunable import weights_of

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class Trained(NamedTuple):
    """What a run came to: its model, what that costs, and where the run is."""

    model: keras.Model
    cost: Cost
    position: Position


@dataclasses.dataclass(frozen=True)
class Run:
    """What is trained, on what, for how long, and where.

    Attributes:
        name: "granet", "dense" and so on.
        method: How it becomes sparse, all durations in steps; None for dense.
        values: The flags.
        data: What to learn.
        length: How long training is.
        strategy: The `tf.distribute.Strategy` to train under.
        workdir: The work directory.
    """

    name: str
    method: Method | None
    values: Options
    data: Data
    length: TrainingLength
    strategy: Any = dataclasses.field(default_factory=tf.distribute.get_strategy)
    workdir: Path = Path()

    @property
    def is_asked_for(self) -> bool:
        """Whether it is the run itself, not a twin."""
        return self.name == self.values.method

    def compiled(self) -> keras.Model:
        """A compiled model; twins start from the same weights."""
        values = self.values
        width = _WIDTHS[self.name](values, self.data) if self.name in _WIDTHS else values.width
        keras.utils.set_random_seed(values.seed)
        keras.config.set_dtype_policy(_POLICIES[values.precision])  # clear_session() forgets it.
        model = models.make(values.model, self.data.input_shape, self.data.classes, width)
        weight_decay.add(model, values.weight_decay, weight_decay.DECAYS[values.decay])
        if self.method is not None:
            # Masks come from a checkpoint, if there is one, or from another run, outputs included.
            all_weights = values.prune_outputs or (values.masks_from and self.is_asked_for)
            model = granet_tf.wrap(
                model,
                self.method,
                mask_only=values.mask_only,
                prunable=granet_tf.default_prunable if all_weights else None,
                start=False,
                track_explored=values.track_explored,
            )
            model.resolve(self.length.steps)
        names = ("momentum", "nesterov", "global_clipnorm")
        options = {name: getattr(values, name) for name in names}
        rate = rates.make(values.learning_rate_schedule, flags.course(values, self.length))
        # The loop does not use the loss; whoever loads the saved model does.
        model.compile(
            optimizers.make(values.optimizer, rate, options),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)
        return model

    def device(self, model: keras.Model) -> Device:
        """What runs on the devices, of a model that was made in the strategy's scope."""
        values = self.values
        with self.strategy.scope():
            teacher = distillation.made(values)
        return Device(
            self.strategy,
            model,
            self.data.batch_size,
            values.label_smoothing,
            values.xla,
            teacher,
        )

    def train(self, listeners: Sequence[Listener], stop: Stop) -> Trained:
        """Trains to the end, from where its checkpoints left it.

        Raises:
            UsageError: If hosts do not see the same checkpoints.
            TrainingStopped: If training ended before its last epoch.
        """
        with self.strategy.scope():
            model = self.compiled()
            retraining.begin(model, self.name, self.values)
        cost = Cost.of(model)
        position = Position()
        chief = strategies.is_chief(self.strategy)
        with self._checkpoints(model, position, chief) as checkpoints:
            checkpoints.restore()
            device = self.device(model)
            if position.kept is not None:
                cost = cost.of_smaller(model)
            if not device.same_on_hosts(position.batches):
                raise UsageError(
                    "All workers must see the same work directory, to go on from its checkpoints. "
                    f"Received: --workdir={self.values.workdir}, here at step {position.batches:,}"
                )
            self._begin(model, position, stop, chief)
            if chief and position.batches:
                done, steps = position.batches, self.length.steps
                print(f"{self.name}: going on after step {done:,} of {steps:,}")
            training = loop.Training(
                self.name, model, device, self.data, self._plan, checkpoints, cost, self.device
            )
            try:
                with strategies.losses_as_errors(self.strategy, checkpoints.last):
                    training.go_on(listeners, stop)
            finally:
                _close(listeners)
            if chief and position.best_epoch and self.is_asked_for:
                checkpoints.restore_best()
            if position.kept is not None:
                cost = cost.of_smaller(model)
        return Trained(model, cost, position)

    @property
    def _plan(self) -> loop.Plan:
        return loop.Plan(
            epochs=self.length.epochs,
            steps_per_loop=self.values.steps_per_loop,
            checkpoint_every=self.length.period(self.values.checkpoint_every),
            select_on=self.values.select_on,
            shrink_at=tuple(map(self.length.point, self.values.shrink_at)),
        )

    @contextlib.contextmanager
    def _checkpoints(self, model, position, chief):
        directory = self.workdir / files.CHECKPOINTS / self.name

        def shaped(kept):
            model.shrink(kept=kept["kept"], step=kept["step"])
            return loop.variables_of(model)

        # What hosts save, they save together, but one copy is enough.
        with contextlib.ExitStack() as stack:
            own = directory if chief else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            keep = self.values.keep_checkpoints
            yield Checkpoints(own, loop.variables_of(model), position, keep, directory, shaped)

    def _begin(self, model, position, stop, chief):
        """Masks that are chosen before training, or by its first update."""
        if self.method is None or position.batches:
            return
        if not model.has_drawn:
            if chief and self.method.needs_data:
                images = self.method.batches * self.data.batch_size
                print(f"{self.name}: choosing masks by {images:,} training images", flush=True)
            with stop.ends_at_once():
                self._draw(model)
        prune_at_start(model)

    def _draw(self, model):
        """On every host by the same first batches."""

        def loss(labels, logits):
            # Keras hands labels over as floats.
            return crossentropy(tf.cast(labels, tf.int32), logits, self.values.label_smoothing)

        batches = self.data.train(0, 0, tf.distribute.InputContext())
        with warnings.catch_warnings():
            # The loop tells of layers that are gone, in flags.
            warnings.filterwarnings("ignore", "All of .* has been pruned")
            with _errors_in_flags(self.name):
                loop.drawing(self.data, lambda: model.start(batches, loss))


def method_of(
    name: str, values: Options, length: TrainingLength, planned: TrainingLength
) -> Method | None:
    """The method with those of the flags that it has, all durations in steps; None for dense.

    Args:
        name: Of the run.
        values: The flags.
        length: How long training is.
        planned: How long it was to be when it began. A sparsity that rises does so as then.

    Raises:
        UsageError: If the flags do not suit it.

    Example:

    >>> values, _ = flags.parse(["--method=gmp", "--end=0.5"])
    >>> method_of("gmp", values, TrainingLength(9, 10), planned=TrainingLength(4, 10)).end_step
    20
    """
    if name not in flags.METHODS:
        return None
    with _errors_in_flags(name):
        method = _resolved(name, values, planned)
        if planned == length:
            return method
        if method.initial_sparsity == method.final_sparsity:
            return _resolved(name, values, length)
        declared = parameters_of(type(method)).items()
        durations = {k: method.steps(k) for k, each in declared if each.unit == "duration"}
        return dataclasses.replace(method, **durations, total_steps=length.steps)


def check_fit(runs: Sequence[Run]) -> None:
    """Whether each method suits the network; better known now than when its turn has come.

    Raises:
        UsageError: If one does not.
    """
    values, data = runs[0].values, runs[0].data
    network = models.make(values.model, data.input_shape, data.classes, values.width)
    retraining.check(network, values)
    distillation.check(values, data.input_shape, data.classes)
    prunable = weights_of(network)
    for run in runs:
        if run.method is None:
            continue
        with _errors_in_flags(run.name):
            weights, method = prunable, run.method
            if not values.prune_outputs:
                weights, method = spare_outputs(network, weights, method)
            shapes = {w.path: tuple(w.variable.shape) for w in weights if w.prunable}
            method.check_fits(shapes)
            for sparsity in (method.initial_sparsity, method.final_sparsity):
                method.distribute(shapes, sparsity)
    keras.backend.clear_session(free_memory=False)


def start_of(name: str, values: Options) -> tuple[keras.Model, Data]:
    """A run before its first step, and what it trains on: (compiled model, data).

    Args:
        name: "granet", "dense" and so on.
        values: The flags of its work directory.

    Raises:
        UsageError: If the data are not there.
    """
    data = load(values)
    length = training_length(values, data)
    return Run(name, method_of(name, values, length, length), values, data, length).compiled(), data


def set_up(values: Options) -> None:
    """What holds for the whole process."""
    keras.utils.set_random_seed(values.seed)
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.config.list_logical_devices()  # Starts TensorFlow.


def load(values: Options) -> Data:
    """The data set that the flags name."""
    return data_sets.load(
        values.dataset,
        batch_size=values.batch_size,
        seed=values.seed,
        data_dir=values.data_dir,
        image_size=values.image_size,
        augment=values.augment,
        validation_fraction=values.validation_fraction,
        download=values.download,
        skip_corrupt=values.skip_corrupt,
        deterministic=values.deterministic,
    )


def training_length(values: Options, data: Data) -> TrainingLength:
    """How long the flags train on these data."""
    return TrainingLength.stretched(values.epochs, data.steps_per_epoch, values.schedule_multiplier)


def _resolved(name, values, length):
    parameters = flags.method_parameters(name, values, length)
    method = flags.METHODS[name](**parameters).resolve(length.steps)
    if values.criterion is None and values.round_to == 1:
        return method
    filters = dataclasses.replace(
        method.pattern, criterion=values.criterion, round_to=values.round_to
    )
    return dataclasses.replace(method, pattern=filters)


@contextlib.contextmanager
def _errors_in_flags(name):
    """What a method has against its parameters, in flags."""
    try:
        yield
    except ValueError as error:
        text = in_flags(str(error), flags.BY_PARAMETER)
        raise UsageError(f"--method={name}: {text}") from error


def _width_of_small_dense(values, data):
    sparsity = 0.9 if values.final_sparsity is None else values.final_sparsity
    return small_dense.width_of(
        values.model, data.input_shape, data.classes, values.width, sparsity
    )


# {run: factor on the network's channels}; --width for all others
_WIDTHS = {flags.SMALL_DENSE: _width_of_small_dense}


def _close(listeners):
    """Where that fails too, the disk being full, the news is what ended the run."""
    for listener in listeners:
        try:
            listener.close()
        except OSError as error:
            print(f"warning: {error}", flush=True)
