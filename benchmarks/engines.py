"""Sparse files against the fastest dense engine: whole networks, and from which sparsity on.

Weights are drawn at random and pruned by magnitude, nothing is retrained: how fast a file is
depends on where its zeros are, not on what it computes. Each sparse file is compared with Keras.
The engines take turns within one run: LiteRT, and MNN and OpenVINO where they are installed.

    python benchmarks/engines.py [--networks=mobilenet:0.9,resnet50:0.95] [--threads=1]
    python benchmarks/engines.py --curve [--layers=conv1x1_256] [--sparsities=0.5,0.9]

Zeros are anywhere, and then in blocks of four outputs, as pattern="mnn" has them: --blocks=1,4.

Some minutes for the networks on two cores, and twenty for the curve.
"""

from __future__ import annotations

import argparse
import itertools
import warnings

import common  # noqa: F401  It quiets TensorFlow.

from granet_train.quiet_tensorflow import without_notes

NETWORKS = "mobilenet:0.9,resnet50:0.9,resnet50:0.95,resnet50:0.98"
MUST = {"mobilenet:0.9": 2.5, "resnet50:0.95": 1.5, "resnet50:0.98": 3.0}
SPARSITIES = "0.5,0.6,0.7,0.8,0.9,0.95,0.98,0.99"


def mobilenet(keras):
    return keras.applications.MobileNet(weights=None)


def resnet50(keras):
    return keras.applications.ResNet50(weights=None)


def _stack(shape, layer, number):
    def build(keras):
        parts = [layer(keras.layers) for _ in range(number)]
        return keras.Sequential([keras.Input(shape), *parts])

    return build


LAYERS = {
    "conv1x1_64": _stack((56, 56, 64), lambda layers: layers.Conv2D(64, 1), 4),
    "conv1x1_256": _stack((14, 14, 256), lambda layers: layers.Conv2D(256, 1), 4),
    "conv1x1_512": _stack((14, 14, 512), lambda layers: layers.Conv2D(512, 1), 4),
    "conv3x3_64": _stack((56, 56, 64), lambda layers: layers.Conv2D(64, 3, padding="same"), 2),
    "conv3x3_128": _stack((28, 28, 128), lambda layers: layers.Conv2D(128, 3, padding="same"), 2),
    "conv3x3_256": _stack((14, 14, 256), lambda layers: layers.Conv2D(256, 3, padding="same"), 2),
    "strides_128": _stack((56, 56, 128), lambda layers: layers.Conv2D(128, 3, strides=2), 1),
    "strides_256": _stack((28, 28, 256), lambda layers: layers.Conv2D(256, 3, strides=2), 1),
    "dense_512": _stack((512,), lambda layers: layers.Dense(512), 4),
    "dense_2048": _stack((2048,), lambda layers: layers.Dense(2048), 3),
}


def pruned(model, sparsity: float, block: int = 1):
    """The same with the smallest weights of each kernel zero, or blocks of outputs."""
    import numpy as np

    for weight in model.trainable_weights:
        if len(weight.shape) > 1 and "depthwise" not in weight.path:
            values = weight.numpy()
            rows = np.abs(values).reshape(-1, values.shape[-1])
            rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % block)])
            sums = rows.reshape(len(rows), -1, block).sum(-1)
            active = np.repeat(sums > np.quantile(sums, sparsity), block, 1)
            weight.assign(values * active[:, : values.shape[-1]].reshape(values.shape))
    return model


def compared(build, sparsity: float, block: int, flags, threads: list[int]):
    """The engines on one network at one sparsity."""
    with without_notes(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
        import numpy as np

        import granet_tf

        keras.utils.set_random_seed(0)
        model = pruned(build(keras), sparsity, block)
        shape = model.input_shape[1:]
        sample = np.random.default_rng(0).normal(size=(1, *shape)).astype("float32")
        found = granet_tf.compare_engines(
            model, sample_inputs=sample, threads=threads, seconds=flags.seconds
        )
        keras.backend.clear_session()
    return found


def _networks(flags) -> None:
    builders = {"mobilenet": mobilenet, "resnet50": resnet50}
    for case, block in itertools.product(flags.networks.split(","), flags.blocks):
        name, _, sparsity = case.partition(":")
        found = compared(builders[name], float(sparsity), block, flags, flags.threads)
        must = f" (must: {MUST[case]})" if case in MUST else ""
        print(f"\n{name}, {float(sparsity):.0%} of each kernel zero{_how(block)}{must}\n{found}")
        for threads in found.threads:
            print(f"Of the fastest runs with {threads}: {_of_fastest(found, threads)}", flush=True)


def _how(block: int) -> str:
    return "" if block == 1 else f", in blocks of {block} outputs"


def _of_fastest(found, threads: int) -> str:
    """The same of the least times, which what else the machine does slows down least."""
    least = {
        weights: min(
            (row.latency.fastest, row.engine)
            for row in found.rows
            if (row.threads, row.weights) == (threads, weights)
        )
        for weights in ("dense", "sparse")
    }
    (dense, one), (sparse, other) = least["dense"], least["sparse"]
    return f"{dense / sparse:.2f} ({one} {dense:.3g} ms, {other} {sparse:.3g} ms)"


def _curve(flags) -> None:
    from granet_tf.reports.table import aligned

    head = ("layers", "sparsity", "block", "best dense", "ms", "best sparse", "ms", "gain")
    table = [(*head, "MNN's own")]
    sparsities = [float(text) for text in flags.sparsities.split(",")]
    for name, block, sparsity in itertools.product(
        flags.layers.split(","), flags.blocks, sparsities
    ):
        found = compared(LAYERS[name], sparsity, block, flags, flags.threads[:1])
        [threads] = found.threads
        dense, sparse = (found.best(threads, weights) for weights in ("dense", "sparse"))
        table.append(
            (
                name,
                f"{sparsity:.2f}",
                str(block),
                dense.engine,
                f"{dense.latency.median:.3f}",
                sparse.engine,
                f"{sparse.latency.median:.3f}",
                f"{found.gain(threads):.2f}",
                _own_gain(found, threads),
            )
        )
        print(*table[-1], flush=True)
    print(f"\n{found.machine}, {threads} thread{'s' if threads > 1 else ''}")
    print(aligned(table, text_columns=3))


def _own_gain(found, threads: int) -> str:
    """How many times faster MNN's sparse kernels are than its own dense ones, of fastest runs."""
    dense, sparse = (found.by_file.get(("MNN", weights)) for weights in ("dense", "sparse"))
    return f"{dense[threads].fastest / sparse[threads].fastest:.2f}" if dense and sparse else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--layers", default=",".join(LAYERS))
    parser.add_argument("--sparsities", default=SPARSITIES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--blocks",
        type=lambda text: [int(size) for size in text.split(",")],
        default=[1, 4],
        help="numbers of outputs that share their zeros, 1 for zeros anywhere",
    )
    parser.add_argument("--seconds", type=float, default=6.0)
    flags = parser.parse_args()
    (_curve if flags.curve else _networks)(flags)


if __name__ == "__main__":
    main()
