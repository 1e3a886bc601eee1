"""Files and directories that are whole or not there: the one way in which anything is written."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_suffix(path: str | os.PathLike[str], suffix: str) -> str:
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
        raise ValueError(f"`path` must end with {suffix!r}. Received: path={path!r}")
    if os.path.isdir(path):
        raise ValueError(f"`path` must name a file, not a directory. Received: path={path!r}")
    return path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write a file or directory to.

    It takes its place at the end; if anything fails it is removed, and what was there before stays.

    Args:
        path: Where it is to be. Of several that write there at once, the last one counts.

    Example:

    >>> with replacing("/tmp/note.txt") as beside:
    ...     _ = beside.write_text("whole")
    >>> Path("/tmp/note.txt").read_text()
    'whole'
    """
    path = Path(os.path.abspath(path))
    beside, old = _beside(path), _beside(path)
    try:
        yield beside
        if beside.is_dir() and path.is_dir():
            os.replace(path, old)
        os.replace(beside, path)
    finally:
        remove(beside)
        remove(old)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`replacing` for a path that a user chose: says at once if nothing can be written there.

    Raises:
        ValueError: If so.
    """
    path = Path(os.path.abspath(path))
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export_"):
            pass
    except OSError as error:
        raise ValueError(
            f"Cannot write in the directory {str(path.parent)!r}: {error.strerror}. "
            f"Received: path={str(path)!r}"
        ) from error
    with replacing(path) as beside:
        yield beside


def unfinished(path: Path) -> set[Path]:
    """What processes left beside `path` that were killed while they wrote it."""
    return set(path.parent.glob(f"{glob.escape(_stem(path))}*{glob.escape(path.suffix)}"))


def remove(path: Path) -> None:
    """Removes a file or a directory if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # The suffix stays, because writers read the format from it.
    return path.with_name(f"{_stem(path)}-{secrets.token_hex(4)}{path.suffix}")


def _stem(path: Path) -> str:
    return f".{path.stem[:40]}.partial"  # A whole name may leave no room for more.
