"""A teacher: a trained network whose outputs the network at hand learns beside the labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import granet_tf
from granet_tf.int8.activations import activation_name, function_name
from granet_tf.reasons import reason_of
from granet_train import files
from granet_train.errors import UsageError
from granet_train.training_options import Options
from keras_layers.carrier import carries_masks
from keras_layers.keras_internals import layers_of, operation_of

# What --distillation_weight and --distillation_temperature are by default.
WEIGHT, TEMPERATURE = 0.5, 4.0


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What is added to the loss.

    Attributes:
        teacher: A model that returns logits. It is not trained.
        weight: The share of the loss that is the teacher's, in [0, 1]; the rest is the labels'.
        temperature: Logits are divided by it.
    """

    teacher: keras.Model
    weight: float = WEIGHT
    temperature: float = TEMPERATURE

    def losses(self, images: tf.Tensor, logits: tf.Tensor, of_labels: tf.Tensor) -> tf.Tensor:
        """The loss of each sample.

        Args:
            images: What both networks see.
            logits: The student's, float32, of shape (batch, classes).
            of_labels: The loss of the labels, of shape (batch,).

        Reference:

        - [Hinton et al., 2015](https://arxiv.org/abs/1503.02531): cross-entropies times T²
        """
        theirs = tf.cast(self.teacher(images, training=False), tf.float32)
        wanted = tf.nn.softmax(tf.stop_gradient(theirs) / self.temperature)
        reached = tf.nn.log_softmax(logits / self.temperature)
        divergence = tf.reduce_sum(wanted * (tf.math.log(wanted + 1e-12) - reached), -1)
        return (1 - self.weight) * of_labels + self.weight * self.temperature**2 * divergence


def made(values: Options) -> Distillation | None:
    """What the flags ask for, in the scope of the strategy; None without a teacher.

    Raises:
        UsageError: If there is no such model.
    """
    if not values.teacher:
        return None
    weight, temperature = values.distillation_weight, values.distillation_temperature
    return Distillation(
        _loaded(values.teacher),
        WEIGHT if weight is None else weight,
        TEMPERATURE if temperature is None else temperature,
    )


def check(values: Options, input_shape: tuple[int, ...], classes: int) -> None:
    """Raises UsageError if the teacher is none for these images and classes.

    Args:
        values: The flags.
        input_shape: Of an image.
        classes: How many there are.
    """
    if not values.teacher:
        return
    teacher = _loaded(values.teacher)
    shapes = [tuple(tensor.shape[1:]) for tensor in (*teacher.inputs, *teacher.outputs)]
    wanted = [tuple(input_shape), (classes,)]
    if len(shapes) != 2 or not all(map(_fits, shapes, wanted)):
        raise UsageError(
            f"The teacher must take images of shape {tuple(input_shape)} and return {classes} "
            f"logits. Received: --teacher={values.teacher}, with shapes {shapes}"
        )
    last = operation_of(teacher.outputs[0])
    if activation_name(last) == "softmax" or function_name(_activation(last)) == "softmax":
        raise UsageError(
            "The teacher must return logits, and its last layer is a softmax. "
            f"Received: --teacher={values.teacher}, with the layer {last.name!r}"
        )


def _activation(layer):
    return getattr(layer, "activation", None)


def _fits(shape: tuple[Any, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        a in (None, b) for a, b in zip(shape, wanted, strict=True)
    )


def _loaded(path: str) -> keras.Model:
    place = Path(path).expanduser()
    file = place / files.STRIPPED if place.is_dir() else place
    if not file.is_file() or file.suffix != ".keras":
        raise UsageError(
            "--teacher must be the work directory of a finished run, or a .keras file. "
            f"Received: --teacher={path}"
        )
    try:
        teacher = keras.models.load_model(file, compile=False)
    # Keras lets pass whatever zip, JSON, HDF5 and the layers' constructors raise.
    except Exception as error:
        raise UsageError(
            f"The teacher cannot be read: {reason_of(error)}. Received: --teacher={path}"
        ) from error
    if any(carries_masks(layer) for layer in layers_of(teacher)):
        teacher = granet_tf.strip(teacher)
    teacher.trainable = False
    return teacher
