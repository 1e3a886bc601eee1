"""Collects the figures of each epoch."""

from __future__ import annotations

import time

import keras

from granet_tf.training.results import Epoch


class Recorder(keras.callbacks.Callback):
    """Appends an `Epoch` after each, and gives the callbacks after it `logs["sparsity"]`.

    Args:
        run: Name of the run.
        epochs: The list to append to.
    """

    def __init__(self, run: str, epochs: list[Epoch]):
        super().__init__()
        self.run = run
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        # A model that is not wrapped has no such attribute.
        logs["sparsity"] = getattr(self.model, "sparsity", 0.0)
        self.epochs.append(
            Epoch(
                run=self.run,
                epoch=epoch + 1,
                step=int(self.model.optimizer.iterations),
                seconds=round(time.monotonic() - self.started, 2),
                learning_rate=float(self.model.optimizer.learning_rate),
                loss=logs["loss"],
                accuracy=logs["accuracy"],
                test_loss=logs["val_loss"],
                test_accuracy=logs["val_accuracy"],
                sparsity=logs["sparsity"],
            )
        )
