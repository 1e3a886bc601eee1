"""Keras 2's hard sigmoid, which models of tfmot compute with and Keras 3 lacks."""

from __future__ import annotations

import keras

from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
def keras2_hard_sigmoid(x):
    """Keras 2's: of slope 0.2, where Keras 3's has 1/6.

    Example:

    >>> keras2_hard_sigmoid(keras.ops.array([-3.0, 0.0, 1.0], "float64")).numpy().tolist()
    [0.0, 0.5, 0.7]
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
