"""The first images of a test split, as `granet_tf` asks for them by the name of a data set.

`setup.py` offers `of_set` as an entry point, through which the library, which knows no data sets,
finds it.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from granet_train.data import Data, Wording, load
from granet_train.errors import UsageError

_WORDING = Wording(
    dataset="representative_data={!r}",
    data_dir="the directory {}",
    fetch="tensorflow_datasets.load({!r})",
    folder="The path of a directory stands for the images in it.",
    skip="",
    resize="the path of the directory, whose images are made one size then",
)


def of_set(name: str, image_size: int | None, samples: int) -> np.ndarray:
    """Images of a set that is on disk, scaled as in training.

    Args:
        name: As for `granet_train.data.load`.
        image_size: Their height and width; None for those of the set.
        samples: How many, at most.

    Raises:
        ValueError: If there is no such set, or an image cannot be read.

    Example:

    >>> of_set("digits", None, 20).shape
    (20, 8, 8, 1)
    """
    try:
        data = load(
            name, batch_size=1, seed=0, image_size=image_size, augment=False, wording=_WORDING
        )
        return first_images(data, samples)[0]
    except UsageError as error:
        raise ValueError(str(error)) from error


def first_images(data: Data, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a data set's test split, in its order.

    Args:
        data: The data set.
        samples: How many, at most.

    Raises:
        UsageError: If one cannot be read.

    Example:

    >>> images, labels = first_images(load("digits", batch_size=8, seed=0), 20)
    >>> images.shape, labels.shape
    ((20, 8, 8, 1), (20,))
    """
    images, labels = [], []
    try:
        for image, label, weight in data.evaluate("test", tf.distribute.InputContext()):
            real = weight.numpy() > 0
            images.append(image.numpy()[real])
            labels.append(label.numpy()[real])
            if sum(map(len, labels)) >= samples:
                break
    except tf.errors.OpError as error:
        raise data.explain(error) from error
    return np.concatenate(images)[:samples], np.concatenate(labels)[:samples]
