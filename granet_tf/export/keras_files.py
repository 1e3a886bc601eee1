"""What a model is besides a `.tflite` file: a plain `.keras` file, a SavedModel."""

from __future__ import annotations

import os

import keras

from granet_tf.wrapping.stripping import masked_weights
from granet_tf.writing import check_suffix, writing


def write_keras(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes the user's own model, its pruned weights zero, without optimizer or masks.

    Args:
        model: A `SparseModel`, a model with `PruneLowMagnitude` layers, or any Keras model.
        path: A file that ends in `.keras`. An existing one is replaced.

    Raises:
        ValueError: If it cannot be written there.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)], name="plain")
    >>> write_keras(granet_tf.wrap(model, granet_tf.StaticSparse(0.5)), "/tmp/stripped.keras")
    >>> keras.models.load_model("/tmp/stripped.keras").name
    'plain'
    """
    path = check_suffix(path, ".keras")
    with writing(path) as beside, masked_weights(model) as plain:
        plain.save(beside, include_optimizer=False)


def write_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Writes a TensorFlow SavedModel with the endpoint "serve", its pruned weights zero.

    Args:
        model: A `SparseModel`, a model with `PruneLowMagnitude` layers, or any Keras model.
        path: A directory. An existing one is replaced.

    Raises:
        ValueError: If it cannot be written there.

    Example:

    >>> import tensorflow as tf
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> write_saved_model(model, "/tmp/saved_model")
    >>> loaded = tf.saved_model.load("/tmp/saved_model")
    >>> loaded.serve(np.ones((1, 8), "float32")).shape
    TensorShape([1, 4])
    """
    with writing(path) as beside, masked_weights(model) as plain:
        plain.export(beside, format="tf_saved_model", verbose=False)
