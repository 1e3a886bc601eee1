"""What a finished run leaves behind: each function writes files, and says what each holds."""

from __future__ import annotations

from pathlib import Path

import keras

import granet_tf
from granet_tf.reasons import reason_of
from granet_train import files, flags
from granet_train.csv_log import CsvLog
from granet_train.quiet_tensorflow import without_notes
from granet_train.run import Run, Trained


def write_models(run: Run, trained: Trained) -> dict[str, str]:
    """Writes the models; {file name: what it holds}."""
    model, workdir = trained.model, run.workdir
    best = f", of epoch {trained.position.best_epoch}" if trained.position.best_epoch else ""
    written = {}
    if run.name in flags.METHODS:
        with files.replacing(workdir / files.SPARSE) as beside:
            model.save(beside)
        written[files.SPARSE] = f"the model with its masks and optimizer{best}, to train on"
        model = granet_tf.strip(model)
    with files.replacing(workdir / files.STRIPPED) as beside:
        model.save(beside, include_optimizer=False)
    written[files.STRIPPED] = f"a plain Keras model{best}, its pruned weights zero"
    if run.values.export_tflite:
        written |= _export(model, workdir)
    return written


def _export(model: keras.Model, workdir: Path) -> dict[str, str]:
    try:
        with without_notes():
            exported = granet_tf.export_tflite(model, workdir / files.TFLITE)
    # Whatever the converter cannot do, the training is done and its results are not to be lost.
    except Exception as error:
        print(f"warning: {files.TFLITE} is not written. {reason_of(error)}.", flush=True)
        return {}
    size = f"{exported.sparse_bytes / exported.raw_bytes:.0%} of the size without sparse encoding"
    return {files.TFLITE: f"for LiteRT; {size}, {exported.gzip_bytes:,} bytes gzipped"}


def draw_plots(run: Run, log: CsvLog) -> dict[str, str]:
    """Draws a run and its twins; {file name: what it holds}."""
    # Takes a second to import, and is not needed with --noplot.
    from granet_train import plot

    title = f"{run.values.model} on {run.values.dataset}"
    plot.draw_training(run.workdir / files.PLOT, log.epochs, title)
    plot.draw_flops(run.workdir / files.FLOPS_PLOT, log.epochs, log.updates, title)
    return {
        files.PLOT: "accuracy and sparsity over training",
        files.FLOPS_PLOT: "FLOPs of inference and sparsity over training",
    }
