"""Random crops and flips of a batch of small images.

As in He et al. (2016) on CIFAR: four black pixels on each side of 32, a random window of the old
size, mirrored half of the time. The authors' code of the GraNet paper does so on CIFAR-100; on
CIFAR-10 it mirrors the borders instead of making them black.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes:
        padding: Black pixels added on each side before cropping to the old size; 0 is no crop.
        flip: Whether to mirror left and right, half of the time.
    """

    padding: int
    flip: bool


NONE = Augmentation(padding=0, flip=False)


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers of all samples of an epoch, in the order of the epoch.

    Drawn at once, so they depend on a sample's place and on nothing else.

    Attributes:
        top, left: int32, where the window begins in the padded image.
        flipped: bool.
    """

    top: np.ndarray
    left: np.ndarray
    flipped: np.ndarray


def draw(augmentation: Augmentation, size: int, random: np.random.Generator) -> Draws:
    """Draws for `size` samples.

    Example:

    >>> draws = draw(Augmentation(padding=4, flip=True), 1000, np.random.default_rng(0))
    >>> print(set(draws.top.tolist()) == set(range(9)), draws.flipped.mean().round(1))
    True 0.5
    """
    offsets = random.integers(2 * augmentation.padding + 1, size=(2, size), dtype=np.int32)
    flipped = random.integers(2, size=size).astype(bool) & augmentation.flip
    return Draws(*offsets, flipped)


def apply(augmentation: Augmentation, images: Any, top: Any, left: Any, flipped: Any) -> Any:
    """Crops and flips.

    Args:
        images: Tensor (samples, height, width, channels).
        top, left, flipped: Their draws, each of shape (samples,).

    Example:

    >>> image = tf.reshape(tf.range(4), (1, 2, 2, 1))
    >>> one = Augmentation(padding=1, flip=True)
    >>> apply(one, image, [1], [1], [True])[0, ..., 0].numpy().tolist()  # The middle, mirrored.
    [[1, 0], [3, 2]]
    >>> apply(one, image, [2], [1], [False])[0, ..., 0].numpy().tolist()
    [[2, 3], [0, 0]]
    """
    import tensorflow as tf

    if augmentation == NONE:
        return images
    _, height, width, _ = images.shape
    sides = [augmentation.padding] * 2
    padded = tf.pad(images, [[0, 0], sides, sides, [0, 0]])
    columns = tf.range(width)
    columns = tf.where(tf.expand_dims(flipped, 1), tf.reverse(columns, [0]), columns)
    rows = tf.gather(padded, tf.expand_dims(top, 1) + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(rows, tf.expand_dims(left, 1) + columns, axis=2, batch_dims=1)
