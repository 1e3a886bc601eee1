"""Random numbers that are the same in eager execution, in graphs and with XLA."""

from __future__ import annotations

import math

import tensorflow as tf


def uniform(weight: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """float32 random numbers in [0, 1) of the shape of `weight`, the same with XLA as without.

    Example:

    >>> drawn = uniform(tf.zeros((2, 3)), tf.constant([1, 2]))
    >>> tuple(drawn.shape), bool(tf.reduce_all((drawn >= 0.0) & (drawn < 1.0)))
    ((2, 3), True)
    """
    # Floats drawn under XLA are others (tensorflow#117644); bits are the same everywhere.
    bits = tf.random.stateless_uniform(weight.shape, seed, None, None, tf.uint32, alg="philox")
    return tf.bitcast((bits & 0x7FFFFF) | 0x3F800000, tf.float32) - 1.0


def normal(weight: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers of the shape and type of `weight`, by Box and Muller.

    Example:

    >>> drawn = normal(tf.zeros(10000), tf.constant([1, 2]))
    >>> abs(float(tf.reduce_mean(drawn))) < 0.05, abs(float(tf.math.reduce_std(drawn)) - 1) < 0.05
    (True, True)
    """
    first, second = uniform(weight, seed), uniform(weight, seed + tf.constant([0, 2**30]))
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - first))
    return tf.cast(radius * tf.cos(2.0 * math.pi * second), weight.dtype)
