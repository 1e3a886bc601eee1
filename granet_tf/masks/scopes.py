"""Pruning to an overall sparsity: across all weights, or each for itself.

Pins and caps are obeyed in both. Weights of different patterns are never ranked together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import tensorflow as tf

from granet_tf.masks.counts import units_of_each_to_keep, units_to_keep
from granet_tf.masks.joined import Joined
from granet_tf.masks.selection import count_all, count_each
from granet_tf.masks.units import Tiers, Units, best, best_of_each, in_order, paths_of, ranked


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The units of one pattern, ranked to be kept.

    Attributes:
        units: The units.
        score: The score of each.
        eligible: Masks of units in tiers, see `Pattern.tiers`.
        rankings: The ranking of each tier.
        all_eligible: The units of all tiers, those included that `without` has taken out.
    """

    units: Units
    score: Joined
    eligible: tuple[Joined, ...]
    rankings: Tiers
    all_eligible: Joined

    @classmethod
    def of(cls, units: Units, score: Joined, eligible: Joined | None = None) -> Candidates:
        """Of some units.

        Args:
            units: The units.
            score: The score of each.
            eligible: Which of them are ranked; None is those that are active.
        """
        eligible = units.active if eligible is None else eligible
        tiers = units.tiers(score, eligible)
        return cls(units, score, tiers, ranked(score, tiers), eligible)

    def without(self, taken: Joined) -> Candidates:
        """Those that are left where some are `taken`."""
        tiers = tuple(each & ~taken for each in self.eligible)
        return dataclasses.replace(self, eligible=tiers, rankings=ranked(self.score, tiers))

    @property
    def available(self) -> tf.Tensor:
        """How many of each entry are ranked, an int64 vector."""
        return count_each(self.all_eligible)

    def best_of_each(self, k: tf.Tensor) -> Joined:
        """Mask of the best units of each weight, as many as the vector `k` says."""
        return best_of_each(self.rankings, k)

    def best_together(self, k: int | tf.Tensor) -> Joined:
        """Mask of the k best units of all these weights.

        How many units each weight keeps is found by what `Pattern.comparable` makes of the scores;
        in a weight, those of the highest scores stay.

        Example:

        >>> from granet_tf.masks.patterns import Filter
        >>> [units] = Units.of("ab", [(Filter(), Filter())] * 2, [tf.ones((2, 2), tf.bool)] * 2)
        >>> score = units.parts.join([tf.constant([1.0, 3.0]), tf.constant([400.0, 300.0])])
        >>> mask = Candidates.of(units, score).best_together(2)
        >>> [kept.numpy().tolist() for kept in mask.split()]
        [[False, True], [True, False]]
        """
        score = self.units.comparable(self.score, self.all_eligible)
        if score is self.score:
            return best(self.rankings, k)
        # Rounding may make equal what was not, so the order in a weight is that of its own scores.
        return self.best_of_each(count_each(best(ranked(score, self.eligible), k)))


def match(
    values: Mapping[str | int, float], paths: Mapping[str, Any], name: str
) -> dict[str, float]:
    """{path: value} of the weights that the keys (patterns or positions) of `values` mean.

    Raises:
        ValueError: If a key means no weight.
    """
    ordered = list(paths)
    found = {}
    for key, value in values.items():
        if isinstance(key, int):
            hits = ordered[key : key + 1 or None] if -len(ordered) <= key < len(ordered) else []
        else:
            hits = [path for path in ordered if fnmatchcase(path, key)]
        if not hits:
            raise ValueError(
                f"Each key of `{name}` must be a position or a pattern of one of the "
                f"{len(ordered)} prunable weights, {ordered}. Received: {name}={dict(values)}"
            )
        found.update(dict.fromkeys(hits, value))
    return found


def _keep_layer(method, groups, sparsity):
    """Prunes each weight to its own count."""
    targets = _targets(method, groups, sparsity)
    wanted = [units_of_each_to_keep(c.units.capacities, _of_group(targets, c)) for c in groups]
    return [
        c.best_of_each(whole(c.units, k, c.available) if _is_particular(c.units) else k)
        for c, k in zip(groups, wanted, strict=True)
    ]


def _keep_global(method, groups, sparsity):
    """Prunes all weights of a pattern together."""
    pinned, capped = (_matched(method, groups, name) for name in ("pinned", "capped"))
    if not (pinned or capped):
        return [c.best_together(units_to_keep(c.units.capacities, sparsity)) for c in groups]
    places = range(sum(len(c.units.indices) for c in groups))
    # What is pinned or capped gets the number first that it must have.
    least = tf.constant([capped.get(i, 0.0) for i in places], tf.float64)
    is_pinned = np.array([i in pinned for i in places])
    if pinned:
        least = tf.where(is_pinned, _targets(method, groups, sparsity), least)
    must = np.array([i in pinned or i in capped for i in places])
    return [_keep_together(c, sparsity, least, must, is_pinned) for c in groups]


def _keep_together(candidates, sparsity, *of_all):
    units = candidates.units
    least, must, is_pinned = (_of_group(values, candidates) for values in of_all)
    own = units_of_each_to_keep(units.capacities, least)
    first = candidates.best_of_each(tf.where(must, own, tf.zeros_like(own)))
    rest = tf.maximum(units_to_keep(units.capacities, sparsity) - count_all(first), 0)
    others = candidates.without(first | units.parts.spread(is_pinned))
    return first | others.best_together(rest)


def _in_whole(keep):
    """`keep`, with numbers of units as the pattern wants them."""

    def kept(method, groups, sparsity):
        masks = keep(method, groups, sparsity)
        return [
            c.best_of_each(whole(c.units, count_each(mask), c.available))
            if _is_particular(c.units)
            else mask
            for c, mask in zip(groups, masks, strict=True)
        ]

    return kept


def _is_particular(units):
    return units.given.coupled or units.given.round_to > 1


def whole(units: Units, k: tf.Tensor, available: tf.Tensor | None = None) -> tf.Tensor:
    """Numbers of units next to `k` that the pattern lets an entry keep.

    Multiples of its `round_to`, and at least one; a number that is all of an entry stays. Their sum
    is the multiple next to that of `k`: the largest remainders are rounded up.

    Args:
        units: The units.
        k: How many of each entry are wanted, an int64 vector.
        available: How many of each there are to choose from; None is all.

    Example:

    >>> from granet_tf.masks.patterns import Filter
    >>> patterns, masks = [(Filter(round_to=8),) * 2] * 3, [tf.ones((1, 32), tf.bool)] * 3
    >>> [units] = Units.of("abc", patterns, masks)
    >>> whole(units, tf.constant([13, 14, 12], tf.int64)).numpy().tolist()
    [16, 16, 8]
    """
    step = units.given.round_to
    if step == 1:
        return tf.maximum(k, 1)
    sizes = tf.constant([c.fitting for c in units.capacities], tf.int64)
    least = tf.minimum(tf.constant(step, tf.int64), sizes)
    is_all = k >= sizes
    low = tf.where(is_all, sizes, tf.maximum(k // step * step, least))
    is_open = ~is_all & (low + step <= (sizes if available is None else available))
    remainder = tf.where(is_open, k - low, tf.constant(-step, tf.int64))
    missing = (tf.reduce_sum(k) - tf.reduce_sum(low) + step // 2) // step
    missing = tf.clip_by_value(missing, 0, tf.math.count_nonzero(is_open))
    order = tf.argsort(remainder, direction="DESCENDING", stable=True)
    place = tf.cast(tf.argsort(order, stable=True), tf.int64)
    return low + tf.where(place < missing, tf.constant(step, tf.int64), 0)


# {scope: (method, candidates by pattern, overall sparsity) -> masks of the units that stay}
SCOPES: dict[str, Callable] = {
    "global": _in_whole(_keep_global),
    "layer": _keep_layer,
}


def _of_group(values, candidates):
    return tf.gather(values, candidates.units.indices)


def _matched(method, groups, name):
    """{place: value} of the weights that are pinned or capped."""
    places = {path: i for i, path in enumerate(paths_of([c.units for c in groups]))}
    found = match(getattr(method, name), places, name)
    return {places[path]: value for path, value in found.items()}


def _targets(method, groups, sparsity):
    """Sparsity of each weight at the overall `sparsity`, a scalar tensor.

    Linear between the distributions at the initial and the final sparsity, and beyond that towards
    what each may be pruned to, which keeps the overall sparsity exact.
    """
    units = [c.units for c in groups]
    paths = paths_of(units)
    shapes = {e.path: e.full_shape for e in in_order(units, [u.entries for u in units])}
    capacities = in_order(units, [u.capacities for u in units])
    floors = {p: c.least_sparsity for p, c in zip(paths, capacities, strict=True)}
    initial, final = method.initial_sparsity, method.final_sparsity
    spreads = [method.distribute(shapes, s, floors) for s in (initial, final)]
    first, last = (np.array([spread[path] for path in paths]) for spread in spreads)
    share = (sparsity - initial) / (final - initial) if final != initial else 1.0
    # Written so that a share of 1 gives `last` itself, not its neighbour in float64.
    targets = last - (1.0 - share) * (last - first)
    # A schedule of one's own may go further than the method says.
    most = _matched(method, groups, "capped") | _matched(method, groups, "pinned")
    bounds = np.array([most.get(i, 1.0) for i in range(len(paths))])
    sizes = np.array([c.slots for c in capacities], np.float64)
    beyond = (sparsity - final) / (1.0 - final)
    if abs(sizes @ last - final * sizes.sum()) <= len(sizes):
        # The others make up for pins and caps.
        room = sizes @ (bounds - last)
        further = last + beyond * (sizes @ (1.0 - last)) / max(room, 1.0) * (bounds - last)
    else:
        further = tf.minimum(last + beyond * (1.0 - last), bounds)
    targets = tf.where((sparsity > final) & (first != last), further, targets)
    targets = tf.clip_by_value(targets, 0.0, tf.maximum(bounds, last))
    return tf.where((first == initial) & (last == final), tf.minimum(sparsity, bounds), targets)
