"""Magnitude at initialization: |w| before any training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from granet_tf.methods.at_initialization.base import AtInitialization
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MagnitudeAtInit(AtInitialization):
    """Keeps the largest |w| of the weights that the model is wrapped with.

    Most initializers give layers with many inputs smaller weights, so in scope "global" those are
    pruned most.

    Args:
        final_sparsity: The sparsity, all through training, in (0, 1).
        **kwargs: See `AtInitialization` and `Method`.

    Raises:
        ValueError: On a parameter out of range.

    Source: the baseline of Frankle et al. (2021), Pruning Neural Networks at Initialization.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> _ = keras_model.layers[0].kernel.assign([[1.0], [-4.0], [3.0], [0.5]])
    >>> model = granet_tf.wrap(keras_model, MagnitudeAtInit(0.5))
    >>> keras_model.layers[0].kernel.numpy().ravel().tolist()
    [0.0, -4.0, 3.0, 0.0]
    """

    command_name: ClassVar[str] = "magnitude"

    def saliency(self, model, batches=(), loss=None, masks=None):
        return magnitude_saliency(model, masks)


def magnitude_saliency(
    model: Any, masks: Sequence[tf.Tensor] | None = None
) -> dict[str, tf.Tensor]:
    """{path: |w|} of a `SparseModel`.

    Args:
        model: A `SparseModel`.
        masks: Of `model.pruned`; None are its own. Masked weights count as 0.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="net")
    >>> _ = keras_model.layers[0].kernel.assign([[1.0], [-4.0]])
    >>> [score] = magnitude_saliency(granet_tf.wrap(keras_model, granet_tf.SNIP(0.5))).values()
    >>> score.numpy().ravel().tolist()
    [1.0, 4.0]
    """
    from granet_tf.methods.at_initialization.losses import by_path, values_of

    return by_path(model, [tf.abs(value) for value in values_of(model, masks)])
