"""The work directory: whose it is, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from granet_tf.training.errors import UsageError

SPARSE = "sparse.keras"
STRIPPED = "stripped.keras"
TFLITE = "model.tflite"
PLOT = "training.png"
METRICS = "metrics.csv"
SUMMARY = "summary.json"
CHECKPOINTS = "checkpoints"
ALL = (SPARSE, STRIPPED, TFLITE, PLOT, METRICS, SUMMARY, CHECKPOINTS)


def prepare(path: str, *, overwrite: bool) -> Path:
    """Makes the directory, or raises UsageError if this run may not write there."""
    workdir = Path(path).expanduser().absolute()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
        taken = sorted(entry.name for entry in workdir.iterdir())
        if taken and not overwrite:
            raise UsageError(
                f"The work directory is not empty: it holds {_shortened(taken)}. Choose another "
                f"--workdir, or replace what an earlier run wrote there with --overwrite. "
                f"Received: --workdir={path}"
            )
    except OSError as error:
        raise UsageError(
            f"Cannot write in the work directory: {error.strerror or error}. "
            f"Received: --workdir={path}"
        ) from error
    return workdir


def clear(workdir: Path) -> None:
    """Removes what an earlier run wrote, lest it stand beside newer files; others stay."""
    for name in ALL:
        remove(workdir / name)


def remove(path: Path) -> None:
    """Removes a file or a directory if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to: renamed at the end, removed if anything fails."""
    # The suffix stays, because writers read the format from it.
    beside = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        remove(beside)


def _shortened(names: list[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
