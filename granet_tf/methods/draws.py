"""Random numbers that are the same in eager execution, in graphs and with XLA."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator

import tensorflow as tf


def seeds_of(paths: Iterable[str], seed: int, step: int | tf.Tensor) -> list[tf.Tensor]:
    """A seed for each weight, int32 of shape (2,), from `seed`, its path and the step.

    Example:

    >>> first, second = seeds_of(["kernel", "kernel"], 0, 3)
    >>> bool(first[0] == second[0]), int(first[1])
    (False, 3)
    """
    # The odd factor keeps neighbouring seeds from sharing streams.
    own = seed * 0x9E3779B1 % 2**32
    keys = [(zlib.crc32(name.encode()) ^ own) - 2**31 for name in _lasting(paths)]
    steps = tf.broadcast_to(tf.cast(step, tf.int32), [len(keys)])
    return tf.unstack(tf.stack([tf.constant(keys, tf.int32), steps], 1))


def _lasting(paths: Iterable[str]) -> Iterator[str]:
    """Names for `paths` that stay when Keras numbers the same layers differently: the order counts,
    not that this dense layer is the seventh of the process."""
    seen: dict[str, int] = {}
    for path in paths:
        name = re.sub(r"_\d+(?=/|$)", "", path)
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}#{seen[name]}"


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
