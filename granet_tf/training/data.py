"""Datasets: training batches in an order that depends on the seed alone, and test batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from granet_tf.training.errors import UsageError

# TensorFlow and scikit-learn are imported where they are used, so that a mistyped flag is answered
# at once.


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset in batches.

    Attributes:
        train: Makes a `tf.data.Dataset` of one epoch. Each one it makes shuffles alike, so runs
            that are compared see the same batches, epoch by epoch.
        test: `tf.data.Dataset` of all test samples.
        steps_per_epoch: Number of training batches, all of the same size.
        input_shape: Shape of one sample.
        classes: Number of classes.
        description: The dataset in a few words.
    """

    train: Callable[[], Any]
    test: Any
    steps_per_epoch: int
    input_shape: tuple[int, ...]
    classes: int
    description: str


def load_digits(batch_size: int, seed: int) -> Data:
    """scikit-learn's handwritten digits: 1797 images of 8 × 8, of which 360 are for testing.

    The split is the same for every seed, so that runs with different seeds can be compared.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16.0).astype("float32")
    labels = digits.target.astype("int32")
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, random_state=0, stratify=labels
    )
    return _in_memory(x_train, y_train, x_test, y_test, batch_size, seed, classes=10)


DATASETS: dict[str, Callable[[int, int], Data]] = {"digits": load_digits}


def _in_memory(x_train, y_train, x_test, y_test, batch_size, seed, classes) -> Data:
    import tensorflow as tf

    size = len(x_train)
    if batch_size > size:
        raise UsageError(
            f"A batch cannot hold more than the {size:,} training samples. "
            f"Received: --batch_size={batch_size}"
        )

    def train():
        samples = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(size, seed=seed)
        # A last batch that is smaller would make each epoch end with a noisier step.
        return samples.batch(batch_size, drop_remainder=True).prefetch(1)

    shape = x_train.shape[1:]
    return Data(
        train=train,
        test=tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(256).prefetch(1),
        steps_per_epoch=size // batch_size,
        input_shape=shape,
        classes=classes,
        description=f"{size:,} training and {len(x_test):,} test images of "
        + "×".join(map(str, shape)),
    )
