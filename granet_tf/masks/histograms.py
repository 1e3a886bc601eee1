"""The k largest of flat scores, found by histograms of their bits; see `selection`.

All of this is traced once, in functions that are `shared`, and not for XLA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from granet_tf.masks.counts import count, share
from granet_tf.masks.traced import shared

_BINS = 1 << 16
_ROW = 256
# The small histograms are of these bits, (lowest bit, number of bits).
_DIGITS = (20, 12), (10, 10), (0, 10)
# A negative NaN, which orders below all else.
_INELIGIBLE = -1
# Ties are located first by block and then inside one block, which spares a long cumulative sum.
_BLOCK = 4096

BITS, HISTOGRAM, MASK = ([None], tf.int32), ([_BINS], tf.int32), ([None], tf.bool)
SCORE, SIZES, NUMBERS = ([None], tf.float32), ([None], tf.int32), ([None], tf.int64)
_COUNTS = ([_BINS], tf.int64)
_KEY, _NUMBER, _BOOL = ([], tf.int32), ([], tf.int64), ([], tf.bool)


@shared(SCORE, MASK)
def rank_flat(score, eligible):
    """Bits and histogram of one part, to be called in functions that are `shared`."""
    bits = tf.where(eligible, tf.bitcast(score, tf.int32), _INELIGIBLE)
    # A logical shift leaves the negative scores in the upper half of the bins: one pass less.
    halves = tf.bitwise.right_shift(tf.bitcast(bits, tf.uint32), 16)
    return bits, _histogram(tf.bitcast(halves, tf.int32))


@shared(BITS, HISTOGRAM, MASK, _NUMBER)
def top_of_ranked(bits, histogram, eligible, k):
    """`top` of one part, to be called in functions that are `shared`."""
    base, k_in_bin, signed = _upper(histogram, k)
    lower, wanted, ties = _bin_of_kth(_lower(bits, signed, base), k_in_bin)
    return _cut(bits, signed, base + lower, wanted, ties)


@shared(BITS, MASK, _NUMBER)
def top_of_small(bits, eligible, k):
    """`top` of what is not ranked, to be called in functions that are `shared`."""
    lowest = tf.int32.min
    keys = tf.where(eligible, sortable(bits), lowest)
    wanted = tf.cast(tf.minimum(k, count(keys > lowest)), tf.int32)
    # As unsigned numbers, whose upper bits can be looked at alone.
    keys = tf.bitcast(tf.bitwise.bitwise_xor(keys, lowest), tf.uint32)
    kth, ties = tf.constant(0), wanted
    for lowest_bit, number in _DIGITS:
        kth, wanted, ties = _digit(keys, kth, wanted, lowest_bit, number)
    kth = tf.bitcast(kth, tf.uint32)
    return _cut_off(keys, kth, tf.cast(wanted, tf.int64), tf.cast(ties, tf.int64))


def _digit(keys, kth, wanted, lowest_bit, number):
    """The k-th largest with some bits more, how many of those that begin so are wanted, and all."""
    bins = 1 << number
    kth = tf.bitwise.left_shift(kth, number)
    # What has other upper bits than the k-th largest comes out beyond the last bin.
    offsets = tf.bitwise.right_shift(keys, lowest_bit) - tf.bitcast(kth, tf.uint32)
    offsets = tf.minimum(offsets, bins)
    digit, wanted, here = _place_of_kth(_histogram(tf.bitcast(offsets, tf.int32), bins), wanted)
    return tf.bitwise.bitwise_or(kth, digit), wanted, here


@shared(BITS, MASK, SIZES, NUMBERS)
def top_of_segments(bits, eligible, sizes, k):
    """`top_of_small` of each segment, as many as the vector `k` says."""
    return each_segment(top_of_small, sizes, [bits, eligible], [k])


@shared(MASK, SIZES)
def count_segments(mask, sizes):
    """Number of True entries of each segment."""
    up_to = tf.cumsum(tf.cast(mask, tf.int64))
    at_ends = tf.gather(tf.concat([[0], up_to], 0), tf.cumsum(sizes))
    return at_ends - tf.concat([[0], at_ends[:-1]], 0)


def each_segment(
    function: Callable[..., tf.Tensor],
    sizes: tf.Tensor,
    flat: Sequence[tf.Tensor],
    numbers: Sequence[tf.Tensor] = (),
) -> tf.Tensor:
    """Applies `function` to one segment after the other, and joins the masks that it returns.

    Args:
        function: Takes a segment of each flat tensor, then one of each of the `numbers`.
        sizes: int32 vector, the sizes of the segments.
        flat: Flat tensors, as long as all segments together.
        numbers: Vectors, as long as there are segments.

    Example:

    >>> flat = tf.constant([1, 5, 2, 3])
    >>> largest = lambda values: values == tf.reduce_max(values)
    >>> each_segment(largest, tf.constant([2, 2]), [flat]).numpy().tolist()
    [False, True, False, True]
    """
    starts = tf.cumsum(sizes, exclusive=True)
    masks = tf.TensorArray(tf.bool, tf.size(sizes), infer_shape=False, element_shape=[None])

    # Slices at vectors of one element, as what Python's indexing adds takes long to trace.
    def one(i, masks):
        begin, size = tf.slice(starts, i, [1]), tf.slice(sizes, i, [1])
        segments = [tf.slice(tensor, begin, size) for tensor in flat]
        own = [tf.reshape(tf.slice(vector, i, [1]), []) for vector in numbers]
        return i + 1, masks.write(tf.reshape(i, []), function(*segments, *own))

    def is_left(i, _):
        return tf.reduce_all(i < tf.size(sizes))

    return tf.while_loop(is_left, one, [tf.constant([0]), masks])[1].concat()


def top_of_several(flat, k):
    """`top` of several parts together: bits, histogram and eligible units of each."""
    all_bits, histograms, _ = zip(*flat, strict=True)
    base, k_in_bin, signed = _upper(_sum(histograms), k)
    histograms = [_lower(bits, signed, base) for bits in all_bits]
    lower, wanted, _ = _bin_of_kth(_sum(histograms), k_in_bin)
    # How many of each are tied with the k-th largest, and how many of these are selected.
    ties = tf.cast(tf.gather(tf.stack(histograms), lower, axis=1), tf.int64)
    here = tf.clip_by_value(wanted - tf.cumsum(ties, exclusive=True), 0, ties)
    each = zip(all_bits, tf.unstack(here), tf.unstack(ties), strict=True)
    return [_cut(bits, signed, base + lower, n, of) for bits, n, of in each]


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


@shared(BITS, _BOOL, _KEY, _NUMBER, _NUMBER)
def _cut(bits, signed, kth, wanted, ties):
    return _cut_off(_keys(bits, signed), kth, wanted, ties)


def _cut_off(keys, kth, wanted, ties):
    """What is above the k-th largest, and as many as are `wanted` of the `ties` with it."""
    return tf.cond(
        ties == wanted,
        lambda: keys >= kth,
        lambda: (keys > kth) | _first(keys == kth, wanted),
    )


def _keys(bits, signed):
    # Most scores are magnitudes, which order as their bits do.
    return tf.cond(signed, lambda: sortable(bits), lambda: bits)


def sortable(bits):
    """int32 keys that order as the float32 scores do."""
    # Of the negative, the one that is further from 0 is less.
    signs = tf.bitwise.right_shift(bits, 31)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(signs, tf.int32.max))


def _histogram(values: tf.Tensor, bins: int = _BINS) -> tf.Tensor:
    """int32 counts of the `values` in [0, bins); `tf.math.bincount` adds a pass for a maximum."""
    return tf.raw_ops.Bincount(arr=values, size=bins, weights=tf.constant([], tf.int32))


def _in_order(histogram: tf.Tensor) -> tf.Tensor:
    """The bins of the upper halves, those of negative scores first and nothing ineligible."""
    negative, positive = histogram[_BINS // 2 : -1], histogram[: _BINS // 2]
    return tf.concat([tf.zeros_like(negative[:1]), tf.reverse(negative, [0]), positive], 0)


def _bin_of_kth(histogram: tf.Tensor, k: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bin (int32) that holds the k-th largest, k less what lies above it, and its count."""
    return _bin_of_kth_int64(tf.cast(histogram, tf.int64), k)


@shared(_COUNTS, _NUMBER)
def _bin_of_kth_int64(histogram, k):
    # First the row, then the bin in it: a cumulative sum over all bins takes longer.
    rows = tf.reshape(histogram, [-1, _ROW])
    row, k, _ = _place_of_kth(tf.reduce_sum(rows, 1), k)
    bin, k, here = _place_of_kth(tf.gather(rows, row), k)
    return row * _ROW + bin, k, here


def _place_of_kth(counts, k):
    from_here_up = tf.cumsum(counts, reverse=True)
    k = tf.minimum(k, tf.reduce_max(from_here_up))
    reached = from_here_up >= k
    above = tf.reduce_max(tf.where(reached, tf.zeros_like(from_here_up), from_here_up))
    place = tf.cast(count(reached), tf.int32) - 1
    return place, k - above, tf.gather(counts, place)


@shared(MASK, _NUMBER)
def _first(mask, k):
    """Keeps the first `k` True entries of `mask`, in order of index."""
    size = tf.size(mask)
    flat = tf.pad(mask, [[0, -size % _BLOCK]])
    blocks = tf.cast(tf.reshape(flat, [-1, _BLOCK]), tf.int32)
    up_to = tf.cumsum(tf.cast(tf.reduce_sum(blocks, axis=1), tf.int64))
    before = up_to < k
    block = count(before)
    above = tf.reduce_max(tf.where(before, up_to, tf.zeros_like(up_to)))
    short = tf.cast(tf.cumsum(tf.gather(blocks, block)), tf.int64) < k - above
    end = block * _BLOCK + count(short) + 1
    return mask & (tf.range(tf.cast(size, tf.int64)) < end) & (k > 0)


@shared(BITS, HISTOGRAM, SCORE, MASK, ([], tf.float64))
def exchange_one(bits, histogram, grow_score, active, fraction):
    """`exchange` in one part, which is ranked."""
    alive = count(active)
    dropped = share(fraction, alive)
    kept = top_of_ranked(bits, histogram, active, alive - dropped)
    return kept | top_of_ranked(*rank_flat(grow_score, ~kept), ~kept, dropped)


@shared(BITS, SCORE, MASK, SIZES, ([], tf.float64))
def exchange_segments(bits, grow_score, active, sizes, fraction):
    """`exchange` in each segment, which are small."""

    def one(bits, grow_score, active):
        alive = count(active)
        dropped = share(fraction, alive)
        kept = top_of_small(bits, active, alive - dropped)
        return kept | top_of_small(tf.bitcast(grow_score, tf.int32), ~kept, dropped)

    return each_segment(one, sizes, [bits, grow_score, active])
