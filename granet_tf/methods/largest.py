"""Masks chosen anew by magnitude, again and again, from weights that keep their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from granet_tf.methods.base import Method
from granet_tf.methods.gmp import GMP
from granet_tf.schedules import ConstantSparsity
from keras_layers.layouts import Layout


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
