"""What runs on the devices: training steps and evaluation, under any tf.distribute strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from granet_train.distillation import Distillation


class Totals(NamedTuple):
    """Sums over samples."""

    loss: float
    correct: float
    samples: float

    @property
    def mean_loss(self) -> float:
        return self.loss / max(self.samples, 1)

    @property
    def accuracy(self) -> float:
        """Fraction of samples classified correctly."""
        return self.correct / max(self.samples, 1)


class Device:
    """The compiled functions of one model.

    Args:
        strategy: A `tf.distribute.Strategy`, the one in whose scope the model was made.
        model: A compiled Keras model that returns logits; its optimizer is used.
        batch_size: Samples of one step, all replicas together.
        label_smoothing: Share of the label that is spread over all classes, in [0, 1).
        xla: Whether steps are compiled by XLA. A TPU does so anyway.
        distillation: A teacher's part in the loss of training, or None.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        batch_size: int,
        label_smoothing: float = 0.0,
        xla: bool = False,
        distillation: Distillation | None = None,
    ):
        self.strategy = strategy
        self._compile = tf.function(jit_compile=True) if xla else lambda function: function
        with strategy.scope():
            # Every replica adds to its own; they meet only when the host reads.
            self._totals = tf.Variable(
                tf.zeros(len(Totals._fields)),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
        self._train = self._repeated(
            self._training(model, batch_size, label_smoothing, distillation),
            afterwards=self._averaging(model),
        )
        self._evaluate = self._repeated(self._evaluation(model))

    def batches(self, make: Callable[[Any], tf.data.Dataset]) -> Any:
        """Distributes a dataset made for each host by `make(tf.distribute.InputContext)`."""
        return self.strategy.distribute_datasets_from_function(make)

    def train(self, iterator: Any, steps: int) -> Totals:
        """Takes `steps` steps before it comes back to the host.

        Args:
            iterator: Over distributed (images, labels).
            steps: Number of global batches to draw.
        """
        self._train(iterator, tf.constant(steps))
        return self._read()

    def evaluate(self, iterator: Any, steps: int) -> Totals:
        """Looks at `steps` global batches.

        Args:
            iterator: Over distributed (images, labels, weights).
            steps: Number of global batches to draw.
        """
        self._evaluate(iterator, tf.constant(steps))
        return self._read()

    def any_host(self, asked: bool) -> bool:
        """Whether one of the hosts says yes; all of them must ask."""
        return self._sum(int(asked)) > 0

    def same_on_hosts(self, number: int) -> bool:
        """Whether all hosts have the same number; all of them must ask."""
        total = self.strategy.num_replicas_in_sync * number
        return not self.any_host(self._sum(number) != total)

    def _sum(self, number: int) -> int:
        """Sum of what hosts say, once for each of their replicas."""
        replicas = self.strategy.num_replicas_in_sync
        if not self.strategy.extended._in_multi_worker_mode():
            return replicas * number
        numbers = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(number, tf.int64)
        )
        return int(self.strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None))

    def _read(self) -> Totals:
        totals = Totals(*(float(x) for x in self._totals.read_value().numpy()))
        self._totals.assign(tf.zeros_like(self._totals))
        return totals

    def _add(self, losses, logits, labels, weights):
        right = tf.argmax(logits, -1, output_type=labels.dtype) == labels
        sums = [
            tf.reduce_sum(losses * weights),
            tf.reduce_sum(tf.cast(right, tf.float32) * weights),
            tf.reduce_sum(weights),
        ]
        self._totals.assign_add(tf.stack(sums))

    def _repeated(self, step, afterwards=None):
        step = self._compile(step)

        @tf.function
        def repeat(iterator, steps):
            for _ in tf.range(steps):
                self.strategy.run(step, args=next(iterator))
            if afterwards is not None:
                self.strategy.run(afterwards)

        return repeat

    def _averaging(self, model):
        """Makes all replicas hold the same state, which is what evaluation and checkpoints take.

        Batch normalization moves its statistics on each replica by itself. They are averages, so
        their mean at the end is the same however often it is taken before.
        """
        moving = [
            variable.value
            for variable in model.non_trainable_variables
            if keras.backend.is_float_dtype(variable.dtype)
        ]
        if self.strategy.num_replicas_in_sync == 1 or not moving:
            return None

        def average():
            context = tf.distribute.get_replica_context()
            values = [tf.identity(variable) for variable in moving]
            means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, mean in zip(moving, means, strict=True):
                variable.assign(mean)

        return average

    def _training(self, model, batch_size, label_smoothing, distillation=None):
        optimizer, replicas = model.optimizer, self.strategy.num_replicas_in_sync
        variables = model.trainable_variables

        def step(images, labels):
            with tf.GradientTape() as tape:
                logits = tf.cast(model(images, training=True), tf.float32)
                losses = crossentropy(labels, logits, label_smoothing)
                if distillation is not None:
                    losses = distillation.losses(images, logits, losses)
                # Gradients are summed over replicas, so each one gives its share of the mean.
                loss = tf.reduce_sum(losses) / batch_size
                loss += sum(model.losses) / replicas
                loss = optimizer.scale_loss(loss)
            optimizer.apply(tape.gradient(loss, variables), variables)
            self._add(losses, logits, labels, tf.ones_like(losses))

        return step

    def _evaluation(self, model):
        def step(images, labels, weights):
            logits = tf.cast(model(images, training=False), tf.float32)
            self._add(crossentropy(labels, logits), logits, labels, weights)

        return step


def crossentropy(labels: tf.Tensor, logits: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """The loss of each sample.

    Args:
        labels: int tensor of shape (batch,).
        logits: float32 tensor of shape (batch, classes).
        label_smoothing: As in `keras.losses.CategoricalCrossentropy`.

    Example:

    >>> losses = crossentropy(tf.constant([1]), tf.constant([[0.0, 0.0]]))
    >>> round(float(losses[0]), 4)
    0.6931
    """
    return keras.losses.categorical_crossentropy(
        tf.one_hot(labels, logits.shape[-1]),
        logits,
        from_logits=True,
        label_smoothing=label_smoothing,
    )
