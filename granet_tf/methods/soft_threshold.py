"""STR: thresholds that are trained with the weights."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from granet_tf.masks.patterns import Element
from granet_tf.methods.base import Method
from granet_tf.methods.parameters import parameter
from granet_tf.methods.records import State, updated
from granet_tf.schedules import PACKAGE, ConstantSparsity


def soft_threshold(weight: tf.Tensor, state: dict[str, tf.Tensor]) -> tf.Tensor:
    """sign(w) · max(|w| − σ(s), 0), with s the scalar `state["threshold"]`.

    Example:

    >>> weight = tf.constant([-2.0, 0.25, 1.0])
    >>> soft_threshold(weight, {"threshold": tf.constant(0.0)}).numpy().tolist()
    [-1.5, 0.0, 0.5]
    """
    return tf.sign(weight) * tf.nn.relu(tf.abs(weight) - tf.sigmoid(state["threshold"]))


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class STR(Method):
    """Soft threshold reparameterization (Kusupati et al., 2020).

    The model computes with sign(w) · max(|w| − σ(s), 0), with one trained s for each weight
    tensor. Weight decay draws s to 0 and so the threshold up. How sparse the model
    gets follows from that: there is no `final_sparsity` to give; `SparseModel.sparsity` says what
    it is at any moment. Weights keep their value below the threshold, as with mask_only=True.

    Args:
        threshold_init: s at first. σ(s) should be small against the weights. In the authors' code
            it is so low that only the decay moves it at first: -3200 for ResNet-50 on ImageNet.
        threshold_decay: Weight decay of s, an L2 penalty of half of it. In the paper, all weights
            have the same (2.25e-5 for 90 % on ResNet-50); give it to the model's kernels too, or to
            the optimizer instead.
        **kwargs: `seed` and `total_steps` of `Method`; its other parameters have no meaning here.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> import granet_tf
    >>> layers = [keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="ones")]
    >>> model = granet_tf.wrap(keras.Sequential(layers), STR(threshold_init=0.0))
    >>> model(tf.ones((1, 4))).numpy().tolist()
    [[2.0, 2.0]]
    """

    final_sparsity: float = dataclasses.field(default=0.0, init=False)
    scope: str = dataclasses.field(default="layer", init=False)
    distribution: str = dataclasses.field(default="uniform", init=False)
    pinned: dict = dataclasses.field(default_factory=dict, init=False)
    capped: dict = dataclasses.field(default_factory=dict, init=False)
    pattern: Element = dataclasses.field(default_factory=Element, init=False)
    threshold_init: float = parameter(-5.0, "What the thresholds start from, before the sigmoid.")
    threshold_decay: float = parameter(
        5e-4, "Weight decay of the thresholds, which makes the model sparse.", at_least=0
    )

    keeps_values: ClassVar[bool] = True
    is_continuous: ClassVar[bool] = True
    reparameterize: ClassVar = staticmethod(soft_threshold)

    @property
    def states(self):
        def initial(weight):
            return tf.constant(self.threshold_init, weight.dtype)

        # σ of it is 0.
        neutral = -1e4
        return (State("threshold", initial, True, self.threshold_decay, neutral),)

    @property
    def regenerates(self):
        return False

    def make_schedule(self):
        return ConstantSparsity(0.0, 0, frequency=1)

    def initial_state(self, weights):
        return self.update(0, weights, dormant_compete=True)

    def update(self, step, weights, *, dormant_compete):
        masks = [soft_threshold(w.weight, w.state) != 0.0 for w in weights]
        return updated(masks, masks)
