"""granet-train: flags in, a sparse model, its figures and plots out. Read `main` from the top."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from granet_tf.methods.parameters import parameters_of
from granet_tf.reasons import reason_of
from granet_train import (
    advice,
    command_line,
    extending,
    files,
    flags,
    models,
    optimizers,
    strategies,
)
from granet_train import data as data_sets
from granet_train import learning_rates as rates
from granet_train.durations import TrainingLength
from granet_train.errors import UsageError
from granet_train.in_flags import in_flags
from granet_train.quiet_tensorflow import without_notes
from granet_train.training_options import Options

if TYPE_CHECKING:
    from granet_train.listeners import Listener

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
    if values.prune_outputs is None:
        # A new run spares them.
        values = dataclasses.replace(values, prune_outputs=earlier.get("prune_outputs", False))
    extension = extending.asked_for(values, earlier, _FREE)
    settings = flags.as_dict(values) | extending.began_with(earlier, extension)
    workdir = files.prepare(
        values.workdir,
        settings,
        {*_FREE, extending.BEGAN, *(extending.LENGTH if extension else ())},
        overwrite=values.overwrite,
        advice={"epochs": advice.to_train_longer(values)},
    )
    finished = (workdir / files.SUMMARY).exists() and not values.overwrite
    if finished and extension is None:
        return _tell_finished(workdir, values)

    strategy = strategies.make(values)
    with without_notes():
        set_up(values)

    import keras

    from granet_train import layers_csv, report, results, stopping
    from granet_train.csv_log import CsvLog
    from granet_train.progress import Progress
    from granet_train.tensorboard import TensorBoard
    from granet_train.terminal import Screen

    replicas = strategy.num_replicas_in_sync
    if values.batch_size % replicas:
        raise UsageError(
            f"--batch_size must be a multiple of the {replicas} replicas that share a batch. "
            f"Received: --batch_size={values.batch_size}"
        )
    data = load(values)
    length = training_length(values, data)
    flags.check_length(values, length)
    names = flags.runs(values)
    planned = extending.planned_length(settings, data.steps_per_epoch)
    methods = {name: _method(name, values, length, planned) for name in names}
    _check_fit(methods, values, data)

    chief = strategies.is_chief(strategy)
    if chief:
        if extension is not None:
            extension.reopen(workdir)
        files.begin(workdir, settings, overwrite=values.overwrite)
    listeners = []
    log = CsvLog(workdir / files.METRICS, workdir / files.UPDATES)
    if chief:
        if extension is not None:
            log.lengthen(extension.before, extension.after)
        on_emptied = functools.partial(advice.on_emptied, values=values)
        listeners = [log, Progress(advice=on_emptied, verbose=values.verbose), *also_tell]
        listeners += [TensorBoard(workdir / files.TENSORBOARD)] if values.tensorboard else []
        print(
            f"{data.description}\n{values.model}, {length.epochs} epochs of "
            f"{length.steps_per_epoch:,} steps of {values.batch_size} images, "
            f"on {_devices(strategy)}\n",
            flush=True,
        )
        if extension is not None:
            before, after = extension.before, extension.after
            told = advice.what_extending_does(values, before, after)
            print(f"Extended from {before} to {after} epochs. {told}\n", flush=True)

    # The run asked for comes first, so that its files are safe before any twin begins.
    runs, layers, written, selected = [], [], {}, {}
    with stopping.on_signal() as stop:
        for name in names:
            model, cost, position = _train(
                name, methods[name], values, strategy, data, length, workdir, listeners, stop
            )
            if not chief:
                continue
            mine = [epoch for epoch in log.epochs if epoch.run == name]
            runs.append(results.finished(mine, model, cost, data.batch_size))
            layers.append((name, layers_csv.rows(model, cost)))
            if name == values.method:
                table = report.layer_table(model, cost)
                selected = {"epoch": position.best_epoch or length.epochs, "by": values.select_on}
                written |= _save(model, position, values, workdir)
            written[f"{files.CHECKPOINTS}/{name}"] = f"checkpoints of {name}"
            # Layers of the same name in the next twin should get the same names.
            keras.backend.clear_session(free_memory=False)
    if not chief:
        return

    screen = Screen()
    screen.print(f"\n{names[0]}, layer by layer:", table)
    screen.print("\nAfter the last epoch:", report.comparison_table(runs))
    if data.skipped():
        screen.print(f"\nSamples that could not be read and were skipped: {data.skipped():,}")

    layers_csv.write(workdir / files.LAYERS, layers)
    written[files.LAYERS] = "sparsity and FLOPs layer by layer"
    if values.plot:
        written |= _plot(workdir, values, log)
    written[files.METRICS] = "figures of each epoch"
    written[files.UPDATES] = "figures of each mask update"
    if values.tensorboard:
        written[files.TENSORBOARD] = "for tensorboard --logdir"
    results.write_summary(
        workdir / files.SUMMARY,
        runs,
        flags=settings,
        wall_seconds=time.monotonic() - started,
        selected=selected,
        skipped_samples=data.skipped(),
        files={name: _size(workdir / name) for name in written},
    )
    written[files.SUMMARY] = "results, flags and versions"
    screen.print("", report.file_table(workdir, written))


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


def start_of(name: str, values: Options):
    """A run before its first step, and what it trains on: (compiled model, data).

    Args:
        name: "granet", "dense" and so on.
        values: The flags of its work directory.

    Raises:
        UsageError: If the data are not there.
    """
    data = load(values)
    length = training_length(values, data)
    return compiled(name, _method(name, values, length, length), values, data, length), data


def set_up(values: Options) -> None:
    """What holds for the whole process."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(values.seed)
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.config.list_logical_devices()  # Starts TensorFlow.


_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def _devices(strategy) -> str:
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync
    if replicas > 1:
        return f"{replicas} replicas under {type(strategy).__name__}"
    devices = tf.config.list_logical_devices("GPU")
    return devices[0].name if devices else "CPU"


def load(values: Options):
    """The data set that the flags name."""
    return data_sets.load(
        values.dataset,
        batch_size=values.batch_size,
        seed=values.seed,
        data_dir=values.data_dir,
        image_size=values.image_size,
        augment=values.augment,
        validation_fraction=values.validation_fraction,
        download=values.download,
        skip_corrupt=values.skip_corrupt,
        deterministic=values.deterministic,
    )


def training_length(values: Options, data) -> TrainingLength:
    """How long the flags train on these data."""
    return TrainingLength.stretched(values.epochs, data.steps_per_epoch, values.schedule_multiplier)


def _method(name: str, values: Options, length: TrainingLength, planned: TrainingLength):
    """The method with those of the flags that it has, all durations in steps; None for dense.

    Args:
        name: Of the run.
        values: The flags.
        length: How long training is.
        planned: How long it was to be when it began. A sparsity that rises does so as then.
    """
    if name not in flags.METHODS:
        return None
    try:
        method = _resolved(name, values, planned)
        if planned == length:
            return method
        if method.initial_sparsity == method.final_sparsity:
            return _resolved(name, values, length)
        declared = parameters_of(type(method)).items()
        durations = {k: method.steps(k) for k, each in declared if each.unit == "duration"}
        return dataclasses.replace(method, **durations, total_steps=length.steps)
    except ValueError as error:
        raise _in_flags(name, error) from error


def _resolved(name, values, length):
    parameters = flags.method_parameters(name, values, length)
    return flags.METHODS[name](**parameters).resolve(length.steps)


def _in_flags(name: str, error: ValueError) -> UsageError:
    """What a method has against its parameters, in flags."""
    return UsageError(f"--method={name}: {in_flags(str(error), flags.BY_PARAMETER)}")


def _check_fit(methods, values: Options, data) -> None:
    """Whether each method suits the network; better known now than when its turn has come."""
    import keras

    from granet_tf.spared import spare_outputs
    from granet_train import retraining
    from keras_layers.prunable import weights_of

    network = models.make(values.model, data.input_shape, data.classes, values.width)
    retraining.check(network, values)
    prunable = weights_of(network)
    for name, method in methods.items():
        try:
            if method is not None:
                weights = prunable
                if not values.prune_outputs:
                    weights, method = spare_outputs(network, weights, method)
                shapes = {w.path: tuple(w.variable.shape) for w in weights if w.prunable}
                method.check_fits(shapes)
                for sparsity in (method.initial_sparsity, method.final_sparsity):
                    method.distribute(shapes, sparsity)
        except ValueError as error:
            raise _in_flags(name, error) from error
    keras.backend.clear_session(free_memory=False)


def _train(name, method, values, strategy, data, length, workdir, listeners, stop):
    """Trains to the end; returns the model, what it costs and where it is."""
    from granet_tf.compiling import prune_at_start
    from granet_train import retraining
    from granet_train.checkpoints import Checkpoints, Position
    from granet_train.cost import Cost
    from granet_train.device import Device
    from granet_train.loop import Plan, train

    with strategy.scope():
        model = compiled(name, method, values, data, length)
        retraining.begin(model, name, values)
    cost = Cost.of(model)
    device = Device(strategy, model, data.batch_size, values.label_smoothing, values.xla)
    position = Position()
    chief, directory = strategies.is_chief(strategy), workdir / files.CHECKPOINTS / name
    variables = [v.value for v in (*model.variables, *model.optimizer.variables)]
    plan = Plan(
        epochs=length.epochs,
        steps_per_loop=values.steps_per_loop,
        checkpoint_every=length.period(values.checkpoint_every),
        select_on=values.select_on,
    )
    # What hosts save, they save together, but one copy is enough.
    with contextlib.ExitStack() as stack:
        own = directory if chief else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoints = Checkpoints(own, variables, position, values.keep_checkpoints, directory)
        checkpoints.restore()
        if not device.same_on_hosts(position.batches):
            raise UsageError(
                "All workers must see the same work directory, to go on from its checkpoints. "
                f"Received: --workdir={values.workdir}, here at step {position.batches:,}"
            )
        if method is not None and not (model.has_drawn or position.batches):
            _start(name, model, data, values)
        if method is not None and not position.batches:
            prune_at_start(model)
        if chief and position.batches:
            print(f"{name}: going on after step {position.batches:,} of {length.steps:,}")
        try:
            with strategies.losses_as_errors(strategy, checkpoints.last):
                train(name, model, device, data, plan, checkpoints, cost, listeners, stop)
        finally:
            _close(listeners)
        if chief and position.best_epoch and name == values.method:
            checkpoints.restore_best()
    return model, cost, position


def _close(listeners) -> None:
    """Where that fails too, the disk being full, the news is what ended the run."""
    for listener in listeners:
        try:
            listener.close()
        except OSError as error:
            print(f"warning: {error}", flush=True)


def _width_of_small_dense(values: Options, data) -> float:
    from granet_train.networks import small_dense

    sparsity = 0.9 if values.final_sparsity is None else values.final_sparsity
    return small_dense.width_of(
        values.model, data.input_shape, data.classes, values.width, sparsity
    )


# {run: factor on the network's channels}; --width for all others
_WIDTHS = {flags.SMALL_DENSE: _width_of_small_dense}


def compiled(name, method, values, data, length):
    """A compiled model; twins start from the same weights."""
    import keras

    import granet_tf
    from granet_train import weight_decay

    width = _WIDTHS[name](values, data) if name in _WIDTHS else values.width
    keras.utils.set_random_seed(values.seed)
    keras.config.set_dtype_policy(_POLICIES[values.precision])  # clear_session() forgets it.
    model = models.make(values.model, data.input_shape, data.classes, width)
    weight_decay.add(model, values.weight_decay, weight_decay.DECAYS[values.decay])
    if method is not None:
        # Masks come from a checkpoint, if there is one, or from another run, outputs included.
        has_masks = values.masks_from and name == values.method
        all_weights = values.prune_outputs or has_masks
        model = granet_tf.wrap(
            model,
            method,
            mask_only=values.mask_only,
            prunable=granet_tf.default_prunable if all_weights else None,
            start=False,
            track_explored=values.track_explored,
        )
        model.resolve(length.steps)
    options = {"momentum": values.momentum, "nesterov": values.nesterov}
    rate = rates.make(values.learning_rate_schedule, flags.course(values, length))
    # The loop does not use the loss; whoever loads the saved model does.
    model.compile(
        optimizers.make(values.optimizer, rate, options),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _start(name, model, data, values: Options) -> None:
    """Draws masks that are chosen before training, on every host by the same first batches."""
    import tensorflow as tf

    from granet_train.device import crossentropy
    from granet_train.loop import drawing

    def loss(labels, logits):
        # Keras hands labels over as floats.
        return crossentropy(tf.cast(labels, tf.int32), logits, values.label_smoothing)

    batches = data.train(0, 0, tf.distribute.InputContext())
    with warnings.catch_warnings():
        # The loop tells of layers that are gone, in flags.
        warnings.filterwarnings("ignore", "All of .* has been pruned")
        try:
            drawing(data, lambda: model.start(batches, loss))
        except ValueError as error:
            raise _in_flags(name, error) from error


def _save(model, position, values: Options, workdir: Path) -> dict[str, str]:
    """Writes the models; {file name: what it holds}."""
    import granet_tf

    best = f", of epoch {position.best_epoch}" if position.best_epoch else ""
    written = {}
    if values.method in flags.METHODS:
        with files.replacing(workdir / files.SPARSE) as beside:
            model.save(beside)
        written[files.SPARSE] = f"the model with its masks and optimizer{best}, to train on"
        model = granet_tf.strip(model)
    with files.replacing(workdir / files.STRIPPED) as beside:
        model.save(beside, include_optimizer=False)
    written[files.STRIPPED] = f"a plain Keras model{best}, its pruned weights zero"
    if values.export_tflite:
        written |= _export(model, workdir)
    return written


def _export(model, workdir: Path) -> dict[str, str]:
    import granet_tf

    try:
        with without_notes():
            exported = granet_tf.export_tflite(model, workdir / files.TFLITE)
    # Whatever the converter cannot do, the training is done and its results are not to be lost.
    except Exception as error:
        print(f"warning: {files.TFLITE} is not written. {reason_of(error)}.", flush=True)
        return {}
    size = f"{exported.sparse_bytes / exported.raw_bytes:.0%} of the size without sparse encoding"
    return {files.TFLITE: f"for LiteRT; {size}, {exported.gzip_bytes:,} bytes gzipped"}


def _plot(workdir: Path, values: Options, log) -> dict[str, str]:
    from granet_train import plot

    title = f"{values.model} on {values.dataset}"
    plot.draw_training(workdir / files.PLOT, log.epochs, title)
    plot.draw_flops(workdir / files.FLOPS_PLOT, log.epochs, log.updates, title)
    return {
        files.PLOT: "accuracy and sparsity over training",
        files.FLOPS_PLOT: "FLOPs of inference and sparsity over training",
    }


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    command_line.run(files.full_disk_as_error()(main), command_line.read, argv)
