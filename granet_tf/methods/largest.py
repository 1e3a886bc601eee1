"""Masks chosen anew by magnitude, again and again, from weights that keep their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from granet_tf.methods.base import Method
from granet_tf.methods.gmp import GMP
from granet_tf.methods.records import Snapshot, shaped
from granet_tf.schedules import ConstantSparsity


def largest(method: Method, sparsity: float, weights: Sequence[Snapshot]) -> list[tf.Tensor]:
    """Masks of the weights of largest |w|, by the scope, pattern, pins and caps of `method`.

    Args:
        method: Any method.
        sparsity: Fraction of zeros, in [0, 1).
        weights: All of what they hold is ranked, whatever their masks are.

    Example:

    >>> weight = Snapshot("kernel", tf.constant([3.0, -4.0, 1.0, 2.0]), tf.zeros(4, tf.bool))
    >>> largest(GMP(0.5), 0.5, [weight])[0].numpy().astype(int).tolist()
    [1, 1, 0, 0]
    """
    names = ("scope", "distribution", "pinned", "capped", "pattern")
    settings = {name: getattr(method, name) for name in names}
    once = GMP(sparsity, schedule=ConstantSparsity(sparsity, 0), **settings)
    everything = [dataclasses.replace(w, mask=tf.ones(w.weight.shape, tf.bool)) for w in weights]
    new = once.update(tf.constant(0), everything, dormant_compete=False)
    return [u.mask for u in shaped(new, everything)]
