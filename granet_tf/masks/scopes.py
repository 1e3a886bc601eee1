"""Pruning to an overall sparsity: across all tensors, or each tensor for itself.

Pins and caps are obeyed in both. Weights of different patterns are never ranked together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import tensorflow as tf

from granet_tf.masks.patterns import Pattern
from granet_tf.masks.selection import count
from granet_tf.masks.units import Tiers, Units, best, ranked, units_to_keep


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The units of one weight, ranked to be kept.

    Attributes:
        units: The units.
        score: The score of each.
        eligible: Masks of units in tiers, see `Pattern.tiers`.
        rankings: The ranking of each tier.
        all_eligible: The units of all tiers, those included that `without` has taken out.
    """

    units: Units
    score: tf.Tensor
    eligible: tuple[tf.Tensor, ...]
    rankings: Tiers
    all_eligible: tf.Tensor

    @classmethod
    def of(cls, units: Units, score: tf.Tensor, eligible: tf.Tensor | None = None) -> Candidates:
        """Of one weight.

        Args:
            units: Its units.
            score: The score of each.
            eligible: Which of them are ranked; None is those that are active.
        """
        eligible = units.active if eligible is None else eligible
        tiers = units.pattern.tiers(score, eligible)
        return cls(units, score, tiers, ranked(score, tiers), eligible)

    @property
    def path(self) -> str:
        return self.units.path

    def without(self, taken: tf.Tensor, closed: bool) -> Candidates:
        """Those that are left where some are `taken`; none if it is `closed`."""
        tiers = tuple(each & ~taken & (not closed) for each in self.eligible)
        return dataclasses.replace(self, eligible=tiers, rankings=ranked(self.score, tiers))

    @property
    def comparable(self) -> Tiers:
        """The rankings among units of other weights of its pattern."""
        score = self.units.given.comparable(self.score, self.all_eligible)
        return self.rankings if score is self.score else ranked(score, self.eligible)


def best_together(weights: Sequence[Candidates], k: int | tf.Tensor) -> list[tf.Tensor]:
    """Masks of the k best units of all these weights, which are of equal patterns.

    How many units each weight keeps is found by what `Pattern.comparable` makes of the scores; in a
    weight, those of the highest scores stay.

    Example:

    >>> from granet_tf.masks.patterns import Filter
    >>> units = Units.of((Filter(), Filter()), tf.ones((2, 2), tf.bool))
    >>> scores = [tf.constant([1.0, 3.0]), tf.constant([400.0, 300.0])]
    >>> weights = [Candidates.of(units, score) for score in scores]
    >>> [mask.numpy().tolist() for mask in best_together(weights, 2)]
    [[False, True], [True, False]]
    """
    together = [w.comparable for w in weights]
    masks = best(together, k)
    # Rounding may make equal what was not, so the order in a weight is that of its own scores.
    return [
        mask if ranking is w.rankings else best([w.rankings], count(mask))[0]
        for w, ranking, mask in zip(weights, together, masks, strict=True)
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
    return [
        best([w.rankings], units_to_keep([w.units.capacity], targets[w.path]))[0] for w in weights
    ]


def _keep_global(method, weights, sparsity):
    """Prunes all tensors of a pattern together."""
    paths = {w.path: w for w in weights}
    pinned = match(method.pinned, paths, "pinned")
    capped = match(method.capped, paths, "capped")
    targets = _targets(method, weights, sparsity) if pinned else {}
    least = {**capped, **{path: targets[path] for path in pinned}}
    masks = {}
    for group in alike([w.units.given for w in weights]):
        kept = _keep_together([weights[i] for i in group], sparsity, least, pinned)
        masks |= dict(zip(group, kept, strict=True))
    return [masks[i] for i in range(len(weights))]


def _keep_together(weights, sparsity, least, pinned):
    """What is pinned or capped first gets the count it must have."""
    k = units_to_keep([w.units.capacity for w in weights], sparsity)
    if not any(w.path in least for w in weights):
        return best_together(weights, k)
    masks = [
        best([w.rankings], units_to_keep([w.units.capacity], least[w.path]))[0]
        if w.path in least
        else tf.zeros_like(w.all_eligible)
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
    shapes = {w.path: w.units.shape for w in weights}
    floors = {w.path: w.units.capacity.least_sparsity for w in weights}
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
