"""Large data sets, and images of different sizes: read from files again in each epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from granet_train.data import corrupt, facts, images, records
from granet_train.data.interface import (
    TEST,
    TRAIN,
    VALIDATION,
    Data,
    Options,
    describe,
    split_sizes,
)
from granet_train.data.records import Source
from granet_train.data.salvage import Salvage
from granet_train.data.share import Share

# Records in a shuffle buffer: encoded images, for ImageNet about 0.9 GB.
_SHUFFLE = 8192
# How often an epoch may begin anew to replace what was skipped.
_PASSES = 10


def make(source: Source, splits: tuple[str, str], known: facts.Facts, options: Options) -> Data:
    """Data of images in files.

    Each host reads a range of its own, in an order of files that changes with the epoch, through a
    shuffle buffer. What is skipped by a resumed epoch is not decoded, unless corrupt samples are
    skipped too, as there is no other way to know which these are.

    Args:
        source: Where the samples are.
        splits: Names of the training and of the test split.
        known: How images are normalised and augmented.

    Raises:
        UsageError: If there are too few samples.
    """
    train_split, test_split = splits
    sizes = split_sizes(source.sizes[train_split], source.sizes[test_split], options)
    size = options.image_size or source.height or 224
    scale = facts.streamed_scaling(known, source.channels)
    counter = corrupt.Counter()
    salvage = Salvage() if options.skip_corrupt else None
    steps = sizes[TRAIN] // options.batch_size
    # {split: (name in tensorflow_datasets, first sample, last + 1)}
    ranges = {
        TRAIN: (train_split, 0, sizes[TRAIN]),
        VALIDATION: (train_split, sizes[TRAIN], source.sizes[train_split]),
        TEST: (test_split, 0, sizes[TEST]),
    }

    def prepare(encoded, seed):
        if options.augment:
            part = images.random_part(encoded, seed, size, source.channels, flip=known.flip)
        else:
            part = images.central_part(encoded, size, source.channels)
        return scale(part)

    def train(epoch, first_step, context):
        import tensorflow as tf

        share = Share.of(context, options.batch_size)
        random = np.random.default_rng([options.seed, epoch])
        order_seed, image_seed = random.integers(2**31, size=2)
        pieces = _of_host(source, ranges[TRAIN], share)
        pieces = [pieces[i] for i in random.permutation(len(pieces))]
        encoded = source.read(pieces, salvage=salvage, deterministic=options.deterministic).shuffle(
            min(_SHUFFLE, sum(piece.take for piece in pieces)), seed=order_seed
        )

        def sample(number, record):
            image, label = source.parse(record)
            # No two samples of an epoch share a seed, on whichever hosts they are.
            place = number * share.hosts + share.host
            return prepare(image, tf.stack([tf.constant(image_seed, tf.int64), place])), label

        draws = (steps - first_step) * share.replicas
        passed = first_step * share.replicas * share.batch
        if options.skip_corrupt:
            numbered = encoded.repeat(_PASSES).enumerate()
            samples = corrupt.without(
                _map(numbered, lambda n, record: (n, sample(n, record)), deterministic=True),
                counter,
            ).skip(passed)
        else:
            numbered = encoded.skip(passed).enumerate(start=passed)
            samples = _map(numbered, sample, options.deterministic)
        batches = samples.batch(share.batch, drop_remainder=True).take(draws)
        batches = batches.apply(tf.data.experimental.assert_cardinality(draws))
        return batches.prefetch(tf.data.AUTOTUNE)

    def evaluate(split, context):
        import tensorflow as tf

        share = Share.of(context, options.batch_size)
        pieces = _of_host(source, ranges[split], share)
        size_of_host = sum(piece.take for piece in pieces)
        draws = -(-sizes[split] // options.batch_size) * share.replicas
        encoded = source.read(pieces, salvage=salvage, deterministic=options.deterministic)

        def sample(number, record):
            image, label = source.parse(record)
            image = scale(images.central_part(image, size, source.channels))
            return number, (image, label, tf.constant(1.0))

        zeros = (tf.zeros((size, size, source.channels)), tf.constant(0), tf.constant(0.0))
        padding = tf.data.Dataset.from_tensors((tf.constant(size_of_host, tf.int64), zeros))
        numbered = encoded.enumerate()
        if options.skip_corrupt:
            samples = _map(numbered, sample, deterministic=True)
            samples = corrupt.without(samples.concatenate(padding.repeat()), counter)
        else:
            samples = _map(numbered, sample, options.deterministic).concatenate(padding.repeat())
            samples = samples.map(lambda number, values: values)
        batches = samples.batch(share.batch, drop_remainder=True).take(draws)
        return batches.prefetch(tf.data.AUTOTUNE)

    shape = (size, size, source.channels)
    return Data(
        description=describe(source.name, sizes, shape),
        input_shape=shape,
        classes=source.classes,
        batch_size=options.batch_size,
        sizes=sizes,
        train=train,
        evaluate=evaluate,
        skipped=counter.total,
        explain=corrupt.explainer(source, splits),
    )


def _of_host(source: Source, samples: tuple[str, int, int], share: Share) -> list[records.Piece]:
    split, begin, end = samples
    first, last = share.part(end - begin)
    return list(source.pieces(split, begin + first, begin + last))


def _map(numbered: Any, function: Any, deterministic: bool) -> Any:
    import tensorflow as tf

    return numbered.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=deterministic)
