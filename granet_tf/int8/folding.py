"""What a converter is given of a fake-quantized model: plain layers, and ranges as constants."""

from __future__ import annotations

import keras

from granet_tf.graphs import rebuilt
from granet_tf.int8.ranges import FakeQuantize
from keras_layers.keras_internals import layers_of


def folded(model: keras.Model) -> keras.Model:
    """A plain model that computes the same at inference.

    Normalizations are part of kernels, which are rounded already. So LiteRT's converter, which sets
    a channel's scale by its largest weight, comes to the same whole numbers; the ranges of
    activations it takes from the operations that round.

    Args:
        model: What `granet_tf.strip` makes of a fake-quantized model.

    Raises:
        ValueError: If a range is not known yet.

    Example:

    >>> import granet_tf
    >>> network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="dense")])
    >>> fake = granet_tf.fake_quantize(network, representative_data=np.ones((4, 2)))
    >>> type(folded(granet_tf.strip(fake)).get_layer("fake_quantized_dense")).__name__
    'Dense'
    """
    return rebuilt(model, lambda layer: layer.folded() if hasattr(layer, "folded") else layer)


def is_fake_quantized(model: keras.Model) -> bool:
    """Whether a model, or one in it, is made by `granet_tf.fake_quantize`.

    Example:

    >>> is_fake_quantized(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    False
    """
    return any(isinstance(layer, FakeQuantize) for layer in layers_of(model))
