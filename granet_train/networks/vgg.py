"""VGG-19 with batch normalization, for CIFAR."""

import keras
from keras import layers

from granet_train.networks.blocks import (
    HE_FAN_OUT,
    SMALL_NORMAL,
    classified,
    conv_norm_relu,
    scaled,
)

# Channels and number of 3×3 convolutions; max pooling stands between stages.
STAGES = [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)]


def vgg19(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """VGG-19 for CIFAR, with batch normalization: 20.0 million weights for 10 classes.

    The variant of the GraSP repository, which the authors' code took over: 16 convolutions without
    bias, each with batch normalization and ReLU; four max poolings; then the mean of what is left
    (2 × 2 from an image of 32 × 32) and one dense layer. Convolutions start as in He et al. (2015)
    by fan-out, the dense layer with a standard deviation of 0.01.

    Raises:
        ValueError: If images are smaller than 16 × 16.

    Example:

    >>> from granet_train.networks.vgg import vgg19
    >>> tuple(vgg19((32, 32, 3), 10, width=0.125).get_layer("stage5_conv4").kernel.shape)
    (3, 3, 64, 64)

    References:

    - [Simonyan & Zisserman, 2015](https://arxiv.org/abs/1409.1556)
    - [Wang et al., 2020](https://github.com/alecwangcq/GraSP), whose variant it is
    """
    if min(input_shape[:2]) < 16:
        raise ValueError(
            "VGG-19 halves images four times, so they must be 16 × 16 or larger. "
            f"Received: input_shape={input_shape}"
        )
    inputs = x = keras.Input(input_shape, name="image")
    for stage, (filters, convolutions) in enumerate(STAGES, start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
        for number in range(1, convolutions + 1):
            x = conv_norm_relu(
                x,
                scaled(filters, width),
                3,
                initializer=HE_FAN_OUT,
                name=f"stage{stage}_conv{number}",
            )
    return keras.Model(inputs, classified(x, classes, SMALL_NORMAL), name="vgg19")
