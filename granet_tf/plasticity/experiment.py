"""One experiment of the paper's Section 3: prune once, then train on at the rate it asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from granet_tf.model import SparseModel
from granet_tf.plasticity.one_shot import OneShot, prune_once
from granet_tf.registered.held_rate import HeldRate
from granet_tf.wrapping.compiling import innermost
from keras_layers.keras_internals import given_learning_rate

# {measure: until which step the learning rate follows its schedule, when pruned after `step` steps}
HOLD: dict[str, Callable[[int], int]] = {
    "plasticity": lambda step: max(step - 1, 0),
    "final": lambda step: tf.int64.max,
}


@dataclasses.dataclass(frozen=True)
class Pruned:
    """A network right after it was pruned, before any training.

    Attributes:
        learning_rate: That of the last step before.
        metric: What it came to.
        sparsity: Fraction of zeros among its prunable weights.
        done: What pruning did.
    """

    learning_rate: float
    metric: float
    sparsity: float
    done: OneShot


class Experiment:
    """A model to be pruned again and again, from whatever state its variables are given.

    How it is trained is up to who uses it: by `fit` (`granet_tf.plasticity.measure`) or by a loop
    of its own (`granet-plasticity`). A training step that is compiled serves all prunings, as they
    differ in the values of variables only.

    Args:
        model: Compiled, as for `prune_once`. Until `close`, its learning rate is a `HeldRate`; a
            training step that was compiled before has to be made anew.
        evaluate: Tells the metric of the model.

    Example:

    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, use_bias=False)])
    >>> model = granet_tf.wrap(network, granet_tf.StaticSparse(0.0))
    >>> drop = keras.optimizers.schedules.PiecewiseConstantDecay([99], [0.5, 0.25])
    >>> model.compile(keras.optimizers.SGD(drop), "mse")
    >>> experiment = Experiment(model, evaluate=lambda: model.sparsity)
    >>> pruned = experiment.prune(0.75)
    >>> pruned.learning_rate, pruned.metric, pruned.done.nonzeros
    (0.5, 0.75, 8)
    >>> experiment.hold("plasticity", after=100)
    >>> _ = model.optimizer.iterations.assign(200)
    >>> float(model.optimizer.learning_rate)
    0.5
    >>> experiment.hold("final", after=100)
    >>> float(model.optimizer.learning_rate)
    0.25
    """

    def __init__(self, model: SparseModel, evaluate: Callable[[], float]):
        self.model, self.evaluate = model, evaluate
        self._optimizer = innermost(model.optimizer)
        self._given = given_learning_rate(self._optimizer)
        self._held = None  # A number, which nothing changes.
        if isinstance(self._given, keras.optimizers.schedules.LearningRateSchedule):
            self._held = HeldRate(self._given)
            self._optimizer.learning_rate = self._held

    def close(self) -> None:
        """Gives the model its own learning rate back."""
        if self._held is not None:
            self._optimizer.learning_rate = self._given

    def hold(self, measure: str, *, after: int) -> None:
        """Has the learning rate be that of a measure in all training from now on.

        Args:
            measure: "plasticity" holds it as in the last step before pruning, "final" does not.
            after: How many steps were taken before pruning.
        """
        if self._held is not None:
            self._held.hold_at.assign(HOLD[measure](after))

    def prune(
        self,
        rate: float,
        *,
        scope: str = "global",
        gradients: Mapping[str, tf.Tensor] | None = None,
    ) -> Pruned:
        """Prunes the model as it is, by `prune_once`, and evaluates it."""
        done = prune_once(self.model, rate, scope=scope, gradients=gradients)
        return Pruned(self._rate_of_last_step(), self.evaluate(), self.model.sparsity, done)

    def _rate_of_last_step(self) -> float:
        if self._held is None:
            return float(self.model.optimizer.learning_rate)
        return float(self._given(max(int(self.model.optimizer.iterations.numpy()) - 1, 0)))
