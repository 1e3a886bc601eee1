"""Which layers can be pruned: yours, if they say so, and Keras's."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import keras

from keras_layers.prunable import (
    default_prunable,
    is_of_keras,
    may_be_pruned,
    may_have_weights,
    silent_layers,
    walk,
    weights_of,
)


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
    layer: keras.Layer,
    prunable: Callable | Sequence[str] | None = None,
    *,
    of_built: bool = False,
) -> bool:
    """Whether there is something in `layer` to prune; False for frozen layers.

    Args:
        layer: A layer, built or not.
        prunable: Which weights, also frozen ones; see `granet_tf.wrap`. A layer that is not built
            has none to ask about: then, whether it will have any that could be pruned.
        of_built: Whether the layer belongs to a model that is built. If it is not built itself
            then, as a tokenizer isn't, and nothing says that it has weights, there is nothing.

    Raises:
        ValueError: For a layer of your own, itself or somewhere in `layer`, that has weights and
            does not say which to prune.

    Example:

    >>> has_prunable_weights(keras.layers.Dense(2)), has_prunable_weights(keras.layers.ReLU())
    (True, False)
    """
    if prunable is None:
        if not layer.trainable:
            return False
        _check_all_say(layer, of_built)
    if layer.built and layer.weights:
        return any(w.prunable for w in weights_of(layer, prunable))
    asked = prunable is not None and prunable is not default_prunable and not of_built
    return any(may_be_pruned(x) or (asked and _may_be_chosen(x)) for x in walk(layer))


def _may_be_chosen(layer):
    return not is_of_keras(layer) and may_have_weights(layer)


def _check_all_say(layer, of_built):
    for silent in silent_layers(layer, of_built=of_built)[:1]:
        place = "" if silent is layer else f", in {layer}"
        raise ValueError(
            "`to_prune` must consist of Keras's own layers, and of layers of yours that have "
            "get_prunable_weights() or are made of such layers. To leave others as they are, pass "
            "prunable=granet_tf.default_prunable. "
            f"Received: layer={silent} of {type(silent)}{place}"
        )
