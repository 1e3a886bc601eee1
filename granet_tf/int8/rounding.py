"""Values as int8 has them, still stored as float32: what a file will compute with.

Activations have a scale and a zero point for each tensor, kernels a scale for each channel of the
output. Rounding passes gradients on as if it had not happened (straight-through).

Reference:

- [Jacob et al., 2018](https://arxiv.org/abs/1712.05877), sections 2.1 and 3
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

LEVELS = 127
"""Kernels are whole multiples of their scale, from -LEVELS to LEVELS."""
_STEPS = 255.0


def with_exact_zero(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The range moved by less than half a step, so that 0 is one of its 256 values.

    Two ends of a range that TensorFlow and LiteRT would round apart are far from a tie after this.

    Args:
        low: Least value of a tensor, 0 or less, a scalar.
        high: Largest value, 0 or more.

    Example:

    >>> low, high = with_exact_zero(tf.constant(-0.3), tf.constant(1.0))
    >>> round(float(low), 4), round(float(high), 4)
    (-0.3008, 0.9992)
    """
    step = (high - low) / _STEPS
    zero = tf.round(tf.math.divide_no_nan(-low, step))
    return -zero * step, (_STEPS - zero) * step


def rounded(x: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """`x` at the nearest of 256 values from `low` to `high`.

    The gradient is that of clipping: 0 outside of the range.

    Args:
        x: Activations of any shape, float32.
        low: See `with_exact_zero`; as scalars.
        high: The same.

    Example:

    >>> x = tf.constant([-1.0, 0.1, 0.5, 300.0])
    >>> rounded(x, tf.constant(0.0), tf.constant(255.0)).numpy().tolist()
    [0.0, 0.0, 1.0, 255.0]
    """
    return tf.quantization.fake_quant_with_min_max_vars(x, *with_exact_zero(low, high))


def kernel_scales(kernel: tf.Tensor, channels: Sequence[int]) -> tf.Tensor:
    """The scale of each channel, in the kernel's shape with 1 on all other axes.

    Args:
        kernel: A kernel.
        channels: Its axes that lead to channels of the output, each counted from the end.

    Example:

    >>> kernel_scales(tf.constant([[127.0, 1.0], [0.0, -2.0]]), [-1]).numpy().tolist()
    [[1.0, 0.015748031437397003]]
    """
    rank = len(kernel.shape)
    others = [axis for axis in range(rank) if axis - rank not in channels]
    return tf.reduce_max(tf.abs(kernel), others, keepdims=True) / LEVELS


def rounded_kernel(kernel: tf.Tensor, channels: Sequence[int]) -> tf.Tensor:
    """`kernel` at the nearest multiples of its channels' scales: what is 0 stays 0.

    The gradient is that of `kernel` itself.

    Args:
        kernel: See `kernel_scales`.
        channels: The same.

    Example:

    >>> rounded_kernel(tf.constant([[1.27], [0.0], [0.5049]]), [-1]).numpy().round(4).tolist()
    [[1.2699999809265137], [0.0], [0.5]]
    """
    kernel = tf.convert_to_tensor(kernel)
    return _on_grid(kernel, kernel_scales(kernel, channels))


@tf.custom_gradient
def _on_grid(kernel, scale):
    on_grid = tf.round(tf.math.divide_no_nan(kernel, scale)) * scale
    return on_grid, lambda gradient: (gradient, None)
