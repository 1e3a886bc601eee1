"""What the networks are made of: convolutions padded as in PyTorch, each with batch normalization.

With stride 2, Keras's "same" pads one side more than the other; PyTorch pads both sides alike.
"""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

Initializers = Callable[[], keras.initializers.Initializer]
"""Makes an initializer. One object for all layers would give those of a shape the same values."""

# He et al. (2015), for ReLU: `kaiming_normal_` of PyTorch, by inputs (its default) or by outputs.
HE_FAN_IN: Initializers = functools.partial(
    keras.initializers.VarianceScaling, 2.0, "fan_in", "untruncated_normal"
)
HE_FAN_OUT: Initializers = functools.partial(
    keras.initializers.VarianceScaling, 2.0, "fan_out", "untruncated_normal"
)
# What PyTorch gives layers that are not told otherwise: uniform in ±1 / √fan_in.
PYTORCH_DEFAULT: Initializers = functools.partial(
    keras.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform"
)
SMALL_NORMAL: Initializers = functools.partial(keras.initializers.RandomNormal, 0.0, 0.01)

# PyTorch's defaults; its momentum is 1 minus that of Keras.
NORM = {"momentum": 0.9, "epsilon": 1e-5}


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """`channels × width` to the nearest multiple, but at least one, and not 10 % too few.

    Example:

    >>> from granet_train.networks.blocks import scaled
    >>> scaled(64, 0.25), scaled(16, 0.01), scaled(32, 0.3, multiple=8), scaled(24, 0.5, multiple=8)
    (16, 1, 16, 16)

    Reference:

    - [Sandler et al., 2018](https://arxiv.org/abs/1801.04381), whose code rounds MobileNets so.
    """
    exact = channels * width
    nearest = max(multiple, int(exact / multiple + 0.5) * multiple)
    return nearest + multiple if nearest < 0.9 * exact else nearest


def padded(x: Any, size: int, strides: int, name: str) -> tuple[Any, str]:
    """Room for a window of odd `size`, alike on all sides: `x`, and Keras's padding to go with it.

    Without a stride, "same" does just that. With one, zeros are added here.
    """
    if strides == 1:
        return x, "same"
    if size == 1:
        return x, "valid"
    return layers.ZeroPadding2D((size - 1) // 2, name=f"{name}_pad")(x), "valid"


def conv_norm(
    x: Any, filters: int, size: int, strides: int = 1, *, initializer: Initializers, name: str
) -> Any:
    """A convolution without bias, padded alike on all sides, and batch normalization."""
    x, padding = padded(x, size, strides, name)
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        use_bias=False,
        kernel_initializer=initializer(),
        name=name,
    )(x)
    return layers.BatchNormalization(**NORM, name=f"{name}_norm")(x)


def conv_norm_relu(x: Any, *args: Any, name: str, **kwargs: Any) -> Any:
    """`conv_norm` and ReLU."""
    return layers.ReLU(name=f"{name}_relu")(conv_norm(x, *args, name=name, **kwargs))


def classified(x: Any, classes: int, initializer: Initializers) -> Any:
    """The mean over all positions, and from it the logits."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return layers.Dense(classes, kernel_initializer=initializer(), name="head")(x)
