"""How many multiply-adds one call of a Keras layer does, by itself and for each of its weights.

Biases, activations and scales are not counted, and padding counts like data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a layer: the shapes, batch included, of what went in and came out.

    Attributes:
        layer: The layer.
        arguments: Arguments of `call` by name, with shapes in place of tensors.
        output: What `call` returned, with shapes in place of tensors.
    """

    layer: keras.Layer
    arguments: dict[str, Any]
    output: Any

    @property
    def input(self) -> tuple[int, ...]:
        """Shape of the first argument."""
        return next(iter(self.arguments.values()))

    def size(self, shape: tuple[int | None, ...]) -> int:
        """Number of elements of a shape of this call.

        Raises:
            ValueError: If the shape is not known in full.
        """
        if None in shape:
            name = self.layer.path or self.layer.name
            raise ValueError(
                f"The FLOPs of layer '{name}' cannot be counted: a shape depends on the data. "
                f"Received: shape={shape}"
            )
        return math.prod(shape)


# Weights, each with its multiply-adds; None for those that zeros in weights do not save.
Counts = list[tuple[keras.Variable | None, int]]
MultiplyAdds = Callable[[keras.Layer, LayerCall], Counts]


def nothing(layer: keras.Layer, call: LayerCall) -> Counts:
    """Of what is not counted, or in another layer's call.

    Example:

    >>> layer = keras.layers.Embedding(9, 4)
    >>> nothing(layer, LayerCall(layer, {"inputs": (1, 5)}, (1, 5, 4)))
    []
    """
    return []


def at_outputs(channels: str, *weights: str) -> MultiplyAdds:
    """Each position of the output meets the whole of these weights.

    Args:
        channels: The layer's attribute that says how many channels its output has.
        *weights: The layer's attributes that are the weights.

    Example:

    >>> layer = keras.layers.Dense(4)
    >>> layer.build((None, 5, 8))
    >>> call = LayerCall(layer, {"inputs": (1, 5, 8)}, (1, 5, 4))
    >>> [number for _, number in at_outputs("units", "kernel")(layer, call)]
    [160]
    """

    def counts(layer: keras.Layer, call: LayerCall) -> Counts:
        positions = call.size(call.output) // getattr(layer, channels)
        return [_whole(getattr(layer, weight), positions) for weight in weights]

    return counts


def einsum(layer: layers.EinsumDense, call: LayerCall) -> Counts:
    """The product of all axes of the equation: those of the input, and the kernel's own."""
    inputs, kernel = layer.equation.split("->")[0].replace(" ", "").split(",")
    extra = [
        size for axis, size in zip(kernel, layer.kernel.shape, strict=True) if axis not in inputs
    ]
    return [(layer.kernel, call.size(call.input) * math.prod(extra))]


def transposed_convolution(layer: keras.Layer, call: LayerCall) -> Counts:
    """Each position of the input, not of the output, meets the whole kernel."""
    return [_whole(layer.kernel, call.size(call.input) // layer.kernel.shape[-1])]


def depthwise_convolution(layer: keras.Layer, call: LayerCall) -> Counts:
    """Each position of the output meets the kernel, in which all channels of the output are."""
    channels = math.prod(layer.kernel.shape[-2:])
    return [_whole(layer.kernel, call.size(call.output) // channels)]


def global_average(layer: keras.Layer, call: LayerCall) -> Counts:
    """One for each value."""
    return [(None, call.size(call.input))]


def average(layer: keras.Layer, call: LayerCall) -> Counts:
    """One for each value that a window reads."""
    return [(None, math.prod(layer.pool_size) * call.size(call.output))]


# Those that `recurrent` knows the steps of. A subclass may compute anything.
CELLS = (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell)


def recurrent(layer: layers.RNN, call: LayerCall) -> Counts:
    """Each step meets both kernels of a cell, which is itself called only once: in a loop."""
    steps = call.size(call.input[:2])
    return [
        _whole(kernel, steps)
        for cell in getattr(layer.cell, "cells", [layer.cell])
        if type(cell) in CELLS
        for kernel in (cell.kernel, cell.recurrent_kernel)
    ]


def attention(layer: layers.Attention, call: LayerCall) -> Counts:
    """Two products, as in all attention; projections are layers of their own."""
    query, value, *key = call.input
    key = key[0] if key else value
    return _attention_products(call, query[:-1], value[-2:-1], key[-1], value[-1])


def multi_head_attention(layer: layers.MultiHeadAttention, call: LayerCall) -> Counts:
    """Two products for each head, over the axes that are attended to."""
    query, value = call.arguments["query"], call.arguments["value"]
    attended = [value[axis] for axis in layer.attention_axes]
    queries = (*query[:-1], layer.num_heads)
    return _attention_products(call, queries, attended, layer.key_dim, layer.value_dim)


def group_query_attention(layer: layers.GroupQueryAttention, call: LayerCall) -> Counts:
    """Two products for each head of the query."""
    query, value = call.arguments["query"], call.arguments["value"]
    queries = (*query[:-1], layer.num_query_heads)
    return _attention_products(call, queries, value[1:2], layer.head_dim, layer.head_dim)


def _whole(weight, times: int) -> tuple[Any, int]:
    """One multiply-add with each element of the weight, this many times."""
    return weight, math.prod(weight.shape) * times


def _attention_products(call: LayerCall, queries, values, key_dim: int, value_dim: int) -> Counts:
    """Query · key for the scores, then score · value, for each pair of query and value."""
    return [(None, call.size((*queries, *values)) * (key_dim + value_dim))]
