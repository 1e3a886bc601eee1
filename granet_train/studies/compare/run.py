"""Runs the cells of a comparison, each by the training binary."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import keras

from granet_train import csv_log, data, files, flags, main
from granet_train.data import facts
from granet_train.data.preparation import prepared
from granet_train.errors import TrainingStopped, UsageError
from granet_train.listeners import Listener
from granet_train.results import Epoch
from granet_train.stopping import Stop
from granet_train.studies.compare.cells import Compared
from granet_train.studies.compare.flags import Settings
from granet_train.studies.compare.reproduction import TableSettings
from granet_train.studies.grid import Grid
from granet_train.training_options import Options

LOG = "output.txt"
RUN = "run"


def open_run(
    grid: Grid, settings: Settings | TableSettings
) -> Callable[[Compared, Callable, Stop], None]:
    """Makes what runs the cells of this study; see `granet_train.studies.jobs.Run`.

    Raises:
        UsageError: If there are no data for one of those that are left.
    """
    for cell in {cell.network: cell for cell in grid.to_do(settings.cells())}.values():
        _check_data(settings.of_cell(cell))

    def run(cell: Compared, tell: Callable[[float], None], stop: Stop) -> None:
        folder = grid.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        values = settings.of_cell(cell, folder / RUN)
        unsaid = files.unsaid_in_study(flags.as_dict(values), grid.directory)
        values = dataclasses.replace(values, **unsaid)
        keras.backend.clear_session()
        with (
            open(folder / LOG, "a", encoding="utf-8") as output,
            contextlib.redirect_stdout(output),
            _one_cell(cell),
        ):
            main.main(values, [_Share(tell)])
        grid.finish(cell, result(folder / RUN, cell))
        # Finished trainings need none to go on from.
        files.remove(folder / RUN / files.CHECKPOINTS)

    return run


def _check_data(values: Options) -> None:
    if values.dataset not in data.OWN:
        of_set = data.Options(
            values.batch_size, values.seed, data_dir=values.data_dir, download=values.download
        )
        prepared(values.dataset, of_set, facts.of(values.dataset))


def result(workdir, cell: Compared) -> dict:
    """What a finished training came to, by the epoch that was selected."""
    summary = json.loads((workdir / files.SUMMARY).read_text(encoding="utf-8"))
    run = summary["runs"][cell.method]
    epochs = csv_log.read(workdir / files.METRICS, Epoch)
    [selected] = [e for e in epochs if e.epoch == summary["selected"]["epoch"]]
    names = ("weights", "nonzeros", "training_flops", "flops_dense", "seconds")
    return {
        "test_accuracy": selected.test_accuracy,
        "epoch": selected.epoch,
        "sparsity": selected.sparsity,
        "inference_flops": selected.inference_flops,
        **{name: run[name] for name in names},
        "emptied": _emptied(workdir / files.LAYERS, cell),
    }


def _emptied(path: Path, cell: Compared) -> list[str]:
    """Weights of which nothing is left at the end."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in csv.DictReader(file) if line["run"] == cell.method]
    return [line["layer"] for line in lines if line["shape"] and not int(line["nonzeros"])]


@contextlib.contextmanager
def _one_cell(cell):
    """What is wrong with one cell does not end the others."""
    try:
        yield
    except UsageError as error:
        raise TrainingStopped(str(error)) from error


class _Share(Listener):
    """Tells what is done of a training, epoch by epoch."""

    def __init__(self, tell: Callable[[float], None]):
        self.tell = tell

    def begin(self, run, epochs, steps_per_epoch, step):
        self.epochs = epochs

    def epoch(self, epoch):
        self.tell(epoch.epoch / self.epochs)
