"""Runs `granet-train` and notes what it does to the state of every replica of this process.

    python tests/support/observed_runs.py OUT RUNS

RUNS is JSON: a list of {"flags": [...]}, which run one after the other in this process. It has two
logical CPUs, and one strategy of each kind. "signal" and "at" of a run: which signal this process
sends itself, from which step on. OUT gets a pickled list of what `observe` returns, after each run.
"""

import functools
import json
import os
import pickle
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import keras
    import tensorflow as tf

    from granet_train import command_line, loop, main, models, strategies
    from granet_train.errors import TrainingStopped, UsageError
    from granet_train.listeners import Listener

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def network(name, input_shape, classes, width):
    """No batch normalization: each replica does it on its own samples, and so gets other values."""
    layers = [
        keras.Input(input_shape),
        keras.layers.Conv2D(8, 3, activation="relu", name="conv1"),
        keras.layers.Conv2D(16, 3, activation="relu", name="conv2"),
        keras.layers.Flatten(name="flat"),
        keras.layers.Dense(classes, name="head"),
    ]
    return keras.Sequential(layers, name="network")


class Observer(Listener):
    """Notes masks and figures; sends the signal."""

    def __init__(self, model, copies, number, at):
        self.model, self.copies, self.number, self.at = model, copies, number, at
        self.masks, self.epochs = {}, []

    def update(self, update):
        self.masks[update.step] = {p.path: self.copies(p.mask) for p in self.model.pruned}

    def progress(self, step, figures):
        if self.number is not None and step >= self.at:
            os.kill(os.getpid(), self.number)

    def epoch(self, epoch):
        self.epochs.append(epoch)


def observe(run):
    """Runs it; returns what was seen: "error" (exit code, text) or None, and unless it came before

    begin, end: steps. loops: number of steps of each device loop. traces: how often training and
    evaluation were traced. evaluated: number of samples each time. epochs: [Epoch]. masks:
    {step of an update: {path: [of each replica]}}. state: {path: [of each replica]} at the end.
    """
    seen = {"error": None, "loops": [], "evaluated": []}

    def go_on(training, listeners, stop):
        model, device, checkpoints = training.model, training.device, training.checkpoints

        def copies(variable):
            return [
                local.numpy()
                for local in device.strategy.experimental_local_results(variable.value)
            ]

        def noting(key, function, of):
            def noted(iterator, steps):
                totals = function(iterator, steps)
                seen[key].append(of(steps, totals))
                return totals

            return noted

        observer = Observer(model, copies, run.get("signal"), run.get("at"))
        device.train = noting("loops", device.train, lambda steps, totals: steps)
        device.evaluate = noting("evaluated", device.evaluate, lambda _, totals: totals.samples)
        seen["begin"] = checkpoints.position.batches
        try:
            run_loop(training, [*listeners, observer], stop)
        finally:
            functions = (device._train, device._evaluate)
            seen["end"] = checkpoints.position.batches
            seen["epochs"], seen["masks"] = observer.epochs, observer.masks
            seen["traces"] = [f.experimental_get_tracing_count() for f in functions]
            variables = (*model.variables, *model.optimizer.variables)
            seen["state"] = {variable.path: copies(variable) for variable in variables}

    keras.backend.clear_session(free_memory=False)  # The same names in each run.
    run_loop, loop.Training.go_on = loop.Training.go_on, go_on
    try:
        main.main(command_line.read(run["flags"]))
    except (UsageError, TrainingStopped) as error:
        seen["error"] = (error.exit_code, str(error))
    finally:
        loop.Training.go_on = run_loop
    return seen


def once(make):
    """TensorFlow mixes up the collectives of a second strategy of its kind."""
    made = functools.cache(lambda: make(latest[0]))
    latest = [None]

    def make_or_reuse(values):
        latest[0] = values
        return made()

    return make_or_reuse


if __name__ == "__main__":
    models.make = network
    strategies.STRATEGIES |= {name: once(make) for name, make in strategies.STRATEGIES.items()}
    out, runs = sys.argv[1:]
    seen = []
    for run in json.loads(runs):
        seen.append(observe(run))
        with open(out, "wb") as file:
            pickle.dump(seen, file)
