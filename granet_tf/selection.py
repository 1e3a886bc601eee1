"""Exact top-k masks, within a tensor or across all of them, without sorting.

A float32 orders as an integer made of its bits. Two histograms of 2**16 bins (the upper half of
that integer, then the lower half of those in the bin that holds the k-th largest) find the k-th
largest exactly, in a few passes over the scores, whatever k is. Nothing is concatenated: histograms
of several tensors add up. Shapes are static, so all of it compiles with XLA.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_BINS = 1 << 16
_ROW = 256
_LOWEST = tf.int32.min
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
    k = tf.cast(k, tf.int64)
    if len(scores) > 1:
        return _select(scores, eligible, k)
    [score], [mask] = scores, eligible
    score, mask = tf.cast(score, tf.float32), tf.convert_to_tensor(mask)
    chosen = _select_flat(tf.reshape(score, [-1]), tf.reshape(mask, [-1]), k)
    return [tf.reshape(chosen, mask.shape)]


# Traced once for all tensors there are, which else takes a big model half a minute.
@tf.function(
    input_signature=[
        tf.TensorSpec([None], tf.float32),
        tf.TensorSpec([None], tf.bool),
        tf.TensorSpec([], tf.int64),
    ],
    autograph=False,
    experimental_attributes={"_noinline": True},
)
def _select_flat(score, eligible, k):
    return _select([score], [eligible], k)[0]


def _select(scores, eligible, k):
    keys = [tf.where(e, _sortable(s), _LOWEST) for s, e in zip(scores, eligible, strict=True)]
    # A logical shift leaves the negative keys in the upper half of the bins: one pass less.
    unsigned = [tf.bitcast(key, tf.uint32) for key in keys]
    halves = [tf.bitcast(tf.bitwise.right_shift(u, 16), tf.int32) for u in unsigned]
    histogram = tf.roll(tf.add_n([_histogram(h, _BINS) for h in halves]), _BINS // 2, 0)
    # The first bin holds what is not eligible, and nothing else but negative NaNs.
    k = tf.minimum(k, tf.reduce_sum(histogram[1:]))
    upper, k_in_bin, _ = _bin_of_kth(histogram, k)
    base = tf.bitwise.left_shift(upper - _BINS // 2, 16)
    # Whatever lies in other bins comes out beyond the last bin, and is not counted.
    lower_halves = [
        tf.bitcast(tf.minimum(u - tf.bitcast(base, tf.uint32), _BINS), tf.int32) for u in unsigned
    ]
    histogram = tf.add_n([_histogram(low, _BINS) for low in lower_halves])
    lower, ties_wanted, ties = _bin_of_kth(histogram, k_in_bin)
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


def _sortable(score: tf.Tensor) -> tf.Tensor:
    """int32 keys that order as the float32 scores do, negative ones included."""
    bits = tf.bitcast(tf.cast(score, tf.float32), tf.int32)

    def flip_negative():
        flipped = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 31), tf.int32.max)
        return tf.bitwise.bitwise_xor(bits, flipped)

    return tf.cond(tf.reduce_min(bits) >= 0, lambda: bits, flip_negative)


def _histogram(values: tf.Tensor, bins: int) -> tf.Tensor:
    """int64 counts of the int32 `values` in [0, bins); `tf.math.bincount` adds a pass for a max."""
    counts = tf.raw_ops.Bincount(
        arr=tf.reshape(values, [-1]), size=bins, weights=tf.constant([], tf.int32)
    )
    return tf.cast(counts, tf.int64)


def _bin_of_kth(histogram: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bin (int32) that holds the k-th largest, k less what lies above it, and its count."""
    if histogram.shape[0] <= _ROW:
        from_here_up = tf.cumsum(histogram, reverse=True)
        reached = from_here_up >= k
        above = _largest(from_here_up, ~reached)
        bin = tf.cast(count(reached), tf.int32) - 1
        return bin, k - above, _row(histogram, bin)
    # First the row, then the bin in it: a cumulative sum over all bins takes longer.
    rows = tf.reshape(histogram, [-1, _ROW])
    row, k, _ = _bin_of_kth(tf.reduce_sum(rows, 1), k)
    bin, k, here = _bin_of_kth(_row(rows, row), k)
    return row * _ROW + bin, k, here


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
