"""granet-train: flags in, a sparse model, its figures and plots out. Read `main` from the top."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from granet_train import (
    advice,
    budget,
    command_line,
    extending,
    files,
    flags,
    layers_csv,
    report,
    results,
    stopping,
    strategies,
    written,
)
from granet_train.csv_log import CsvLog
from granet_train.errors import UsageError
from granet_train.listeners import Listener
from granet_train.progress import Progress
from granet_train.quiet_tensorflow import without_notes
from granet_train.run import Run, check_fit, load, method_of, set_up, training_length
from granet_train.tensorboard import TensorBoard
from granet_train.terminal import Screen
from granet_train.training_options import Options

# Flags that do not change what a run comes to, so they may differ when it goes on.
_FREE = frozenset(
    {"workdir", "overwrite", "extend", "tensorboard", "export_tflite", "plot", "verbose"}
    | {"data_dir", "download", "skip_corrupt", "checkpoint_every", "keep_checkpoints"}
    | {"strategy", "workers", "worker_index", "connect_timeout", "xla", "steps_per_loop"}
    | {"tpu", "tpu_zone", "tpu_project"}
)


def main(values: Options, also_tell: Sequence[Listener] = ()) -> None:
    """One run and its twins, from where an earlier session of the same command left them.

    Args:
        values: The flags, parsed.
        also_tell: Who else wants to know what happens.

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If training ended before its last epoch.
    """
    started = time.monotonic()
    earlier = files.earlier(values.workdir, overwrite=values.overwrite)
    values = dataclasses.replace(values, **files.left_unsaid(flags.as_dict(values), earlier))
    if values.prune_outputs is None:
        # A new run spares them.
        values = dataclasses.replace(values, prune_outputs=earlier.get("prune_outputs", False))
    values = budget.as_earlier(values, earlier)
    extension = extending.asked_for(values, earlier, _FREE)
    settings = flags.as_dict(values) | extending.began_with(earlier, extension)
    workdir = files.prepare(
        values.workdir,
        settings,
        {*_FREE, extending.BEGAN, *(extending.LENGTH if extension else ())},
        overwrite=values.overwrite,
        advice={"epochs": advice.to_train_longer(values)},
    )
    is_finished = (workdir / files.SUMMARY).exists() and not values.overwrite
    if is_finished and extension is None:
        return _tell_finished(workdir, values)

    strategy = strategies.make(values)
    with without_notes():
        set_up(values)
    _check_batch(values, strategy)
    data = load(values)
    length = training_length(values, data)
    values = budget.met(values, data, length)
    settings["final_sparsity"] = values.final_sparsity
    planned = extending.planned_length(settings, data.steps_per_epoch)
    flags.check_length(values, length)
    # The run asked for comes first, so that its files are safe before any twin begins.
    runs = [
        Run(name, method_of(name, values, length, planned), values, data, length, strategy, workdir)
        for name in flags.runs(values)
    ]
    check_fit(runs)

    is_chief = strategies.is_chief(strategy)
    if is_chief and extension is not None:
        extension.reopen(workdir)
    if is_chief:
        files.begin(workdir, settings, overwrite=values.overwrite)
    # Read on all hosts, so that all of them end where it cannot be.
    log = CsvLog(workdir / files.METRICS, workdir / files.UPDATES)
    if not is_chief:
        return _train_along(runs)

    progress = Progress(
        advice=functools.partial(advice.on_emptied, values=values), verbose=values.verbose
    )
    board = [TensorBoard(workdir / files.TENSORBOARD)] if values.tensorboard else []
    screen = Screen()
    screen.print(
        f"{data.description}\n{values.model}, {length.epochs} epochs of "
        f"{length.steps_per_epoch:,} steps of {values.batch_size} images, "
        f"on {strategies.devices_of(strategy)}\n"
    )
    if budget.of(values):
        screen.print(f"The budget is met at --final_sparsity={values.final_sparsity:g}.\n")
    if extension is not None:
        log.lengthen(extension.before, extension.after)
        screen.print(f"{extending.told(values, extension)}\n")

    finished, layers, held = [], [], {}
    with stopping.on_signal() as stop:
        for run in runs:
            trained = run.train([log, progress, *also_tell, *board], stop)
            mine = [epoch for epoch in log.epochs if epoch.run == run.name]
            finished.append(results.finished(mine, trained.model, trained.cost, data.batch_size))
            layers.append((run.name, layers_csv.rows(trained.model, trained.cost)))
            if run.is_asked_for:
                table = report.layer_table(trained.model, trained.cost)
                epoch = trained.position.best_epoch or length.epochs
                held |= written.write_models(run, trained)
            held[f"{files.CHECKPOINTS}/{run.name}"] = f"checkpoints of {run.name}"
            _forget_names()

    screen.print(f"\n{values.method}, layer by layer:", table)
    screen.print("\nAfter the last epoch:", report.comparison_table(finished))
    if data.skipped():
        screen.print(f"\nSamples that could not be read and were skipped: {data.skipped():,}")

    layers_csv.write(workdir / files.LAYERS, layers)
    held[files.LAYERS] = "sparsity and FLOPs layer by layer"
    if values.plot:
        held |= written.draw_plots(runs[0], log)
    held[files.METRICS] = "figures of each epoch"
    held[files.UPDATES] = "figures of each mask update"
    if values.tensorboard:
        held[files.TENSORBOARD] = "for tensorboard --logdir"
    results.write_summary(
        workdir / files.SUMMARY,
        finished,
        flags=settings,
        wall_seconds=time.monotonic() - started,
        selected={"epoch": epoch, "by": values.select_on},
        skipped_samples=data.skipped(),
        files={name: report.size_of(workdir / name) for name in held},
    )
    held[files.SUMMARY] = "results, flags and versions"
    screen.print("", report.file_table(workdir, held))


def _check_batch(values: Options, strategy) -> None:
    replicas = strategy.num_replicas_in_sync
    if values.batch_size % replicas:
        raise UsageError(
            f"--batch_size must be a multiple of the {replicas} replicas that share a batch. "
            f"Received: --batch_size={values.batch_size}"
        )


def _train_along(runs: Sequence[Run]) -> None:
    """What hosts do that are not the chief."""
    with stopping.on_signal() as stop:
        for run in runs:
            run.train([], stop)
            _forget_names()


def _forget_names() -> None:
    """Layers of the same name in the next twin get the same names."""
    keras.backend.clear_session(free_memory=False)


def _tell_finished(workdir: Path, values: Options) -> None:
    summary = json.loads((workdir / files.SUMMARY).read_text(encoding="utf-8"))
    print(
        "This run is finished; --overwrite begins it anew. "
        f"{advice.to_train_longer(values)} {workdir / files.SUMMARY}:"
    )
    for name, run in summary["runs"].items():
        print(
            f"  {name}: test accuracy {run['test_accuracy']:.2%} at sparsity {run['sparsity']:.4f}"
        )


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    command_line.run(files.full_disk_as_error()(main), command_line.read, argv)
