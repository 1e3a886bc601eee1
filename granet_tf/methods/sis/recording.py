"""What goes into the layers of a network, and what comes after them, seen while it runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from granet_tf.methods.sis.inclusion import RESIDUALS, Residual
from keras_layers.keras_internals import layers_of
from keras_layers.observing import observe, stop_observing


@dataclasses.dataclass(frozen=True)
class Use:
    """A layer in a network.

    Attributes:
        layer: The layer.
        inputs: What goes into it, in all of its calls.
        normalization: The batch normalization that alone follows it, if one does.
        residual: By its activation, or by that which alone follows.
    """

    layer: keras.Layer
    inputs: tuple[tf.Tensor, ...]
    normalization: keras.layers.BatchNormalization | None
    residual: Residual


@dataclasses.dataclass(frozen=True)
class _Call:
    layer: keras.Layer
    inputs: list[tf.Tensor]
    outputs: list[tf.Tensor]

    def takes(self, tensor):
        return any(each is tensor for each in self.inputs)


class _Recorder:
    """Notes calls of layers."""

    def __init__(self):
        self.calls: list[_Call] = []

    def around(self, layer, method, *args, **kwargs):
        outputs = method(*args, **kwargs)
        taken, made = (
            [x for x in keras.tree.flatten(structure) if tf.is_tensor(x)]
            for structure in ((args, kwargs), outputs)
        )
        self.calls.append(_Call(layer, taken, made))
        return outputs

    def next(self, call: _Call) -> _Call | None:
        """What takes the output of a call, if it is one layer."""
        after = [other for other in self.calls if other.takes(call.outputs[0])]
        return after[0] if len(after) == 1 else None


def uses_of(model: keras.Model, layers: Sequence[keras.Layer], batches: Iterable[Any]) -> list[Use]:
    """How a network uses some of its layers, at inference.

    Args:
        model: The network, without masks.
        layers: Those asked for.
        batches: What goes into the network.

    Raises:
        ValueError: If an activation of theirs is not in `RESIDUALS`, or one is never called.

    Example:

    >>> layers = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    >>> model = keras.Sequential([keras.Input((2,)), *layers])
    >>> [use] = uses_of(model, layers[:1], [tf.ones((4, 2))])
    >>> tuple(use.inputs[0].shape), use.normalization is layers[1], use.residual.__name__
    ((4, 2), True, 'of_relu')
    """
    recorder = _Recorder()
    # Those that hold others take and make the same tensors as these.
    inner = [each for each in layers_of(model) if not layers_of(each, include_self=False)]
    for each in inner:
        around = functools.partial(_around, each)
        observe(each, "call", recorder, around)
    try:
        for batch in batches:
            model(batch, training=False)
    finally:
        for each in inner:
            stop_observing(each, recorder)
    return [_use(layer, recorder) for layer in layers]


def _around(layer, recorder, method, *args, **kwargs):
    return recorder.around(layer, method, *args, **kwargs)


def _use(layer, recorder):
    calls = [call for call in recorder.calls if call.layer is layer]
    if not calls:
        raise ValueError(
            "The layers of `model` must be called with the batches for SIS to see their inputs; "
            f"leave others out by `prunable`. Received: {layer}, which is not called"
        )
    inputs = tuple(call.inputs[0] for call in calls)
    normalization, residual = None, _residual(layer, layer.activation)
    after = recorder.next(calls[0]) if layer.activation is keras.activations.linear else None
    if after is not None and _normalizes_channels(after):
        normalization, after = after.layer, recorder.next(after)
    if after is not None:
        residual = RESIDUALS.get(_activation_of(after.layer), residual)
    return Use(layer, inputs, normalization, residual)


def _normalizes_channels(call):
    last = len(call.inputs[0].shape) - 1
    normalizes = isinstance(call.layer, keras.layers.BatchNormalization)
    return normalizes and call.layer.axis in (-1, last)


def _residual(layer, activation):
    if activation not in RESIDUALS:
        known = sorted(each.__name__ for each in RESIDUALS)
        raise ValueError(
            f"The activation of a layer that SIS prunes must be one of {known}, as proximity "
            "operators whose subdifferential is known; leave other layers out by `prunable`. "
            f"Received: activation={getattr(activation, '__name__', activation)} of {layer.path}"
        )
    return RESIDUALS[activation]


@functools.singledispatch
def _activation_of(layer):
    """The activation that a layer is; None if it is another one."""
    return None


@_activation_of.register
def _(layer: keras.layers.Activation):
    return layer.activation


@_activation_of.register
def _(layer: keras.layers.Softmax):
    return keras.activations.softmax if layer.axis in (-1, (-1,)) else None


@_activation_of.register
def _(layer: keras.layers.ReLU):
    plain = {None: keras.activations.relu, 6.0: keras.activations.relu6}
    is_plain = not layer.negative_slope and not layer.threshold
    return plain.get(layer.max_value) if is_plain else None
