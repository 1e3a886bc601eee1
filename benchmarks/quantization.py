"""What int8 costs in accuracy, with and without fine-tuning, and whether zeros are kept.

For each work directory of granet-train: test accuracy of its stripped model in float32; of the
int8 file made of it after training, from ranges of 256 training images; and of the int8 file after
some epochs of `granet_tf.fake_quantize`, beside what Keras computes of that. "zeros kept" is the
share of the weights that were 0 in the kernels before, and are 0 after fine-tuning and in the file.

    DIGITS="granet-train --flagfile=configs/digits_granet.flags --compare="
    for seed in 0 1 2; do $DIGITS --seed=$seed --workdir=work/q$seed; done
    python benchmarks/quantization.py work/q0 work/q1 work/q2

For CIFAR-10, the same with work directories of it, such as

    granet-train --dataset=cifar10 --model=resnet20 --method=granet --final_sparsity=0.9 \\
        --epochs=30 --weight_decay=5e-4 --seed=0 --workdir=work/c0
    python benchmarks/quantization.py work/c0 --epochs=3

A minute a directory for digits on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile

import common  # noqa: F401  # Quiets TensorFlow.

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import keras
    import numpy as np
    import tensorflow as tf

    import granet_tf
    from granet_tf.export import read_weights
    from granet_tf.reports.table import aligned
    from granet_train import data as data_sets
    from granet_train.data.first_images import first_images
    from granet_train.export_command import models


@dataclasses.dataclass(frozen=True)
class Row:
    """Of one model; accuracies in percent.

    Attributes:
        float32: As it was trained.
        after_training: Its int8 file, without fine-tuning.
        simulated: Fine-tuned, in Keras.
        int8: Fine-tuned, the file.
        kept: Zeros that are still there, in percent.
    """

    float32: float
    after_training: float
    simulated: float
    int8: float
    kept: float


def row_of(workdir: str, flags: argparse.Namespace) -> Row:
    """Fine-tunes and exports the model of one work directory."""
    with without_notes():
        found = models.load(workdir)
    settings, plain = found.settings, found.model
    data = data_sets.load(
        settings.dataset,
        batch_size=settings.batch_size,
        seed=settings.seed,
        data_dir=settings.data_dir,
        augment=settings.augment,
    )
    images, labels = first_images(data, data.sizes["test"])
    batches = [data.train(epoch, 0, tf.distribute.InputContext()) for epoch in range(flags.epochs)]
    some = np.concatenate([x.numpy() for x, _ in batches[0].take(-(-256 // settings.batch_size))])
    samples = {"sample_inputs": images, "labels": labels, "format": "int8"}
    zeros = [v.numpy() == 0 for v in _kernels(plain)]
    with tempfile.TemporaryDirectory() as folder, without_notes():
        file = os.path.join(folder, "model.tflite")
        first = granet_tf.export_tflite(plain, file, representative_data=some, **samples)
        model = granet_tf.fake_quantize(plain, representative_data=some)
        _fit(model, batches, data.steps_per_epoch, flags.learning_rate)
        second = granet_tf.export_tflite(model, file, **samples)
        stored = [w.values for w in read_weights(file)]
    kept = sum(
        int(np.sum((kernel.numpy() == 0) & was & (_in_file(stored, kernel.shape) == 0)))
        for kernel, was in zip(_kernels(plain), zeros, strict=True)
    )
    return Row(
        100 * first.accuracy_keras,
        100 * first.accuracy_file,
        100 * second.accuracy_keras,
        100 * second.accuracy_file,
        100 * kept / sum(int(was.sum()) for was in zeros),
    )


def _kernels(model):
    return [v for v in model.trainable_variables if v.name == "kernel"]


def _in_file(stored, shape):
    """A kernel as the file has it, in Keras's layout; the first that fits, each once."""
    as_stored = (shape[-1], *shape[:-1])
    index = next(i for i, values in enumerate(stored) if values.shape == as_stored)
    return np.moveaxis(stored.pop(index), 0, -1)


def _fit(model, batches, steps, learning_rate):
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps * len(batches))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, nesterov=True), loss)
    for epoch in batches:
        model.fit(epoch, shuffle=False, verbose=0)  # It is shuffled.


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdirs", nargs="+")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning_rate", type=float, default=5e-3)
    flags = parser.parse_args()
    names = [field.name for field in dataclasses.fields(Row)]
    rows = [dataclasses.astuple(row_of(workdir, flags)) for workdir in flags.workdirs]
    mean = tuple(map(statistics.mean, zip(*rows, strict=True)))
    table = [("model", "float32", "int8, as trained", "fine-tuned, in Keras", "int8", "zeros kept")]
    table += [
        (name, *(f"{value:.2f}" for value in row))
        for name, row in zip([*flags.workdirs, "mean"], [*rows, mean], strict=True)
    ]
    assert len(table[0]) == len(names) + 1
    print(aligned(table, text_columns=1))


if __name__ == "__main__":
    main()
