"""`FakeQuantized`: a layer, the normalization and the activation behind it, as int8 has them."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from granet_tf.int8.rounding import rounded_kernel
from granet_tf.schedules import PACKAGE

FUSED = {
    "linear": keras.activations.linear,
    "relu": keras.activations.relu,
    "relu6": keras.activations.relu6,
}
"""Activations that are part of the operation before them in a file, without a rounding between."""


def _with_layers(cls, config: dict[str, Any], custom_objects=None):
    """`from_config` of layers that hold layers."""
    return cls(**{n: _deserialized(value, custom_objects) for n, value in config.items()})


def _deserialized(value, custom_objects):
    is_object = isinstance(value, dict) and "class_name" in value
    return keras.saving.deserialize_keras_object(value, custom_objects) if is_object else value


@keras.saving.register_keras_serializable(PACKAGE)
class FakeQuantized(keras.Layer):
    """A layer that computes with its kernel rounded to int8, one scale for each channel.

    The layer inside keeps its weights, in float32, which training changes. So does a batch
    normalization behind it: it stays one, with the statistics of each batch in training. In a file
    it is part of kernel and bias; as it scales whole channels, the rounded kernel is the same whole
    numbers then.

    Args:
        layer: A Dense, Conv1D, Conv2D or DepthwiseConv2D layer. Its own activation is left out.
        normalization: A BatchNormalization of its channels, or None.
        activation: "linear", "relu" or "relu6".
        **kwargs: As of every Keras layer.

    Example:

    >>> dense = keras.layers.Dense(1, use_bias=False)
    >>> layer = FakeQuantized(dense)
    >>> layer.build((None, 2))
    >>> dense.kernel.assign([[127.0], [2.6]]).numpy().tolist()
    [[127.0], [2.5999999046325684]]
    >>> float(layer(np.array([[0.0, 1.0]]))[0, 0])
    3.0
    """

    def __init__(
        self,
        layer: keras.Layer,
        normalization: keras.layers.BatchNormalization | None = None,
        activation: str = "linear",
        **kwargs,
    ):
        kwargs.setdefault("name", f"fake_quantized_{layer.name}")
        super().__init__(**kwargs)
        self.layer = layer
        self.normalization = normalization
        self.activation = activation

    @property
    def kernel(self) -> keras.Variable:
        """That of the layer inside."""
        return self.layer.kernel

    @property
    def rounded_kernel(self) -> tf.Tensor:
        """The kernel as it computes with it, without normalization."""
        return rounded_kernel(self.kernel, self._row.channels)

    @property
    def _row(self):
        # Imported here, as `import granet_tf` takes this layer in so that files with it load.
        from granet_tf.int8.kernels import kernel_of

        return kernel_of(self.layer)

    def build(self, input_shape):
        if not self.layer.built:
            self.layer.build(input_shape)
        if self.normalization is not None and not self.normalization.built:
            self.normalization.build(self.layer.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        outputs = self._row.product(self.layer, inputs, self.rounded_kernel)
        if self.layer.use_bias:
            outputs = outputs + self.layer.bias
        if self.normalization is not None:
            outputs = self.normalization(outputs, training=training)
        return FUSED[self.activation](outputs)

    def compute_output_shape(self, input_shape):
        """That of the layer inside."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        """As of every Keras layer."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "normalization": keras.saving.serialize_keras_object(self.normalization),
            "activation": self.activation,
        }

    from_config = classmethod(_with_layers)

    def folded(self) -> keras.Layer:
        """A plain layer that computes the same at inference, its kernel rounded already.

        Example:

        >>> layer = FakeQuantized(keras.layers.Dense(1), activation="relu")
        >>> layer.build((None, 2))
        >>> layer.folded().activation.__name__
        'relu'
        """
        kernel, bias = self._folded_weights()
        config = self.layer.get_config() | {"use_bias": True, "activation": self.activation}
        config["name"] = self.name
        plain = type(self.layer).from_config(config)
        plain.build(self.layer.get_build_config()["input_shape"])
        plain.kernel.assign(kernel)
        plain.bias.assign(bias)
        return plain

    def _folded_weights(self) -> tuple[np.ndarray, np.ndarray]:
        kernel = self.rounded_kernel.numpy().astype("float64")
        row = self._row
        channels = math.prod([kernel.shape[axis] for axis in row.channels])
        bias = self.layer.bias.numpy().astype("float64") if self.layer.use_bias else 0.0
        scale, shift = scale_and_shift(self.normalization, channels)
        return kernel * row.per_channel(scale, kernel.shape), bias * scale + shift


@keras.saving.register_keras_serializable(PACKAGE)
class FakeQuantizedNormalization(keras.Layer):
    """A batch normalization that follows no kernel, and the activation behind it.

    In a file it is a depthwise convolution of one weight a channel, whose rounding is exact.

    Args:
        normalization: A BatchNormalization of the last axis.
        activation: "linear", "relu" or "relu6".
        **kwargs: As of every Keras layer.

    Example:

    >>> layer = FakeQuantizedNormalization(keras.layers.BatchNormalization(epsilon=0.0), "relu")
    >>> layer(np.array([[-1.0, 2.0]], "float32")).numpy().tolist()
    [[0.0, 2.0]]
    """

    def __init__(
        self,
        normalization: keras.layers.BatchNormalization,
        activation: str = "linear",
        **kwargs,
    ):
        kwargs.setdefault("name", f"fake_quantized_{normalization.name}")
        super().__init__(**kwargs)
        self.normalization = normalization
        self.activation = activation

    def build(self, input_shape):
        if not self.normalization.built:
            self.normalization.build(input_shape)

    def call(self, inputs, training=None):
        return FUSED[self.activation](self.normalization(inputs, training=training))

    def compute_output_shape(self, input_shape):
        """That of the inputs."""
        return input_shape

    def get_config(self):
        """As of every Keras layer."""
        normalization = keras.saving.serialize_keras_object(self.normalization)
        own = {"normalization": normalization, "activation": self.activation}
        return {**super().get_config(), **own}

    from_config = classmethod(_with_layers)

    def folded(self) -> keras.Layer:
        """Plain layers that compute the same at inference.

        Example:

        >>> layer = FakeQuantizedNormalization(keras.layers.BatchNormalization())
        >>> layer.build((None, 4, 4, 2))
        >>> [type(each).__name__ for each in layer.folded().layers]
        ['DepthwiseConv2D']
        """
        *between, channels = self.get_build_config()["input_shape"][1:]
        scale, shift = scale_and_shift(self.normalization, channels)
        product = keras.layers.DepthwiseConv2D(1, activation=self.activation)
        around = {2: ([], []), 1: ([(-1, 1, channels)], [(-1, channels)])}
        as_images, back = around.get(len(between), ([(1, 1, channels)], [(channels,)]))
        steps = [*map(keras.layers.Reshape, as_images), product, *map(keras.layers.Reshape, back)]
        plain = keras.Sequential([keras.Input((*between, channels)), *steps], name=self.name)
        product.kernel.assign(scale.reshape(1, 1, channels, 1))
        product.bias.assign(shift)
        return plain


def scale_and_shift(
    normalization: keras.layers.BatchNormalization | None, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a batch normalization computes at inference: x · scale + shift, one each a channel.

    Args:
        normalization: A built one, or None, which changes nothing.
        channels: How many there are.

    Example:

    >>> scale_and_shift(None, 2)
    (array([1., 1.]), array([0., 0.]))
    """
    if normalization is None:
        return np.ones(channels), np.zeros(channels)
    mean, variance = (
        v.numpy().astype("float64")
        for v in (normalization.moving_mean, normalization.moving_variance)
    )
    scale = 1.0 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        scale = scale * normalization.gamma.numpy()
    shift = -mean * scale
    if normalization.center:
        shift = shift + normalization.beta.numpy()
    return scale, shift
