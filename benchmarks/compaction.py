"""What compaction takes off two networks of the paper: parameters, FLOPs, latency, file size.

VGG-19 is trained for some steps with GraNet to 98 % zeros, ranked globally, which empties filters.
ResNet-20 has half of the filters of each convolution pruned, drawn at random, and random
normalisation, so that dead filters have constants as after training. Both are measured as they are
and compacted, in one process and taking turns, at a batch of one. A latency is the median over
rounds, next to the middle half of the ratios within rounds.

    python benchmarks/compaction.py [--data_dir=DIR] [--steps=1000] [--width=0.125] [--vgg19=FILE]

With `--data_dir`, VGG-19 learns CIFAR-10 as tensorflow_datasets has prepared it there; without,
random images, which says less. `--vgg19` takes a trained `.keras` file instead. Some minutes on two
cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

from common import interleaved, middle_half, ratios

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import keras
    import numpy as np
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    import granet_tf
    from granet_tf.reports.table import aligned
    from granet_train.networks.resnet import resnet20
    from granet_train.networks.vgg import vgg19

SHAPE = (32, 32, 3)


def trained_vgg19(flags: argparse.Namespace) -> keras.Model:
    """VGG-19 with 98 % zeros."""
    if flags.vgg19:
        return keras.models.load_model(flags.vgg19)
    model = granet_tf.wrap(vgg19(SHAPE, 10, flags.width), granet_tf.GraNet(0.98))
    # Ten times the paper's decay, as training is so much shorter.
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-3)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that are emptied: that is what is asked for
        model.fit(_batches(flags.data_dir), steps_per_epoch=flags.steps, verbose=2)
    return model


def _batches(data_dir: str | None) -> tf.data.Dataset:
    if data_dir:
        import tensorflow_datasets as tfds

        data = tfds.load("cifar10", split="train", data_dir=data_dir, download=False)
        data = data.map(lambda each: (tf.cast(each["image"], "float32") / 64 - 2, each["label"]))
        return data.cache().shuffle(4096, seed=0).repeat().batch(64).prefetch(4)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(512, *SHAPE)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((images, np.arange(512) % 10)).repeat().batch(64)


def pruned_resnet20(flags: argparse.Namespace) -> keras.Model:
    """ResNet-20 without half of the filters of each convolution."""
    model = resnet20(SHAPE, 10)
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("beta", "moving_mean"):
            variable.assign(rng.normal(scale=0.2, size=variable.shape))
    filters = granet_tf.StaticSparse(0.5, pattern=granet_tf.Filter(), distribution="uniform")
    return granet_tf.wrap(model, filters, prunable=["stem/*", "*_conv?/*", "*_shortcut/*"])


NETWORKS: dict[str, Callable[[argparse.Namespace], keras.Model]] = {
    "VGG-19, 98 % global": trained_vgg19,
    "ResNet-20, filters 50 %": pruned_resnet20,
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model: its size, and functions that run it once."""

    parameters: int
    flops: int
    file: int
    keras: Callable[[], Any]
    litert: Callable[[], Any]


def prepared(model: keras.Model, folder: str, name: str, image: np.ndarray) -> Measured:
    inner = getattr(model, "model", model)
    path = os.path.join(folder, f"{name}.tflite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing is sparse in a compact model
        report = granet_tf.export_tflite(model, path)
    run = tf.function(lambda x: inner(x, training=False))
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    tensor = tf.constant(image)
    return Measured(
        inner.count_params(),
        granet_tf.count_flops(inner).dense,
        report.sparse_bytes,
        lambda: run(tensor).numpy(),
        interpreter.invoke,
    )


def compare(name: str, model: keras.Model, flags: argparse.Namespace) -> list[tuple[str, ...]]:
    """Rows of the table: before and after."""
    image = np.random.default_rng(1).normal(size=(1, *SHAPE)).astype("float32")
    small = granet_tf.compact(model)
    with tempfile.TemporaryDirectory() as folder:
        before = prepared(model, folder, "before", image)
        after = prepared(small, folder, "after", image)
    variants = {"before": before, "after": after}
    a, b = before.keras(), after.keras()
    times = {
        kind: interleaved(
            {each: getattr(v, kind) for each, v in variants.items()},
            flags.rounds,
            dict.fromkeys(variants, 5),
        )
        for kind in ("keras", "litert")
    }
    rows = []
    for each, v in variants.items():
        row = [f"{name}, {each}", f"{v.parameters:,}", f"{v.flops / 1e6:,.1f}", f"{v.file:,}"]
        for runs in times.values():
            wall = [s.wall for s in runs[each]]
            of_before = ratios(wall, [s.wall for s in runs["before"]])
            row += [f"{1e3 * statistics.median(wall):.2f}"]
            row += ["" if v is before else middle_half(of_before)]
        row.append("" if v is before else f"{abs(a - b).max() / abs(a).max():.0e}")
        rows.append(tuple(row))
    return rows


HEADER = (
    *("", "parameters", "MFLOPs", ".tflite bytes"),
    *("Keras ms", "to before", "LiteRT ms", "to before", "difference"),
)


def main() -> None:
    flags = _flags()
    rows = [HEADER]
    for name, network in NETWORKS.items():
        rows += compare(name, network(flags), flags)
    print(f"batch of 1, {os.cpu_count()} CPUs, LiteRT on one thread")
    print(aligned(rows, text_columns=1))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="where tensorflow_datasets has CIFAR-10")
    parser.add_argument("--vgg19", help="a trained .keras file, in place of training here")
    parser.add_argument("--steps", type=int, default=1000, help="of training VGG-19")
    parser.add_argument("--width", type=float, default=0.125, help="of VGG-19's layers")
    parser.add_argument("--rounds", type=int, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    main()
