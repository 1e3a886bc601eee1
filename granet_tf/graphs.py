"""A sequential or functional model anew, with some of its layers changed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
from keras.src.models import Functional


def rebuilt(
    model: keras.Model,
    change: Callable[[keras.Layer], keras.Layer],
    *,
    sequential: Callable[..., keras.Model] = keras.Sequential,
    functional: Callable[..., keras.Model] = Functional,
) -> keras.Model:
    """A model of `change(layer)` for each layer of `model`, not compiled.

    Layers that `change` returns as they are, and so their weights, belong to both models then.
    (`keras.models.clone_model` also compiles, and fails where a loss can't be serialized.)

    Args:
        model: A sequential or functional model.
        change: What takes a layer's place; asked once for each layer.
        sequential: Makes a sequential model of `(layers, name, trainable)`.
        functional: Makes a functional model of `(inputs, outputs, name, trainable)`.

    Example:

    >>> dense = keras.layers.Dense(3, activation="relu")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> rebuilt(model, lambda layer: keras.layers.Dense(4)).output_shape
    (None, 4)
    """
    change = functools.cache(change)
    options = {"name": model.name, "trainable": model.trainable}
    if isinstance(model, keras.Sequential):
        return sequential([_kept_input(x) or change(x) for x in model._layers], **options)
    inputs = keras.tree.map_structure(_new_input, model.input)

    def operation(each):
        return change(each) if isinstance(each, keras.Layer) else each

    outputs = model._run_through_graph(inputs, operation_fn=operation)
    return functional(inputs, outputs, **options)


def _kept_input(layer):
    return layer if isinstance(layer, keras.layers.InputLayer) else None


def _new_input(tensor):
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output
