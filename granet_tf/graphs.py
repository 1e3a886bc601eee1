"""A sequential or functional model anew, with some of its layers changed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras

from keras_layers.keras_internals import Functional, children_of, operation_of, run_through


def rebuilt(
    model: keras.Model,
    change: Callable[[keras.Layer], keras.Layer],
    *,
    change_input: Callable[[keras.layers.InputLayer], keras.layers.InputLayer] | None = None,
    sequential: Callable[..., keras.Model] = keras.Sequential,
    functional: Callable[..., keras.Model] = Functional,
) -> keras.Model:
    """A model of `change(layer)` for each layer of `model`, not compiled.

    Layers that `change` returns as they are, and so their weights, belong to both models then.
    (`keras.models.clone_model` also compiles, and fails where a loss can't be serialized.)

    Args:
        model: A sequential or functional model.
        change: What takes a layer's place; asked once for each layer.
        change_input: What takes an input layer's place; by default a copy.
        sequential: Makes a sequential model of `(layers, name, trainable)`.
        functional: Makes a functional model of `(inputs, outputs, name, trainable)`.

    Example:

    >>> dense = keras.layers.Dense(3, activation="relu")
    >>> model = keras.Sequential([keras.Input((2,)), dense])
    >>> rebuilt(model, lambda layer: keras.layers.Dense(4)).output_shape
    (None, 4)
    """
    change, change_input = functools.cache(change), functools.cache(change_input or _copied)
    options = {"name": model.name, "trainable": model.trainable}
    with model.distribute_strategy.scope():
        if isinstance(model, keras.Sequential):
            layers = [(change_input if _is_input(x) else change)(x) for x in children_of(model)]
            return sequential(layers, **options)
        inputs = keras.tree.map_structure(
            lambda tensor: change_input(operation_of(tensor)).output, model.input
        )

        def operation(each):
            return change(each) if isinstance(each, keras.Layer) else each

        outputs = run_through(model, inputs, operation)
        return functional(inputs, outputs, **options)


def _is_input(layer):
    return isinstance(layer, keras.layers.InputLayer)


def _copied(layer):
    return type(layer).from_config(layer.get_config())
