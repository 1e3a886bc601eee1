"""Masks chosen anew by magnitude, again and again, from weights that keep their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from granet_tf.methods.base import Method
from granet_tf.methods.gmp import GMP
from granet_tf.schedules import PACKAGE, ConstantSparsity, GraNetSchedule, last_multiple
from keras_layers.layouts import Layout


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class EndlessSchedule(GraNetSchedule):
    """A `GraNetSchedule` whose pruning goes on after `end_step`, at the final sparsity.

    It ends with `last_step`, where that is given: masks that are chosen when too little training
    is left do not pay. What gets to the final sparsity is never left out.

    Example:

    >>> schedule = EndlessSchedule(0.0, 0.9, 0, 32, 1, 16, 0.0, 0.0)
    >>> [step for step in range(1, 100) if schedule(step)[0]]
    [16, 32, 48, 64, 80, 96]
    """

    def __call__(self, step):
        due = self.is_due(step, self.begin_step, -1, self.frequency)
        if self.last_step is not None:
            due &= tf.cast(step, tf.int64) <= max(self.last_step, self.final_update)
        return due, tf.cast(self.exact_sparsity(step), tf.float32)

    def last_prune(self, until):
        if self.last_step is not None:
            until = min(until, max(self.last_step, self.final_update))
        return last_multiple(self.begin_step, until, self.frequency)


def endless(schedule: GraNetSchedule, last_step: int | None) -> EndlessSchedule:
    """`schedule`, pruning on after its end, up to `last_step`.

    Example:

    >>> endless(GraNetSchedule(0.0, 0.9, 0, 100, 200), last_step=190).end_step
    100
    """
    return EndlessSchedule(**{**dataclasses.asdict(schedule), "last_step": last_step})


def largest(
    method: Method,
    sparsity: float,
    weights: Sequence[tf.Tensor],
    layouts: Mapping[str, Layout],
) -> list[tf.Tensor]:
    """Masks of the weights of largest |w|, by the scope, pattern, pins and caps of `method`.

    Args:
        method: Any method.
        sparsity: Fraction of zeros, in [0, 1).
        weights: Values of the weights.
        layouts: {path: which axes are inputs and outputs}, in the same order.

    Example:

    >>> weights = [tf.constant([3.0, -4.0, 1.0, 2.0])]
    >>> largest(GMP(0.5), 0.5, weights, {"kernel": Layout()})[0].numpy().astype(int).tolist()
    [1, 1, 0, 0]
    """
    names = ("scope", "distribution", "pinned", "capped", "pattern")
    settings = {name: getattr(method, name) for name in names}
    once = GMP(sparsity, schedule=ConstantSparsity(sparsity, 0), **settings)
    everything = [tf.ones(w.shape, tf.bool) for w in weights]
    masks, _ = once.update_masks(
        tf.constant(0),
        list(layouts),
        weights,
        everything,
        [None] * len(weights),
        layouts=layouts,
    )
    return masks
