"""From where the samples are to data: in memory where they are small together, else streamed."""

from __future__ import annotations

import numpy as np

from granet_train.data import corrupt, facts, images, in_memory, streaming
from granet_train.data.interface import TRAIN, Data, Options
from granet_train.data.pixels import Scaling
from granet_train.data.records import Source
from granet_train.data.resize import resized
from granet_train.data.salvage import Salvage
from granet_train.errors import UsageError

# Decoded bytes above which a set is not held in memory.
_MEMORY = 1 << 30


def load(source: Source, splits: tuple[str, str], known: facts.Facts, options: Options) -> Data:
    """The set: in memory if its images are of one size and small together, else streamed.

    Args:
        source: Where the samples are.
        splits: Names of the training and of the test split.
        known: How images are normalised and augmented.

    Raises:
        UsageError: If there are too few samples, or one cannot be read.
    """
    if fits_in_memory(source, splits, options.image_size):
        return _load(source, splits, known, options)
    return streaming.make(source, splits, known, options)


def fits_in_memory(source: Source, splits: tuple[str, str], image_size: int | None) -> bool:
    """Whether the decoded images of both splits take less than 1 GiB."""
    if source.height is None or source.width is None:
        return False
    pixels = source.height * source.width if image_size is None else image_size**2
    return sum(source.sizes[split] for split in splits) * pixels * source.channels < _MEMORY


def split_to_test_on(source: Source, known: facts.Facts) -> str:
    """The split to test on.

    Raises:
        UsageError: If there is none, or nothing to train on.
    """
    wanted = [known.test] if known.test else ["test", "validation"]
    found = [split for split in wanted if source.sizes.get(split)]
    if not source.sizes.get(TRAIN) or not found:
        raise UsageError(
            f'{source.name} must have the split "train" and one of {wanted} to test on. '
            f"Received: {dict(source.sizes)}"
        )
    return found[0]


def _load(source: Source, splits: tuple[str, str], known: facts.Facts, options: Options) -> Data:
    train, test = (_decoded(source, split, options) for split in splits)
    return in_memory.make(
        source.name,
        train,
        test,
        classes=source.classes,
        scale=known.scaling or Scaling.measured(train.pixels),
        augmentation=facts.augmentation(known, train.pixels.shape[1:]),
        options=options,
        skipped=sum(source.sizes[split] for split in splits) - len(train) - len(test),
    )


def _decoded(source: Source, split: str, options: Options) -> in_memory.Images:
    import tensorflow as tf

    def sample(record):
        encoded, label = source.parse(record)
        image = images.whole(encoded, source.channels)
        image = tf.ensure_shape(image, (source.height, source.width, None))
        return resized(image, options.image_size), label

    pieces = source.all_pieces(split)
    salvage = Salvage() if options.skip_corrupt else None
    samples = source.read(pieces, salvage=salvage, deterministic=True)
    samples = samples.map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if options.skip_corrupt:
        samples = samples.ignore_errors()
    try:
        batches = list(samples.batch(1024).as_numpy_iterator())
    except tf.errors.OpError as error:
        raise corrupt.explainer(source, [split])(error) from error
    if not batches:
        raise UsageError(
            f'{source.name}: no sample of the split "{split}" can be read. '
            f"Received: {pieces[0].path}"
        )
    pixels, labels = map(np.concatenate, zip(*batches, strict=True))
    return in_memory.Images.all_of(pixels, labels)
