"""DSR: one threshold for all layers, and growth where much has survived it."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from granet_tf.masks.allocation import grown, share_out
from granet_tf.masks.selection import count_all, count_each
from granet_tf.masks.units import expanded
from granet_tf.methods.parameters import parameter
from granet_tf.methods.records import State, updated
from granet_tf.methods.rigl import SET
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DSR(SET):
    """Dynamic sparse reparameterization (Mostafa & Wang, 2019, Algorithm 1).

    An update drops every active weight with |w| below the threshold H, the same for all layers,
    but leaves each layer its largest. As many are grown in all, at random, shared out to the layers
    in proportion to how many of their weights survived; pins and caps are obeyed. With several
    patterns, layers of equal patterns share what these dropped; of a block or filter, the mean |w|
    is compared with H. Then H adapts: it
    doubles where fewer than (1 − δ) N were dropped, and halves where more than (1 + δ) N were; N is
    `drop_fraction` of the active weights.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        drop_fraction: N, as a fraction of the active weights, in [0, 1].
        prune_threshold: H at first, above 0.
        threshold_tolerance: δ, 0 or more.
        **kwargs: See `SET` and `Method`. `distribution` is "uniform" here.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = DSR(0.5, prune_threshold=0.01)
    >>> float(method.states[0].initial(tf.zeros((2, 2))))
    0.009999999776482582
    """

    drop_fraction: float = 0.1
    final_drop_fraction: float = 0.1
    prune_threshold: float = parameter(
        1e-3, "Magnitude below which weights are pruned at first.", above=0
    )
    threshold_tolerance: float = parameter(
        0.1,
        "How far what is pruned may be off drop_fraction before the threshold changes.",
        at_least=0,
    )
    distribution: str = "uniform"

    @property
    def states(self):
        # One number for all, kept with each weight.
        return (State("threshold", lambda _: tf.constant(self.prune_threshold, tf.float32)),)

    def update(self, step, weights, *, dormant_compete):
        threshold = weights[0].state["threshold"]
        _, fraction = self.make_schedule().regenerate(step)
        groups = self.units_of(weights)
        sizes = [tf.abs(w.weight) for w in weights]
        kept = [_above(threshold, units, units.mean(units.pool(sizes))) for units in groups]
        survived = [count_each(k) for k in kept]
        alive = tf.add_n([count_all(units.active) for units in groups])
        dropped = alive - tf.add_n([tf.reduce_sum(number) for number in survived])
        scores = [self.grow_score(w.weight, None, seed) for w, seed in self.seeded(weights, step)]
        pooled = [units.pool(scores) for units in groups]
        new = grown(groups, kept, pooled, share_out(self, groups, kept, survived))
        wanted = tf.cast(fraction, tf.float64) * tf.cast(alive, tf.float64)
        adapted = self._adapt(threshold, tf.cast(dropped, tf.float64), wanted)
        return updated(expanded(groups, new), expanded(groups, kept), threshold=adapted)

    def _adapt(self, threshold, dropped, wanted):
        few = dropped < (1.0 - self.threshold_tolerance) * wanted
        many = dropped > (1.0 + self.threshold_tolerance) * wanted
        return threshold * tf.where(few, 2.0, tf.where(many, 0.5, 1.0))


def _above(threshold, units, size):
    """Which active units stay: those of at least the threshold, and the largest of each weight."""
    large = units.active & size.map(lambda values: values >= threshold)
    return large | units.choose(size, tf.ones(len(units.paths), tf.int64), units.active)
