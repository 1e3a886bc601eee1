"""What removing half of the channels saves: parameters, FLOPs, training step, latency.

Half of the filters of each layer are pruned, drawn at random: with coupled filters, and without for
comparison. Then ResNet-20 and ResNet-50 for CIFAR are compacted. Training steps are those of the
network with its masks, of the same after `SparseModel.shrink`, and of a dense network half as wide;
they and latencies in LiteRT take turns within one run. The numbers are medians over rounds, next to
the middle half of the ratios within rounds.

    python benchmarks/shrink.py [--networks=resnet20,resnet50_cifar] [--batch=128] [--rounds=7]

Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings

from common import interleaved, middle_half, ratios

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import keras
    import numpy as np
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    import granet_tf
    from granet_tf.reports.table import aligned
    from granet_train import models

SHAPE = (32, 32, 3)
NETWORKS = "resnet20,resnet50_cifar"
MUST = "at most 0.30 of parameters and FLOPs; resnet20: a step at least 1.8 times as fast"


def pruned(network: str, *, coupled: bool) -> granet_tf.SparseModel:
    """A network of which half of the filters of each layer are pruned."""
    keras.utils.set_random_seed(0)
    model = models.make(network, SHAPE, 10)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("beta", "moving_mean"):  # As after training.
            variable.assign(rng.normal(scale=0.2, size=variable.shape))
    pattern = granet_tf.Filter(coupled=coupled)
    method = granet_tf.StaticSparse(0.5, pattern=pattern, distribution="uniform")
    return granet_tf.wrap(model, method)


def sizes(network: str) -> list[tuple[str, ...]]:
    """Rows of the first table: what is left of a network after `compact`."""
    rows = []
    for coupled in (False, True):
        model = pruned(network, coupled=coupled)
        dense = model.model
        before = dense.count_params(), granet_tf.count_flops(dense).dense
        small = granet_tf.compact(model)
        after = small.count_params(), granet_tf.count_flops(small).dense
        image = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype("float32")
        with granet_tf.wrapping.stripping.masked_weights(model) as plain:
            a, b = (m(image, training=False).numpy() for m in (plain, small))
        left = sum(each.channels for each in granet_tf.compaction.explain(small).left)
        kind = "coupled filters" if coupled else "filters"
        of_before = [f"{y / x:.2f}" for x, y in zip(before, after, strict=True)]
        difference = f"{abs(a - b).max() / abs(a).max():.0e}"
        rows.append((f"{network}, {kind}", f"{after[0]:,}", *of_before, str(left), difference))
    return rows


def training_step(model: keras.Model, batch: int):
    """A function that makes a compiled step of training."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(batch, *SHAPE)), tf.float32)
    y = tf.constant(rng.integers(0, 10, batch))
    return lambda: float(model.train_on_batch(x, y))


def inference(model: keras.Model, folder: str, name: str):
    """A function that runs the model in LiteRT, one image and one thread."""
    path = os.path.join(folder, f"{name}.tflite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing is sparse in a dense model
        granet_tf.export_tflite(model, path)
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    image = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    return interpreter.invoke


def speeds(network: str, flags: argparse.Namespace) -> list[tuple[str, ...]]:
    """Rows of the second table."""
    large, small = (pruned(network, coupled=True) for _ in range(2))
    steps = {"with masks": training_step(large, flags.batch)}
    steps["shrunk"] = training_step(small, flags.batch)
    small.shrink()
    half = models.make(network, SHAPE, 10, 0.5)
    steps["half as wide, dense"] = training_step(half, flags.batch)
    for step in steps.values():
        step()
    taken = {"step": interleaved(steps, flags.rounds)}
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: inference(model, folder, str(i))
            for i, (name, model) in enumerate(
                zip(steps, (models.make(network, SHAPE, 10), small, half), strict=True)
            )
        }
        taken["latency"] = interleaved(runs, 5 * flags.rounds, dict.fromkeys(runs, 3))
    rows = []
    for name in steps:
        row = [f"{network}, {name}"]
        for times in taken.values():
            wall = [s.wall for s in times[name]]
            gain = ratios([s.wall for s in times["with masks"]], wall)
            row += [f"{1e3 * statistics.median(wall):.1f}"]
            row += [f"{statistics.median(gain):.2f} ({middle_half(gain)})"]
        rows.append(tuple(row))
    return rows


def main() -> None:
    flags = _flags()
    networks = flags.networks.split(",")
    print(f"{os.cpu_count()} CPUs, batch of {flags.batch}, LiteRT on one thread. {MUST}\n")
    header = (
        "after compact",
        "parameters",
        "of before",
        "FLOPs",
        "dead channels left",
        "difference",
    )
    print(aligned([header, *(row for n in networks for row in sizes(n))], text_columns=1))
    header = ("training step, latency", "step ms", "times as fast", "LiteRT ms", "times as fast")
    print()
    print(aligned([header, *(row for n in networks for row in speeds(n, flags))], text_columns=1))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
