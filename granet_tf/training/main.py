"""granet-train: flags in, a sparse model, its figures and a plot out. Read `main` from the top."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
import time
import warnings
from collections.abc import Collection, Sequence

from absl.flags import FlagValues

from granet_tf.training import files, flags, optimizers
from granet_tf.training.data import DATASETS, Data
from granet_tf.training.durations import TrainingLength, to_steps
from granet_tf.training.errors import Interrupted, TrainingStopped, UsageError
from granet_tf.training.models import MODELS


def main(values: FlagValues, given: Collection[str] = ()) -> None:
    """One run and its twins.

    Args:
        values: The flags, parsed.
        given: Names of those that count as given (see `flags.parse`).

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If training ended before its last epoch.
    """
    started = time.monotonic()
    workdir = files.prepare(values.workdir, overwrite=values.overwrite)

    import keras
    import tensorflow as tf

    import granet_tf
    from granet_tf.training import report, results
    from quiet_tensorflow import without_notes

    with without_notes():
        devices = tf.config.list_logical_devices("GPU") or ["CPU"]

    _check_use(values, given)
    data = DATASETS[values.dataset](values.batch_size, values.seed)
    length = TrainingLength(values.epochs, data.steps_per_epoch)
    names = flags.runs(values)
    methods = {name: _method(name, values, length) for name in names}

    device = devices[0] if len(devices) == 1 else f"{len(devices)} devices"
    print(
        f"{values.dataset}: {data.description}\n"
        f"{values.model}, {length.epochs} epochs of {length.steps_per_epoch} steps, "
        f"on {getattr(device, 'name', device)}\n"
    )

    files.clear(workdir)
    # The run asked for comes first, so that its files are safe before any twin begins.
    runs, epochs, written = [], [], {}
    for name in names:
        try:
            model = _train(name, methods[name], values, data, length, workdir, epochs)
        finally:
            results.write_metrics(workdir / files.METRICS, epochs)
        runs.append(results.finished(name, model, epochs[-1]))
        if name == values.method:
            table = report.layer_table(model)
            written |= _save(model, workdir, values)
        else:
            written[f"{files.CHECKPOINTS}/{name}.keras"] = f"the {name} twin"

    print(f"\n{names[0]}, layer by layer:\n{table}")
    print(f"\nAfter the last epoch:\n{report.comparison_table(runs)}")

    if values.plot:
        from granet_tf.training import plot

        title = f"{values.model} on {values.dataset}"
        plot.draw(workdir / files.PLOT, epochs, title)
        written[files.PLOT] = "accuracy and sparsity over training"
    written[files.METRICS] = "the same in figures, epoch by epoch"
    results.write_summary(
        workdir / files.SUMMARY,
        runs,
        flags=flags.as_dict(values),
        files={name: (workdir / name).stat().st_size for name in written},
        versions={
            "granet_tf": granet_tf.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
        wall_seconds=round(time.monotonic() - started, 1),
    )
    written[files.SUMMARY] = "results, flags and versions"
    print(f"\n{report.file_table(workdir, written)}")


def _check_use(values, given):
    """Flags that the method or the optimizer has no parameter for are an error if given."""
    known = {flag for flag, field in flags.METHOD_FLAGS.items() if field in _fields(values.method)}
    masked = {"mask_only"} if values.method != flags.DENSE else set()
    flags.check_use(
        given, f"--method={values.method}", {*flags.METHOD_FLAGS, "mask_only"}, known | masked
    )
    flags.check_use(
        given,
        f"--optimizer={values.optimizer}",
        optimizers.OPTIONS,
        optimizers.options_of(values.optimizer),
    )


def _fields(name: str) -> set[str]:
    """Parameters of a method; dense training has none."""
    import granet_tf

    if name == flags.DENSE:
        return set()
    return {field.name for field in dataclasses.fields(getattr(granet_tf, flags.METHODS[name]))}


def _method(name: str, values: FlagValues, length: TrainingLength):
    """The method with those of the flags that it has, all durations in steps; None for dense."""
    import granet_tf

    if name == flags.DENSE:
        return None
    known = _fields(name)
    parameters = {"seed": values.seed}
    for flag, field in flags.METHOD_FLAGS.items():
        value = values[flag].value
        if field in known and value is not None:
            parameters[field] = to_steps(value, length) if flag in flags.DURATIONS else value
    try:
        return getattr(granet_tf, flags.METHODS[name])(**parameters)
    except ValueError as error:
        raise UsageError(f"--method={name}: {error}") from error


def _train(name, method, values: FlagValues, data: Data, length, workdir, epochs):
    """Trains from scratch and returns the model; adds to `epochs` as it goes."""
    import keras

    import granet_tf
    from granet_tf.training.checkpoints import Checkpoints
    from granet_tf.training.progress import Progress
    from granet_tf.training.recorder import Recorder

    # The same seed before each: twins start from the same weights.
    keras.utils.set_random_seed(values.seed)
    model = MODELS[values.model](data.input_shape, data.classes, values.weight_decay)
    if method is not None:
        model = granet_tf.wrap(model, method, mask_only=values.mask_only)
    schedule = optimizers.LEARNING_RATE_SCHEDULES[values.learning_rate_schedule]
    model.compile(
        optimizers.make(
            values.optimizer,
            schedule(values.learning_rate, length.steps),
            {"momentum": values.momentum, "nesterov": values.nesterov},
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    checkpoints = Checkpoints(workdir / files.CHECKPOINTS / f"{name}.keras")
    progress = Progress(name)
    try:
        model.fit(
            data.train(),
            epochs=length.epochs,
            shuffle=False,  # The data does it.
            validation_data=data.test,
            callbacks=[Recorder(name, epochs), checkpoints, progress],
            verbose=0,
        )
    except KeyboardInterrupt as error:
        raise Interrupted(f"Interrupted. {checkpoints.last()}") from error
    finally:
        progress.finish()
    return model


def _save(model, workdir, values: FlagValues) -> dict[str, str]:
    """Writes the models; {file name: what it holds}."""
    import granet_tf

    written = {}
    if values.method != flags.DENSE:
        with files.replacing(workdir / files.SPARSE) as beside:
            model.save(beside)
        written[files.SPARSE] = "the model with its masks and optimizer, to train on"
        model = granet_tf.strip(model)
    with files.replacing(workdir / files.STRIPPED) as beside:
        model.save(beside, include_optimizer=False)
    written[files.STRIPPED] = "a plain Keras model, its pruned weights zero"
    if values.export_tflite:
        exported = granet_tf.export_tflite(model, workdir / files.TFLITE)
        written[files.TFLITE] = (
            f"for LiteRT; {exported.sparse_bytes / exported.raw_bytes:.0%} of the size "
            f"without sparse encoding, {exported.gzip_bytes:,} bytes gzipped"
        )
    return written


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    try:
        values, given = flags.parse(sys.argv[1:] if argv is None else argv)
        if values.help or values.helpshort or values.helpfull:
            print(flags.help_text())
            return
        main(values, given)
    except (UsageError, TrainingStopped) as error:
        sys.stdout.flush()
        sys.exit(_fail(error))
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:  # As in `granet-train | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(error: UsageError | TrainingStopped) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    cli()
