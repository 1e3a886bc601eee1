"""How many units stay, are dropped and are grown: counts made of fractions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from granet_tf.masks.patterns import Capacity


def count(mask: tf.Tensor) -> tf.Tensor:
    """Number of True entries, int64 (a float32 count is wrong from 2**24 on)."""
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32)), tf.int64)


def share(fraction: tf.Tensor, alive: tf.Tensor) -> tf.Tensor:
    """ceil(fraction · alive), int64, as in Eq. 2.

    Example:

    >>> share(tf.constant(0.3, tf.float64), tf.constant([10, 11], tf.int64)).numpy().tolist()
    [3, 4]
    """
    # What rounding adds to a whole number is not a reason to drop one more.
    return tf.cast(tf.math.ceil(fraction * tf.cast(alive, tf.float64) - 1e-9), tf.int64)


def nearest_share(fraction: tf.Tensor, alive: tf.Tensor) -> tf.Tensor:
    """fraction · alive, rounded half to even, int64.

    Example:

    >>> nearest_share(tf.constant(0.1, tf.float64), tf.constant([4, 8], tf.int64)).numpy().tolist()
    [0, 1]
    """
    return tf.cast(tf.round(fraction * tf.cast(alive, tf.float64)), tf.int64)


def keep_count(size: int | Sequence[int], sparsity: float | tf.Tensor) -> tf.Tensor:
    """k = max(1, round_half_even(size · (1 − sparsity))): int64, computed in float64.

    Args:
        size: A number of units, or several.
        sparsity: Fraction of zeros, one for all or one for each.

    Example:

    >>> [int(keep_count(100, s)) for s in (0.0, 0.1, 0.9999)]
    [100, 90, 1]
    """
    kept = tf.cast(size, tf.float64) * (1.0 - tf.cast(sparsity, tf.float64))
    # TensorFlow's graph optimizer reorders sums, which moves a half off by a rounding error; in
    # steps of 2**-20 it is a half again, in graphs as in eager execution.
    kept = tf.round(kept * 2.0**20) / 2.0**20
    return tf.maximum(tf.cast(tf.round(kept), tf.int64), 1)


def units_to_keep(capacities: Sequence[Capacity], sparsity: float | tf.Tensor) -> tf.Tensor:
    """How many units of all these weights stay at `sparsity`, which is one of slots.

    Example:

    >>> from granet_tf.masks.patterns import NM
    >>> capacity = NM(2, 4).capacity((3, 1))  # One group of 3, and a zero that fills it up.
    >>> [int(units_to_keep([capacity], s)) for s in (0.25, 0.5, 0.75)]
    [3, 2, 1]
    """
    whole = Capacity(*(sum(numbers) for numbers in _numbers(capacities)))
    return units_of_each_to_keep([whole], sparsity)[0]


def units_of_each_to_keep(capacities: Sequence[Capacity], sparsity: float | tf.Tensor) -> tf.Tensor:
    """How many units of each weight stay at `sparsity`, one for all or one for each."""
    slots, open_slots, fitting = (np.array(n, np.int64) for n in _numbers(capacities))
    k = keep_count(slots, sparsity)
    # Slots that are open, and have nothing but what fills up to take them.
    empty = open_slots - fitting
    return k - tf.clip_by_value(k - fitting, 0, empty) if empty.any() else k


def _numbers(capacities):
    return zip(*((c.slots, c.open, c.fitting) for c in capacities), strict=True)
