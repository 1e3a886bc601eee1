"""MobileNetV1, in the form that sparse kernels on phones can run."""

from typing import Any

import keras
from keras import layers

from granet_train.networks.blocks import (
    HE_FAN_OUT,
    NORM,
    SMALL_NORMAL,
    classified,
    conv_norm,
    padded,
    scaled,
)

# Channels and stride of each block.
BLOCKS = [
    (64, 1),
    *[(128, 2), (128, 1)],
    *[(256, 2), (256, 1)],
    *[(512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1)],
    *[(1024, 2), (1024, 1)],
]


def mobilenet_v1(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """MobileNetV1: 4.2 million weights for 1000 classes.

    Every 3×3 convolution sees one row or column of zeros on each side, where
    `keras.applications.MobileNet` pads one side only at stride 2. XNNPACK's sparse inference on ARM
    asks for that, for a 3×3 stem with stride 2 on 3 channels, for 1×1 convolutions without stride,
    and for a mean before the dense layer; and for more than two thirds of zeros. Depthwise kernels
    are not pruned by default.

    The image shrinks 32-fold; any size works, 32 × 32 as well. Channels are multiples of 8 at any
    width. Convolutions start as in He et al. (2015) by fan-out, the dense layer with a standard
    deviation of 0.01.

    Example:

    >>> from granet_train.networks.mobilenet import mobilenet_v1
    >>> model = mobilenet_v1((32, 32, 3), 10, width=0.125)
    >>> tuple(model.get_layer("block13_pointwise").kernel.shape)
    (1, 1, 128, 128)

    References:

    - [Howard et al., 2017, Table 1](https://arxiv.org/abs/1704.04861)
    - [Elsen et al., 2020](https://arxiv.org/abs/1911.09723), for the sparse kernels
    """
    inputs = keras.Input(input_shape, name="image")
    x = _conv_relu6(inputs, scaled(32, width, 8), 3, strides=2, name="stem")
    for block, (filters, strides) in enumerate(BLOCKS, start=1):
        x = _depthwise_relu6(x, strides, name=f"block{block}_depthwise")
        x = _conv_relu6(x, scaled(filters, width, 8), 1, name=f"block{block}_pointwise")
    return keras.Model(inputs, classified(x, classes, SMALL_NORMAL), name="mobilenet_v1")


def _conv_relu6(x, filters: int, size: int, strides: int = 1, *, name: str) -> Any:
    x = conv_norm(x, filters, size, strides, initializer=HE_FAN_OUT, name=name)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)


def _depthwise_relu6(x, strides: int, *, name: str) -> Any:
    x, padding = padded(x, 3, strides, name)
    x = layers.DepthwiseConv2D(
        3,
        strides=strides,
        padding=padding,
        use_bias=False,
        # Keras takes 9 for the fan-out of this shape, which is in truth its fan-in as well.
        depthwise_initializer=HE_FAN_OUT(),
        name=name,
    )(x)
    x = layers.BatchNormalization(**NORM, name=f"{name}_norm")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_relu")(x)
