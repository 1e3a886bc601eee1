"""What is known of each layer with a kernel that can be rounded: a table.

A new layer is a row. What it computes must be linear in its kernel, and each channel of its output
must have a slice of the kernel to itself: then a batch normalization behind it scales the slices,
which leaves the whole numbers of the kernel as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

Obstacle = Callable[[keras.Layer, Sequence[Any]], str | None]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One row: layers of the classes in it are alike.

    Attributes:
        classes: The very classes. A subclass may compute something else.
        channels: Axes of the kernel that lead to channels of the output, counted from the end.
        product: (layer, inputs, kernel) -> outputs without bias and activation.
        obstacle: (layer, shapes of its inputs) -> why it cannot be, or None.
    """

    classes: tuple[type[keras.Layer], ...]
    channels: tuple[int, ...]
    product: Callable[[keras.Layer, tf.Tensor, tf.Tensor], tf.Tensor]
    obstacle: Obstacle

    def per_channel(self, values: Any, kernel_shape: Sequence[int]) -> Any:
        """`values`, one a channel of the output, in a shape that multiplies the kernel.

        Example:

        >>> layer = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)
        >>> kernel_of(layer).per_channel(np.ones(8), (3, 3, 4, 2)).shape
        (1, 1, 4, 2)
        """
        rank = len(kernel_shape)
        shape = [n if axis - rank in self.channels else 1 for axis, n in enumerate(kernel_shape)]
        return values.reshape(shape)


def _is_plain(layer, shapes):
    del shapes
    if layer.quantization_mode is not None or layer.dtype_policy.quantization_mode is not None:
        return f"quantized already, by `quantize({layer.quantization_mode!r})`"
    if layer.compute_dtype != "float32" or layer.variable_dtype != "float32":
        return f"computes in {layer.compute_dtype}, not in float32"
    if getattr(layer, "lora_enabled", False):
        return "has adapters"
    return None


def _convolution(layer, shapes):
    if layer.data_format != "channels_last":
        return f"data_format={layer.data_format!r}"
    if set(keras.tree.flatten(layer.dilation_rate)) != {1}:
        return "dilated, which LiteRT computes in several steps that are not rounded alike"
    if layer.padding == "causal":
        return "padding='causal'"
    return _is_plain(layer, shapes)


def _dense(layer, shapes):
    if len(shapes[0]) != 2:
        return f"on inputs of {len(shapes[0])} axes, not of shape (batch, features)"
    return _is_plain(layer, shapes)


def _convolved(layer, x, kernel):
    return ops.conv(x, kernel, layer.strides, layer.padding, "channels_last")


def _convolved_by_depth(layer, x, kernel):
    return ops.depthwise_conv(x, kernel, layer.strides, layer.padding, "channels_last")


def _multiplied(layer, x, kernel):
    del layer
    return ops.matmul(x, kernel)


KERNELS: tuple[Kernel, ...] = (
    Kernel((layers.Dense,), (-1,), _multiplied, _dense),
    Kernel((layers.Conv1D, layers.Conv2D), (-1,), _convolved, _convolution),
    Kernel((layers.DepthwiseConv2D,), (-2, -1), _convolved_by_depth, _convolution),
)
"""All rows."""

_BY_CLASS = {kind: row for row in KERNELS for kind in row.classes}


def kernel_of(layer: Any) -> Kernel | None:
    """The row of a layer; None if it has none.

    Example:

    >>> kernel_of(keras.layers.DepthwiseConv2D(3)).channels, kernel_of(keras.layers.ReLU())
    ((-2, -1), None)
    """
    return _BY_CLASS.get(type(layer))
