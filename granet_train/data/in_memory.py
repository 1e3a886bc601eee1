"""Small data sets: all images in memory as bytes, batches taken by index.

An epoch is a permutation, a resumed one begins further on in it. So no iterator needs saving, and
global batch i is the same whatever the number of replicas and hosts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from granet_train.data import augment
from granet_train.data.interface import (
    TEST,
    TRAIN,
    VALIDATION,
    Data,
    Options,
    describe,
    split_sizes,
)
from granet_train.data.share import Share


@dataclasses.dataclass(frozen=True)
class Images:
    """Samples of a split.

    Attributes:
        pixels: uint8 (images, height, width, channels), an array or a tensor.
        labels: int32 (images,), alike.
        rows: int64 (samples,): which image each sample is.
    """

    pixels: Any
    labels: Any
    rows: np.ndarray

    @classmethod
    def all_of(cls, pixels: np.ndarray, labels: np.ndarray) -> Images:
        """Each image once."""
        return cls(pixels, labels.astype(np.int32), np.arange(len(labels)))

    def __len__(self):
        return len(self.rows)

    def at(self, rows: np.ndarray) -> Images:
        """The samples at these places."""
        return dataclasses.replace(self, rows=self.rows[rows])


def make(
    name: str,
    train: Images,
    test: Images,
    *,
    classes: int,
    scale: Callable[[Any], Any],
    augmentation: augment.Augmentation,
    options: Options,
    skipped: int = 0,
) -> Data:
    """Data of images that are in memory.

    Args:
        train: Samples to train on, those to be held out included.
        test: Samples to test on.
        classes: Number of classes.
        scale: From a tensor of uint8 images to one of float32.
        augmentation: What is done to training images if the options ask for it.
        skipped: Samples that could not be read.

    Raises:
        UsageError: If there are too few samples.
    """
    sizes = split_sizes(len(train), len(test), options)
    shape = train.pixels.shape[1:]
    splits = {**hold_out(_as_tensors(train), sizes), TEST: _as_tensors(test)}
    augmentation = augmentation if options.augment else augment.NONE

    def training(epoch, first_step, context):
        return _epoch(splits[TRAIN], scale, augmentation, options, epoch, first_step, context)

    def evaluation(split, context):
        return _once(splits[split], scale, options.batch_size, context)

    return Data(
        description=describe(name, sizes, shape),
        input_shape=shape,
        classes=classes,
        batch_size=options.batch_size,
        sizes=sizes,
        train=training,
        evaluate=evaluation,
        skipped=lambda: skipped,
        explain=lambda error: error,
    )


def hold_out(train: Images, sizes: Mapping[str, int]) -> dict[str, Images]:
    """The training split, and the validation split where there is one.

    What is held out is the same for every seed, so that runs with different seeds can be compared.

    Example:

    >>> images = Images.all_of(np.zeros((5, 1, 1, 1), np.uint8), np.arange(5))
    >>> splits = hold_out(images, {"train": 3, "validation": 2})
    >>> splits["train"].rows.tolist(), splits["validation"].rows.tolist()
    ([2, 4, 3], [0, 1])
    """
    if VALIDATION not in sizes:
        return {TRAIN: train}
    # Some sets are sorted by class.
    order = np.random.default_rng(0).permutation(len(train))
    kept, held_out = np.split(order, [sizes[TRAIN]])
    return {TRAIN: train.at(kept), VALIDATION: train.at(held_out)}


def _as_tensors(images: Images) -> Images:
    """Copied once, as that takes a second where an epoch may take ten."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        return dataclasses.replace(
            images, pixels=tf.constant(images.pixels), labels=tf.constant(images.labels)
        )


def _epoch(images, scale, augmentation, options, epoch, first_step, context):
    import tensorflow as tf

    share = Share.of(context, options.batch_size)
    steps = len(images) // options.batch_size
    random = np.random.default_rng([options.seed, epoch])
    order = random.permutation(images.rows)
    draws = augment.draw(augmentation, len(order), random)
    with tf.device("CPU:0"):
        samples = [tf.constant(a) for a in (order, draws.top, draws.left, draws.flipped)]

    def batch(draw):
        start = share.start(draw)
        rows, *drawn = (tf.slice(values, [start], [share.batch]) for values in samples)
        batch = augment.apply(augmentation, tf.gather(images.pixels, rows), *drawn)
        return scale(batch), tf.gather(images.labels, rows)

    draws_of_host = tf.data.Dataset.range(first_step * share.replicas, steps * share.replicas)
    return _mapped(draws_of_host, batch)


def _once(images, scale, batch_size, context):
    import tensorflow as tf

    share = Share.of(context, batch_size)
    steps = -(-len(images) // batch_size)
    padding = steps * batch_size - len(images)
    with tf.device("CPU:0"):
        # Padding repeats the first image: it has weight 0, but has to be a number.
        order = tf.constant(np.pad(images.rows, (0, padding), constant_values=images.rows[0]))
        weights = tf.constant(np.repeat([1.0, 0.0], [len(images), padding]), tf.float32)

    def batch(draw):
        start = share.start(draw)
        rows, weight = (tf.slice(values, [start], [share.batch]) for values in (order, weights))
        return scale(tf.gather(images.pixels, rows)), tf.gather(images.labels, rows), weight

    return _mapped(tf.data.Dataset.range(steps * share.replicas), batch)


def _mapped(draws, batch):
    import tensorflow as tf

    batches = draws.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return batches.prefetch(tf.data.AUTOTUNE)
