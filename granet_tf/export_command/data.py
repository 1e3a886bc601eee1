"""Samples to check a file on, and to measure ranges of activations on."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from absl.flags import FlagValues

from granet_tf.export import calibration
from granet_tf.export.samples import Inputs
from granet_tf.training import data as data_sets
from granet_tf.training.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a model is run on.

    Attributes:
        description: In a few words.
        inputs: Samples that the file is compared on; None for random ones.
        labels: Their classes, where known.
        representative: Samples that ranges are measured on; training images, where there are some.
    """

    description: str
    inputs: np.ndarray | None = None
    labels: np.ndarray | None = None
    representative: np.ndarray | None = None


def find(inputs: Inputs, values: FlagValues, settings: FlagValues | None) -> Samples:
    """The samples that the flags ask for.

    Args:
        inputs: What the model takes.
        values: The flags of granet-export.
        settings: Those of the run that made the model, if any.

    Raises:
        UsageError: If they are not there.

    Example:

    >>> import keras
    >>> from granet_tf.export_command import flags
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    >>> values = flags.parse(["--model=m.keras", "--data=digits", "--samples=3"])
    >>> find(Inputs(model), values, None).labels.shape
    (3,)
    """
    name = values.data or (settings and settings.dataset)
    if name is None:
        return Samples("random numbers")
    try:
        size, channels = calibration.image_shape(inputs, name)
        if os.path.isdir(name):
            images = calibration.images_of(name, size, channels, values.scaling, values.samples)
            return Samples(f"{len(images):,} images of {name}", images, representative=images)
    except ValueError as error:
        raise UsageError(f"{error}, --data={name}") from error
    loaded = data_sets.load(
        name,
        batch_size=1,
        seed=0,
        data_dir=values.data_dir or (settings and settings.data_dir),
        image_size=size[0],
        augment=False,
    )
    images, labels = calibration.first_images(loaded, values.samples)
    return Samples(
        f"{len(images):,} test images of {name}",
        images,
        labels,
        representative=_training_images(loaded, values.samples),
    )


def _training_images(loaded: Any, samples: int) -> np.ndarray:
    import tensorflow as tf

    batches = loaded.train(0, 0, tf.distribute.InputContext()).take(samples)
    return np.concatenate([images.numpy() for images, _ in batches])
