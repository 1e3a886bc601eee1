"""A network for images of 8 × 8 and a machine without a GPU."""

import keras
from keras import layers

from granet_train.networks.blocks import scaled


def small_cnn(input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> keras.Model:
    """Three convolutions with batch normalization, about 94,000 weights, for small images.

    Example:

    >>> from granet_train.networks.small_cnn import small_cnn
    >>> small_cnn((8, 8, 1), 10).output_shape
    (None, 10)
    """
    inputs = x = keras.Input(input_shape, name="image")
    for i, (filters, strides) in enumerate([(32, 1), (64, 2), (128, 1)], start=1):
        x = layers.Conv2D(
            scaled(filters, width),
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"conv{i}",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, name="head")(x), name="small_cnn")
