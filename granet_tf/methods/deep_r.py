"""Deep-R: a random walk of connections whose signs are fixed."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from granet_tf.masks.allocation import owed
from granet_tf.masks.patterns import Element
from granet_tf.masks.scopes import Candidates
from granet_tf.masks.selection import count_all, count_each
from granet_tf.masks.units import expanded
from granet_tf.methods.base import Method
from granet_tf.methods.draws import normal, uniform
from granet_tf.methods.parameters import parameter
from granet_tf.methods.records import State, updated
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DeepR(Method):
    """Deep rewiring (Bellec et al., 2018, Algorithm 1).

    Each connection has a sign s that never changes, that of the weight's first value. After each
    step of the optimizer with learning rate η, active weights also move by

        −η α s + sqrt(2 η T) ν,  ν ~ N(0, 1)

    One that has crossed zero becomes dormant, and for each a dormant one, chosen at random, becomes
    active at 0: the number of active weights is constant.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        l1: α, the pull towards zero, 0 or more.
        noise_temperature: T, 0 or more. The authors' code has noise of a standard deviation of
            1e-5 η; the default is that at η = 0.1.
        frequency: Steps between rewirings; 1 in the paper.
        **kwargs: See `Method`. With scope "global", what one layer loses another may grow.

    Raises:
        ValueError: On a parameter out of range, or a `pattern` other than `Element()`.

    Example:

    >>> method = DeepR(0.5)
    >>> method.states[0].initial(tf.constant([0.5, -0.5])).numpy().tolist()
    [True, False]
    """

    l1: float = parameter(1e-5, "Pull of the active weights towards zero.", at_least=0)
    noise_temperature: float = parameter(
        5e-12, "Temperature of the noise that moves the active weights.", at_least=0
    )
    frequency: int = parameter(1, "Time between rewirings.", above=0, unit="period")

    command_name: ClassVar[str] = "deep_r"
    keeps_values: ClassVar[bool] = False
    follows_steps: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.pattern != Element():
            raise ValueError(
                "`pattern` must be Element(), as single weights change their sign. "
                f"Received: pattern={self.pattern}"
            )

    @property
    def states(self):
        return (State("positive", lambda weight: weight >= 0.0),)

    @property
    def regenerates(self):
        return False

    def make_schedule(self):
        return self.throughout(self.frequency)

    def after_step(self, step, weights, learning_rate):
        moved = []
        for each, seed in self.seeded(weights, step):
            dtype = each.weight.dtype
            rate = tf.cast(learning_rate, dtype)
            noise = tf.sqrt(2.0 * rate * self.noise_temperature) * normal(each.weight, seed)
            move = -rate * self.l1 * _sign(each) + noise
            new = each.weight + tf.where(each.mask, move, tf.zeros((), dtype))
            moved.append(dataclasses.replace(each, weight=new))
        return moved

    def update(self, step, weights, *, dormant_compete):
        kept = [w.mask & (w.weight * _sign(w) >= 0.0) for w in weights]
        # Another stream than that of the noise.
        other = tf.constant([1, 0])
        scores = [uniform(w.weight, seed + other) for w, seed in self.seeded(weights, step)]
        groups = self.units_of(weights)
        [units] = groups  # Of single weights.
        left = units.parts.join(kept)
        grown = _GROWTH[self.scope](self, units, left, units.pool(scores))
        return updated(expanded(groups, [left | grown]), kept)


def _grow_layer(method, units, kept, scores):
    """Each layer as many as it lost."""
    return units.choose(scores, count_each(units.active) - count_each(kept), ~kept)


def _grow_global(method, units, kept, scores):
    """As many as were lost in all, anywhere, but where pins and caps are obeyed."""
    lost = count_all(units.active) - count_all(kept)
    dormant = Candidates.of(units, scores, ~kept)
    if not (method.pinned or method.capped):
        return dormant.best_together(lost)
    [(own, is_pinned)] = owed(method, [units], [kept])
    first = dormant.best_of_each(own)
    others = dormant.without(first | units.parts.spread(tf.constant(is_pinned)))
    return first | others.best_together(lost - tf.reduce_sum(own))


_GROWTH = {"layer": _grow_layer, "global": _grow_global}


def _sign(each):
    one = tf.ones((), each.weight.dtype)
    return tf.where(each.state["positive"], one, -one)
