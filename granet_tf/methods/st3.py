"""ST-3: soft thresholds and straight-through gradients, at a sparsity that rises."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from granet_tf.masks.patterns import Element
from granet_tf.masks.scopes import match
from granet_tf.methods.dpf import DPF
from granet_tf.methods.parameters import parameter
from granet_tf.methods.records import State, Updated, shaped
from granet_tf.schedules import PACKAGE, ConstantSparsity
from keras_layers.layouts import Layout


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ST3(DPF):
    """Straight-through, soft-thresholded sparse training (Vanderschueren & De Vleeschouwer, 2023).

    With a threshold τ, the model computes with

        v = c · sign(w) · max(|w| − τ, 0)

    and w takes the gradient of v as if it were its own, dormant weights too: w ← w − η · ∇loss(v).
    So a weight goes to 0 and comes back without a jump. τ is such that the largest |w| stay, at
    the sparsity of Eq. 1 of the GraNet paper, and after its end at `final_sparsity`. With μ the
    mean of |w| over the weights that lead to one output, and μ_τ that of those above τ, 0 for the
    others, c makes up for what is gone:

        c = 1.01 / (μ_τ / μ + 0.01)

    Weights keep their value below the threshold, as with mask_only=True.

    Args:
        final_sparsity: s_f, in [0, 1).
        initial_sparsity: s_i, in [0, final_sparsity]; what is pruned then is the smallest.
        frequency: Steps between choices of τ; in the authors' code 1. Between them what is dormant
            stays so, and what falls below τ is 0, so that the sparsity may be a little above s_t.
        normalized: Whether to rank |w| · sqrt(sum of the weight's shape) instead, which thins out
            the layers more evenly: ST-3σ.
        **kwargs: See `DPF` and `GMP`. In scope "layer" each weight has a threshold of its own.

    Raises:
        ValueError: On a parameter out of range, a pattern other than `Element()`, or a schedule
            that regenerates.

    Example:

    >>> import granet_tf
    >>> layer = keras.layers.Dense(1, use_bias=False)
    >>> network = keras.Sequential([keras.Input((4,)), layer])
    >>> layer.set_weights([tf.constant([[4.0], [-3.0], [2.0], [-1.0]])])
    >>> model = granet_tf.wrap(network, ST3(0.5, initial_sparsity=0.5))
    >>> [round(float(v), 3) for v in granet_tf.strip(model).layers[0].kernel.numpy().ravel()]
    [2.845, -1.423, 0.0, 0.0]
    """

    frequency: int | None = 1
    normalized: bool = parameter(False, "Whether to rank |w| relative to the width of its layer.")

    is_continuous: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.pattern != Element():
            raise ValueError(
                "`pattern` must be Element(), as the threshold is one of single weights. "
                f"Received: pattern={self.pattern}"
            )
        if self.regenerates:
            raise ValueError(
                "`schedule` must not regenerate, as what is below the threshold is dormant. "
                f"Received: schedule={self.schedule}"
            )

    @property
    def states(self):
        return (State("threshold", lambda weight: tf.zeros((), weight.dtype), neutral=0.0),)

    def transform(self, layout):
        return lambda weight, state: _thresholded(weight, state, layout)

    def last_worthwhile(self, frequency, end_step=None):
        return end_step  # What comes back starts at 0, so that no choice is too late.

    def drop_score(self, weight, gradient, seed):
        return tf.abs(weight) / self._unit(weight)

    def initial_state(self, weights):
        schedule = ConstantSparsity(self.initial_sparsity, 0)
        first = dataclasses.replace(self, schedule=schedule)
        return first.update(tf.constant(0), weights, dormant_compete=True)

    def update(self, step, weights, *, dormant_compete):
        new = shaped(super().update(step, weights, dormant_compete=dormant_compete), weights)
        thresholds = _THRESHOLDS[self.scope](self, weights, [each.mask for each in new])
        return [
            Updated(each.mask, each.survivors, {"threshold": threshold})
            for each, threshold in zip(new, thresholds, strict=True)
        ]

    def _unit(self, weight):
        """What |w| is divided by where weights are ranked together."""
        return 1.0 / math.sqrt(sum(weight.shape)) if self.normalized else 1.0


def _thresholded(weight: tf.Tensor, state: Mapping[str, tf.Tensor], layout: Layout) -> tf.Tensor:
    """v of `ST3`, of a weight with this layout; its gradient is the weight's.

    Example:

    >>> weight, mask = tf.constant([[3.0], [-1.0]]), tf.constant([[True], [False]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(weight)
    ...     value = _thresholded(weight, {"mask": mask, "threshold": tf.constant(1.0)}, Layout())
    >>> [x.numpy().tolist() for x in (tf.round(100.0 * value), tape.gradient(value, weight))]
    [[[266.0], [0.0]], [[1.0], [1.0]]]
    """
    size, zero = tf.abs(weight), tf.zeros((), weight.dtype)
    rank = len(weight.shape)
    summed = [axis for axis in range(rank) if axis - rank not in layout.outputs]
    left, whole = (
        tf.reduce_mean(sizes, summed, keepdims=True) + 1e-6
        for sizes in (tf.where(state["mask"], size, zero), size)
    )
    most = tf.constant(0.01, weight.dtype)  # c is up to about 1 / 0.01.
    scale = (1.0 + most) / (left / whole + most)
    value = scale * tf.sign(weight) * tf.nn.relu(size - state["threshold"])
    return _straight_through(weight, tf.where(state["mask"], value, zero))


@tf.custom_gradient
def _straight_through(weight, value):
    del weight
    return tf.identity(value), lambda gradient: (gradient, None)


def _of_each(method, weights, masks):
    """The largest |w| of each weight that is dormant."""
    return [
        tf.reduce_max(tf.where(mask, tf.zeros((), w.weight.dtype), tf.abs(w.weight)))
        for w, mask in zip(weights, masks, strict=True)
    ]


def _of_all(method, weights, masks):
    """The largest of all, for all: but what is pinned, or kept below it by a cap, has its own."""
    own = _of_each(method, weights, masks)
    units = [method._unit(w.weight) for w in weights]
    pinned = match(method.pinned, {w.path: w for w in weights}, "pinned")
    together = [
        tf.cast(threshold / unit, tf.float64)
        for w, threshold, unit in zip(weights, own, units, strict=True)
        if w.path not in pinned
    ]
    highest = tf.reduce_max(together) if together else tf.constant(0.0, tf.float64)
    return [
        threshold if w.path in pinned else _joint(w.weight, mask, threshold, highest * unit)
        for w, mask, threshold, unit in zip(weights, masks, own, units, strict=True)
    ]


def _joint(weight, mask, own, joint):
    infinite = tf.constant(math.inf, weight.dtype)
    least = tf.reduce_min(tf.where(mask, tf.abs(weight), infinite))
    joint = tf.cast(joint, weight.dtype)
    return tf.where(joint < least, tf.maximum(joint, own), own)


# {scope: (method, weights, masks that were chosen) -> thresholds}
_THRESHOLDS: dict[str, Callable[..., Sequence[tf.Tensor]]] = {
    "layer": _of_each,
    "global": _of_all,
}
