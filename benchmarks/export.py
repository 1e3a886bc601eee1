"""What export gains: bytes of MobileNet at 90 % sparsity, latency of dense layers with blocks.

MobileNet (v1, ImageNet's size) has random weights pruned by magnitude, 90 % in each layer that may
be pruned. Each format is written densely and with the smaller encoding of each tensor, both also
gzipped, run in LiteRT and compared with Keras; the pattern of zeros is read back from the file and
compared with Keras's kernels.

The dense layers have random weights of which 90 % of the blocks of 4 inputs are zero. Latencies are
of one sample on one thread under LiteRT's default delegate, dense and sparse file in turns; a ratio
is of the medians, next to it the middle half of the ratios round by round.

    python benchmarks/export.py [--sparsity=0.9] [--rounds=30] [--image_size=224]

About three minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import interleaved, middle_half, ratios

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import keras
    import numpy as np

    import granet_tf
    from granet_tf.export import encoding, read_weights
    from granet_tf.export.conversion import convert
    from granet_tf.export.formats import FORMATS
    from granet_tf.export.layers import matched
    from granet_tf.export.running import Runner
    from granet_tf.export.samples import Inputs
    from granet_tf.reports.table import aligned
    from granet_train import models

SMALLER, FASTER = 6.0, 4.0  # What must be reached in float32.
# (units, layers, format, inputs of a block); the last column of the table is for FASTER.
NETWORKS = (
    (512, 3, "float32", 4),
    (1024, 3, "float32", 4),
    (2048, 1, "float32", 4),
    (2048, 3, "float32", 4),
    (4096, 2, "float32", 4),
    (2048, 3, "float32", 1),
    (2048, 3, "dynamic_range", 16),
)
MUST_BE_FASTER = (2048, 3, "float32", 4)


def pruned_by_magnitude(model: Any, sparsity: float) -> Any:
    """Zeros in each weight that may be pruned; the largest stay."""
    paths = {row.path for row in granet_tf.summarize(model).rows if row.pruned}
    for variable in model.variables:
        if variable.path in paths:
            values = keras.ops.convert_to_numpy(variable)
            zeros = round(sparsity * values.size)
            threshold = np.partition(np.abs(values), zeros, axis=None)[zeros]
            variable.assign(np.where(np.abs(values) >= threshold, values, 0))
    return model


def sizes(flags: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A line for each format."""
    shape = (flags.image_size, flags.image_size, 3)
    keras.utils.set_random_seed(0)
    model = pruned_by_magnitude(models.make("mobilenet_v1", shape, 1000), flags.sparsity)
    images = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    first = None
    for name in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.tflite")
            dense, report = (
                granet_tf.export_tflite(
                    model,
                    path,
                    format=name,
                    encoding=encoded,
                    representative_data=images,
                    sample_inputs=images,
                )
                for encoded in ("dense", "auto")
            )
            matches = matched(model, read_weights(path))
        first = first or report
        found = [match for match in matches if match.variable is not None]
        yield (
            name,
            f"{report.raw_bytes:,}",
            f"{report.sparse_bytes:,}",
            f"{report.raw_bytes / report.sparse_bytes:.2f}",
            f"{first.raw_bytes / report.sparse_bytes:.2f}",
            f"{dense.gzip_bytes:,}",
            f"{report.gzip_bytes:,}",
            f"{len(found)}/{len(matches)}",
            str(sum(match.added for match in matches)),
            f"{sum(match.rounded_to_zero for match in matches):,}",
            f"{report.max_error:.1e}",
        )


def latencies(flags: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """A line for each network."""
    rng = np.random.default_rng(0)
    for units, depth, name, block in NETWORKS:
        layers = [keras.layers.Dense(units, "relu") for _ in range(depth)]
        model = keras.Sequential([keras.Input((units,), name="x"), *layers])
        for layer in layers:
            kept = rng.random((units // block, units)) >= flags.sparsity
            layer.kernel.assign(layer.kernel * np.repeat(kept, block, axis=0))
        with without_notes():
            dense = convert(model, Inputs(model), FORMATS[name])
            sparse = encoding.encode_file(dense, "auto")
            runners = {"dense": Runner(dense), "sparse": Runner(sparse)}
            feed = {"x": rng.normal(size=(1, units)).astype("float32")}
            for runner in runners.values():
                runner(feed)
        taken = interleaved(
            {key: runner.invoke for key, runner in runners.items()},
            flags.rounds,
            dict.fromkeys(runners, 20),
        )
        walls = {key: [each.wall for each in times] for key, times in taken.items()}
        medians = {key: 1e3 * statistics.median(times) for key, times in walls.items()}
        yield (
            f"{depth} × {units}",
            name,
            f"({block}, 1)",
            f"{len(dense):,}",
            f"{len(sparse):,}",
            f"{medians['dense']:.3f}",
            f"{medians['sparse']:.3f}",
            f"{medians['dense'] / medians['sparse']:.2f}",
            middle_half(ratios(walls["dense"], walls["sparse"])),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--image_size", type=int, default=224)
    flags = parser.parse_args()

    head = ("format", "dense bytes", "sparse", "ratio", "to float32", "dense gzip", "sparse gzip")
    lines = list(sizes(flags))
    print(
        f"MobileNet at {flags.sparsity:.0%}; kernels found in the file, zeros that are none there"
    )
    head = (*head, "found", "added", "rounded to 0", "max error")
    print(aligned([head, *lines], text_columns=1))
    smaller, exact = float(lines[0][3]), lines[0][8:10] == ("0", "0")
    verdict = "met" if smaller >= SMALLER and exact else "MISSED"
    print(f"{verdict}: {smaller:.2f} times smaller, must be {SMALLER:g}, pattern exact: {exact}\n")

    head = ("layers", "format", "block", "dense bytes", "sparse", "dense ms", "sparse ms", "ratio")
    lines = list(latencies(flags))
    print(f"Dense layers at {flags.sparsity:.0%}, one sample, one thread")
    print(aligned([(*head, "middle half"), *lines], text_columns=3))
    faster = float(lines[NETWORKS.index(MUST_BE_FASTER)][7])
    verdict = "met" if faster >= FASTER else "MISSED"
    print(
        f"{verdict}: 3 × 2048 with blocks of (4, 1) {faster:.2f} times faster, must be {FASTER:g}"
    )


if __name__ == "__main__":
    main()
