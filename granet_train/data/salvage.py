"""Reads TFRecord files past their damaged records.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of these (4).
TensorFlow gives up a file at the first wrong checksum, also when it is to ignore errors. So of a
damaged file what is behind the damage is read as a file of its own, and all is copied, with an
empty record in place of each that cannot be read: where the length is right, only one is lost.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Any

_LENGTH, _FRAME = 8, 16  # Bytes of the length, and of all but the data.


class Salvage:
    """Repaired copies, made when a damaged file is first read, and kept as long as this object."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="granet_tf_")
        self._lock = threading.Lock()
        self._paths: dict[str, str] = {}

    def path(self, path: str, length: int) -> str:
        """The file itself if all is well, else a repaired copy.

        Args:
            path: A TFRecord file.
            length: Number of records that it should hold, and that the copy will hold.
        """
        with self._lock:
            if path in self._paths:
                return self._paths[path]
            number = len(self._paths)
        copy = os.path.join(self._folder.name, f"{number}-{os.path.basename(path)}")
        usable = copy if repair(path, copy, length) else path
        with self._lock:
            return self._paths.setdefault(path, usable)

    def tensor(self, path: Any, length: Any) -> Any:
        """`path` for scalar tensors."""
        import tensorflow as tf

        def find(path, length):
            return os.fsencode(self.path(os.fsdecode(path), int(length)))

        return tf.ensure_shape(tf.numpy_function(find, [path, length], tf.string), ())


def repair(path: str, copy: str, length: int) -> bool:
    """Writes a repaired copy if a file does not have as many readable records as it should.

    Returns:
        Whether it was needed.
    """
    import tensorflow as tf

    if readable(path)[0] >= length:
        return False
    with tf.io.gfile.GFile(path, "rb") as file:
        content = memoryview(file.read())
    rest = f"{copy}.rest"
    begin = 0
    with tf.io.TFRecordWriter(copy) as writer:
        while length:
            with open(rest, "wb") as file:
                file.write(content[begin:])
            good = tf.data.TFRecordDataset(rest).ignore_errors().take(length)
            for data in good.as_numpy_iterator():
                writer.write(data)
                begin, length = begin + _FRAME + len(data), length - 1
            begin = _behind(content, begin)
            lost = length if begin is None else min(1, length)
            for _ in range(lost):
                writer.write(b"")
            length -= lost
    os.remove(rest)
    return True


def readable(path: str) -> tuple[int, int]:
    """Number of records before the first damage or the end, and the byte where they end."""
    import tensorflow as tf

    def add(state, data):
        count, end = state
        return count + 1, end + _FRAME + tf.cast(tf.strings.length(data), tf.int64)

    start = (tf.constant(0, tf.int64), tf.constant(0, tf.int64))
    count, end = tf.data.TFRecordDataset(path).ignore_errors().reduce(start, add)
    return int(count), int(end)


def _behind(content, begin):
    """Where the record behind one begins; None if that is not in the file."""
    end = begin + _FRAME + int.from_bytes(content[begin : begin + _LENGTH], "little")
    return end if end <= len(content) else None
