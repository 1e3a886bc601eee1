"""Short runs of `granet-train` in this process, and what they left behind."""

import contextlib
import csv
import io
import json

import keras
import numpy as np
import tensorflow as tf

from granet_train import command_line, files, main
from granet_train.data import digits
from granet_train.data.interface import Options

# 5 steps an epoch.
SHORT = ("--epochs=4", "--batch_size=256", "--learning_rate=0.05", "--momentum=0.9", "--nesterov")
QUIET = ("--noexport_tflite", "--noplot", "--notensorboard")
TIMES = ("seconds", "images_per_second")


def run(*argv):
    """What one run prints."""
    output = io.StringIO()
    keras.backend.clear_session(free_memory=False)  # Each run is the first of its process.
    with contextlib.redirect_stdout(output):
        main.main(command_line.read([str(arg) for arg in argv]))
    return output.getvalue()


def table(path):
    """The lines of a CSV file, without what depends on the clock."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [{name: cell for name, cell in line.items() if name not in TIMES} for line in lines]


def summary(workdir):
    return json.loads((workdir / files.SUMMARY).read_text())


def checkpoint_steps(directory):
    """The steps of the checkpoints there; fails if anything else is there."""
    names = {path.name for path in directory.iterdir()} - {"checkpoint", "best"}
    steps = sorted(int(name[5:-6]) for name in names if name.endswith(".index"))
    whole = {f"ckpt-{n}.{end}" for n in steps for end in ("index", "data-00000-of-00001")}
    assert names == whole
    return steps


def state(directory, step):
    """All that is in a checkpoint: {name: bytes}, but for times."""
    reader = tf.train.load_checkpoint(str(directory / f"ckpt-{step}"))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    [text] = [name for name in values if name.startswith("position")]
    position = json.loads(values.pop(text))
    clock = {name: position.pop(name) for name in ("seconds", "epoch_seconds")}
    assert min(clock.values()) >= 0.0
    # How often this process has saved, and the graph of objects, are not of the run.
    own = {n: (v.dtype, v.shape, v.tobytes()) for n, v in values.items() if n.startswith("var")}
    return position, own


def digits_test_set():
    data = digits.load("digits", Options(batch_size=360, seed=0))
    [(images, labels, _)] = data.evaluate("test", tf.distribute.InputContext())
    return images.numpy(), labels.numpy()


def accuracy(model):
    """Fraction of the digits of the test set that a model classifies correctly."""
    images, labels = digits_test_set()
    return float(np.mean(model.predict(images, verbose=0).argmax(-1) == labels))
