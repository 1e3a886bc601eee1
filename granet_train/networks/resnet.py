"""Residual networks: ResNet-20 and ResNet-32 for CIFAR, ResNet-50 for CIFAR and for ImageNet."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from granet_train.networks.blocks import (
    HE_FAN_IN,
    PYTORCH_DEFAULT,
    Initializers,
    classified,
    conv_norm,
    conv_norm_relu,
    padded,
    scaled,
)

RESNET50_STAGES = [(64, 3), (128, 4), (256, 6), (512, 3)]  # channels, blocks


def resnet20(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """ResNet-20 for CIFAR: 0.27 million weights.

    A 3×3 stem and three stages of three blocks with 16, 32 and 64 channels. Where a stage begins,
    the shortcut is a 1×1 convolution with batch normalization (He et al.'s option B), as in the
    authors' code; He et al. themselves used option A on CIFAR, without weights, which has 2,752
    parameters less. All layers start as in He et al. (2015) by fan-in.

    Example:

    >>> from granet_train.networks.resnet import resnet20
    >>> tuple(resnet20((32, 32, 3), 10).get_layer("stage2_block1_conv1").kernel.shape)
    (3, 3, 16, 32)

    Reference:

    - [He et al., 2016, Section 4.2](https://arxiv.org/abs/1512.03385)
    """
    return _cifar_resnet("resnet20", 3, input_shape, classes, width)


def resnet32(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """ResNet-32 for CIFAR: `resnet20` with five blocks a stage, 0.46 million weights.

    The ResNet-32 of the GraSP paper has twice the channels: `width=2`. (Table 9 of the GraNet paper
    names a ResNet32 in its caption, but its rows are those of ResNet-50.)
    """
    return _cifar_resnet("resnet32", 5, input_shape, classes, width)


def resnet50_cifar(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """ResNet-50 for CIFAR: 23.5 million weights for 10 classes.

    `resnet50` with a 3×3 stem without stride, and no max pooling. As in the authors' code, all
    layers start as PyTorch has it by default. (There, the dense layer has no bias.)
    """
    inputs = keras.Input(input_shape, name="image")
    x = conv_norm_relu(inputs, scaled(64, width), 3, initializer=PYTORCH_DEFAULT, name="stem")
    x = _stages(x, _bottleneck, RESNET50_STAGES, width, PYTORCH_DEFAULT)
    return keras.Model(inputs, classified(x, classes, PYTORCH_DEFAULT), name="resnet50_cifar")


def resnet50(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """ResNet-50 v1.5 for ImageNet: 25,502,912 prunable weights in 54 kernels.

    "v1.5" says that a stage's stride is in its first 3×3 convolution, where the original (and
    `keras.applications.ResNet50`) has it in the 1×1 before. Convolutions have no biases. As in
    the authors' command, convolutions start as in He et al. (2015) by fan-in; the dense layer as
    PyTorch has it by default.

    References:

    - [He et al., 2016](https://arxiv.org/abs/1512.03385)
    - Table 10 of the [GraNet paper](https://arxiv.org/abs/2106.10404), for weights and FLOPs
    """
    inputs = keras.Input(input_shape, name="image")
    x = conv_norm_relu(inputs, scaled(64, width), 7, 2, initializer=HE_FAN_IN, name="stem")
    # What comes out of a ReLU is never below 0, so that zeros around it change no maximum.
    x, padding = padded(x, 3, 2, name="stem_pool")
    x = layers.MaxPooling2D(3, strides=2, padding=padding, name="stem_pool")(x)
    x = _stages(x, _bottleneck, RESNET50_STAGES, width, HE_FAN_IN)
    return keras.Model(inputs, classified(x, classes, PYTORCH_DEFAULT), name="resnet50")


def _cifar_resnet(name: str, blocks: int, input_shape, classes: int, width: float) -> keras.Model:
    inputs = keras.Input(input_shape, name="image")
    x = conv_norm_relu(inputs, scaled(16, width), 3, initializer=HE_FAN_IN, name="stem")
    stages = [(16, blocks), (32, blocks), (64, blocks)]
    x = _stages(x, _basic, stages, width, HE_FAN_IN)
    return keras.Model(inputs, classified(x, classes, HE_FAN_IN), name=name)


def _stages(
    x: Any,
    block: Callable[..., Any],
    stages: Sequence[tuple[int, int]],
    width: float,
    initializer: Initializers,
) -> Any:
    """All blocks; every stage but the first halves height and width in its first block."""
    for stage, (filters, blocks) in enumerate(stages, start=1):
        for number in range(1, blocks + 1):
            strides = 2 if stage > 1 and number == 1 else 1
            name = f"stage{stage}_block{number}"
            x = block(x, scaled(filters, width), strides, initializer, name)
    return x


def _basic(x, filters: int, strides: int, initializer: Initializers, name: str) -> Any:
    y = conv_norm_relu(x, filters, 3, strides, initializer=initializer, name=f"{name}_conv1")
    y = conv_norm(y, filters, 3, initializer=initializer, name=f"{name}_conv2")
    return _joined(x, y, strides, initializer, name)


def _bottleneck(x, filters: int, strides: int, initializer: Initializers, name: str) -> Any:
    y = conv_norm_relu(x, filters, 1, initializer=initializer, name=f"{name}_conv1")
    y = conv_norm_relu(y, filters, 3, strides, initializer=initializer, name=f"{name}_conv2")
    y = conv_norm(y, 4 * filters, 1, initializer=initializer, name=f"{name}_conv3")
    return _joined(x, y, strides, initializer, name)


def _joined(x, y, strides: int, initializer: Initializers, name: str) -> Any:
    """The sum of a block's input and output, through a 1×1 convolution if their shapes differ."""
    if x.shape != y.shape:
        x = conv_norm(x, y.shape[-1], 1, strides, initializer=initializer, name=f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([y, x]))
