"""Outputs of a network at a higher temperature, as GraSP needs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_layers.keras_internals import LossFunctionWrapper


def _softer_softmax(probabilities, temperature):
    return tf.nn.softmax(tf.math.log(_above_0(probabilities)) / temperature)


def _softer_sigmoid(probabilities, temperature):
    odds = tf.math.log(_above_0(probabilities)) - tf.math.log(_above_0(1.0 - probabilities))
    return tf.sigmoid(odds / temperature)


def _above_0(probabilities):
    return tf.maximum(probabilities, keras.config.epsilon())


# {cross-entropy: what its probabilities are at a temperature}; of logits it is a division.
CROSS_ENTROPIES: dict[Callable, Callable[[tf.Tensor, float], tf.Tensor]] = {
    keras.losses.categorical_crossentropy: _softer_softmax,
    keras.losses.sparse_categorical_crossentropy: _softer_softmax,
    keras.losses.categorical_focal_crossentropy: _softer_softmax,
    keras.losses.binary_crossentropy: _softer_sigmoid,
    keras.losses.binary_focal_crossentropy: _softer_sigmoid,
}


def at_temperature(outputs: Any, temperature: float, losses: Any) -> Any:
    """What a model returns, if its logits were divided by `temperature`.

    Args:
        outputs: A tensor, or a structure of them: logits or probabilities, as each loss takes them.
        temperature: Above 0. 1 leaves the outputs as they are.
        losses: As given to `compile`: one for all outputs, or a structure as that of the outputs. A
            function that is not Keras's is taken to want logits.

    Raises:
        ValueError: If a loss is not a cross-entropy, so that its outputs have no temperature.

    Example:

    >>> at_temperature(tf.constant([[2.0, 6.0]]), 2.0, lambda y, logits: 0.0).numpy().tolist()
    [[1.0, 3.0]]
    >>> probabilities = tf.nn.softmax([[2.0, 6.0]])
    >>> softer = at_temperature(probabilities, 2.0, "categorical_crossentropy")
    >>> np.allclose(softer, tf.nn.softmax([[1.0, 3.0]]))
    True
    """
    if temperature == 1.0:
        return outputs
    flat = keras.tree.flatten(outputs)
    each = [loss for loss in keras.tree.flatten(losses) if loss is not None]
    each = each * len(flat) if len(each) == 1 else each
    soft = [_soft(o, temperature, loss) for o, loss in zip(flat, each, strict=True)]
    return keras.tree.pack_sequence_as(outputs, soft)


def _soft(output, temperature, loss):
    function, options = _function_of(keras.losses.get(loss))
    if function in CROSS_ENTROPIES and not options.get("from_logits", False):
        return CROSS_ENTROPIES[function](output, temperature)
    ours = isinstance(function, keras.Loss) or function.__module__.startswith("keras.")
    if function not in CROSS_ENTROPIES and ours:
        raise ValueError(
            "`temperature` must be 1.0 unless the loss is a cross-entropy: other outputs are no "
            f"logits that could be divided by it. Received: temperature={temperature}, loss={loss}"
        )
    return output / tf.cast(temperature, output.dtype)


def _function_of(loss):
    """A loss function and the options that it is called with."""
    if isinstance(loss, LossFunctionWrapper):
        return loss.fn, loss._fn_kwargs
    return loss, {}
