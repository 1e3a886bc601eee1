"""Files and directories that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


def check_suffix(path: str | os.PathLike[str], suffix: str, called: str = "path") -> str:
    """The path as text.

    Raises:
        ValueError: If it ends otherwise, or is a directory.

    Example:

    >>> check_suffix("model.keras", ".tflite")
    Traceback (most recent call last):
        ...
    ValueError: `path` must end with '.tflite'. Received: path='model.keras'
    """
    path = os.fspath(path)
    if not path.endswith(suffix):
        raise ValueError(f"`{called}` must end with {suffix!r}. Received: {called}={path!r}")
    if os.path.isdir(path):
        raise ValueError(
            f"`{called}` must name a file, not a directory. Received: {called}={path!r}"
        )
    return path


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], called: str = "path") -> Iterator[str]:
    """A path on the same file system to write a file or directory to.

    It takes its place at the end, and what was there before stays if anything fails.

    Args:
        path: Where it is to be.
        called: What errors call it.

    Raises:
        ValueError: If nothing can be written there.

    Example:

    >>> with writing("/tmp/note.txt") as beside, open(beside, "w") as file:
    ...     _ = file.write("whole")
    >>> open("/tmp/note.txt").read()
    'whole'
    """
    path = os.path.abspath(os.fspath(path))
    directory, name = os.path.split(path)
    try:
        folder = tempfile.TemporaryDirectory(dir=directory, prefix=".export_")
    except OSError as error:
        raise ValueError(
            f"Cannot write in the directory {directory!r}: {error.strerror}. "
            f"Received: {called}={path!r}"
        ) from error
    with folder as beside:
        written = os.path.join(beside, name)
        yield written
        if os.path.isdir(written) and os.path.isdir(path):
            os.replace(path, os.path.join(beside, "old"))
        os.replace(written, path)
