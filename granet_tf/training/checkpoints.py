"""The last good state of a run, and the end of a run whose loss is no number."""

from __future__ import annotations

import math
from pathlib import Path

import keras

from granet_tf.training import files
from granet_tf.training.errors import TrainingStopped


class Checkpoints(keras.callbacks.Callback):
    """Saves the model after each epoch whose losses are finite; stops at one that is not.

    Args:
        path: The `.keras` file, replaced after each epoch.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.epoch = 0

    def on_train_begin(self, logs=None):
        self.path.parent.mkdir(exist_ok=True)

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs["loss"], "loss")

    def on_epoch_end(self, epoch, logs=None):
        # The last update may have spoilt weights that the training loss did not see any more.
        self._check(logs["val_loss"], "loss on the test set")
        with files.replacing(self.path) as beside:
            self.model.save(beside)
        self.epoch = epoch + 1

    def last(self) -> str:
        """Where the last good state is, as a sentence."""
        if not self.epoch:
            return "There is no checkpoint yet, as the first epoch was not finished."
        return f"The last good checkpoint, after epoch {self.epoch}, is {self.path}."

    def _check(self, loss, name):
        if not math.isfinite(loss):
            step = int(self.model.optimizer.iterations)
            raise TrainingStopped(
                f"The {name} became {loss} at step {step:,}. {self.last()} Lower the learning rate "
                f"or raise --begin. Received: loss={loss}"
            )
