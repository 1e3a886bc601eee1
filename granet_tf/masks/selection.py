"""Exact top-k masks, within a weight or across several, without sorting.

A float32 orders as an integer made of its bits. Two histograms of 2**16 bins (the upper half of
that integer, then the lower half of those in the bin that holds the k-th largest) find the k-th
largest exactly, in a few passes over the scores, whatever k is. Of small weights, three smaller
histograms do, together or one after the other. For XLA see `bisection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from granet_tf.masks.bisection import WIDTH
from granet_tf.masks.counts import count
from granet_tf.masks.histograms import (
    count_segments,
    exchange_one,
    exchange_segments,
    rank_flat,
    sortable,
    top_of_ranked,
    top_of_segments,
    top_of_several,
    top_of_small,
)
from granet_tf.masks.joined import Joined, Parts
from granet_tf.masks.traced import is_compiled


class Ranking(NamedTuple):
    """Scores made ready to choose by, more than once.

    Attributes:
        bits: int32: the bits of the scores, and what orders below all of them.
        histograms: Of each part: int32 counts of the upper halves of the bits. Not of small
            weights, and not for XLA.
        eligible: Which units are ranked.
    """

    bits: Joined
    histograms: tuple[tf.Tensor, ...]
    eligible: Joined


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
    parts = Parts.of([tuple(score.shape) for score in scores])
    joined = parts.join([tf.cast(score, tf.float32) for score in scores])
    return top(rank(joined, parts.join(eligible)), k).split()


def rank(score: Joined, eligible: Joined) -> Ranking:
    """Ranks the eligible units by their float32 scores.

    The best k are also the best of those that a larger k selects, so one ranking serves to prune
    and then to drop.
    """
    if is_compiled() or score.parts.is_small:
        return Ranking(score.map(lambda s: tf.bitcast(s, tf.int32)), (), eligible)
    each = zip(score.tensors, eligible.tensors, strict=True)
    bits, histograms = zip(*(rank_flat(s, e) for s, e in each), strict=True)
    return Ranking(Joined(score.parts, bits), histograms, eligible)


def top(ranking: Ranking, k: int | tf.Tensor) -> Joined:
    """Mask of the k best of all weights together, as of `select`.

    Example:

    >>> parts = Parts.of([(2,), (2,)])
    >>> score = parts.join([tf.constant([4.0, 3.0]), tf.constant([2.0, 1.0])])
    >>> ranking = rank(score, score.map(lambda s: s > 0.0))
    >>> [mask.numpy().tolist() for mask in top(ranking, 1).split()]
    [[True, False], [False, False]]
    >>> [mask.numpy().tolist() for mask in top_of_each(ranking, tf.constant([0, 1])).split()]
    [[False, False], [True, False]]
    """
    k = tf.cast(k, tf.int64)
    if is_compiled():
        return _bisected(ranking, k)
    if not ranking.histograms:
        [bits], [eligible] = ranking.bits.tensors, ranking.eligible.tensors
        return Joined(ranking.bits.parts, (top_of_small(bits, eligible, k),))
    flat = list(
        zip(ranking.bits.tensors, ranking.histograms, ranking.eligible.tensors, strict=True)
    )
    masks = top_of_several(flat, k) if len(flat) > 1 else [top_of_ranked(*flat[0], k)]
    return Joined(ranking.bits.parts, tuple(masks))


def top_of_each(ranking: Ranking, k: tf.Tensor) -> Joined:
    """Mask of the best of each weight, as many as the vector `k` says."""
    k = tf.cast(k, tf.int64)
    parts = ranking.bits.parts
    if is_compiled():
        return _bisected(ranking, k)
    masks = []
    for i, ((first, end), sizes) in enumerate(zip(parts.bounds, parts.sizes, strict=True)):
        bits, eligible = ranking.bits.tensors[i], ranking.eligible.tensors[i]
        if len(sizes) == 1 and ranking.histograms:
            masks.append(top_of_ranked(bits, ranking.histograms[i], eligible, k[first]))
        else:
            masks.append(top_of_segments(bits, eligible, sizes, k[first:end]))
    return Joined(parts, tuple(masks))


def exchange(ranking: Ranking, grow_score: Joined, fraction: tf.Tensor, active: Joined) -> Joined:
    """Mask after each weight has exchanged its weakest share; see `Units.exchange`."""
    parts = active.parts
    exchanged = []
    for i, sizes in enumerate(parts.sizes):
        bits, growth, mask = (of.tensors[i] for of in (ranking.bits, grow_score, active))
        if len(sizes) == 1 and ranking.histograms:
            histogram = ranking.histograms[i]
            exchanged.append(exchange_one(bits, histogram, growth, mask, fraction))
        else:
            exchanged.append(exchange_segments(bits, growth, mask, sizes, fraction))
    return Joined(parts, tuple(exchanged))


def count_all(mask: Joined) -> tf.Tensor:
    """Number of True entries of all weights, int64."""
    if is_compiled():
        return tf.reduce_sum(count_each(mask))
    return tf.add_n([count(tensor) for tensor in mask.tensors])


def count_each(mask: Joined) -> tf.Tensor:
    """Number of True entries of each weight, an int64 vector.

    Example:

    >>> mask = Parts.of([(2,), (1,)]).join([tf.constant([True, False]), tf.constant([False])])
    >>> count_each(mask).numpy().tolist(), int(count_all(mask))
    ([1, 0], 1)
    """
    if is_compiled():
        return mask.parts.rows.count(tf.reshape(mask.tensors[0], [-1, WIDTH]))
    counts = [
        count(tensor)[tf.newaxis] if len(sizes) == 1 else count_segments(tensor, sizes)
        for tensor, sizes in zip(mask.tensors, mask.parts.sizes, strict=True)
    ]
    return tf.concat(counts, 0)


def _bisected(ranking, k):
    [bits], [eligible] = ranking.bits.tensors, ranking.eligible.tensors
    parts = ranking.bits.parts
    return Joined(parts, (parts.rows.top(sortable(bits), eligible, k),))
