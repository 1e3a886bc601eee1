"""Pruning to an overall sparsity: across all tensors, or each tensor for itself.

Pins and caps are obeyed in both. Weights of different patterns are never ranked together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import tensorflow as tf

from granet_tf.masks.patterns import Capacity, Pattern
from granet_tf.masks.selection import Ranking, count, rank, top

Tiers = Sequence[Ranking]


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The units of one weight, ranked to be kept.

    Attributes:
        path: The weight's path.
        shape: Its shape.
        pattern: What its units are. Those of equal patterns are ranked together.
        capacity: How many units the pattern has room for.
        score: The score of each unit.
        eligible: Masks of units in tiers, see `Pattern.tiers`.
        rankings: The ranking of each tier.
        all_eligible: The units of all tiers, those included that `without` has taken out.
    """

    path: str
    shape: tuple[int, ...]
    pattern: Pattern
    capacity: Capacity
    score: tf.Tensor
    eligible: tuple[tf.Tensor, ...]
    rankings: tuple[Ranking, ...]
    all_eligible: tf.Tensor

    @classmethod
    def of(
        cls,
        path: str,
        shape: tuple[int, ...],
        patterns: tuple[Pattern, Pattern],
        score: tf.Tensor,
        eligible: tf.Tensor,
    ) -> Candidates:
        """Of one weight.

        Args:
            path: The weight's path.
            shape: Its shape.
            patterns: Its pattern as it was given and with its axes, as from `Method.patterns_of`.
            score: The score of each unit.
            eligible: Which units are ranked.
        """
        given, bound = patterns
        tiers, capacity = bound.tiers(score, eligible), bound.capacity(shape)
        return cls(path, shape, given, capacity, score, tiers, ranked(score, tiers), eligible)

    def without(self, taken: tf.Tensor, closed: bool) -> Candidates:
        """Those that are left where some are `taken`; none if it is `closed`."""
        tiers = tuple(each & ~taken & (not closed) for each in self.eligible)
        return dataclasses.replace(self, eligible=tiers, rankings=ranked(self.score, tiers))

    @property
    def comparable(self) -> tuple[Ranking, ...]:
        """The rankings among units of other weights of its pattern."""
        score = self.pattern.comparable(self.score, self.all_eligible)
        return self.rankings if score is self.score else ranked(score, self.eligible)


def ranked(score: tf.Tensor, tiers: Sequence[tf.Tensor]) -> tuple[Ranking, ...]:
    """Makes the tiers of one weight ready for `best`."""
    return tuple(rank(score, eligible) for eligible in tiers)


def best(rankings: Sequence[Tiers], k: int | tf.Tensor) -> list[tf.Tensor]:
    """Masks of the k best units of all tensors together: of the first tiers while these last.

    Example:

    >>> score, first = tf.constant([5.0, 1.0, 2.0]), tf.constant([False, True, True])
    >>> [mask] = best([ranked(score, [first, ~first])], 1)
    >>> mask.numpy().astype(int).tolist()
    [0, 0, 1]
    """
    masks = top([tiers[0] for tiers in rankings], k)
    for depth in range(1, max(map(len, rankings))):
        rest = tf.cast(k, tf.int64) - tf.add_n([count(m) for m in masks])
        deep = [i for i, tiers in enumerate(rankings) if depth < len(tiers)]
        more = top([rankings[i][depth] for i in deep], tf.maximum(rest, 0))
        for i, mask in zip(deep, more, strict=True):
            masks[i] |= mask
    return masks


def best_together(weights: Sequence[Candidates], k: int | tf.Tensor) -> list[tf.Tensor]:
    """Masks of the k best units of all these weights, which are of equal patterns.

    How many units each weight keeps is found by what `Pattern.comparable` makes of the scores; in a
    weight, those of the highest scores stay.

    Example:

    >>> from granet_tf.masks.patterns import Filter
    >>> filters, everything = (Filter(), Filter()), tf.constant([True, True])
    >>> scores = [tf.constant([1.0, 3.0]), tf.constant([400.0, 300.0])]
    >>> weights = [Candidates.of("a", (2, 2), filters, score, everything) for score in scores]
    >>> [mask.numpy().tolist() for mask in best_together(weights, 2)]
    [[False, True], [True, False]]
    """
    rankings = [w.comparable for w in weights]
    masks = best(rankings, k)
    # Rounding may make equal what was not, so the order in a weight is that of its own scores.
    return [
        mask if ranking is w.rankings else best([w.rankings], count(mask))[0]
        for w, ranking, mask in zip(weights, rankings, masks, strict=True)
    ]


def alike(patterns: Sequence[Pattern]) -> list[list[int]]:
    """Positions of equal patterns, whose units may be ranked together and exchanged.

    A block of four weights and a single weight are not compared: a unit of the one would be paid
    for with one of the other.

    Example:

    >>> from granet_tf.masks.patterns import Block, Element
    >>> alike([Element(), Block((4, 1)), Element()])
    [[0, 2], [1]]
    """
    groups: dict[Pattern, list[int]] = {}
    for i, pattern in enumerate(patterns):
        groups.setdefault(pattern, []).append(i)
    return list(groups.values())


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


def _keep_layer(method, weights, sparsity):
    """Prunes each tensor to its own count."""
    targets = _targets(method, weights, sparsity)
    return [best([w.rankings], units_to_keep([w.capacity], targets[w.path]))[0] for w in weights]


def _keep_global(method, weights, sparsity):
    """Prunes all tensors of a pattern together."""
    paths = {w.path: w for w in weights}
    pinned = match(method.pinned, paths, "pinned")
    capped = match(method.capped, paths, "capped")
    targets = _targets(method, weights, sparsity) if pinned else {}
    least = {**capped, **{path: targets[path] for path in pinned}}
    masks = {}
    for group in alike([w.pattern for w in weights]):
        kept = _keep_together([weights[i] for i in group], sparsity, least, pinned)
        masks |= dict(zip(group, kept, strict=True))
    return [masks[i] for i in range(len(weights))]


def _keep_together(weights, sparsity, least, pinned):
    """What is pinned or capped first gets the count it must have."""
    k = units_to_keep([w.capacity for w in weights], sparsity)
    if not any(w.path in least for w in weights):
        return best_together(weights, k)
    masks = [
        best([w.rankings], units_to_keep([w.capacity], least[w.path]))[0]
        if w.path in least
        else tf.zeros_like(w.eligible[0])
        for w in weights
    ]
    others = [w.without(m, w.path in pinned) for w, m in zip(weights, masks, strict=True)]
    rest = tf.maximum(k - tf.add_n([count(m) for m in masks]), 0)
    return [m | r for m, r in zip(masks, best_together(others, rest), strict=True)]


# {scope: (method, candidates of all weights, overall sparsity) -> masks of the units that stay}
SCOPES: dict[str, Callable] = {"global": _keep_global, "layer": _keep_layer}


def _targets(method, weights, sparsity):
    """Sparsity of each tensor at the overall `sparsity`, a scalar tensor.

    Linear between the distributions at the initial and the final sparsity, which keeps the overall
    sparsity exact.
    """
    shapes = {w.path: w.shape for w in weights}
    floors = {w.path: w.capacity.least_sparsity for w in weights}
    first = method.distribute(shapes, method.initial_sparsity, floors)
    last = method.distribute(shapes, method.final_sparsity, floors)
    span = method.final_sparsity - method.initial_sparsity
    share = (sparsity - method.initial_sparsity) / span if span else 1.0

    def target(path):
        if (first[path], last[path]) == (method.initial_sparsity, method.final_sparsity):
            return sparsity
        # Written so that a share of 1 gives `last` itself, not its neighbour in float64.
        return tf.clip_by_value(last[path] - (1.0 - share) * (last[path] - first[path]), 0.0, 1.0)

    return {path: target(path) for path in shapes}
