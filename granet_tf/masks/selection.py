"""Exact top-k masks, within a tensor or across several, without sorting.

A float32 orders as an integer made of its bits. Two histograms of 2**16 bins (the upper half of
that integer, then the lower half of those in the bin that holds the k-th largest) find the k-th
largest exactly, in a few passes over the scores, whatever k is. XLA takes long to compile these,
and scatters slowly; for it the same is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from granet_tf.masks.traced import is_compiled, shared

_BINS = 1 << 16
_ROW = 256
# A negative NaN, which orders below all else.
_INELIGIBLE = -1
# Ties are located first by block and then inside one block, which spares a long cumulative sum.
_BLOCK = 4096


@shared(([None], tf.float32), ([None], tf.bool), ([], tf.int64))
def pick(score: tf.Tensor, eligible: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Mask of the k largest scores among the eligible entries of one flat tensor, as `select`."""
    return (_by_bisection if is_compiled() else _by_histogram)(score, eligible, k)


def select(
    scores: Sequence[tf.Tensor], eligible: Sequence[tf.Tensor], k: int | tf.Tensor
) -> list[tf.Tensor]:
    """Masks of the k largest scores among the eligible entries of all tensors together.

    Ties go to the lower index, and to the earlier tensor: the count is exact and the same on every
    device. With fewer than `k` eligible entries, all of them are selected.

    Args:
        scores: Float tensors of any static shapes; ranked in float32.
        eligible: Bool tensors of the same shapes.
        k: How many to select in all, an integer scalar.

    Returns:
        Bool tensors of the shapes of `scores`, with min(k, number eligible) True entries in all.

    Example:

    >>> [mask] = select([tf.constant([0.1, 0.9, -0.2, 0.5])], [tf.ones(4, tf.bool)], 2)
    >>> mask.numpy().astype(int).tolist()
    [0, 1, 0, 1]
    """
    one_dimension = tf.constant([-1])
    flat = [tf.reshape(tf.cast(s, tf.float32), one_dimension) for s in scores]
    allowed = [tf.reshape(e, one_dimension) for e in eligible]
    k = tf.cast(k, tf.int64)
    if len(flat) == 1:
        return [tf.reshape(pick(*flat, *allowed, k), scores[0].shape)]
    chosen = pick(tf.concat(flat, 0), tf.concat(allowed, 0), k)
    parts = tf.split(chosen, [part.shape[0] for part in flat])
    return [tf.reshape(part, s.shape) for part, s in zip(parts, scores, strict=True)]


def count(mask: tf.Tensor) -> tf.Tensor:
    """Number of True entries, int64 (a float32 count is wrong from 2**24 on)."""
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32)), tf.int64)


# By two histograms.


def _by_histogram(score, eligible, k):
    bits = tf.where(eligible, tf.bitcast(score, tf.int32), _INELIGIBLE)
    # A logical shift leaves the negative scores in the upper half of the bins: one pass less.
    halves = tf.bitwise.right_shift(tf.bitcast(bits, tf.uint32), 16)
    total = _histogram(tf.bitcast(halves, tf.int32))
    keys = _sortable(bits)
    upper, k_in_bin, _ = _bin_of_kth(_in_order(total), k)
    base = tf.bitwise.left_shift(upper - _BINS // 2, 16)
    # Whatever lies in other bins comes out beyond the last bin, and is not counted.
    offsets = tf.bitcast(keys, tf.uint32) - tf.bitcast(base, tf.uint32)
    lower_total = _histogram(tf.bitcast(tf.minimum(offsets, _BINS), tf.int32))
    lower, ties_wanted, ties = _bin_of_kth(lower_total, k_in_bin)
    kth = base + lower
    return tf.cond(
        ties == ties_wanted,
        lambda: keys >= kth,
        lambda: (keys > kth) | _first(keys == kth, ties_wanted),
    )


def _sortable(bits):
    """int32 keys that order as the float32 scores do."""
    # Of the negative, the one that is further from 0 is less.
    signs = tf.bitwise.right_shift(bits, 31)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(signs, tf.int32.max))


def _histogram(values: tf.Tensor) -> tf.Tensor:
    """int32 counts of the `values` in [0, 2**16); `tf.math.bincount` adds a pass for a maximum."""
    return tf.raw_ops.Bincount(arr=values, size=_BINS, weights=tf.constant([], tf.int32))


def _in_order(histogram: tf.Tensor) -> tf.Tensor:
    """The bins of the upper halves, those of negative scores first and nothing ineligible."""
    negative, positive = histogram[_BINS // 2 : -1], histogram[: _BINS // 2]
    return tf.concat([tf.zeros_like(negative[:1]), tf.reverse(negative, [0]), positive], 0)


def _bin_of_kth(histogram: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bin (int32) that holds the k-th largest, k less what lies above it, and its count."""
    # First the row, then the bin in it: a cumulative sum over all bins takes longer.
    rows = tf.reshape(histogram, [-1, _ROW])
    row, k, _ = _place_of_kth(tf.reduce_sum(rows, 1), k)
    bin, k, here = _place_of_kth(rows[row], k)
    return row * _ROW + bin, k, here


def _place_of_kth(counts, k):
    from_here_up = tf.cumsum(tf.cast(counts, tf.int64), reverse=True)
    k = tf.minimum(k, from_here_up[0])
    reached = from_here_up >= k
    above = tf.reduce_max(tf.where(reached, tf.zeros_like(from_here_up), from_here_up))
    place = tf.cast(count(reached), tf.int32) - 1
    return place, k - above, tf.cast(counts[place], tf.int64)


def _first(mask: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Keeps the first `k` True entries of `mask`, in order of index."""

    size = tf.size(mask)
    flat = tf.pad(mask, [[0, -size % _BLOCK]])
    blocks = tf.cast(tf.reshape(flat, [-1, _BLOCK]), tf.int32)
    up_to = tf.cumsum(tf.cast(tf.reduce_sum(blocks, axis=1), tf.int64))
    before = up_to < k
    block = count(before)
    above = tf.reduce_max(tf.where(before, up_to, tf.zeros_like(up_to)))
    short = tf.cast(tf.cumsum(blocks[block]), tf.int64) < k - above
    end = block * _BLOCK + count(short) + 1
    return mask & (tf.range(tf.cast(size, tf.int64)) < end) & (k > 0)


# By bisection.


def _by_bisection(score, eligible, k):
    keys = tf.where(eligible, _sortable(tf.bitcast(score, tf.int32)), tf.int32.min)
    k = tf.minimum(k, count(eligible))
    kth = _largest(lambda key: count(keys >= key) >= k, tf.int32.min, tf.int32.max)
    above, tied = keys > kth, (keys == kth) & eligible
    wanted, index = k - count(above), tf.range(tf.size(keys))
    # The first of those that are tied.
    last = _largest(lambda i: count(tied & (index < i)) <= wanted, 0, tf.size(keys))
    return above | (tied & (index < last))


def _largest(holds, low, high):
    """The largest int32 in [low, high] of which `holds` is true, as it is of `low`."""

    def halve(low, high):
        # Upwards, and without a sum that overflows.
        middle = tf.bitwise.bitwise_or(low, high) - tf.bitwise.right_shift(
            tf.bitwise.bitwise_xor(low, high), 1
        )
        found = holds(middle)
        return tf.where(found, middle, low), tf.where(found, high, middle - 1)

    start = [tf.constant(low, tf.int32), tf.cast(high, tf.int32)]
    return tf.while_loop(lambda low, high: low < high, halve, start)[0]
