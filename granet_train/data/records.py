"""Samples of a prepared tensorflow_datasets split, straight from its files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from granet_train.data.salvage import Salvage
from granet_train.errors import UsageError

_PARALLEL_FILES = 16
_READ_AHEAD = 8 << 20  # Bytes of each file.


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive records of one file.

    Attributes:
        path: The file.
        skip: Records before the first one.
        take: Number of records.
        length: Records that the whole file should hold.
    """

    path: str
    skip: int
    take: int
    length: int


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the samples of an image classification set are and how a record is read.

    Attributes:
        name: Of the set.
        pieces: Function of (split, first sample, last + 1) that lists where these samples are.
        parse: Function of a record, a scalar string tensor, to (encoded image, int32 label).
        height, width: Of all images, or None where they vary.
        channels: Of all images.
        classes: Number of classes.
        sizes: {split: samples}, with the names of tensorflow_datasets.
        read: Function of (pieces, salvage=, deterministic=) that makes a `tf.data.Dataset` of the
            records, as `read` does.
        damage: Function of pieces that looks for the first record that cannot be read: an error
            that names it, or None.
    """

    name: str
    pieces: Callable[[str, int, int], Sequence[Piece]]
    parse: Callable[[Any], tuple[Any, Any]]
    height: int | None
    width: int | None
    channels: int
    classes: int
    sizes: dict[str, int]
    read: Callable[..., Any]
    damage: Callable[[Sequence[Piece]], UsageError | None]

    def all_pieces(self, split: str) -> Sequence[Piece]:
        """Where all samples of a split are."""
        return self.pieces(split, 0, self.sizes[split])


def read(pieces: Sequence[Piece], *, salvage: Salvage | None, deterministic: bool) -> Any:
    """The records in their order in the files, some files at a time in turn.

    Args:
        pieces: What to read.
        salvage: Puts an empty record in the place of each that cannot be read. Without it the
            dataset raises `tf.errors.DataLossError`, or `FailedPreconditionError` where a file is
            too short.
        deterministic: Whether to keep to the order where one file is slower than others.

    Returns:
        `tf.data.Dataset` of scalar strings.
    """
    import tensorflow as tf

    def records_of(path, skip, take, length):
        if salvage:
            path = salvage.tensor(path, length)
        records = tf.data.TFRecordDataset(path, buffer_size=_READ_AHEAD)
        if not salvage:
            # Without it a file that was cut off between two records would go unnoticed.
            records = records.apply(tf.data.experimental.assert_cardinality(length))
        return records.skip(skip).take(take)

    # A host may have nothing to read: what it is given then is padding.
    paths = tf.constant([piece.path for piece in pieces], tf.string)
    numbers = [[getattr(p, field) for p in pieces] for field in ("skip", "take", "length")]
    files = tf.data.Dataset.from_tensor_slices(
        (paths, *(tf.constant(values, tf.int64) for values in numbers))
    )
    return files.interleave(
        records_of,
        cycle_length=max(1, min(_PARALLEL_FILES, len(pieces))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=deterministic,
    )


def check_present(source: Source, splits: Sequence[str]) -> None:
    """Raises UsageError if a file is missing."""
    import tensorflow as tf

    paths = (piece.path for split in splits for piece in source.all_pieces(split))
    missing = sorted({path for path in paths if not tf.io.gfile.exists(path)})
    if missing:
        raise UsageError(
            f"{source.name}: {len(missing)} of its files are missing, first {missing[0]}. Copy "
            "them there, or remove the folder and prepare the set again. "
            f"Received: {os.path.dirname(missing[0])}"
        )
