"""One update of the masks: prune, then regenerate (Algorithm 1 of the paper, lines 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from granet_tf.masks.joined import Joined
from granet_tf.masks.scopes import SCOPES, Candidates
from granet_tf.masks.units import Units, flat
from granet_tf.methods.draws import seeds_of
from granet_tf.methods.records import Snapshot, Updated, updated

if TYPE_CHECKING:
    from granet_tf.methods.base import Method


def prune_and_regenerate(
    method: Method, step: tf.Tensor, weights: Sequence[Snapshot], *, dormant_compete: bool
) -> list[Updated]:
    """See `Method.update`.

    Example:

    >>> weight, mask = tf.constant([4.0, 3.0, 2.0, 1.0]), tf.constant([True, True, True, True])
    >>> kernel = Snapshot("kernel", weight, mask, gradient=tf.constant([0.0, 1.0, 2.0, 3.0]))
    >>> method = granet_tf.GraNet(0.5, end_step=1, frequency=1, total_steps=9)
    >>> [new] = prune_and_regenerate(method, tf.constant(1), [kernel], dormant_compete=False)
    >>> new.mask.numpy().tolist()
    [True, False, False, True]
    """
    schedule = method.make_schedule()
    # A schedule of one's own may say a plain True.
    should_prune = tf.convert_to_tensor(schedule(step)[0])
    groups = method.units_of(weights)
    seeds = seeds_of([w.path for w in weights], method.seed, step)
    candidates = [
        Candidates.of(
            units,
            score,
            units.active.map(lambda a: a | should_prune) if dormant_compete else None,
        )
        for units, score in zip(groups, _drop_scores(method, groups, weights, seeds), strict=True)
    ]
    kept = SCOPES[method.scope](method, candidates, schedule.exact_sparsity(step))
    # Where only regeneration is due, this is less to trace than a condition around it all.
    pruned = [
        k.map(lambda k, a: tf.where(should_prune, k, a), units.active)
        for k, units in zip(kept, groups, strict=True)
    ]
    new = pruned
    if schedule.regenerates:
        is_due, fraction = schedule.regenerate(step)
        fraction = tf.where(is_due, tf.cast(fraction, tf.float64), 0.0)
        growth = _pooled(method.grow_score, groups, weights, seeds)
        new = [
            c.units.exchange(c.rankings, g, fraction, p)
            for c, g, p in zip(candidates, growth, pruned, strict=True)
        ]
    # Units are active or not as a whole.
    survived = [n & p for n, p in zip(new, pruned, strict=True)]
    if dormant_compete:  # Else what pruning leaves was active before.
        survived = [s & u.active for s, u in zip(survived, groups, strict=True)]
    return updated(*flat(groups, new, survived))


def _drop_scores(method, groups: Sequence[Units], weights, seeds) -> list[Joined]:
    """By the method, or by the criterion of the pattern, where it has one."""
    of_method = [units for units in groups if not units.given.judge]
    pooled = iter(_pooled(method.drop_score, of_method, weights, seeds) if of_method else ())
    return [units.judged(weights) if units.given.judge else next(pooled) for units in groups]


def _pooled(score, groups: Sequence[Units], weights, seeds) -> list[Joined]:
    """The scores of the units of each group."""
    magnitude_of = getattr(score, "magnitude_of", None)
    if magnitude_of is not None:  # Of all weights in one operation.
        values = [getattr(w, magnitude_of) for w in weights]
        return [units.pool_magnitudes(values) for units in groups]
    each = zip(weights, seeds, strict=True)
    scores = [score(w.weight, w.gradient, seed) for w, seed in each]
    return [units.pool(scores) for units in groups]
