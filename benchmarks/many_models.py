"""What a search over many models keeps of each: memory that grows with every model that is made.

In a process of its own for each variant, 25 models are made, trained for two epochs, evaluated and
let go, as a search over hyperparameters does it, with `keras.backend.clear_session` between them.
Resident memory is read after each, once garbage is collected; the first five are left out, as what
is loaded once is loaded there.

    python benchmarks/many_models.py [--models=25] [--rounds=1]

Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
from pathlib import Path

import common  # noqa: F401  It quiets TensorFlow.

from granet_train.quiet_tensorflow import without_notes

MUST = 1.2
VARIANTS = ("dense", "granet")
_FIRST = 5


def resident() -> float:
    """MiB of this process."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096 / 2**20


def growth(variant: str, models: int) -> float:
    """MiB that each model leaves behind."""
    with without_notes():
        import keras
        import numpy as np

        import granet_tf

    layers = keras.layers
    x = np.random.default_rng(0).normal(size=(256, 8, 8, 1)).astype("float32")
    y = np.arange(256) % 10
    sizes = []
    for i in range(models):
        keras.backend.clear_session()
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(16, 3, activation="relu"),
                layers.Conv2D(32, 3, activation="relu"),
                layers.Flatten(),
                layers.Dense(64, activation="relu"),
                layers.Dense(10),
            ]
        )
        if variant == "granet":
            model = granet_tf.wrap(model, granet_tf.GraNet(0.5 + 0.4 * i / models, frequency=4))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        model.fit(x, y, batch_size=32, epochs=2, verbose=0)
        model.evaluate(x, y, verbose=0)
        del model
        gc.collect()
        sizes.append(resident())
    return (sizes[-1] - sizes[_FIRST - 1]) / (models - _FIRST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.variant:
        print(growth(flags.variant, flags.models))
        return
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(flags.rounds):
        for name in VARIANTS:
            command = [sys.executable, __file__, f"--models={flags.models}", f"--variant={name}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(float(done.stdout.splitlines()[-1]))
    dense, granet = (statistics.median(found[name]) for name in VARIANTS)
    print(f"MiB that each of {flags.models} models leaves: dense {dense:.2f}, GraNet {granet:.2f}")
    verdict = "met" if granet <= MUST * dense else "MISSED"
    print(f"{verdict}: {granet / dense:.2f} × plain Keras's, must be {MUST} × or less")


if __name__ == "__main__":
    main()
