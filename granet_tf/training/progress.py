"""One line a run: how far it is, how well it does and how long it will take."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

import keras

_BAR = 20
_REFRESH = 0.1  # seconds
_LINES = 10  # a run, where the line cannot be rewritten


class Progress(keras.callbacks.Callback):
    """Rewrites one line on a terminal; elsewhere prints about ten lines a run.

    Args:
        name: Name of the run.
        stream: Where to write.
    """

    def __init__(self, name: str, stream: TextIO | None = None):
        super().__init__()
        self.name = name
        self.stream = stream or sys.stdout
        self.rewrites = self.stream.isatty()
        self.figures: dict[str, float] = {}
        self.shown = 0.0

    def on_train_begin(self, logs=None):
        self.started = time.monotonic()
        self.epoch = 0

    def on_train_batch_end(self, batch, logs=None):
        if self.rewrites and time.monotonic() - self.shown > _REFRESH:
            self.figures |= {"loss": logs["loss"]}
            self._show(self.epoch + (batch + 1) / self.params["steps"])

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        self.figures = {
            "loss": logs["loss"],
            "accuracy": logs["val_accuracy"],
            "sparsity": logs["sparsity"],
        }
        every = max(1, self.params["epochs"] // _LINES)
        if self.rewrites or self.epoch % every == 0 or self.epoch == self.params["epochs"]:
            self._show(self.epoch)

    def finish(self):
        """Leaves the line as it is, whatever ended the run."""
        if self.rewrites and self.shown:
            self.stream.write("\n")
            self.stream.flush()
        self.shown = 0.0

    def _show(self, epochs_done):
        self.shown = time.monotonic()
        text = line(
            self.name, epochs_done, self.params["epochs"], self.figures, self.shown - self.started
        )
        if self.rewrites:
            width = shutil.get_terminal_size().columns - 1
            text = "\r" + text[:width].ljust(width)
        else:
            text += "\n"
        self.stream.write(text)
        self.stream.flush()


def line(
    name: str, epochs_done: float, epochs: int, figures: Mapping[str, float], elapsed: float
) -> str:
    """The text.

    Example:

    >>> print(line("granet", 10, 40, {"loss": 0.25, "sparsity": 0.5}, elapsed=12.0))
    granet  █████░░░░░░░░░░░░░░░  epoch 10/40  loss 0.2500  sparsity 0.5000  0:36 left
    """
    done = epochs_done / epochs
    current = min(math.ceil(epochs_done), epochs)
    full = int(done * _BAR)
    if epochs_done < epochs:
        clock = f"{_minutes(elapsed / done * (1 - done))} left"
    else:
        clock = f"took {_minutes(elapsed)}"
    return "  ".join(
        [
            f"{name:<6}",
            "█" * full + "░" * (_BAR - full),
            f"epoch {current:>{len(str(epochs))}}/{epochs}",
            *(f"{key} {value:.4f}" for key, value in figures.items()),
            clock,
        ]
    )


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"
