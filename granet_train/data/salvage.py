"""Reads TFRecord files past their damaged records.

A record is its length (8 bytes), a checksum of that (4), the data, and a checksum of these (4).
TensorFlow gives up a file at the first wrong checksum. So a damaged file is copied, with an empty
record in place of each that cannot be read: where the length is right, only one is lost.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Any

_HEADER, _FRAME = 12, 16  # Bytes before the data of a record, and before and after them.


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

    count, end = readable(path)
    if count >= length:
        return False
    with tf.io.gfile.GFile(path, "rb") as file:
        content = bytearray(file.read())
    while count < length:
        following = _end_of_record(content, end)
        if following is None:
            content[end:] = record(b"") * (length - count)
        else:
            content[end:following] = record(b"")
        with open(copy, "wb") as file:
            file.write(content)
        count, end = readable(copy)
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


def record(data: bytes) -> bytes:
    """A record as it stands in a file.

    Example:

    >>> record(b"").hex(" ", 4)
    '00000000 00000000 29039807 d8ea82a2'
    """
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def _end_of_record(content, start):
    """Where the record ends, or None if its length cannot be believed."""
    header = bytes(content[start : start + _HEADER])
    if len(header) < _HEADER or _checksum(header[:8]) != header[8:]:
        return None
    end = start + _FRAME + int.from_bytes(header[:8], "little")
    return end if end <= len(content) else None


def _checksum(data: bytes) -> bytes:
    """CRC-32C, "masked" as TFRecord files have it. Slow, and meant for a few bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = (crc >> 15 | crc << 17) + 0xA282EAD8
    return (masked & 0xFFFFFFFF).to_bytes(4, "little")
