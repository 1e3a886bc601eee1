"""Records that cannot be read: counted while they are skipped, or found and named."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

from granet_train.data import images, salvage
from granet_train.data.interface import Wording
from granet_train.data.records import Piece, Source, read
from granet_train.errors import UsageError

_PARALLEL_FILES = 16


class Counter:
    """Counts from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int) -> None:
        """Adds to the count."""
        with self._lock:
            self._count += int(count)

    def total(self) -> int:
        """The count so far."""
        with self._lock:
            return self._count


def without(samples: Any, counter: Counter) -> Any:
    """Leaves out the samples that raise an error, and counts them.

    Args:
        samples: `tf.data.Dataset` of (number, sample), numbers rising by 1 from the first. A sample
            of the same number as the one before, such as padding, counts as nothing.
        counter: Is told of each gap when the sample behind it is read.

    Returns:
        `tf.data.Dataset` of what could be read, numbers left out.
    """
    import tensorflow as tf

    def step(last, numbered):
        number, sample = numbered
        lost = tf.maximum(number - last - 1, 0)
        # Calling Python takes time, and losses are rare.
        noted = tf.cond(
            lost > 0,
            lambda: tf.numpy_function(note, [lost], tf.int64),
            lambda: tf.constant(0, tf.int64),
        )
        with tf.control_dependencies([noted]):
            return number, tf.nest.map_structure(tf.identity, sample)

    def note(lost):
        counter.add(lost)
        return lost

    return samples.ignore_errors().scan(tf.constant(-1, tf.int64), step)


def explainer(source: Source, splits: Sequence[str]) -> Callable[[Exception], Exception]:
    """Makes `Data.explain` for a set that is read from files."""

    def explain(error: Exception) -> Exception:
        import tensorflow as tf

        reading = (
            tf.errors.DataLossError,
            tf.errors.FailedPreconditionError,
            tf.errors.NotFoundError,
        )
        decoding = isinstance(error, tf.errors.InvalidArgumentError) and _in_iterator(error)
        if not (decoding or isinstance(error, reading)):
            return error
        pieces = [piece for split in splits for piece in source.all_pieces(split)]
        return source.damage(pieces) or error

    return explain


def _in_iterator(error: Exception) -> bool:
    """Whether it came out of an iterator: a model can be given invalid arguments as well."""
    return "GetNext" in str(error)


def damage(
    name: str,
    pieces: Sequence[Piece],
    parse: Callable[[Any], tuple[Any, Any]],
    channels: int,
    wording: Wording,
) -> UsageError | None:
    """An error that names the first damaged record of TFRecord files, or None if all can be read.

    Reads all files to the end or to the first damage: at first their checksums only, which is as
    fast as the disk; then, if these are right, it decodes the images.

    Args:
        name: Of the set.
        pieces: Where to look.
        parse: As that of a `Source`.
        channels: Of the images.
        wording: What errors call the options.
    """
    found = _first_unreadable(pieces) or _first_undecodable(pieces, parse, channels)
    if not found:
        return None
    piece, record, reason = found
    return UsageError(
        f"{name}: record {record} of {piece.length} in {piece.path} {reason}. Restore the "
        f"file{wording.skip}. Received: {piece.path}"
    )


def _first_unreadable(pieces):
    with futures.ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        counts = pool.map(lambda piece: salvage.readable(piece.path)[0], pieces)
        for piece, count in zip(pieces, counts, strict=True):
            if count < piece.length:
                pool.shutdown(cancel_futures=True)
                return piece, count, "is damaged or missing"
    return None


def _first_undecodable(pieces, parse, channels):
    import tensorflow as tf

    def decode(number, record):
        encoded, _ = parse(record)
        # Something has to be made of the image, or it would not be decoded.
        return number, tf.reduce_max(images.whole(encoded, channels))

    for piece in pieces:
        numbered = read([piece], salvage=None, deterministic=True).enumerate()
        decoded = numbered.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        expected = 0
        for number, _ in decoded.ignore_errors().as_numpy_iterator():
            if number != expected:
                break
            expected += 1
        if expected < piece.take:
            return piece, piece.skip + expected, "is no image that can be decoded"
    return None
