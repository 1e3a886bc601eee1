"""Which layers can be pruned: yours, if they say so, and Keras's."""

from __future__ import annotations

import abc

import keras

from keras_layers.prunable import PRUNABLE_WEIGHTS, walk, weights_of

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


def has_prunable_weights(layer: keras.Layer) -> bool:
    """Whether there is something in `layer` to prune; False for frozen layers.

    Raises:
        ValueError: For a layer of your own that has weights and does not say which to prune.

    Example:

    >>> has_prunable_weights(keras.layers.Dense(2)), has_prunable_weights(keras.layers.ReLU())
    (True, False)
    """
    if not layer.trainable:
        return False
    if layer.built and layer.weights:
        weights = weights_of(layer)
        known = any(w.prunable or w.reason == "frozen" for w in weights) or _is_known(layer)
        prunable = any(w.prunable for w in weights)
    else:
        known = prunable = any(_names_weights(inner) for inner in walk(layer))
        known = known or _is_known(layer) or _has_no_weights(layer)
    if not known:
        raise ValueError(
            "`to_prune` must consist of Keras's own layers, and of layers of yours that have "
            "get_prunable_weights() or are made of such layers. "
            f"Received: layer={layer} of {type(layer)}"
        )
    return prunable


def _names_weights(layer):
    return hasattr(layer, "get_prunable_weights") or isinstance(layer, _PRUNABLE)


def _is_known(layer):
    return hasattr(layer, "get_prunable_weights") or type(layer).__module__.startswith("keras.")


def _has_no_weights(layer):
    return layer.built or getattr(layer.build, "_is_default", False)
