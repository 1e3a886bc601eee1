"""Any image classification set of tensorflow_datasets, by its name."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from granet_train.data import corrupt, facts, loading, records
from granet_train.data.interface import IN_FLAGS, TRAIN, Data, Options, Wording
from granet_train.data.preparation import prepared
from granet_train.data.records import Source
from granet_train.errors import UsageError


def load(name: str, options: Options) -> Data:
    """The set: in memory if its images are of one size and small together, else streamed.

    Raises:
        UsageError: If it is not there, is no image classification set, or cannot be read.
    """
    known = facts.of(name)
    builder = prepared(name, options, known)
    source = source_of(name, builder, options.wording)
    splits = (TRAIN, loading.split_to_test_on(source, known))
    records.check_present(source, splits)
    return loading.load(source, splits, known, options)


def source_of(name: str, builder: Any, wording: Wording = IN_FLAGS) -> Source:
    """Reads what tensorflow_datasets knows about a prepared set.

    Args:
        name: Of the set.
        builder: A `tfds.core.DatasetBuilder`.
        wording: What errors call the options.

    Raises:
        UsageError: If its samples are not a byte image and a class each.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    info = builder.info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise UsageError(
            f"{name} must be prepared as TFRecord files. Received: {info.file_format.value} files "
            f"in {builder.data_path}"
        )
    image, label = _keys(name, info, tfds)
    height, width, channels = info.features[image].shape

    def pieces(split, begin, end):
        if begin >= end:
            return []
        files = info.splits[f"{split}[{begin}:{end}]"].file_instructions
        return [
            records.Piece(os.fspath(f.filename), f.skip, f.take, f.examples_in_shard) for f in files
        ]

    def parse(record):
        decoders = {image: tfds.decode.SkipDecoding()}
        sample = info.features.deserialize_example(record, decoders=decoders)
        return sample[image], tf.cast(sample[label], tf.int32)

    return Source(
        name=name,
        pieces=pieces,
        parse=parse,
        height=height,
        width=width,
        channels=channels,
        classes=info.features[label].num_classes,
        sizes={split: values.num_examples for split, values in info.splits.items()},
        read=records.read,
        damage=lambda pieces: corrupt.damage(name, pieces, parse, channels, wording),
    )


def _keys(name: str, info: Any, tfds: Any) -> tuple[str, str]:
    """Names of the image and of the label among the features."""
    features = dict(info.features.items())
    keys = info.supervised_keys or ("image", "label")
    # Some sets have nested keys, as their samples are more than an image.
    chosen = [features[key] for key in keys if key in features]
    kinds = [type(feature) for feature in chosen]
    if kinds != [tfds.features.Image, tfds.features.ClassLabel] or chosen[0].np_dtype != np.uint8:
        text = ", ".join(f"{key}: {type(value).__name__}" for key, value in features.items())
        raise UsageError(
            f"{name} is no image classification set: it needs an image of bytes and a class. "
            f"Received: {text}"
        )
    return keys
