"""What is known of each activation: its name, and the range that its output has in LiteRT."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_layers.keras_internals import Relu, Relu6

_SIGMOID = (0.0, 255.0 / 256.0)
_TANH = (-1.0, 127.0 / 128.0)

RANGES: dict[str, tuple[float, float] | None] = {
    "linear": None,
    "relu": None,
    "relu6": None,
    "leaky_relu": None,
    "silu": None,
    "hard_silu": None,
    "gelu": None,
    "sigmoid": _SIGMOID,
    "softmax": _SIGMOID,
    "tanh": _TANH,
}
"""{name: (least, largest) value, or None where it is measured}."""


def _of_activation(layer):
    return function_name(layer.activation)


def _of_relu(layer):
    plain = not layer.negative_slope and not layer.threshold
    return {None: "relu", 6.0: "relu6"}.get(layer.max_value) if plain else None


def _of_softmax(layer):
    return "softmax" if layer.axis == -1 else None


_NAMES = {
    layers.Activation: _of_activation,
    layers.ReLU: _of_relu,
    layers.Softmax: _of_softmax,
    layers.LeakyReLU: lambda layer: "leaky_relu",
    Relu: lambda operation: "relu",
    Relu6: lambda operation: "relu6",
}


def function_name(function: Any) -> str | None:
    """The name of a function of `keras.activations`; None for any other.

    Example:

    >>> function_name(keras.activations.relu6), function_name(abs)
    ('relu6', None)
    """
    name = getattr(function, "__name__", None)
    return name if name and getattr(keras.activations, name, None) is function else None


def activation_name(operation: Any) -> str | None:
    """The name in `RANGES` of the activation that a layer or operation is; None if it is none.

    Example:

    >>> activation_name(keras.layers.ReLU(6.0)), activation_name(keras.layers.ReLU(5.0))
    ('relu6', None)
    """
    name = _NAMES.get(type(operation), lambda other: None)(operation)
    return name if name in RANGES else None
