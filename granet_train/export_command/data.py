"""Samples to check a file on, and to measure ranges of activations on."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from granet_tf.export import calibration
from granet_tf.export.samples import Inputs
from granet_train import data as data_sets
from granet_train import training_options
from granet_train.data.first_images import first_images
from granet_train.errors import UsageError
from granet_train.export_command.flags import Options


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


def find(inputs: Inputs, values: Options, settings: training_options.Options | None) -> Samples:
    """The samples that the flags ask for.

    Args:
        inputs: What the model takes.
        values: The flags of granet-export.
        settings: Those of the run that made the model, if any.

    Raises:
        UsageError: If they are not there.

    Example:

    >>> import keras
    >>> from granet_train.export_command import flags
    >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    >>> values = flags.parse(["--model=m.keras", "--data=digits", "--samples=3"])
    >>> find(Inputs(model), values, None).labels.shape
    (3,)
    """
    name = values.data or (settings and settings.dataset)
    if name is None:
        if values.needs_data:
            raise UsageError(
                "--format=int8 measures ranges of activations on samples: name some with --data, a "
                "set of tensorflow_datasets, digits, or a directory of images. "
                f"Received: --format={values.format} without --data"
            )
        return Samples("random numbers")
    try:
        size, channels = calibration.image_shape(inputs, name)
    except ValueError as error:
        shapes = ", ".join(str(tuple(spec.shape)) for spec in inputs.specs)
        raise UsageError(
            "--data is for models of one image, (height, width, channels); another is exported in "
            "Python, by granet_tf.export_tflite with samples of its own. "
            f"Received: --data={name} for inputs of shape {shapes}"
        ) from error
    if os.path.isdir(name) and name != data_sets.folder.NAME:
        try:
            images = calibration.images_of(name, size, channels, values.scaling, values.samples)
        except ValueError as error:
            raise UsageError(f"{error}, --data={name}") from error
        return Samples(f"{len(images):,} images of {name}", images, representative=images)
    loaded = data_sets.load(
        name,
        batch_size=1,
        seed=0,
        data_dir=values.data_dir or (settings and settings.data_dir),
        image_size=size[0],
        augment=False,
        download=values.download,
        wording=_WORDING if values.data else _WORDING_OF_RUN,
    )
    images, labels = first_images(loaded, values.samples)
    return Samples(
        f"{len(images):,} test images of {name}",
        images,
        labels,
        representative=_training_images(loaded, values.samples),
    )


# What errors call the flags of this command.
_WORDING = data_sets.Wording(
    dataset="--data={}",
    folder="Images in a folder for each class are --data=folder --data_dir=DIR.",
    skip="",
    resize="--data=DIR, a directory whose images are made one size",
)
_WORDING_OF_RUN = dataclasses.replace(_WORDING, dataset="a run with --dataset={}")


def _training_images(loaded: Any, samples: int) -> np.ndarray:
    import tensorflow as tf

    batches = loaded.train(0, 0, tf.distribute.InputContext()).take(samples)
    try:
        return np.concatenate([images.numpy() for images, _ in batches])
    except tf.errors.OpError as error:
        raise loaded.explain(error) from error
