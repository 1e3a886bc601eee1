"""The same masks as in `selection`, for XLA, which is slow to compile histograms and to run them.

The k-th largest is found by bisection, of all weights at once: what XLA compiles for it does not
depend on how many weights there are. For this each weight's units are filled up to whole rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

WIDTH = 1024


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of `WIDTH` units, of which several segments are made.

    Attributes:
        segment: Which segment each row is of.
        filled: How many units there are in each row; what follows them only fills it up.

    Example:

    >>> rows = Rows.of([3, 1025])
    >>> rows.segment.tolist(), rows.filled.tolist()
    ([0, 1, 1], [3, 1024, 1])
    >>> rows.count(tf.ones((3, 1024), tf.bool)).numpy().tolist()
    [3, 1025]
    """

    segment: np.ndarray
    filled: np.ndarray

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Rows:
        """Of weights of these numbers of units, each of them a segment."""
        numbers = [-(-size // WIDTH) for size in sizes]
        filled = np.concatenate(
            [np.minimum(size - np.arange(0, size, WIDTH), WIDTH) for size in sizes]
        )
        return cls(np.repeat(np.arange(len(sizes)), numbers), filled)

    def spread(self, values: tf.Tensor) -> tf.Tensor:
        """A column with what `values`, a vector, has for the segment of each row."""
        return tf.gather(values, self.segment)[:, tf.newaxis]

    def index(self) -> tf.Tensor:
        """int32: the place of each unit, in order of index in each segment and in all."""
        return tf.reshape(tf.range(len(self.segment) * WIDTH), [-1, WIDTH])

    def count(self, mask: tf.Tensor) -> tf.Tensor:
        """Number of units of each segment at which the mask, a matrix, is True; int64."""
        return self._count(mask & self._is_filled())

    def _count(self, mask):
        of_rows = tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32), 1), tf.int64)
        is_of = np.arange(self.segment[-1] + 1)[:, np.newaxis] == self.segment
        return tf.reduce_sum(tf.where(is_of, of_rows, tf.zeros_like(of_rows)), 1)

    def top(self, keys: tf.Tensor, eligible: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
        """Mask of the k largest eligible units; ties go to the lower index.

        Args:
            keys: int32 that order as the scores do, end to end.
            eligible: Which units are ranked.
            k: int64, how many to select: a vector with a number for each segment, or a scalar for
                all of them together.

        Example:

        >>> keys = tf.reshape(tf.pad(tf.constant([[1, 3, 3], [0, 5, 2]]), [[0, 0], [0, 1021]]), -1)
        >>> mask = Rows.of([3, 3]).top(keys, keys < 5, tf.constant([1, 1], tf.int64))
        >>> tf.reshape(mask, [2, -1])[:, :3].numpy().astype(int).tolist()
        [[0, 1, 0], [0, 0, 1]]
        """
        of_each = tf.fill([self.segment[-1] + 1], k) if k.shape.rank == 0 else k
        return self._top(keys, eligible, of_each, tf.constant(k.shape.rank == 0))

    @functools.cached_property
    def _top(self):
        # Traced once for all calls, and all that it does is alike for XLA to compile.
        return tf.function(self._top_of, autograph=False)

    def _top_of(self, keys, eligible, k, together):
        def counted(mask):
            of_each = self._count(mask)
            return tf.where(together, tf.reduce_sum(of_each), of_each)

        eligible = tf.reshape(eligible, [-1, WIDTH]) & self._is_filled()
        # What is not eligible orders below all that is.
        keys = tf.maximum(tf.reshape(keys, [-1, WIDTH]), tf.int32.min + 1)
        keys = tf.where(eligible, keys, tf.int32.min)
        k = tf.minimum(k, counted(eligible))
        # Key and index in one number, to bisect both at once.
        bits = (len(self.segment) * WIDTH - 1).bit_length()
        indices = 2**bits

        def reaches(number):
            of_rows = self.spread(number)
            key = tf.cast(tf.bitwise.right_shift(of_rows, bits), tf.int32)
            last = tf.cast(indices - 1 - tf.bitwise.bitwise_and(of_rows, indices - 1), tf.int32)
            return (keys > key) | ((keys == key) & (self.index() <= last))

        low = tf.zeros_like(k) + (tf.int32.min + 1) * indices
        high = tf.zeros_like(k) + (tf.int32.max + 1) * indices - 1
        kth = _largest(lambda number: counted(reaches(number)) >= k, low, high)
        return tf.reshape(reaches(kth) & self.spread(k > 0), [-1])

    def _is_filled(self):
        return tf.range(WIDTH) < tf.constant(self.filled, tf.int32)[:, tf.newaxis]


def cut(tensors: Sequence[tf.Tensor], sizes: Sequence[int]) -> list[list[tf.Tensor]]:
    """The weights of each of several tensors, without what fills up their rows.

    XLA compiles each piece of a tensor by itself, with all that it needs to compute that piece. So
    the tensors go through a loop, whose results it does not look into, and the places to cut at do
    as well: then pieces of one shape are compiled once for all.

    Args:
        tensors: Flat, the weights filled up to whole rows.
        sizes: Numbers of units of the weights.

    Example:

    >>> mask = tf.range(2 * WIDTH) % 2 == 0
    >>> [[first, second]] = cut([mask], [3, 2])
    >>> first.numpy().tolist(), second.numpy().tolist()
    ([True, False, True], [True, False])
    """
    filled = [-(-size // WIDTH) * WIDTH for size in sizes]
    starts = np.cumsum([0, *filled[:-1]], dtype=np.int32)
    # Once would be enough, and would be unrolled; how often it is depends on a value.
    times = 2 - tf.cast(tf.cast(tensors[0][0], tf.bool), tf.int32)

    def body(i, _, starts):
        return i + 1, tuple(tensors), [tf.maximum(start, 0) for start in starts]

    first = 0, tuple(map(tf.zeros_like, tensors)), list(starts)
    _, whole, places = tf.while_loop(lambda i, *_: i < times, body, first)
    each = list(zip(places, sizes, strict=True))
    return [[tf.slice(tensor, [at], [size]) for at, size in each] for tensor in whole]


def _largest(holds: Callable[[tf.Tensor], tf.Tensor], low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """For each segment the largest int64 in [low, high] of which `holds`, as it does of `low`."""

    def halve(low, high):
        # Upwards, and without a sum that overflows.
        middle = tf.bitwise.bitwise_or(low, high) - tf.bitwise.right_shift(
            tf.bitwise.bitwise_xor(low, high), 1
        )
        found = holds(middle)
        return tf.where(found, middle, low), tf.where(found, high, middle - 1)

    return tf.while_loop(lambda low, high: tf.reduce_any(low < high), halve, [low, high])[0]
