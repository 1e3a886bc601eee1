"""Which layers can be pruned: yours, if they say so, and Keras's."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import keras

from keras_layers.prunable import PRUNABLE_WEIGHTS, is_of_keras, walk, weights_of

# They make the dense layers inside them only when they are built.
_LATE = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_PRUNABLE = (*PRUNABLE_WEIGHTS, *_LATE)


class PrunableLayer(abc.ABC):
    """Base class for layers of your own that name the weights to prune.

    Inheriting is not needed: any layer with `get_prunable_weights()` can be pruned.

    Source: `tfmot.sparsity.keras.PrunableLayer`.

    Example:

    >>> class Scaled(keras.layers.Layer, PrunableLayer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=(input_shape[-1], 3), name="scale")
    ...     def call(self, inputs):
    ...         return inputs @ self.scale
    ...     def get_prunable_weights(self):
    ...         return [self.scale]
    >>> has_prunable_weights(Scaled())
    True
    """

    @abc.abstractmethod
    def get_prunable_weights(self) -> list[keras.Variable]:
        """The weights to prune."""


def has_prunable_weights(
    layer: keras.Layer, prunable: Callable | Sequence[str] | None = None
) -> bool:
    """Whether there is something in `layer` to prune; False for frozen layers.

    Args:
        layer: A layer, built or not.
        prunable: Which weights, also frozen ones; see `granet_tf.wrap`. A layer that is not built
            has none to ask about: then, whether it will have any that could be pruned.

    Raises:
        ValueError: For a layer of your own that has weights and does not say which to prune.

    Example:

    >>> has_prunable_weights(keras.layers.Dense(2)), has_prunable_weights(keras.layers.ReLU())
    (True, False)
    """
    if not layer.trainable and prunable is None:
        return False
    if layer.built and layer.weights:
        weights = weights_of(layer, prunable)
        chosen = any(w.prunable for w in weights)
        known = prunable is not None or chosen or any(w.reason == "frozen" for w in weights)
    else:
        chosen = any(_names_weights(inner) for inner in walk(layer))
        known = chosen or _has_no_weights(layer)
    known = known or _is_known(layer)
    if not known:
        raise ValueError(
            "`to_prune` must consist of Keras's own layers, and of layers of yours that have "
            "get_prunable_weights() or are made of such layers. To leave others as they are, pass "
            "prunable=granet_tf.default_prunable. "
            f"Received: layer={layer} of {type(layer)}"
        )
    return chosen


def _names_weights(layer):
    return hasattr(layer, "get_prunable_weights") or isinstance(layer, _PRUNABLE)


def _is_known(layer):
    return hasattr(layer, "get_prunable_weights") or is_of_keras(layer)


def _has_no_weights(layer):
    return not layer.weights and (layer.built or getattr(layer.build, "_is_default", False))
