"""Which axes of a layer's kernel are its inputs and which its outputs.

Blocks, N:M groups and filters need to know. An axis that is neither, such as a convolution's height
and width, is a position: each position has its own inputs × outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
from keras import layers

from keras_layers.keras_internals import ConvLSTMCell

KINDS = (
    "dense",
    "einsum",
    "convolution",
    "transposed_convolution",
    "depthwise",
    "recurrent",
    "embedding",
    "other",
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The axes of one weight.

    Attributes:
        kind: One of `KINDS`, the kind of layer that it belongs to.
        inputs: Axes that are summed over where inputs meet the kernel, counted from the end.
        outputs: Axes that lead to outputs.
    """

    kind: str = "other"
    inputs: tuple[int, ...] = (-2,)
    outputs: tuple[int, ...] = (-1,)


_DENSE = Layout("dense")
_CONVOLUTION = Layout("convolution")
_TRANSPOSED = Layout("transposed_convolution", inputs=(-1,), outputs=(-2,))
# Each input channel has outputs of its own; only the window is summed over.
_DEPTHWISE = Layout("depthwise", inputs=(), outputs=(-2, -1))
_RECURRENT = Layout("recurrent")  # (inputs or state, gates × units), and a window before
_EMBEDDING = Layout("embedding")  # (tokens, features): a dense layer on one-hot tokens


def _same(layout: Layout) -> Callable:
    return lambda layer, weight: layout


def _separable(layer, weight):
    return _DEPTHWISE if weight.name.startswith("depthwise") else _CONVOLUTION


def _einsum(layer, weight):
    """Letters of the kernel that the output lacks are inputs, those that only it has outputs."""
    operands, result = layer.equation.replace(" ", "").split("->")
    source, kernel = operands.split(",")
    if len(kernel) != len(weight.shape):
        return Layout("einsum")
    axes = {letter: i - len(kernel) for i, letter in enumerate(kernel)}
    return Layout(
        "einsum",
        inputs=tuple(axis for letter, axis in axes.items() if letter not in result),
        outputs=tuple(
            axis for letter, axis in axes.items() if letter in result and letter not in source
        ),
    )


# A subclass has the layout of its base class; what is not here has the default one.
LAYOUTS: dict[type[keras.Layer], Callable[[keras.Layer, keras.Variable], Layout]] = {
    layers.Dense: _same(_DENSE),
    layers.EinsumDense: _einsum,
    layers.Conv1D: _same(_CONVOLUTION),
    layers.Conv2D: _same(_CONVOLUTION),
    layers.Conv3D: _same(_CONVOLUTION),
    layers.Conv1DTranspose: _same(_TRANSPOSED),
    layers.Conv2DTranspose: _same(_TRANSPOSED),
    layers.Conv3DTranspose: _same(_TRANSPOSED),
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.DepthwiseConv1D: _same(_DEPTHWISE),
    layers.DepthwiseConv2D: _same(_DEPTHWISE),
    layers.SimpleRNNCell: _same(_RECURRENT),
    layers.GRUCell: _same(_RECURRENT),
    layers.LSTMCell: _same(_RECURRENT),
    ConvLSTMCell: _same(_RECURRENT),
    layers.Embedding: _same(_EMBEDDING),
}


def layout_of(layer: keras.Layer, weight: keras.Variable) -> Layout:
    """The layout of `weight`, a kernel of `layer`.

    A weight of a layer that is not in `LAYOUTS`, such as one of your own, has the default: inputs
    in the last axis but one, outputs in the last.

    Example:

    >>> layer = keras.layers.Conv2DTranspose(8, 3)
    >>> layer.build((None, 6, 6, 2))
    >>> layout_of(layer, layer.kernel)  # (height, width, outputs, inputs)
    Layout(kind='transposed_convolution', inputs=(-1,), outputs=(-2,))
    >>> layer = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4))
    >>> layer.build((None, 5, 8))
    >>> layout_of(layer, layer.kernel)
    Layout(kind='einsum', inputs=(-3,), outputs=(-2, -1))
    """
    find = next((LAYOUTS[c] for c in type(layer).__mro__ if c in LAYOUTS), None)
    return Layout() if find is None or len(weight.shape) < 2 else find(layer, weight)
