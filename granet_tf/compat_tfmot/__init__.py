"""From a tf_keras model that tfmot has pruned to a Keras 3 model.

tfmot and tf_keras are not imported here: a file is read by a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from typing import Any

import keras

from granet_tf.compat_tfmot import tf_keras_side
from granet_tf.compat_tfmot.rebuild import rebuilt
from granet_tf.compat_tfmot.tf_keras_side import Snapshot


def from_tfmot(model: Any, *, sparsity_m_by_n: tuple[int, int] | None = None) -> keras.Model:
    """Converts a tf_keras model to Keras 3, with what tfmot has put into it.

    The result has the same weights, masks, schedules and outputs. Layers that tfmot wraps are
    `PruneLowMagnitude` layers; what it has wrapped without pruning anything is not. A model that
    was stripped, or never pruned, becomes a plain Keras 3 model: `granet_tf.wrap` takes it.

    Training goes on where it was: schedules go on after the steps that tfmot has counted (as
    `granet_tf.Shifted`), while the optimizer is a new one. Compile the model as usual; its
    `compile` takes care that masks are updated.

    Args:
        model: A sequential or functional model made with tf_keras, also nested, or a path to a file
            of one: `.h5`, `.keras` or a SavedModel folder. A path needs tf_keras to be installed,
            and tfmot if the model is not stripped; both run in a process of their own, and this one
            stays with Keras 3.
        sparsity_m_by_n: For all pruned layers of a file, in which tfmot does not keep it. A model
            object knows by itself.

    Returns:
        A Keras 3 model that is not compiled.

    Raises:
        TypeError: If `model` is neither a tf_keras model nor a path.
        ValueError: If the file can't be read, or if the model has layers, settings or schedules
            without counterpart in Keras 3 (custom layers, TensorFlow operations on tensors): all of
            them are named.
        ImportError: If a path is given and tf_keras or tfmot is missing.

    Example:

    >>> import tf_keras
    >>> dense = tf_keras.layers.Dense(2, kernel_initializer="ones", input_shape=(3,))
    >>> ours = from_tfmot(tf_keras.Sequential([dense]))
    >>> ours(np.ones((1, 3))).numpy().tolist()
    [[3.0, 3.0]]
    """
    snapshot = _read_file(os.fspath(model)) if _is_path(model) else _read_object(model)
    if sparsity_m_by_n is not None:
        for record in snapshot.layers:
            if "settings" in record:
                record["settings"]["sparsity_m_by_n"] = sparsity_m_by_n
    return rebuilt(snapshot)


def _is_path(model):
    return isinstance(model, (str, os.PathLike))


def _read_object(model) -> Snapshot:
    is_keras_2 = any(base.__module__.startswith("tf_keras.") for base in type(model).__mro__)
    if not is_keras_2 or not hasattr(model, "layers"):
        raise TypeError(
            "`model` must be a model made with tf_keras, or the path of one. "
            f"Received: model={model!r} of {type(model)}"
        )
    return tf_keras_side.read(model)


def _read_file(path) -> Snapshot:
    if not os.path.exists(path):
        raise ValueError(f"`model` must be a model or the path of one. Received: model={path!r}")
    _reject_keras_3(path)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, tf_keras_side.__file__, os.path.abspath(path), folder],
            env={
                **os.environ,
                "TF_USE_LEGACY_KERAS": "1",
                "TF_CPP_MIN_LOG_LEVEL": "3",
                "CUDA_VISIBLE_DEVICES": "-1",  # The one that is here may be full.
            },
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return Snapshot.load(folder)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1] if lines else f"it ended with code {done.returncode}"
    if "ModuleNotFoundError" in reason:
        raise ImportError(
            "Reading a file needs what wrote it: pip install tf_keras "
            f"tensorflow-model-optimization. Received: model={path!r}: {reason}"
        )
    raise ValueError(
        "tf_keras can't load this file. If you can, with classes of your own or from code, pass "
        f"the model itself. Received: model={path!r}: {reason}"
    )


def _reject_keras_3(path):
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        if "metadata.json" not in file.namelist():
            return
        version = json.loads(file.read("metadata.json")).get("keras_version", "")
    if version.startswith("3"):
        raise ValueError(
            "`model` is a Keras 3 file already: load it with keras.models.load_model(). "
            f"Received: model={path!r}, of Keras {version}"
        )
