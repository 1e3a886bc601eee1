"""Event files for TensorBoard, which does not have to be installed to write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from granet_tf.reports.events import write_scalars
from granet_train.listeners import Listener
from granet_train.results import Epoch, Update


class TensorBoard(Listener):
    """Writes figures by epoch and by mask update into `directory/<run>`, over optimizer steps.

    A resumed run goes on in a new file; TensorBoard leaves out what the first one says of the steps
    that are done again.

    Args:
        directory: For `tensorboard --logdir`.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self.writer = None

    def begin(self, run, epochs, steps_per_epoch, step):
        directory = str(self.directory / run)
        if step:
            _forget_after(directory, step)
        self.writer = tf.summary.create_file_writer(directory)

    def update(self, update):
        self._write(update.step, update_figures(update))

    def epoch(self, epoch):
        self._write(epoch.step, epoch_figures(epoch))
        self.writer.flush()

    def close(self):
        if self.writer:
            self.writer.close()
            self.writer = None

    def _write(self, step: int, figures: Mapping[str, float]):
        write_scalars(self.writer, step, figures)


def epoch_figures(epoch: Epoch) -> dict[str, float]:
    """What is shown of an epoch, by tag."""
    figures = {
        "loss/train": epoch.loss,
        "loss/validation": epoch.validation_loss,
        "loss/test": epoch.test_loss,
        "accuracy/train": epoch.accuracy,
        "accuracy/validation": epoch.validation_accuracy,
        "accuracy/test": epoch.test_accuracy,
        "learning_rate": epoch.learning_rate,
        "images_per_second": epoch.images_per_second,
        "sparsity": epoch.sparsity,
        "flops/inference": epoch.inference_flops,
        "flops/training": epoch.training_flops,
    }
    return {tag: figure for tag, figure in figures.items() if figure is not None}


def update_figures(update: Update) -> dict[str, float]:
    """What is shown of a mask update, by tag."""
    return {
        "sparsity": update.sparsity,
        "flops/inference": update.inference_flops,
        "masks/changed": update.changed,
        "masks/pruned": update.pruned,
        "masks/regenerated": update.regenerated,
        **{f"sparsity_by_layer/{path}": sparsity for path, sparsity in update.layers.items()},
    }


def _forget_after(directory: str, step: int) -> None:
    """A file of its own, read before the next, that says where a resumed run takes up."""
    start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
    event = tf.compat.v1.Event(step=step + 1, session_log=start)
    writer = tf.raw_ops.SummaryWriter(shared_name=directory, container="")
    tf.raw_ops.CreateSummaryFileWriter(
        writer=writer, logdir=directory, max_queue=1, flush_millis=0, filename_suffix=".v2"
    )
    tf.raw_ops.ImportEvent(writer=writer, event=event.SerializeToString())
    tf.raw_ops.CloseSummaryWriter(writer=writer)
