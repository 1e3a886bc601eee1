"""Exact top-k masks, within a tensor or across all of them, without sorting.

A float32 orders as an integer made of its bits. Two histograms of 2**16 bins (the upper half of
that integer, then the lower half of those in the bin that holds the k-th largest) find the k-th
largest exactly, in a few passes over the scores, whatever k is. Nothing is concatenated: histograms
of several tensors add up. Shapes are static, so all of it compiles with XLA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

_BINS = 1 << 16
_ROW = 256
# A negative NaN, which orders below all else.
_INELIGIBLE = -1
# Ties are located first by block and then inside one block, which spares a long cumulative sum.
_BLOCK = 4096


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
    return top([rank(s, e) for s, e in zip(scores, eligible, strict=True)], k)


class Ranking(NamedTuple):
    """Scores made ready for `top`, which may be asked more than once."""

    shape: tf.TensorShape
    bits: tf.Tensor
    histogram: tf.Tensor


def rank(score: tf.Tensor, eligible: tf.Tensor) -> Ranking:
    """Ranks the eligible entries of one tensor, as `select` does.

    The best k entries of a tensor are also the best of those that a larger k selects in it, so one
    ranking serves to prune and then to drop.
    """
    flat = tf.reshape(tf.cast(score, tf.float32), [-1])
    return Ranking(score.shape, *_rank(flat, tf.reshape(eligible, [-1])))


def top(rankings: Sequence[Ranking], k: int | tf.Tensor) -> list[tf.Tensor]:
    """`select`, of what has been ranked already."""
    bits, histograms = [r.bits for r in rankings], [r.histogram for r in rankings]
    k = tf.cast(k, tf.int64)
    if len(bits) == 1:
        masks = [_top_of_one(*bits, *histograms, k)]
    else:
        masks = _top(bits, histograms, k, _lower_histogram)
    return [tf.reshape(m, r.shape) for m, r in zip(masks, rankings, strict=True)]


def _once(*signature):
    """Traced once for all tensors there are, which else takes a big model half a minute."""
    return tf.function(
        input_signature=[tf.TensorSpec(shape, dtype) for shape, dtype in signature],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


@_once(([None], tf.float32), ([None], tf.bool))
def _rank(score, eligible):
    bits = tf.where(eligible, tf.bitcast(score, tf.int32), _INELIGIBLE)
    # A logical shift leaves the negative scores in the upper half of the bins: one pass less.
    halves = tf.bitwise.right_shift(tf.bitcast(bits, tf.uint32), 16)
    return bits, _histogram(tf.bitcast(halves, tf.int32))


def _lower(keys, base):
    # Whatever lies in other bins comes out beyond the last bin, and is not counted.
    offsets = tf.bitcast(keys, tf.uint32) - tf.bitcast(base, tf.uint32)
    return _histogram(tf.bitcast(tf.minimum(offsets, _BINS), tf.int32))


_lower_histogram = _once(([None], tf.int32), ([], tf.int32))(_lower)


@_once(([None], tf.int32), ([_BINS], tf.int32), ([], tf.int64))
def _top_of_one(bits, histogram, k):
    return _top([bits], [histogram], k, _lower)[0]


def _top(bits, histograms, k, lower_histogram):
    total = _sum(histograms)
    keys = _sortable(bits, total)
    upper, k_in_bin, _ = _bin_of_kth(_rows(_in_order(total)), k)
    base = tf.bitwise.left_shift(upper - _BINS // 2, 16)
    lower_total = _sum([lower_histogram(key, base) for key in keys])
    lower, ties_wanted, ties = _bin_of_kth(_rows(lower_total), k_in_bin)
    kth = base + lower

    def cut_ties():
        masks, wanted = [], ties_wanted
        for key in keys:
            tied = key == kth
            here = tf.minimum(count(tied), wanted)
            masks.append((key > kth) | _first(tied, here))
            wanted -= here
        return masks

    return tf.cond(ties == ties_wanted, lambda: [key >= kth for key in keys], cut_ties)


def count(mask: tf.Tensor) -> tf.Tensor:
    """Number of True entries, int64 (a float32 count is wrong from 2**24 on)."""
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32)), tf.int64)


def _sortable(bits: Sequence[tf.Tensor], histogram: tf.Tensor) -> list[tf.Tensor]:
    """int32 keys that order as the float32 scores do; most scores are magnitudes, and are so."""

    def flip_negative():
        # Of the negative, the one that is further from 0 is less.
        signs = [tf.bitwise.right_shift(b, 31) for b in bits]
        return [
            tf.bitwise.bitwise_xor(b, tf.bitwise.bitwise_and(s, tf.int32.max))
            for b, s in zip(bits, signs, strict=True)
        ]

    negative = histogram[_BINS // 2 : -1]
    return tf.cond(tf.reduce_any(negative > 0), flip_negative, lambda: list(bits))


def _histogram(values: tf.Tensor) -> tf.Tensor:
    """int32 counts of the `values` in [0, 2**16); `tf.math.bincount` adds a pass for a maximum."""
    return tf.raw_ops.Bincount(arr=values, size=_BINS, weights=tf.constant([], tf.int32))


def _sum(histograms: Sequence[tf.Tensor]) -> tf.Tensor:
    # One tensor has less than 2**31 entries, all of them may have more.
    if len(histograms) == 1:
        return histograms[0]
    return tf.add_n([tf.cast(h, tf.int64) for h in histograms])


def _in_order(histogram: tf.Tensor) -> tf.Tensor:
    """The bins of the upper halves, those of negative scores first and nothing ineligible."""
    negative, positive = histogram[_BINS // 2 : -1], histogram[: _BINS // 2]
    return tf.concat([tf.zeros_like(negative[:1]), tf.reverse(negative, [0]), positive], 0)


def _rows(histogram: tf.Tensor) -> tf.Tensor:
    """Rows of 256 bins."""
    return tf.reshape(histogram, [-1, _ROW])


def _bin_of_kth(rows: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bin (int32) that holds the k-th largest, k less what lies above it, and its count."""
    # First the row, then the bin in it: a cumulative sum over all bins takes longer.
    row, k, _ = _place_of_kth(tf.reduce_sum(rows, 1), k)
    bin, k, here = _place_of_kth(_row(rows, row), k)
    return row * _ROW + bin, k, here


def _place_of_kth(counts, k):
    from_here_up = tf.cumsum(tf.cast(counts, tf.int64), reverse=True)
    k = tf.minimum(k, from_here_up[0])
    reached = from_here_up >= k
    above = _largest(from_here_up, ~reached)
    place = tf.cast(count(reached), tf.int32) - 1
    return place, k - above, tf.cast(_row(counts, place), tf.int64)


def _row(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """values[index]. XLA takes minutes to compile a look-up by index here."""
    here = tf.range(values.shape[0]) == index
    here = tf.reshape(here, [-1] + [1] * (values.shape.rank - 1))
    return tf.reduce_sum(tf.where(here, values, 0), axis=0)


def _largest(counts: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
    """The largest count where asked, or 0. XLA takes minutes to compile a look-up by index here."""
    return tf.reduce_max(tf.where(where, counts, tf.zeros_like(counts)))


def _first(mask: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Keeps the first `k` True entries of `mask`, in order of index."""

    def cut():
        size = tf.size(mask)
        flat = tf.pad(tf.reshape(mask, [-1]), [[0, -size % _BLOCK]])
        blocks = tf.cast(tf.reshape(flat, [-1, _BLOCK]), tf.int32)
        up_to = tf.cumsum(tf.cast(tf.reduce_sum(blocks, axis=1), tf.int64))
        before = up_to < k
        block = count(before)
        is_block = tf.range(tf.size(up_to, tf.int64)) == block
        inside = tf.reduce_sum(tf.where(is_block[:, tf.newaxis], blocks, 0), axis=0)
        short = tf.cast(tf.cumsum(inside), tf.int64) < k - _largest(up_to, before)
        end = block * _BLOCK + count(short) + 1
        return mask & tf.reshape(tf.range(tf.cast(size, tf.int64)) < end, tf.shape(mask))

    # All or none is the common case and needs no look at the order.
    none = tf.zeros_like(mask)
    return tf.cond(k == count(mask), lambda: mask, lambda: tf.cond(k == 0, lambda: none, cut))
