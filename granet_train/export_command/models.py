"""Models from disk: `.keras` files, work directories of granet-train, and checkpoints in them."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from granet_tf.reasons import reason_of
from granet_train import files
from granet_train.errors import UsageError
from granet_train.options import made_of
from granet_train.training_options import Options

_SUFFIX = ".keras"
_OWN = (
    "A model with layers or functions of your own is exported in Python, where they are known: by "
    "granet_tf.export_tflite. "
)


@dataclasses.dataclass(frozen=True)
class Found:
    """A model and where it comes from.

    Attributes:
        model: It.
        source: The file or checkpoint that was read.
        output: Where its `.tflite` file goes by default.
        settings: The flags that it was trained with, where it is of a work directory.
    """

    model: keras.Model
    source: str
    output: str
    settings: Options | None = None


def load(path: str, run: str | None = None) -> Found:
    """Reads a model.

    Args:
        path: A `.keras` file, a work directory, a directory of checkpoints in one, or a checkpoint.
        run: Which run of a work directory, None for the one that has its model there.

    Raises:
        UsageError: If there is no model, or it cannot be read.

    Example:

    >>> keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save("/tmp/plain.keras")
    >>> load("/tmp/plain.keras").output
    '/tmp/plain.tflite'
    """
    place = Path(path).expanduser()
    if place.suffix == _SUFFIX:
        return Found(_keras_file(place), str(place), str(place.with_suffix(".tflite")))
    workdir = next((p for p in (place, *place.parents) if (p / files.RUN).is_file()), None)
    if workdir is None:
        raise UsageError(
            "--model must be a .keras file, a work directory of granet-train, or a checkpoint in "
            f"one; this is {_kind(place)}. Received: --model={path}"
        )
    settings = _settings(workdir)
    output = str(workdir / files.TFLITE)
    stripped = workdir / files.STRIPPED
    if place == workdir and run in (None, settings.method) and stripped.is_file():
        return Found(_keras_file(stripped), str(stripped), output, settings)
    inside = place.relative_to(workdir).parts
    if run is None:
        run = inside[1] if len(inside) > 1 else settings.method
    checkpoint = _checkpoint(place, workdir / files.CHECKPOINTS / run)
    return Found(_restored(checkpoint, run, settings), checkpoint, output, settings)


def _kind(place: Path) -> str:
    if not place.exists():
        return "not there"
    return "another directory" if place.is_dir() else "another file"


def _keras_file(path: Path) -> keras.Model:
    if not path.is_file():
        raise UsageError(f"There is no such file. Received: --model={path}")
    try:
        return keras.models.load_model(path, compile=False)
    # Keras lets pass whatever zip, JSON, HDF5 and the layers' constructors raise.
    except Exception as error:
        # What is a model has something in it that only its author's code can make.
        own = _OWN if zipfile.is_zipfile(path) else ""
        raise UsageError(
            f"The file cannot be read as a Keras 3 model: {reason_of(error)}. {own}"
            f"Received: --model={path}"
        ) from error


def _settings(workdir: Path) -> Options:
    # What computes in half precision does so in training only.
    return made_of(Options, files.settings_of(workdir) | {"precision": "float32"})


def _checkpoint(place: Path, directory: Path) -> str:
    """Path of the checkpoint, without a suffix."""
    given = place.with_suffix("") if place.suffix == ".index" else place
    if os.path.exists(f"{given}.index"):
        return str(given)
    newest = tf.train.latest_checkpoint(str(directory))
    if newest is None or not (place.is_dir() and place.exists()):
        raise UsageError(
            f"There is no checkpoint. Received: --model={place}, looked in {directory}"
        )
    return newest


def _restored(checkpoint: str, run: str, settings: Options) -> Any:
    from granet_train.run import start_of

    model, _ = start_of(run, settings)
    variables = [variable.value for variable in model.variables]
    try:
        # The optimizer's variables come after the model's, and are left out.
        restored = tf.train.Checkpoint(variables=variables).restore(checkpoint)
        restored.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, ValueError, AssertionError, IndexError) as error:
        raise UsageError(
            f"The checkpoint cannot be read: {reason_of(error)}. Received: --model={checkpoint}"
        ) from error
    return model
