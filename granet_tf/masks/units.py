"""The algebra of units: choose, prune to a number, drop, grow, exchange.

A unit is what a pattern prunes as one: a weight, a block, a filter, a slot of an N:M group.
Methods, studies and conversions see units only, and all of them choose by what is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from granet_tf.masks.patterns import Capacity, Pattern
from granet_tf.masks.selection import (
    BITS,
    HISTOGRAM,
    MASK,
    Ranking,
    count,
    rank,
    top,
    top_of_ranked,
)
from granet_tf.masks.traced import shared

# The rankings of one weight's units, in the order in which they may be chosen; see `Pattern.tiers`.
Tiers = Sequence[Ranking]


def ranked(score: tf.Tensor, tiers: Sequence[tf.Tensor]) -> Tiers:
    """Makes the tiers of one weight ready for `best`."""
    return tuple(rank(score, eligible) for eligible in tiers)


def best(weights: Sequence[Tiers], k: int | tf.Tensor) -> list[tf.Tensor]:
    """Masks of the k best units of all weights together: of the first tiers while these last.

    Example:

    >>> score, first = tf.constant([5.0, 1.0, 2.0]), tf.constant([False, True, True])
    >>> [mask] = best([ranked(score, [first, ~first])], 1)
    >>> mask.numpy().astype(int).tolist()
    [0, 0, 1]
    """
    masks = top([tiers[0] for tiers in weights], k)
    for depth in range(1, max(map(len, weights))):
        rest = tf.cast(k, tf.int64) - tf.add_n([count(m) for m in masks])
        deep = [i for i, tiers in enumerate(weights) if depth < len(tiers)]
        more = top([weights[i][depth] for i in deep], tf.maximum(rest, 0))
        for i, mask in zip(deep, more, strict=True):
            masks[i] |= mask
    return masks


@dataclasses.dataclass(frozen=True)
class Units:
    """What is active of one weight, and what may become so, counted in units of its pattern.

    Attributes:
        pattern: The pattern, with the axes of the weight.
        shape: Shape of the weight.
        active: Which units are active.
        given: The pattern as it was given, without axes: units of equal ones may be ranked together
            and exchanged. None is that of all the others that say nothing.
        path: Path of the weight.

    Example:

    >>> from granet_tf.masks.patterns import Element
    >>> units = Units(Element(), (4,), tf.constant([True, True, False, False]))
    >>> kept = units.choose(tf.constant([1.0, 2.0, 3.0, 4.0]), 1, units.active)
    >>> kept.numpy().tolist(), int(units.room(kept))
    ([False, True, False, False], 3)
    """

    pattern: Pattern
    shape: tuple[int, ...]
    active: tf.Tensor
    given: Pattern | None = None
    path: str = ""

    @classmethod
    def of(cls, patterns: tuple[Pattern, Pattern], mask: tf.Tensor, path: str = "") -> Units:
        """The units of a weight with this mask.

        Args:
            patterns: The pattern as it was given and with the weight's axes, as from
                `Method.patterns_of`.
            mask: The weight's mask.
            path: The weight's path.
        """
        given, bound = patterns
        return cls(bound, tuple(mask.shape), bound.units(mask), given, path)

    @property
    def capacity(self) -> Capacity:
        """How many units the pattern has room for."""
        return self.pattern.capacity(self.shape)

    def pool(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units."""
        return self.pattern.pool(score)

    def mean(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units, for one weight of each: comparable between
        filters, or blocks, of different sizes."""
        return self.pattern.pool(score) / self.pattern.pool(tf.ones_like(score))

    def choose(self, score: tf.Tensor, k: tf.Tensor, eligible: tf.Tensor) -> tf.Tensor:
        """Mask of the k best of the `eligible` units."""
        return best([ranked(score, self.pattern.tiers(score, eligible))], k)[0]

    def add(self, score: tf.Tensor, k: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept`, and the k best units that fit beside it."""
        return kept | best([ranked(score, self.pattern.tiers(score, ~kept, kept))], k)[0]

    def exchange(
        self, tiers: Tiers, grow_score: tf.Tensor, fraction: tf.Tensor, active: tf.Tensor
    ) -> tf.Tensor:
        """Mask of units after the weakest share is dropped and as many are grown (Eq. 2 and 3).

        What has just been dropped may be grown again.

        Args:
            tiers: Units, those that are active among them as the best, ranked to be kept.
            grow_score: Of all units; the highest of those that are not active come.
            fraction: Share of the active units, a float64 scalar in [0, 1].
            active: Which units are active.

        Example:

        >>> from granet_tf.masks.patterns import Element
        >>> units = Units(Element(), (3,), tf.constant([True, True, False]))
        >>> weakest_second = ranked(tf.constant([2.0, 1.0, 0.0]), [units.active])
        >>> growth, half = tf.constant([0.0, 1.0, 2.0]), tf.constant(0.5, tf.float64)
        >>> units.exchange(weakest_second, growth, half, units.active).numpy().tolist()
        [True, False, True]
        """
        if self.pattern.is_free:
            [ranking], growth = tiers, tf.cast(grow_score, tf.float32)
            new = _exchange(ranking.bits, ranking.histogram, growth, fraction, active)
            new.set_shape(active.shape)
            return new
        alive = count(active)
        dropped = share(fraction, alive)
        return self.add(grow_score, dropped, best([tiers], alive - dropped)[0])

    def room(self, kept: tf.Tensor) -> tf.Tensor:
        """How many units fit beside `kept`."""
        anything = tf.zeros(kept.shape)
        return count(self.pattern.tiers(anything, ~kept, kept)[0])

    def expand(self, units: tf.Tensor) -> tf.Tensor:
        """Mask of units -> mask of the weight."""
        return self.pattern.expand(units, self.shape)


@shared(BITS, HISTOGRAM, (None, tf.float32), ([], tf.float64), MASK)
def _exchange(bits, histogram, grow_score, fraction, active):
    alive = count(active)
    dropped = share(fraction, alive)
    kept = top_of_ranked(bits, histogram, active, alive - dropped)
    return kept | top_of_ranked(*rank(grow_score, ~kept), dropped)


def share(fraction: tf.Tensor, alive: tf.Tensor) -> tf.Tensor:
    """ceil(fraction · alive), int64, as in Eq. 2.

    Example:

    >>> share(tf.constant(0.3, tf.float64), tf.constant([10, 11], tf.int64)).numpy().tolist()
    [3, 4]
    """
    # What rounding adds to a whole number is not a reason to drop one more.
    return tf.cast(tf.math.ceil(fraction * tf.cast(alive, tf.float64) - 1e-9), tf.int64)


def keep_count(size: int, sparsity: float | tf.Tensor) -> tf.Tensor:
    """k = max(1, round_half_even(size · (1 − sparsity))): int64, computed in float64.

    Example:

    >>> [int(keep_count(100, s)) for s in (0.0, 0.1, 0.9999)]
    [100, 90, 1]
    """
    kept = size * (1.0 - tf.cast(sparsity, tf.float64))
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
    k = keep_count(sum(c.slots for c in capacities), sparsity)
    fitting = sum(c.fitting for c in capacities)
    # Slots that are open, and have nothing but what fills up to take them.
    empty = sum(c.open for c in capacities) - fitting
    return k - tf.clip_by_value(k - fitting, 0, empty) if empty else k
