"""MEST: what has a gradient is not dropped yet."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from granet_tf.methods.parameters import parameter
from granet_tf.methods.rigl import SET
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MEST(SET):
    """Memory-economic sparse training (Yuan et al., 2021), with elastic mutation.

    An update drops the active weights of lowest |w| + λ |gradient|, so that one that is small but
    about to move stays, and grows as many at random. The share that it replaces falls by a cosine.
    The gradient is that of the step, of active weights only.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        gradient_weight: λ, 0 or more.
        drop_fraction: The fraction of active weights replaced at first, in [0, 1].
        final_drop_fraction: The fraction at the end, in [0, 1].
        **kwargs: See `SET` and `Method`. `distribution` is "erk" here.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = MEST(0.5, gradient_weight=0.5)
    >>> method.drop_score(tf.constant([1.0, -2.0]), tf.constant([4.0, 0.0]), None).numpy().tolist()
    [3.0, 2.0]

    Reference:

    - [Yuan et al., 2021](https://arxiv.org/abs/2110.14032)
    """

    gradient_weight: float = parameter(
        1.0, "What |gradient| counts beside |w| in what is dropped.", at_least=0
    )
    final_drop_fraction: float = 0.0
    distribution: str = "erk"

    @property
    def needs_gradient(self):
        return True

    def drop_score(self, weight, gradient, seed):
        return tf.abs(weight) + self.gradient_weight * tf.abs(gradient)
