"""How the configuration of a Keras 2 layer differs from that of the Keras 3 layer of its name.

Each difference is an entry in a table. What stands in none is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from granet_tf.registered.hard_sigmoid import keras2_hard_sigmoid


class NoCounterpart(ValueError):
    """Something of Keras 2 that Keras 3 lacks."""


# A rule takes an argument's value and returns the arguments that Keras 3 has for it.
Rule = Callable[[Any], dict[str, Any]]


def _dropped(value):
    del value
    return {}


def _renamed(name: str) -> Rule:
    return lambda value: {name: value}


def _only(*neutral) -> Rule:
    """For an argument that Keras 3 lacks: its value must be one that changes nothing."""

    def rule(value):
        if value not in neutral:
            raise NoCounterpart(f"Keras 3 has only {' or '.join(map(repr, neutral))}")
        return {}

    return rule


def _single(name: str) -> Rule:
    """For a list that Keras 3 has as one number."""

    def rule(value):
        values = value if isinstance(value, list) else [value]
        if len(values) != 1:
            raise NoCounterpart("Keras 3 has a single one")
        return {name: values[0]}

    return rule


def _policy(value):
    return {"dtype": value["config"]["name"] if isinstance(value, dict) else value}


# Arguments that a class has inherited and does not use.
_NO_KERNEL: dict[str, Rule] = {
    "groups": _only(1),
    "kernel_initializer": _dropped,
    "kernel_regularizer": _dropped,
    "kernel_constraint": _dropped,
}
_RECURRENT: dict[str, Rule] = {
    "time_major": _only(False),
    "implementation": _dropped,
}
_ALL: dict[str, Rule] = {"batch_input_shape": _dropped, "dtype": _policy}
RULES: Mapping[str, Mapping[str, Rule]] = {
    "BatchNormalization": {
        "axis": _single("axis"),
        "renorm": _only(False),
        "virtual_batch_size": _only(None),
        "adjustment": _only(None),
    },
    "Conv1DTranspose": {"groups": _only(1)},
    "Conv2DTranspose": {"groups": _only(1)},
    "Conv3DTranspose": {"groups": _only(1)},
    "DepthwiseConv1D": _NO_KERNEL,
    "DepthwiseConv2D": _NO_KERNEL,
    "SeparableConv1D": _NO_KERNEL,
    "SeparableConv2D": _NO_KERNEL,
    "Embedding": {"input_length": _dropped, "sparse": _only(False)},
    "LeakyReLU": {"alpha": _renamed("negative_slope")},
    "MultiHeadAttention": {
        "query_shape": _dropped,
        "key_shape": _dropped,
        "value_shape": _dropped,
        "softmax_robust_masking": _only(False),
    },
    **dict.fromkeys(("RNN", "SimpleRNN", "GRU", "LSTM"), _RECURRENT),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _RECURRENT),
    **{name: {"implementation": _dropped} for name in ("SimpleRNNCell", "GRUCell", "LSTMCell")},
}

# Why a class of this name can't be converted, though Keras 3 may have one.
REFUSED: Mapping[str, str] = {
    "TFOpLambda": "it is a TensorFlow operation, not a layer; use a layer such as Add or Rescaling",
    "SlicingOpLambda": "it is a slice of a tensor, not a layer; use a layer such as Cropping1D",
    "TensorFlowOpLayer": "it is a TensorFlow operation, not a layer",
    "ClassMethod": "it is a TensorFlow operation, not a layer",
    "InstanceMethod": "it is a TensorFlow operation, not a layer",
    "Lambda": "its function can't be carried over",
    "StringLookup": "its table is no weight",
    "IntegerLookup": "its table is no weight",
    "TextVectorization": "its vocabulary is no weight",
    "Discretization": "its boundaries are no weight",
    "Sequential": "a model can't be converted inside this wrapper",
    "Functional": "a model can't be converted inside this wrapper",
    "PruneLowMagnitude": "a wrapped layer can't be converted inside this wrapper",
}

# {class: what Keras 3 keeps of the weights, which are in the same order else}
WEIGHTS: Mapping[str, Callable[[list], list]] = {
    "Normalization": lambda weights: weights[:2],  # Not the count.
}


# Functions that go by the same name and compute something else.
_ACTIVATIONS: Mapping[str, Callable] = {"hard_sigmoid": keras2_hard_sigmoid}


def converted(class_name: str, config: Mapping[str, Any]) -> keras.Layer:
    """A Keras 3 layer of the same class and settings.

    Args:
        class_name: Name of a layer class of Keras 2.
        config: What its `get_config()` returned; an argument that is a layer may be a Keras 3
            layer already.

    Raises:
        NoCounterpart: If the class or one of its settings has none in Keras 3.

    Example:

    >>> converted("LeakyReLU", {"name": "leaky", "dtype": "float32", "alpha": 0.25}).negative_slope
    0.25
    """
    reason = REFUSED.get(class_name)
    if reason is None and not isinstance(getattr(keras.layers, class_name, None), type):
        reason = "Keras 3 has no such layer"
    if reason is not None:
        raise NoCounterpart(reason)
    rules = {**_ALL, **RULES.get(class_name, {})}
    settings = {}
    for name, value in config.items():
        try:
            settings |= rules.get(name, _renamed(name))(_with_layers(value))
        except NoCounterpart as error:
            raise NoCounterpart(f"{name}={value!r}: {error}") from error
    try:
        return getattr(keras.layers, class_name).from_config(settings)
    except (TypeError, ValueError) as error:
        raise NoCounterpart(f"Keras 3 does not take its settings: {error}") from error


def _with_layers(value):
    """`value` with Keras 3 layers, activations and so on in place of their Keras 2 configurations.

    Initializers, regularizers and constraints are written alike in both.
    """
    if isinstance(value, str):
        return _ACTIVATIONS.get(value, value)
    if isinstance(value, list):
        return [_with_layers(each) for each in value]
    if not (isinstance(value, dict) and value.get("module") == "keras.layers"):
        return value
    layer = converted(value["class_name"], value["config"])
    return keras.saving.serialize_keras_object(layer)
