"""SNFS: the momentum of the gradient says where to grow, and in which layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import keras
import tensorflow as tf

from granet_tf.masks.allocation import drop_count, grown, share_out
from granet_tf.masks.selection import count, count_each
from granet_tf.masks.units import expanded
from granet_tf.methods.parameters import parameter
from granet_tf.methods.records import State, Updated
from granet_tf.methods.rigl import RigL
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SNFS(RigL):
    """Sparse networks from scratch, or sparse momentum (Dettmers & Zettlemoyer, 2019).

    It keeps m ← β m + g of the dense gradient g, for all weights. An update drops in each layer the
    share of its active weights that is lowest in |w|. As many are grown in all, shared out to the
    layers in proportion to the mean |m| of their active weights before the update; in each, those
    of largest |m|. What a layer has no room for goes to the others, so the total is exact. Layers
    that are pinned keep their number, those that are capped at least what the cap demands. With
    several patterns, layers of equal patterns share what these dropped.

    The momentum takes 4 bytes a weight, and under tf.distribute the dense gradient is summed at
    each step.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        growth_momentum: β, in [0, 1).
        drop_fraction: The share of active weights dropped at first; falls by a cosine.
        final_drop_fraction: The share at `end_step`.
        distribution: How sparse each layer is at first; "uniform" in the authors' code.
        **kwargs: See `RigL` and `Method`. `frequency=None` makes about 50 updates; the paper has
            one an epoch.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = SNFS(0.5, drop_fraction=0.5, total_steps=10)
    >>> [state.name for state in method.states]
    ['momentum']
    """

    distribution: str | Callable = "uniform"
    growth_momentum: float = parameter(
        0.9, "Momentum of the dense gradient, by which weights grow.", at_least=0, below=1
    )
    end_step: int | float = 1.0
    frequency: int | None = None
    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005

    follows_steps: ClassVar[bool] = True
    follows_gradients: ClassVar[bool] = True

    @property
    def states(self):
        return (State("momentum"),)

    def after_step(self, step, weights, learning_rate):
        beta = self.growth_momentum
        return [
            dataclasses.replace(
                w,
                state={"momentum": beta * w.state["momentum"] + tf.cast(w.gradient, tf.float32)},
            )
            for w in weights
        ]

    def update(self, step, weights, *, dormant_compete):
        _, fraction = self.make_schedule().regenerate(step)
        groups = self.units_of(weights)
        momenta = [tf.abs(w.state["momentum"]) for w in weights]
        sizes = [tf.abs(w.weight) for w in weights]
        kept, pooled, shares = [], [], []
        for units in groups:
            alive = count_each(units.active)
            left = alive - drop_count(units, fraction, alive)
            kept.append(units.choose(units.pool(sizes), left, units.active))
            pooled.append(units.pool(momenta))
            each = zip(units.mean(pooled[-1]).split(), units.active.split(), strict=True)
            shares.append(tf.stack([mean(values, mask) for values, mask in each]))
        new = grown(groups, kept, pooled, share_out(self, groups, kept, shares))
        masks = expanded(groups, new)
        return [Updated(mask, mask & w.mask) for mask, w in zip(masks, weights, strict=True)]


def mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of the `values` where `mask` is True; 0 where it is nowhere.

    Example:

    >>> float(mean(tf.constant([1.0, 2.0, 6.0]), tf.constant([True, False, True])))
    3.5
    """
    total = tf.reduce_sum(tf.where(mask, values, tf.zeros_like(values)))
    return total / tf.cast(tf.maximum(count(mask), 1), values.dtype)
