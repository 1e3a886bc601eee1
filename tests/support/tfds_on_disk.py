"""Small sets in the form that tensorflow_datasets has on disk, damage to their files, and what
comes out of them."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def context(replicas=1, host=0, hosts=1):
    """What one of several hosts is told by `tf.distribute`."""
    return tf.distribute.InputContext(hosts, host, replicas)


ONE = context()


def write(name, data_dir, splits, shard=1000):
    """Writes a set with the features of tfds's own builder.

    Args:
        splits: {split: samples}.
        shard: Samples of each file but the last.
    """
    info = tfds.builder(name, data_dir=data_dir, try_gcs=False).info
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=shard)
    tf.io.gfile.makedirs(info.data_dir)
    writer.initialize_splits(list(splits))
    writer.add_examples(splits)
    writer.close_all()


def record(data):
    """A record as it stands in a file, by the definition of TFRecord files."""
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def _checksum(data):
    """CRC-32C, "masked" as TFRecord files have it. Slow."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = (crc >> 15 | crc << 17) + 0xA282EAD8
    return (masked & 0xFFFFFFFF).to_bytes(4, "little")


def record_starts(content):
    """Byte at which each record begins, by the definition of TFRecord files."""
    starts, at = [], 0
    while at < len(content):
        starts.append(at)
        at += 16 + int.from_bytes(content[at : at + 8], "little")
    return starts


def damage(path, record, byte=20):
    """Changes one byte of a record; the first 8 are its length."""
    content = bytearray(path.read_bytes())
    content[record_starts(content)[record] + byte] ^= 0xFF
    path.write_bytes(content)


def batches(dataset):
    return list(dataset.as_numpy_iterator())


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(x, y)
        for pair in zip(first, second, strict=True)
        for x, y in zip(*pair, strict=True)
    )
