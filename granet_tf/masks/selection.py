"""Exact top-k masks, within a tensor or across several, without sorting.

A float32 orders as an integer made of its bits. Two histograms of 2**16 bins (the upper half of
that integer, then the lower half of those in the bin that holds the k-th largest) find the k-th
largest exactly, in a few passes over the scores, whatever k is. XLA takes long to compile these,
and scatters slowly; for it the same is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from granet_tf.masks.traced import is_compiled, shared

_BINS = 1 << 16
_ROW = 256
# A negative NaN, which orders below all else.
_INELIGIBLE = -1
# Ties are located first by block and then inside one block, which spares a long cumulative sum.
_BLOCK = 4096


class Ranking(NamedTuple):
    """Scores made ready for `top`, which may be asked more than once.

    Attributes:
        bits: int32, flat: the bits of the scores, and what orders below all of them.
        histogram: int32 counts of the upper halves of the scores' bits.
        eligible: Which entries are ranked, in their shape.
    """

    bits: tf.Tensor
    histogram: tf.Tensor
    eligible: tf.Tensor


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


def rank(score: tf.Tensor, eligible: tf.Tensor) -> Ranking:
    """Ranks the eligible entries of one tensor, as `select` does.

    The best k entries of a tensor are also the best of those that a larger k selects in it, so one
    ranking serves to prune and then to drop.
    """
    eligible = tf.convert_to_tensor(eligible)
    return Ranking(*_rank(tf.cast(score, tf.float32), eligible), eligible)


def top(rankings: Sequence[Ranking], k: int | tf.Tensor) -> list[tf.Tensor]:
    """`select`, of what has been ranked already."""
    k = tf.cast(k, tf.int64)
    if len(rankings) == 1:
        masks = [top_of_ranked(*rankings[0], k)]
    else:
        masks = (_top_by_bisection if is_compiled() else _top_of_several)(rankings, k)
    for mask, ranking in zip(masks, rankings, strict=True):
        mask.set_shape(ranking.eligible.shape)  # Functions that are traced once do not know it.
    return masks


BITS, HISTOGRAM, MASK = ([None], tf.int32), ([_BINS], tf.int32), (None, tf.bool)
_KEY, _NUMBER, _BOOL = ([], tf.int32), ([], tf.int64), ([], tf.bool)


def count(mask: tf.Tensor) -> tf.Tensor:
    """Number of True entries, int64 (a float32 count is wrong from 2**24 on)."""
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32)), tf.int64)


# By two histograms.


@shared((None, tf.float32), MASK)
def _rank(score, eligible):
    score, eligible = tf.reshape(score, [-1]), tf.reshape(eligible, [-1])
    bits = tf.where(eligible, tf.bitcast(score, tf.int32), _INELIGIBLE)
    if is_compiled():
        return bits, tf.zeros(_BINS, tf.int32)
    # A logical shift leaves the negative scores in the upper half of the bins: one pass less.
    halves = tf.bitwise.right_shift(tf.bitcast(bits, tf.uint32), 16)
    return bits, _histogram(tf.bitcast(halves, tf.int32))


@shared(BITS, HISTOGRAM, MASK, _NUMBER)
def top_of_ranked(bits, histogram, eligible, k):
    """`top` of one ranking, to be called in functions that are `shared`."""
    if is_compiled():
        return _bisected(bits, eligible, k)
    base, k_in_bin, signed = _upper(histogram, k)
    lower, wanted, ties = _bin_of_kth(_lower(bits, signed, base), k_in_bin)
    return _cut(bits, signed, eligible, base + lower, wanted, ties)


def _top_of_several(rankings, k):
    base, k_in_bin, signed = _upper(_sum([r.histogram for r in rankings]), k)
    histograms = [_lower(r.bits, signed, base) for r in rankings]
    lower, wanted, _ = _bin_of_kth(_sum(histograms), k_in_bin)
    # How many of each are tied with the k-th largest, and how many of these are selected.
    ties = tf.cast(tf.gather(tf.stack(histograms), lower, axis=1), tf.int64)
    here = tf.clip_by_value(wanted - tf.cumsum(ties, exclusive=True), 0, ties)
    each = zip(rankings, tf.unstack(here), tf.unstack(ties), strict=True)
    return [_cut(r.bits, signed, r.eligible, base + lower, n, of) for r, n, of in each]


def _sum(histograms: Sequence[tf.Tensor]) -> tf.Tensor:
    # One tensor has less than 2**31 entries, all of them may have more.
    return tf.add_n([tf.cast(h, tf.int64) for h in histograms])


def _upper(histogram, k):
    """Of the bin that holds the k-th largest: its least key, and k less what lies above it.

    And whether there are negative scores.
    """
    upper, k_in_bin, _ = _bin_of_kth(_in_order(histogram), k)
    base = tf.bitwise.left_shift(upper - _BINS // 2, 16)
    return base, k_in_bin, tf.reduce_any(histogram[_BINS // 2 : -1] > 0)


@shared(BITS, _BOOL, _KEY)
def _lower(bits, signed, base):
    keys = _keys(bits, signed)
    # Whatever lies in other bins comes out beyond the last bin, and is not counted.
    offsets = tf.bitcast(keys, tf.uint32) - tf.bitcast(base, tf.uint32)
    return _histogram(tf.bitcast(tf.minimum(offsets, _BINS), tf.int32))


@shared(BITS, _BOOL, MASK, _KEY, _NUMBER, _NUMBER)
def _cut(bits, signed, eligible, kth, wanted, ties):
    keys = _keys(bits, signed)
    chosen = tf.cond(
        ties == wanted,
        lambda: keys >= kth,
        lambda: (keys > kth) | _first(keys == kth, wanted),
    )
    return tf.reshape(chosen, tf.shape(eligible))


def _keys(bits, signed):
    # Most scores are magnitudes, which order as their bits do.
    return tf.cond(signed, lambda: _sortable(bits), lambda: bits)


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


def _top_by_bisection(rankings, k):
    bits = tf.concat([r.bits for r in rankings], 0)
    flat = [tf.reshape(r.eligible, [-1]) for r in rankings]
    chosen = tf.split(_bisected(bits, tf.concat(flat, 0), k), [part.shape[0] for part in flat])
    return [tf.reshape(c, r.eligible.shape) for c, r in zip(chosen, rankings, strict=True)]


def _bisected(bits, eligible, k):
    allowed = tf.reshape(eligible, [-1])
    keys = tf.where(allowed, _sortable(bits), tf.int32.min)
    k = tf.minimum(k, count(allowed))
    kth = _largest(lambda key: count(keys >= key) >= k, tf.int32.min, tf.int32.max)
    above, tied = keys > kth, (keys == kth) & allowed
    wanted, index = k - count(above), tf.range(tf.size(keys))
    # The first of those that are tied.
    last = _largest(lambda i: count(tied & (index < i)) <= wanted, 0, tf.size(keys))
    return tf.reshape(above | (tied & (index < last)), tf.shape(eligible))


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
