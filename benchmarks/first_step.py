"""What a user waits for at every start: the first training step, against the dense model's.

Each variant is trained in a process of its own: built and compiled first, then timed until the
first step of `train_on_batch` is done (trace, optimise, run), at a batch of four. Peak memory is
the most that the process had resident. Rounds take turns between the variants; a ratio is that of
the medians, beside the smallest and largest of the rounds. tfmot is compared with its own dense
twin on tf_keras.

    python benchmarks/first_step.py [--network=transformer8|transformer24|resnet50|resnet20]
                                    [--xla] [--rounds=3] [--variants=dense,granet,gmp,tfmot]

Four minutes for transformer8 on two cores. tfmot is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import common  # noqa: F401  It quiets TensorFlow.

from granet_train.quiet_tensorflow import without_notes

SPARSITY, TOTAL, FREQUENCY = 0.9, 1000, 10
TIME_MUST, XLA_MUST, MEMORY_MUST = 1.3, 1.5, 1.15


def transformer(blocks: int) -> Callable[[ModuleType], tuple]:
    """Pre-norm blocks of width 128 on 32 tokens: six kernels each, one for the classes."""

    def build(keras):
        layers = keras.layers
        x = inputs = keras.Input((32, 128))
        for _ in range(blocks):
            y = layers.LayerNormalization()(x)
            x = layers.Add()([x, layers.MultiHeadAttention(4, 32)(y, y)])
            y = layers.Dense(256, activation="relu")(layers.LayerNormalization()(x))
            x = layers.Add()([x, layers.Dense(128)(y)])
        outputs = layers.Dense(10)(layers.GlobalAveragePooling1D()(x))
        return keras.Model(inputs, outputs), (32, 128)

    return build


def resnet50(keras):
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    ), (64, 64, 3)


def resnet20(keras):
    from step_overhead import resnet20 as build

    return build(keras), (32, 32, 3)


NETWORKS = {
    "transformer8": transformer(8),
    "transformer24": transformer(24),
    "resnet50": resnet50,
    "resnet20": resnet20,
}


def _dense(flags):
    import keras

    return keras, NETWORKS[flags.network](keras)


def _ours(method_of: Callable[[ModuleType], Any]) -> Callable:
    def make(flags):
        import keras

        import granet_tf

        model, shape = NETWORKS[flags.network](keras)
        return keras, (granet_tf.wrap(model, method_of(granet_tf)), shape)

    return make


def _dense_of_tfmot(flags):
    import tfmot_side

    return tfmot_side.keras, NETWORKS[flags.network](tfmot_side.keras)


def _tfmot(flags):
    import tfmot_side

    model, shape = NETWORKS[flags.network](tfmot_side.keras)
    schedule = tfmot_side.pruning.PolynomialDecay(
        0.0, SPARSITY, begin_step=0, end_step=TOTAL // 2, frequency=FREQUENCY
    )
    return tfmot_side.keras, (tfmot_side.prune(model, schedule), shape)


_TIMING = {"frequency": FREQUENCY, "total_steps": TOTAL}
VARIANTS: dict[str, Callable] = {
    "dense": _dense,
    "granet": _ours(lambda library: library.GraNet(SPARSITY, **_TIMING)),
    "gmp": _ours(lambda library: library.GMP(SPARSITY, **_TIMING)),
    "dense tf_keras": _dense_of_tfmot,
    "tfmot": _tfmot,
}
BASES = {"granet": "dense", "gmp": "dense", "tfmot": "dense tf_keras"}


def measure(flags: argparse.Namespace) -> dict[str, float]:
    """Builds one variant and takes its first step."""
    with without_notes():
        keras, (model, shape) = VARIANTS[flags.variant](flags)
    import numpy as np

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=flags.xla)
    model.optimizer.build(model.trainable_variables)
    x, y = np.random.rand(4, *shape).astype("float32"), np.arange(4)
    start = time.perf_counter()
    model.train_on_batch(x, y)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _in_process(variant: str) -> dict[str, float]:
    legacy = variant in ("tfmot", "dense tf_keras")
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], f"--variant={variant}"],
        env=os.environ | ({"TF_USE_LEGACY_KERAS": "1"} if legacy else {}),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    flags = _flags()
    if flags.variant:
        print(json.dumps(measure(flags)))
        return
    wanted = flags.variants.split(",")
    has_tfmot = importlib.util.find_spec("tensorflow_model_optimization")
    names = [n for n in wanted if n != "tfmot" or has_tfmot]
    names = list(dict.fromkeys([b for n in names for b in (BASES.get(n, n), n)]))
    taken: dict[str, list] = {name: [] for name in names}
    for i in range(flags.rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            taken[name].append(_in_process(name))

    from granet_tf.reports.table import aligned

    rows = [("", "seconds", "to dense", "of rounds", "peak GB", "to dense")]
    for name, rounds in taken.items():
        base = taken[BASES.get(name, name)]
        seconds, size = (_median(rounds, key) for key in ("seconds", "bytes"))
        each = [r["seconds"] / b["seconds"] for r, b in zip(rounds, base, strict=True)]
        to_base = (
            ("", "", "")
            if base is rounds
            else (
                f"{seconds / _median(base, 'seconds'):.2f}",
                f"{min(each):.2f}–{max(each):.2f}",
                f"{size / _median(base, 'bytes'):.2f}",
            )
        )
        rows.append((name, f"{seconds:.1f}", *to_base[:2], f"{size / 1e9:.2f}", to_base[2]))
    how = "XLA" if flags.xla else "no XLA"
    print(f"{flags.network}, batch of 4, {how}, {flags.rounds} rounds, {os.cpu_count()} CPUs")
    print(aligned(rows, text_columns=1))
    must = XLA_MUST if flags.xla else TIME_MUST
    print(f"must: granet {must} × or less in time, {MEMORY_MUST} × or less in peak memory")


def _median(rounds, key):
    return statistics.median(r[key] for r in rounds)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="transformer8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", default="dense,granet,gmp,tfmot")
    parser.add_argument("--xla", action="store_true", help="compile the step with XLA")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
