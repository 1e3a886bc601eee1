"""Which axes of a layer's kernel are its inputs and which its outputs.

Blocks, N:M groups and filters need to know. An axis that is neither, such as a convolution's height
and width, is a position: each position has its own inputs × outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras

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
        channels: A number for each output: outputs with the same one, in several weights, can only
            be removed together. None where that is not known.
        full_shape: The weight's shape before any of its channels were removed; None if none were.
        removed: How many of the channels that the weight shares a dependency group with are gone.
    """

    kind: str = "other"
    inputs: tuple[int, ...] = (-2,)
    outputs: tuple[int, ...] = (-1,)
    channels: tuple[int, ...] | None = dataclasses.field(default=None, repr=False)
    full_shape: tuple[int, ...] | None = dataclasses.field(default=None, repr=False)
    removed: int = dataclasses.field(default=0, repr=False)


DENSE = Layout("dense")
CONVOLUTION = Layout("convolution")
TRANSPOSED = Layout("transposed_convolution", inputs=(-1,), outputs=(-2,))
# Each input channel has outputs of its own; only the window is summed over.
DEPTHWISE = Layout("depthwise", inputs=(), outputs=(-2, -1))
RECURRENT = Layout("recurrent")  # (inputs or state, gates × units), and a window before
EMBEDDING = Layout("embedding")  # (tokens, features): a dense layer on one-hot tokens

# What finds the layout of a weight of a layer.
FindLayout = Callable[[keras.Layer, keras.Variable], Layout]


def always(layout: Layout) -> FindLayout:
    """Finds the same layout for every weight of two axes or more.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> always(DENSE)(layer, layer.kernel)
    Layout(kind='dense', inputs=(-2,), outputs=(-1,))
    """
    return lambda layer, weight: layout


def separable(layer: keras.Layer, weight: keras.Variable) -> Layout:
    """That of either kernel of a separable convolution.

    Example:

    >>> layer = keras.layers.SeparableConv1D(4, 3)
    >>> layer.build((None, 9, 2))
    >>> separable(layer, layer.depthwise_kernel).kind, separable(layer, layer.pointwise_kernel).kind
    ('depthwise', 'convolution')
    """
    return DEPTHWISE if weight.name.startswith("depthwise") else CONVOLUTION


def einsum(layer: keras.Layer, weight: keras.Variable) -> Layout:
    """Letters of the kernel that the output lacks are inputs, those that only it has outputs.

    Example:

    >>> layer = keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4))
    >>> layer.build((None, 5, 8))
    >>> einsum(layer, layer.kernel)
    Layout(kind='einsum', inputs=(-3,), outputs=(-2, -1))
    """
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
