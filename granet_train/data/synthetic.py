"""Random images and labels, to time training where reading is not to count."""

from __future__ import annotations

import numpy as np

from granet_train.data import augment, in_memory
from granet_train.data.interface import Data, Options
from granet_train.data.pixels import Scaling

CLASSES = 1000
TRAIN, TEST = 12_800, 500  # About a hundredth of ImageNet.
_DIFFERENT = 256  # Images kept in memory; samples share them.


def load(name: str, options: Options) -> Data:
    """12,800 training and 500 test samples in 1000 classes, of 224×224×3 or `image_size`.

    A hundredth of ImageNet, so that an epoch is long enough to be timed and short enough to end.

    Example:

    >>> data = load("synthetic", Options(batch_size=128, seed=0, image_size=32))
    >>> print(data.description, data.steps_per_epoch)
    synthetic: 12,800 training and 500 test images of 32×32×3 100
    """
    size = 224 if options.image_size is None else options.image_size
    random = np.random.default_rng(0)
    pixels = random.integers(256, size=(_DIFFERENT, size, size, 3), dtype=np.uint8)
    labels = random.integers(CLASSES, size=_DIFFERENT, dtype=np.int32)
    train, test = (
        in_memory.Images(pixels, labels, np.arange(samples) % _DIFFERENT)
        for samples in (TRAIN, TEST)
    )
    return in_memory.make(
        name,
        train,
        test,
        classes=CLASSES,
        scale=Scaling.of_fractions((0.5,), (0.5,)),
        augmentation=augment.NONE,
        options=options,
    )
