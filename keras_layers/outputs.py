"""Which layers the outputs of a model come from: their units are the outputs themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable

import keras
from keras import layers

from keras_layers.keras_internals import (
    Dot,
    Einsum,
    Functional,
    Matmul,
    Mean,
    Sum,
    Tensordot,
    Vdot,
    children_of,
    functional_of,
    layers_of,
)
from keras_layers.known_layers import known
from keras_layers.prunable import is_left_out, own_weights

# What adds up units without a kernel: no output behind it is that of one unit.
_PRODUCTS = (layers.Dot, Dot, Einsum, Matmul, Tensordot, Vdot)
_SUMS = (Sum, Mean)


def output_layers(model: keras.Layer) -> list[keras.Layer]:
    """The layers with kernels whose outputs are those of `model`, each once.

    In a sequential or functional model, these are the last ones before each output, through
    activations, reshapes, sums with a residual and whatever else has no kernel. Of any other model
    or layer, Keras knows the parts, but not how they are called: the part with kernels that was
    made last counts.

    Args:
        model: A model or layer.

    Example:

    >>> inputs = keras.Input((4,))
    >>> hidden = keras.layers.Dense(8, name="hidden")(inputs)
    >>> classes = keras.layers.Softmax()(keras.layers.Dense(3, name="classes")(hidden))
    >>> value = keras.layers.Dense(1, name="value")(hidden)
    >>> sorted(layer.name for layer in output_layers(keras.Model(inputs, [classes, value])))
    ['classes', 'value']
    """
    return list(dict.fromkeys(_last(model)))


def _last(layer):
    function = _function(layer)
    if function is not None:
        return _before(function.outputs)[0]
    last = [layer] if any(_is_kernel(layer, v) for v in own_weights(layer)) else []
    for part in _last_parts(layer):
        last += _last(part)
    return last


def _last_parts(layer):
    side_by_side = [getattr(layer, name) for name in known(layer).side_by_side]
    # The parts of any other layer come one after another.
    return side_by_side or [part for part in children_of(layer) if _has_kernels(part)][-1:]


def _before(tensors: Iterable[keras.KerasTensor]) -> tuple[list[keras.Layer], bool]:
    """The layers with kernels that these tensors come from, and whether one is an input."""
    waiting, seen, found, is_input = list(tensors), set(), [], False
    while waiting:
        tensor = waiting.pop(0)
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if node.is_input:
            is_input = True
        elif _function(operation) is not None:
            inner, passes = _before(_function(operation).outputs)
            found += inner
            waiting += node.input_tensors if passes else []
        elif isinstance(operation, keras.Layer) and _has_kernels(operation):
            found += _last(operation)
        elif not _adds_up_units(node):
            waiting += node.input_tensors
    return found, is_input


def _adds_up_units(node) -> bool:
    if isinstance(node.operation, _SUMS):
        return math.prod(n or 2 for n in node.outputs[0].shape[1:]) == 1
    return isinstance(node.operation, _PRODUCTS)


def _function(layer) -> Functional | None:
    """The graph of a sequential or functional model that computes as Keras has it."""
    as_keras_has_it = getattr(type(layer), "call", None) in (keras.Sequential.call, Functional.call)
    return functional_of(layer) if as_keras_has_it else None


def _has_kernels(layer) -> bool:
    return any(_is_kernel(x, v) for x in layers_of(layer) for v in own_weights(x))


def _is_kernel(layer, weight) -> bool:
    """Whether a layer mixes its inputs by this weight."""
    return len(weight.shape) >= 2 and not is_left_out(layer, weight)
