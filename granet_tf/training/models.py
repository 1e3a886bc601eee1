"""Networks, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Keras is imported where it is used, so that a mistyped flag is answered at once.


def small_cnn(input_shape: tuple[int, ...], classes: int, weight_decay: float) -> Any:
    """Three convolutions with batch normalization, about 94,000 weights, for small images."""
    import keras
    from keras import layers

    decay = _weight_decay(weight_decay)

    inputs = x = keras.Input(input_shape, name="image")
    for i, (filters, strides) in enumerate([(32, 1), (64, 2), (128, 1)], start=1):
        x = layers.Conv2D(
            filters,
            3,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=decay,
            name=f"conv{i}",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, kernel_regularizer=decay, name="head")(x)
    return keras.Model(inputs, outputs, name="small_cnn")


MODELS: dict[str, Callable[[tuple[int, ...], int, float], Any]] = {"small_cnn": small_cnn}


def _weight_decay(weight_decay: float) -> Any:
    """Coupled, as in PyTorch: adds weight_decay · w to the gradient, so half of that as L2."""
    import keras

    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None
