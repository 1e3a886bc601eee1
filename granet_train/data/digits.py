"""scikit-learn's handwritten digits: 1797 images of 8 × 8, of which 360 are for testing."""

from __future__ import annotations

from typing import Any

import numpy as np

from granet_train.data import augment, in_memory
from granet_train.data.interface import Data, Options
from granet_train.data.resize import resized


def load(name: str, options: Options) -> Data:
    """The digits, as numbers from 0 to 1, never augmented.

    The split is the same for every seed, so that runs with different seeds can be compared.

    Example:

    >>> load("digits", Options(batch_size=64, seed=0)).sizes
    {'train': 1437, 'test': 360}
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.asarray(resized(digits.images[..., None].astype(np.uint8), options.image_size))
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, digits.target, test_size=360, random_state=0, stratify=digits.target
    )
    return in_memory.make(
        name,
        in_memory.Images.all_of(x_train, y_train),
        in_memory.Images.all_of(x_test, y_test),
        classes=10,
        scale=_sixteenths,
        augmentation=augment.NONE,
        options=options,
    )


def _sixteenths(images: Any) -> Any:
    """Pixels are counts from 0 to 16."""
    import tensorflow as tf

    return tf.cast(images, tf.float32) / 16.0
