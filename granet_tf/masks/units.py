"""The algebra of units: choose, prune to a number, drop, grow, exchange.

A unit is what a pattern prunes as one: a weight, a block, a filter, a slot of an N:M group.
Methods, studies and conversions see units only, and all of them choose by what is here, for all
weights of a pattern at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from granet_tf.masks.counts import nearest_share, share
from granet_tf.masks.joined import Joined, Parts, flat_each
from granet_tf.masks.patterns import Capacity, Pattern
from granet_tf.masks.patterns.coupling import Coupling
from granet_tf.masks.selection import (
    Ranking,
    count_all,
    count_each,
    exchange,
    rank,
    top,
    top_of_each,
)
from granet_tf.masks.traced import is_compiled
from keras_layers.layouts import Layout

# Rankings of the same units, in the order in which they may be chosen; see `Pattern.tiers`.
Tiers = Sequence[Ranking]


def ranked(score: Joined, tiers: Sequence[Joined]) -> Tiers:
    """Makes the tiers ready for `best` and `best_of_each`."""
    return tuple(rank(score, eligible) for eligible in tiers)


def best(tiers: Tiers, k: int | tf.Tensor) -> Joined:
    """Mask of the k best units of all weights together: of the first tiers while these last.

    Example:

    >>> parts = Parts.of([(3,)])
    >>> score, first = map(parts.join, ([[5.0, 1.0, 2.0]], [[False, True, True]]))
    >>> [mask] = best(ranked(score, [first, ~first]), 1).split()
    >>> mask.numpy().astype(int).tolist()
    [0, 0, 1]
    """
    return _best(tiers, tf.cast(k, tf.int64), top, count_all)


def best_of_each(tiers: Tiers, k: tf.Tensor) -> Joined:
    """Mask of the best units of each weight, as many as the vector `k` says."""
    return _best(tiers, tf.cast(k, tf.int64), top_of_each, count_each)


def _best(tiers, k, top, count):
    mask = top(tiers[0], k)
    for ranking in tiers[1:]:
        mask |= top(ranking, tf.maximum(k - count(mask), 0))
    return mask


@dataclasses.dataclass(frozen=True)
class Bound:
    """A weight and its pattern.

    Attributes:
        path: Its name.
        place: Its place among all weights that the method has.
        pattern: The pattern with the weight's axes.
        shape: Its shape.
        layout: What a pattern that couples units needs to know.
    """

    path: str
    place: int
    pattern: Pattern
    shape: tuple[int, ...]
    layout: Layout

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Its shape with all channels that it ever had."""
        return self.layout.full_shape or self.shape


@dataclasses.dataclass(frozen=True)
class Units:
    """What is active of the weights of one pattern, and what may become so, counted in units.

    Weights whose units are coupled count as one here, an entry, which is named by the first of
    them. Without coupling, each weight is an entry.

    Attributes:
        given: The pattern as it was given, without axes: units of equal ones may be ranked together
            and exchanged.
        weights: The weights.
        entries: The first weight of each entry.
        indices: Places of the entries among all entries that the method has.
        active: Which units are active.
        coupling: Which units of several weights are one; None if there are none such.

    Example:

    >>> from granet_tf.masks.patterns import Element
    >>> masks = [tf.constant([True, True, False, False])]
    >>> [units] = Units.of(["kernel"], [(Element(), Element())], masks)
    >>> score = units.pool([tf.constant([1.0, 2.0, 3.0, 4.0])])
    >>> kept = units.choose(score, tf.constant([1]), units.active)
    >>> units.expand(kept)[0].numpy().tolist(), units.room(kept).numpy().tolist()
    ([False, True, False, False], [3])
    """

    given: Pattern
    weights: tuple[Bound, ...]
    entries: tuple[Bound, ...]
    indices: tuple[int, ...]
    active: Joined
    coupling: Coupling | None = None

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        patterns: Sequence[tuple[Pattern, Pattern]],
        masks: Sequence[tf.Tensor],
        layouts: Sequence[Layout] | None = None,
    ) -> list[Units]:
        """The units of weights with these masks, those of equal patterns together.

        A block of four weights and a single weight are not compared: a unit of the one would be
        paid for with one of the other.

        Args:
            paths: Paths of the weights.
            patterns: The pattern of each weight, as it was given and with the weight's axes, as
                from `Method.patterns_of`.
            masks: The weights' masks.
            layouts: Their layouts.
        """
        layouts = [Layout()] * len(paths) if layouts is None else layouts
        each = zip(paths, patterns, masks, layouts, strict=True)
        bound = [
            Bound(path, i, pattern, tuple(mask.shape), layout)
            for i, (path, (_, pattern), mask, layout) in enumerate(each)
        ]
        groups = [
            cls._of_group(patterns[places[0]][0], [bound[i] for i in places], masks)
            for places in alike([given for given, _ in patterns])
        ]
        ordered = sorted(entry.place for units in groups for entry in units.entries)
        index = {place: i for i, place in enumerate(ordered)}
        return [
            dataclasses.replace(units, indices=tuple(index[e.place] for e in units.entries))
            for units in groups
        ]

    @classmethod
    def _of_group(cls, given, weights, masks):
        units, entries = [w.pattern.units(masks[w.place]) for w in weights], weights
        coupling = _coupling_of(given, weights)
        if coupling is not None:
            units = coupling.any(map(_in_a_row, units))
            entries = [weights[first] for first, *_ in coupling.members]
        active = Parts.of([tuple(each.shape) for each in units]).join(units)
        return cls(given, tuple(weights), tuple(entries), (), active, coupling)

    @property
    def paths(self) -> list[str]:
        """Paths of the entries."""
        return [entry.path for entry in self.entries]

    @property
    def parts(self) -> Parts:
        return self.active.parts

    @property
    def capacities(self) -> list[Capacity]:
        """How many units the pattern has room for, of each entry."""
        if self.coupling is not None:
            # What has been removed counts as pruned.
            each = zip(self.coupling.sizes, self.entries, strict=True)
            sizes = [(size + entry.layout.removed, size) for size, entry in each]
            return [Capacity(full, full, size) for full, size in sizes]
        return [w.pattern.capacity(w.shape) for w in self.weights]

    def pool(self, scores: Sequence[tf.Tensor]) -> Joined:
        """Scores of single weights, of all weights that the method has -> float32 of units."""
        pooled = [w.pattern.pool(scores[w.place]) for w in self.weights]
        return self._summed([tf.cast(score, tf.float32) for score in pooled])

    def _summed(self, pooled: Sequence[tf.Tensor]) -> Joined:
        """Scores of the units of each weight -> of each entry."""
        if self.coupling is not None:
            pooled = self.coupling.added(list(map(_in_a_row, pooled)))
        return self.parts.join(pooled)

    def pool_magnitudes(self, values: Sequence[tf.Tensor]) -> Joined:
        """`pool` of their absolute values."""
        if not self.given.is_single:
            return self.pool([tf.abs(value) for value in values])
        own = [tf.cast(values[w.place], tf.float32) for w in self.weights]
        return self.parts.join(own).map(tf.abs)

    def judged(self, snapshots: Sequence) -> Joined:
        """The scores of the pattern's criterion, see `Pattern.judge`.

        Args:
            snapshots: All weights that the method has, each with `weight`, `gradient` and `scale`;
                the latter two may be None.

        Raises:
            ValueError: If the criterion needs what is not there.
        """
        judge, parts = self.given.judge, []
        for bound in self.weights:
            now = snapshots[bound.place]
            for needed in ("gradient", "scale"):
                if getattr(judge, f"needs_{needed}") and getattr(now, needed) is None:
                    raise ValueError(
                        f"`criterion` needs the {needed} of each weight, which is not to be had "
                        f"here. Received: criterion={self.given.criterion!r}"
                    )
            parts.append(bound.pattern.judged(now.weight, now.gradient, now.scale))
        summed = self._summed(parts)
        return summed if judge.total is None else summed.map(judge.total)

    def mean(self, pooled: Joined) -> Joined:
        """What has been pooled, for one weight of each unit: comparable between filters, or blocks,
        of different sizes."""
        sizes = self._summed([w.pattern.pool(tf.ones(w.shape)) for w in self.weights])
        return pooled.map(tf.divide, sizes)

    def expand(self, units: Joined) -> list[tf.Tensor]:
        """Mask of units -> masks of these weights."""
        masks = units.split()
        if self.coupling is not None:
            masks = self.coupling.spread(masks)
        each = zip(self.weights, masks, strict=True)
        return [weight.pattern.expand(mask, weight.shape) for weight, mask in each]

    def flat(self, units: Sequence[Joined]) -> list[list[tf.Tensor]]:
        """As `expand` for each, or flat where that is an operation less for each weight."""
        return flat_each(units) if self.given.is_single else list(map(self.expand, units))

    def tiers(
        self, score: Joined, eligible: Joined, kept: Joined | None = None
    ) -> tuple[Joined, ...]:
        """`Pattern.tiers` of all weights."""
        if self.given.is_free:
            return (eligible,)
        of_weights = [each.split() for each in (score, eligible, kept) if each is not None]
        each = zip(self.weights, *of_weights, strict=True)
        tiers = [weight.pattern.tiers(*values) for weight, *values in each]
        return tuple(self.parts.join(tier) for tier in zip(*tiers, strict=True))

    def comparable(self, score: Joined, eligible: Joined) -> Joined:
        """`Pattern.comparable` of all weights."""
        if self.given.is_comparable:
            return score
        each = zip(self.entries, score.split(), eligible.split(), strict=True)
        return self.parts.join([entry.pattern.comparable(s, e) for entry, s, e in each])

    def choose(self, score: Joined, k: tf.Tensor, eligible: Joined) -> Joined:
        """Mask of the best of the `eligible` units, as many of each weight as the vector says."""
        return best_of_each(ranked(score, self.tiers(score, eligible)), k)

    def add(self, score: Joined, k: tf.Tensor, kept: Joined) -> Joined:
        """`kept`, and the best units that fit beside it, as many of each weight as `k` says."""
        return kept | best_of_each(ranked(score, self.tiers(score, ~kept, kept)), k)

    def exchange(
        self, tiers: Tiers, grow_score: Joined, fraction: tf.Tensor, active: Joined
    ) -> Joined:
        """Mask of units after the weakest share is dropped and as many are grown (Eq. 2 and 3).

        Each weight exchanges its own. What has just been dropped may be grown again.

        Args:
            tiers: Units, those that are active among them as the best, ranked to be kept.
            grow_score: Of all units; the highest of those that are not active come.
            fraction: Share of the active units, a float64 scalar in [0, 1].
            active: Which units are active.

        Example:

        >>> from granet_tf.masks.patterns import Element
        >>> masks, element = [tf.constant([True, True, False])], Element()
        >>> [units] = Units.of(["kernel"], [(element, element)], masks)
        >>> weakest_second = ranked(units.pool([tf.constant([2.0, 1.0, 0.0])]), [units.active])
        >>> growth, half = units.pool([tf.constant([0.0, 1.0, 2.0])]), tf.constant(0.5, tf.float64)
        >>> new = units.exchange(weakest_second, growth, half, units.active)
        >>> units.expand(new)[0].numpy().tolist()
        [True, False, True]
        """
        if self.given.is_free and self.coupling is None and not is_compiled():
            return exchange(tiers[0], grow_score, fraction, active)
        alive = count_each(active)
        dropped = self.exchanged(fraction, alive)
        return self.add(grow_score, dropped, best_of_each(tiers, alive - dropped))

    def exchanged(self, fraction: tf.Tensor, alive: tf.Tensor) -> tf.Tensor:
        """How many of the `alive` units of each weight are exchanged, an int64 vector.

        The share is rounded up. Units that are coupled are too few for that: it would be 1 of 4 at
        any share, to the end of training, so it is the nearest number, which may be 0.
        """
        return (share if self.coupling is None else nearest_share)(fraction, alive)

    def room(self, kept: Joined) -> tf.Tensor:
        """How many units of each weight fit beside `kept`."""
        anything = kept.map(lambda mask: tf.zeros(tf.shape(mask)))
        return count_each(self.tiers(anything, ~kept, kept)[0])


def _coupling_of(given, weights) -> Coupling | None:
    if not given.coupled:
        return None
    own = [weight.layout.channels for weight in weights]
    if None in own:
        raise ValueError(
            "`pattern` couples units of several weights, and only a model tells which: prune with "
            f"granet_tf.wrap(model, method). Received: pattern={given!r}"
        )
    return Coupling.of(own)


def _in_a_row(values):
    return tf.reshape(values, [-1])


def alike(patterns: Sequence[Pattern]) -> list[list[int]]:
    """Positions of equal patterns.

    Example:

    >>> from granet_tf.masks.patterns import Block, Element
    >>> alike([Element(), Block((4, 1)), Element()])
    [[0, 2], [1]]
    """
    groups: dict[Pattern, list[int]] = {}
    for i, pattern in enumerate(patterns):
        groups.setdefault(pattern, []).append(i)
    return list(groups.values())


def in_order(groups: Sequence[Units], values: Sequence[Sequence]) -> list:
    """What each group has for its entries, in the order of all entries.

    Example:

    >>> from granet_tf.masks.patterns import Element, Filter
    >>> patterns = [(p, p) for p in (Element(), Filter(), Element())]
    >>> groups = Units.of("abc", patterns, [tf.ones((2, 2), tf.bool)] * 3)
    >>> in_order(groups, [["first", "third"], ["second"]])
    ['first', 'second', 'third']
    """
    return _sorted([units.indices for units in groups], values)


def _of_weights(groups, values):
    """What each group has for its weights, in the order of all weights."""
    return _sorted([[w.place for w in units.weights] for units in groups], values)


def _sorted(places, values):
    each = ((i for own in places for i in own), (value for own in values for value in own))
    return [value for _, value in sorted(zip(*each, strict=True), key=lambda pair: pair[0])]


def paths_of(groups: Sequence[Units]) -> list[str]:
    """Paths of all entries, in their order."""
    return in_order(groups, [units.paths for units in groups])


def expanded(groups: Sequence[Units], masks: Sequence[Joined]) -> list[tf.Tensor]:
    """Masks of units, by group -> masks of all weights, in their order."""
    each = zip(groups, masks, strict=True)
    return _of_weights(groups, [units.expand(mask) for units, mask in each])


def flat(groups: Sequence[Units], *masks: Sequence[Joined]) -> list[list[tf.Tensor]]:
    """As `expanded` for each, masks flat where that is an operation less for each weight."""
    by_group = zip(groups, zip(*masks, strict=True), strict=True)
    pieces = [units.flat(own) for units, own in by_group]
    return [_of_weights(groups, of_groups) for of_groups in zip(*pieces, strict=True)]
