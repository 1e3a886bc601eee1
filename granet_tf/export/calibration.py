"""Representative data by name: a set of tensorflow_datasets, or a directory of images."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from granet_tf.export.samples import Inputs
from granet_tf.imagenet import normalization_of

SETS = "granet_tf.data_sets"
"""Entry points of this group are functions (name, image size or None, samples) -> images."""

_SAMPLES = 256
# Height and width of images where a model takes any, as `granet-train` has them where they vary.
_OPEN = 224
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif"})


def representative(data: Any, inputs: Inputs) -> Any:
    """What `Inputs.calibration` takes, from what `export_tflite` takes.

    Args:
        data: Arrays or a function, which are returned as they are; a path of a directory; the name
            of a data set.
        inputs: What the model takes.

    Raises:
        ValueError: If there are no such data.

    Example:

    >>> representative(np.ones((2, 4)), None).shape
    (2, 4)
    """
    if not isinstance(data, (str, os.PathLike)):
        return data
    size, channels = image_shape(inputs, data)
    if os.path.isdir(data):
        return images_of(data, size, channels)
    return _of_set(os.fspath(data), size[0])


def _of_set(name: str, image_size: int | None) -> np.ndarray:
    """Images of a set on disk, from whoever offers sets by name, as `granet_train` does."""
    expected = (
        "`representative_data` must be the name of a data set on disk, or a directory of images."
    )
    offered = entry_points(group=SETS)
    if not offered:
        raise ValueError(
            f"{expected} No package with data sets is installed, such as granet_train. "
            f"Received: representative_data={name!r}"
        )
    try:
        return next(iter(offered)).load()(name, image_size, _SAMPLES)
    except ValueError as error:
        raise ValueError(f"{expected} {error}") from error


def image_shape(inputs: Inputs, data: Any) -> tuple[tuple[int | None, int | None], int]:
    """((height, width), channels) of the images that a model takes; None where it takes any.

    Raises:
        ValueError: If it takes something else.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    >>> image_shape(Inputs(model), "cifar10")
    ((8, 8), 3)
    """
    shapes = [spec.shape for spec in inputs.specs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] is None:
        raise ValueError(
            "`representative_data` by name needs a model of one image, (height, width, channels); "
            f"give arrays or a function instead. Received: representative_data={data!r} for "
            f"inputs of shape {shapes}"
        )
    height, width, channels = shapes[0][1:]
    return (height, width), channels


def images_of(
    directory: str | os.PathLike[str],
    size: tuple[int | None, int | None],
    channels: int,
    scaling: str = "imagenet",
    samples: int = _SAMPLES,
) -> np.ndarray:
    """Images in a directory and below it, resized and scaled, every n-th of their sorted paths.

    Args:
        directory: Holds JPEG, PNG, BMP or GIF files.
        size: Height and width of the result; 224 in place of None.
        channels: 1 or 3.
        scaling: A name in `SCALINGS`: how bytes become numbers.
        samples: How many, at most.

    Raises:
        ValueError: If there are no images, or one cannot be read.

    Example:

    >>> import tensorflow as tf
    >>> tf.io.gfile.makedirs("/tmp/one_image")
    >>> tf.io.write_file("/tmp/one_image/a.png", tf.io.encode_png(np.ones((9, 7, 3), np.uint8)))
    >>> images_of("/tmp/one_image", (8, 8), 3, scaling="0_255").mean()
    np.float32(1.0)
    """
    import tensorflow as tf

    paths = sorted(p for p in Path(directory).rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise ValueError(
            f"There must be images ({', '.join(sorted(_SUFFIXES))}) in the directory. "
            f"Received: {os.fspath(directory)!r}"
        )
    lengths, images = [length or _OPEN for length in size], []
    for path in paths[:: max(1, -(-len(paths) // samples))]:
        try:
            image = tf.io.decode_image(
                path.read_bytes(), channels=channels, expand_animations=False
            )
        except (OSError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(f"An image cannot be read. Received: {os.fspath(path)!r}") from error
        images.append(tf.image.resize(image, lengths, antialias=True).numpy())
    return SCALINGS[scaling](np.stack(images)).astype("float32")


def _as_in_training(images: np.ndarray) -> np.ndarray:
    mean, std = (np.array(each, "float32") for each in normalization_of(images.shape[-1]))
    return (images / 255.0 - mean) / std


SCALINGS = {
    "imagenet": _as_in_training,
    "0_1": lambda images: images / 255.0,
    "-1_1": lambda images: images / 127.5 - 1.0,
    "0_255": lambda images: images,
}
"""How bytes become numbers: normalised as `granet-train` does with ImageNet, or into a range."""
