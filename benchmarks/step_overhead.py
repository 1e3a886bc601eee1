"""What sparse training adds to a training step, against the dense step of the same network.

Measured is the compiled train function that `fit` calls, on one batch that stays in memory: dense
Keras, granet_tf's zero mode and mask-only mode, and, in a process of its own, tfmot on tf_keras
against tf_keras's own dense step. All variants of a process take turns, so that what else the
machine does falls on all of them. A ratio is the median over rounds, next to the middle half of
them. The second dense model shows how far ratios can be trusted; those of CPU time, of all cores
together, are disturbed less by other processes.

Steps are timed between updates. "With updates" adds to their ratio what a step that updates masks
costs more, divided by the 1000 steps between two updates that the paper has on CIFAR.

    python benchmarks/step_overhead.py [--network=resnet20|mlp|cnn] [--batch_size=64] [--rounds=60]

About three minutes on two cores. tfmot is left out where it or tf_keras is not installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from common import Seconds, interleaved, middle_half, ratios

from granet_train.quiet_tensorflow import without_notes

FREQUENCY = 1000
# The one step at which an update is due: timed steps meet it when told to.
DUE = 1_000_000
SPARSITY = 0.9
MUST = {"zero mode, GraNet": 1.02, "mask-only, GMP": 1.08}


def resnet20(keras: ModuleType, width: int = 16) -> Any:
    """He et al.'s network for CIFAR-10, 270,000 weights."""

    def conv(filters, size, strides=1):
        return keras.layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)

    def norm_relu(x):
        return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))

    inputs = keras.Input((32, 32, 3))
    x = norm_relu(conv(width, 3)(inputs))
    for stage in range(3):
        for block in range(3):
            strides = 2 if stage and not block else 1
            filters, shortcut = width * 2**stage, x
            x = norm_relu(conv(filters, 3, strides)(x))
            x = keras.layers.BatchNormalization()(conv(filters, 3)(x))
            if strides == 2:
                shortcut = conv(filters, 1, 2)(shortcut)
            x = keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def mlp(keras: ModuleType, width: int = 2048) -> Any:
    """The worst case: 14.7 million weights, each used once a sample."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Flatten()(inputs)
    for _ in range(3):
        x = keras.layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10)(x))


def cnn(keras: ModuleType, width: int = 32) -> Any:
    """Three convolutions and two dense layers, 620,000 weights: compiled in no time."""
    x = inputs = keras.Input((32, 32, 3))
    for stage in range(3):
        filters = width * 2**stage
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Dense(8 * width, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(10)(x))


NETWORKS: dict[str, Callable[[ModuleType], Any]] = {"resnet20": resnet20, "mlp": mlp, "cnn": cnn}


class Variant:
    """A model and its train function, compiled alike for all."""

    def __init__(self, keras: ModuleType, model: Any, flags: argparse.Namespace, make_due=None):
        import tensorflow as tf

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=flags.jit)
        model.optimizer.build(model.trainable_variables)
        images = tf.random.stateless_normal((flags.batch_size, 32, 32, 3), (0, 0))
        labels = tf.range(flags.batch_size) % 10
        self._batches = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
        model.make_train_function()
        self.model = model
        self._make_due = make_due

    def step(self) -> None:
        # Reading the loss waits for the end of the step.
        float(self.model.train_function(self._batches)["loss"])

    def update(self) -> None:
        """A step that updates masks, or a plain one where there are none."""
        if self._make_due:
            self._make_due(self.model)
        self.step()

    def state_bytes(self) -> int:
        """Bytes of everything that is kept from step to step."""
        variables = self.model.variables + list(_read(self.model.optimizer.variables))
        values = [getattr(v, "value", v) for v in variables]
        return sum(_size(v) for v in map(_read, values))


def _read(member):
    """tf_keras has methods where Keras 3 has properties."""
    return member() if callable(member) else member


def _size(tensor):
    return tensor.dtype.size * tensor.shape.num_elements()


@dataclasses.dataclass
class Times:
    """Seconds of each round, and bytes kept for each weight beyond what dense training keeps."""

    steps: list[Seconds]
    updates: list[Seconds]
    state: float


def measure(variants: dict[str, Variant], flags: argparse.Namespace) -> dict[str, Times]:
    """Times all variants side by side; the first is the dense one."""
    for variant in variants.values():
        variant.step()
        variant.update()
        variant.step()
    steps = interleaved({n: v.step for n, v in variants.items()}, flags.rounds)
    updates = interleaved({name: v.update for name, v in variants.items()}, flags.update_rounds)
    state = {name: v.state_bytes() for name, v in variants.items()}
    dense = next(iter(variants))
    weights = variants[dense].model.count_params()
    return {
        name: Times(steps[name], updates[name], (state[name] - state[dense]) / weights)
        for name in variants
    }


def measure_ours(flags: argparse.Namespace) -> dict[str, Times]:
    with without_notes():
        import keras

        import granet_tf

    def network():
        return NETWORKS[flags.network](keras)

    def make_due(model):
        model.optimizer.iterations.assign(DUE - 1)

    timing = {"begin_step": DUE, "end_step": DUE, "frequency": DUE, "total_steps": 2 * DUE}
    gmp, granet = granet_tf.GMP(SPARSITY, **timing), granet_tf.GraNet(SPARSITY, **timing)
    models = {
        "zero mode, GraNet": granet_tf.wrap(network(), granet),
        "zero mode, GMP": granet_tf.wrap(network(), gmp),
        "mask-only, GMP": granet_tf.wrap(network(), gmp, mask_only=True),
        "mask-only, GraNet": granet_tf.wrap(network(), granet, mask_only=True),
    }
    variants = {name: Variant(keras, model, flags, make_due) for name, model in models.items()}
    dense = {f"dense Keras{again}": Variant(keras, network(), flags) for again in ("", ", again")}
    return measure({**dense, **variants}, flags)


def measure_tfmot(flags: argparse.Namespace) -> dict[str, Times]:
    import tfmot_side

    keras = tfmot_side.keras

    def make_due(model):
        tfmot_side.set_step(model, DUE - 1)

    schedule = tfmot_side.pruning.ConstantSparsity(SPARSITY, begin_step=DUE, frequency=DUE)
    model = tfmot_side.prune(NETWORKS[flags.network](keras), schedule)
    dense = Variant(keras, NETWORKS[flags.network](keras), flags)
    return measure(
        {"dense tf_keras": dense, "tfmot": Variant(keras, model, flags, make_due)}, flags
    )


def main() -> None:
    flags = _flags()
    # One train function for each variant looks like needless retracing.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if flags.tfmot_only:
        times = measure_tfmot(flags)
        print(json.dumps({name: dataclasses.asdict(t) for name, t in times.items()}))
        return
    measured = [measure_ours(flags)]
    # Not at the top: tfmot's process needs no Keras 3.
    from granet_tf.reports.table import aligned

    if importlib.util.find_spec("tf_keras") and importlib.util.find_spec(
        "tensorflow_model_optimization"
    ):
        measured.append(_tfmot_in_subprocess())

    print(f"{flags.network}, batch of {flags.batch_size}, {os.cpu_count()} CPUs")
    rows, verdicts = [HEADER], []
    for times in measured:
        dense = next(iter(times.values()))
        for name, t in times.items():
            rows.append(_row(name, t, dense))
            if name in MUST:
                wall, cpu = (statistics.median(_ratios(t, dense, c)) for c in ("wall", "cpu"))
                verdict = "met" if wall <= MUST[name] else "MISSED"
                verdicts.append(
                    f"{verdict}: {name} {wall:.3f} × (CPU time {cpu:.3f} ×), "
                    f"must be {MUST[name]} × or less"
                )
    print(aligned(rows, text_columns=1))
    print("\n".join(verdicts))


HEADER = (
    "",
    "ms a step",
    "to dense",
    "middle half",
    "CPU time",
    "middle half",
    "update ms",
    "with updates",
    "bytes a weight",
)


def _row(name: str, times: Times, dense: Times) -> tuple[str, ...]:
    step, dense_step = (statistics.median(s.wall for s in t.steps) for t in (times, dense))
    if times is dense:
        return (name, f"{1e3 * step:.1f}", *[""] * (len(HEADER) - 2))
    wall, cpu = (_ratios(times, dense, clock) for clock in ("wall", "cpu"))
    update = statistics.median(s.wall for s in times.updates) - step
    return (
        name,
        f"{1e3 * step:.1f}",
        f"{statistics.median(wall):.3f}",
        middle_half(wall),
        f"{statistics.median(cpu):.3f}",
        middle_half(cpu),
        f"{1e3 * update:.1f}",
        f"{statistics.median(wall) + update / FREQUENCY / dense_step:.3f}",
        f"{times.state:.2f}",
    )


def _ratios(times, dense, clock):
    return ratios(*([getattr(s, clock) for s in t.steps] for t in (times, dense)))


def _tfmot_in_subprocess() -> dict[str, Times]:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--tfmot_only"],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    report = json.loads(done.stdout.splitlines()[-1])
    return {
        name: Times(
            [Seconds(*s) for s in t["steps"]], [Seconds(*s) for s in t["updates"]], t["state"]
        )
        for name, t in report.items()
    }


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60, help="steps timed of each variant")
    parser.add_argument("--update_rounds", type=int, default=9, help="updates timed of each")
    parser.add_argument("--jit", action="store_true", help="compile the step with XLA")
    parser.add_argument("--tfmot_only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
