"""A network as the linear map that SynFlow looks at: |w|, no offsets, no activations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from granet_tf.methods.at_initialization.losses import computing_in
from keras_layers import keras_internals as internals
from keras_layers.keras_internals import layers_of

_layers = keras.layers
# What is added to activations, or taken from them.
_OFFSETS = ("bias", "beta", "moving_mean")
_SAME = (
    *(_layers.ReLU, _layers.Softmax, _layers.Normalization, _layers.Rescaling),
    *(internals.Relu6, internals.Sigmoid, internals.Softplus, internals.Softsign),
    *(internals.Silu, internals.HardSigmoid, internals.HardSilu, internals.HardTanh),
    *(internals.Gelu, internals.Softmax, internals.LogSoftmax, internals.LogSigmoid),
    internals.Tanh,
)


def _same(layer):
    def call(inputs, *args, **kwargs):
        return inputs

    return call


def _scaled(layer):
    """A normalization by statistics of its input: only its scale is of the network."""

    def call(inputs, *args, **kwargs):
        gamma = getattr(layer, "gamma", None)
        if gamma is None:
            gamma = getattr(layer, "scale", None)
        if not isinstance(gamma, keras.Variable):
            return inputs
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        axes = {axis % len(inputs.shape) for axis in axes}
        shape = [n if i in axes else 1 for i, n in enumerate(inputs.shape)]
        return inputs * tf.reshape(gamma, shape)

    return call


def _every_row(layer):
    """An embedding is the matrix that a one-hot vector is multiplied with: here one of ones."""

    def call(inputs, *args, **kwargs):
        row = tf.reduce_sum(tf.convert_to_tensor(layer.embeddings), axis=0)
        return tf.broadcast_to(row, (*inputs.shape, row.shape[0]))

    return call


# {type of layer or operation: what makes the call that takes the place of its own}
STAND_INS: dict[type, Callable[[Any], Callable]] = {
    **dict.fromkeys(_SAME, _same),
    _layers.LayerNormalization: _scaled,
    _layers.GroupNormalization: _scaled,
    _layers.RMSNormalization: _scaled,
    _layers.UnitNormalization: _scaled,
    _layers.Embedding: _every_row,
}


@contextlib.contextmanager
def linearized(model: keras.Model) -> Iterator[keras.StatelessScope]:
    """Calls of `model` inside compute |w| for w, without biases and activations, in float64.

    Batch normalization is the fixed map that it is at inference, without its offsets; other
    normalizations are their scale. Embeddings add up all of their rows. Pooling, padding, sums and
    products of branches, and gates of recurrent layers and attention, stay as they are. So do
    activations inside of a `call` of your own: ReLU and the like change nothing where all is
    positive, but others do.

    Args:
        model: A built Keras model.

    Yields:
        The `keras.StatelessScope`: what `add_update` gives a variable here counts instead of |w|.

    Example:

    >>> layers = [keras.Input((2,)), keras.layers.Dense(1, "sigmoid", bias_initializer="ones")]
    >>> model = keras.Sequential(layers)
    >>> _ = model.layers[0].kernel.assign([[2.0], [-3.0]])
    >>> with linearized(model):
    ...     outputs = model(tf.ones((1, 2)))
    >>> float(outputs[0, 0]), outputs.dtype.name
    (5.0, 'float64')
    """
    parts = dict.fromkeys(_parts(model))
    layers = [part for part in parts if isinstance(part, keras.Layer)]
    offsets = {id(getattr(layer, name, None)) for layer in layers for name in _OFFSETS}
    with contextlib.ExitStack() as stack:
        stack.enter_context(computing_in("float64", model))
        for part in parts:
            if type(part) in STAND_INS:
                stack.enter_context(_replaced(part, "call", STAND_INS[type(part)](part)))
            elif callable(vars(part).get("activation")):
                stack.enter_context(_replaced(part, "activation", keras.activations.linear))
        scope = stack.enter_context(keras.StatelessScope())
        for variable in model.variables:
            if keras.backend.is_float_dtype(variable.dtype):
                value = tf.cast(tf.convert_to_tensor(variable), tf.float64)
                is_offset = id(variable) in offsets
                scope.add_update((variable, tf.zeros_like(value) if is_offset else tf.abs(value)))
        yield scope


def _parts(model):
    """All layers, and the operations between those of functional models."""
    for layer in layers_of(model):
        yield layer
        yield from getattr(layer, "operations", ())


@contextlib.contextmanager
def _replaced(part, name, value):
    # In the dictionary of the object, because Keras tracks what is set as an attribute.
    own = vars(part).get(name)
    vars(part)[name] = value
    try:
        yield
    finally:
        del vars(part)[name]
        if own is not None:
            vars(part)[name] = own
