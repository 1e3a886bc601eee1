"""What a model is called with, without data."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf


def input_specs(model: keras.Model, input_shape) -> tuple[list, dict[str, Any], int]:
    """Positional and keyword arguments of a call as `tf.TensorSpec`s, and their batch size.

    Args:
        model: A model.
        input_shape: Shape of one sample, without the batch; None takes what the model knows.

    Raises:
        ValueError: If the shape is not known in full, or does not fit the model's inputs.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> args, kwargs, batch = input_specs(model, None)
    >>> tuple(args[0].shape), kwargs, batch
    ((1, 4), {}, 1)
    """
    inputs = getattr(model, "inputs", None) or []
    built = _built_shapes(model, inputs)
    shapes = built if input_shape is None else input_shape
    if shapes is None or None in keras.tree.flatten(shapes):
        raise ValueError(
            "Argument `input_shape` must be given, because the model does not know the shape of "
            "its input in full. Pass the shape of one sample, without the batch dimension. "
            f"Received: input_shape={input_shape}, known from the model: {built}"
        )
    # A stateful recurrent model runs at its own batch size only.
    batch = (inputs[0].shape[0] if inputs else None) or 1
    specs = keras.tree.map_shape_structure(lambda shape: tf.TensorSpec((batch, *shape)), shapes)
    if inputs:
        specs = keras.tree.flatten(specs)
        if [len(spec.shape) for spec in specs] != [len(x.shape) for x in inputs]:
            raise ValueError(
                "Argument `input_shape` must fit the inputs of the model without their batch "
                f"dimension, {[tuple(x.shape) for x in inputs]}. "
                f"Received: input_shape={input_shape}"
            )
        specs = [tf.TensorSpec(s.shape, x.dtype) for s, x in zip(specs, inputs, strict=True)]
        specs = keras.tree.pack_sequence_as(getattr(model, "input", inputs[0]), specs)
    elif isinstance(specs, dict) and set(specs) <= set(inspect.signature(model.call).parameters):
        return [], specs, batch
    return [specs], {}, batch


def _built_shapes(model: keras.Model, inputs):
    """Shapes of one sample, without batch, as the model was built; `None` if it was not."""
    if inputs:
        return [tuple(x.shape[1:]) for x in inputs]
    config = model.get_build_config() or {}
    shapes = config.get("input_shape")
    if "shapes_dict" in config:
        arguments = config["shapes_dict"].items()
        shapes = {name.removesuffix("_shape"): shape for name, shape in arguments if shape}
    return shapes and keras.tree.map_shape_structure(lambda shape: tuple(shape[1:]), shapes)
