"""granet_tf's `prune_low_magnitude` against tfmot's: one network, one schedule, one run.

Both prune with the same polynomial schedule, each tensor for itself, and each is compared with its
own dense twin: dense Keras 3, dense tf_keras. Every part of a side is a process of its own, as
tfmot needs tf_keras, and as peak memory is a process's.

- Step and update: medians over rounds in which dense and pruned steps take turns.
- State: bytes of all variables beyond the dense twin's, for each weight of the network.
- Peak memory: the most that the process had resident, less its dense twin's (Linux only).
- Files: after training through the schedule and a few steps more; `.weights.h5`, and a
  `tf.train.Checkpoint` of model and optimizer. In the middle of an epoch, as a crash would leave
  them, and at its end, where tfmot's callback masks the weights. The `.tflite` files are stripped,
  after the end of the epoch, and sparsely encoded.
- Exactness: nonzero weights after stripping, and how many the schedule wants, tensor by tensor.

    python benchmarks/against_tfmot.py [--network=resnet20|cnn|mlp] [--batch_size=32] [--rounds=200]

Some minutes on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import importlib.util
import json
import logging
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from common import middle_half, ratios
from step_overhead import DUE, FREQUENCY, NETWORKS, SPARSITY, Variant, measure

from granet_train.quiet_tensorflow import without_notes

# Steps of the run whose files are measured; the last ones come after the schedule's end.
STEPS, END, EVERY = 30, 20, 5


@dataclasses.dataclass(frozen=True)
class Side:
    """What differs between the two libraries."""

    keras: ModuleType
    prune: Callable[[Any, Any], Any]
    schedule: Callable[..., Any]
    make_due: Callable[[Any], None]
    # What the end of an epoch does to the weights.
    end_epoch: Callable[[Any], None]
    strip: Callable[[Any], Any]
    tflite: Callable[[Any, str], None]


def ours() -> Side:
    with without_notes():
        import keras

        import granet_tf

    api = granet_tf.sparsity.keras
    return Side(
        keras=keras,
        prune=api.prune_low_magnitude,
        schedule=api.PolynomialDecay,
        make_due=lambda model: model.optimizer.iterations.assign(DUE - 1),
        end_epoch=lambda model: None,
        strip=api.strip_pruning,
        tflite=lambda model, path: granet_tf.export_tflite(model, path),
    )


def tfmot() -> Side:
    import tfmot_side

    def tflite(model, path):
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        pathlib.Path(path).write_bytes(converter.convert())

    return Side(
        keras=tfmot_side.keras,
        prune=tfmot_side.prune,
        schedule=tfmot_side.pruning.PolynomialDecay,
        make_due=lambda model: tfmot_side.set_step(model, DUE - 1),
        end_epoch=tfmot_side.mask_weights,
        strip=tfmot_side.pruning.strip_pruning,
        tflite=tflite,
    )


SIDES: dict[str, Callable[[], Side]] = {"ours": ours, "tfmot": tfmot}


def network(side: Side, flags: argparse.Namespace) -> Any:
    return NETWORKS[flags.network](side.keras)


# What is measured, each in a process of its own.


def times(side: Side, flags: argparse.Namespace) -> dict[str, float | str]:
    """Milliseconds and ratios of steps, and bytes kept."""
    rare = side.schedule(SPARSITY, SPARSITY, begin_step=DUE, end_step=2 * DUE, frequency=DUE)
    pruned = side.prune(network(side, flags), rare)
    measured = measure(
        {
            "dense": Variant(side.keras, network(side, flags), flags),
            "pruned": Variant(side.keras, pruned, flags, side.make_due),
        },
        flags,
    )
    dense, sparse = measured["dense"], measured["pruned"]
    wall, cpu = (
        ratios(*([getattr(s, clock) for s in t.steps] for t in (sparse, dense)))
        for clock in ("wall", "cpu")
    )
    step, dense_step = (statistics.median(s.wall for s in t.steps) for t in (sparse, dense))
    update = statistics.median(s.wall for s in sparse.updates) - step
    return {
        "dense_ms": 1e3 * dense_step,
        "wall": statistics.median(wall),
        "wall_half": middle_half(wall),
        "cpu": statistics.median(cpu),
        "update_ms": 1e3 * update,
        "with_updates": statistics.median(wall) + update / FREQUENCY / dense_step,
        "state": sparse.state,
    }


def memory(side: Side, flags: argparse.Namespace) -> dict[str, float]:
    """The most that this process has had resident, in MiB, of the dense twin or the pruned one."""
    model = network(side, flags)
    if flags.pruned:
        steps = {"begin_step": 0, "end_step": 4, "frequency": 2}
        model = side.prune(model, side.schedule(0.0, SPARSITY, **steps))
    variant = Variant(side.keras, model, flags)
    for _ in range(8):
        variant.step()
    # Linux counts in KiB.
    return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def files(side: Side, flags: argparse.Namespace) -> dict[str, float]:
    """Bytes of what is saved, and nonzero weights."""
    steps = {"begin_step": 0, "end_step": END, "frequency": EVERY}
    model = network(side, flags)
    if flags.pruned:
        model = side.prune(model, side.schedule(0.0, SPARSITY, **steps))
    variant = Variant(side.keras, model, flags)
    for _ in range(STEPS):
        variant.step()
    with tempfile.TemporaryDirectory() as folder:
        _save(model, folder, "amid")
        if flags.pruned:
            side.end_epoch(model)
        _save(model, folder, "end")
        stripped = side.strip(model) if flags.pruned else model
        with without_notes():
            side.tflite(stripped, f"{folder}/model.tflite")
        sizes = {
            name: _sizes(pathlib.Path(folder).glob(pattern))
            for name, pattern in (
                ("weights", "amid.weights.h5"),
                ("checkpoint", "amid_checkpoint*"),
                ("weights_end", "end.weights.h5"),
                ("checkpoint_end", "end_checkpoint*"),
                ("tflite", "model.tflite"),
            )
        }
    kernels = [w for w in map(np.asarray, stripped.get_weights()) if w.ndim > 1]
    wanted = sum(max(1, round(w.size * (1 - SPARSITY))) for w in kernels)
    return {
        **{name: raw for name, (raw, _) in sizes.items()},
        **{f"{name}_gzip": packed for name, (_, packed) in sizes.items()},
        "wanted": wanted,
        "got": sum(int(np.count_nonzero(w)) for w in kernels),
        "of": sum(w.size for w in kernels),
        "off": sum(
            abs(int(np.count_nonzero(w)) - max(1, round(w.size * (1 - SPARSITY)))) for w in kernels
        ),
    }


def _save(model, folder, name):
    import tensorflow as tf

    model.save_weights(f"{folder}/{name}.weights.h5")
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    checkpoint.write(f"{folder}/{name}_checkpoint")


def _sizes(paths):
    contents = [path.read_bytes() for path in paths]
    return sum(map(len, contents)), sum(len(gzip.compress(c)) for c in contents)


PARTS: dict[str, Callable] = {"times": times, "memory": memory, "files": files}


# The table.


@dataclasses.dataclass(frozen=True)
class Row:
    """One line: how to compute and to write a figure; less is better."""

    name: str
    figure: Callable[[dict], float]
    text: Callable[[float], str]


def _beyond(key: str) -> Callable[[dict], float]:
    """Against the dense twin of the same side."""
    return lambda seen: seen["pruned"][key] / seen["dense"][key]


def _bytes(name: str, key: str) -> list[Row]:
    return [
        Row(f"{name}, bytes", lambda seen: seen["pruned"][key], "{:,.0f}".format),
        Row("  to the dense one's", _beyond(key), "{:.3f}".format),
    ]


ROWS = [
    Row("step, to the dense step", lambda seen: seen["pruned"]["wall"], "{:.3f}".format),
    Row("  in CPU time", lambda seen: seen["pruned"]["cpu"], "{:.3f}".format),
    Row("mask update, ms", lambda seen: seen["pruned"]["update_ms"], "{:.1f}".format),
    Row(
        f"step with an update every {FREQUENCY}",
        lambda seen: seen["pruned"]["with_updates"],
        "{:.3f}".format,
    ),
    Row("state, bytes a weight", lambda seen: seen["pruned"]["state"], "{:.2f}".format),
    Row(
        "peak memory beyond dense, MiB",
        lambda seen: seen["pruned"]["peak"] - seen["dense"]["peak"],
        "{:.0f}".format,
    ),
    *_bytes("weights file", "weights"),
    *_bytes("weights file, gzip", "weights_gzip"),
    *_bytes("checkpoint", "checkpoint"),
    *_bytes("checkpoint, gzip", "checkpoint_gzip"),
    *_bytes("weights file at an epoch's end, gzip", "weights_end_gzip"),
    *_bytes("checkpoint at an epoch's end, gzip", "checkpoint_end_gzip"),
    *_bytes(".tflite, stripped", "tflite"),
    *_bytes(".tflite, gzip", "tflite_gzip"),
    Row(
        f"final sparsity, off {SPARSITY}",
        lambda seen: abs(1 - seen["pruned"]["got"] / seen["pruned"]["of"] - SPARSITY),
        "{:.6f}".format,
    ),
    Row("nonzeros too many or few", lambda seen: seen["pruned"]["off"], "{:,.0f}".format),
]
# What a figure must differ by to be better: files may vary by what their names take.
_TELLING = 0.01


def verdict(a: float, b: float) -> str:
    """Whether `a`, ours, is better than `b`.

    Example:

    >>> verdict(1.0, 2.0), verdict(1.0, 1.001), verdict(2.0, 1.0), verdict(0.0, 0.0)
    ('yes', 'alike', 'NO', 'alike')
    """
    if math.isclose(a, b, rel_tol=_TELLING, abs_tol=1e-6):
        return "alike"
    return "yes" if a < b else "NO"


def main() -> None:
    flags = _flags()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if flags.part:
        print(json.dumps(PARTS[flags.part](SIDES[flags.side](), flags)))
        return
    for module in ("tf_keras", "tensorflow_model_optimization"):
        if not importlib.util.find_spec(module):
            sys.exit(
                f"This benchmark needs {module}: pip install tf_keras tensorflow-model-optimization"
            )
    from granet_tf.reports.table import aligned

    seen = {side: {"dense": {}, "pruned": {}} for side in SIDES}
    for side in SIDES:
        seen[side]["pruned"] |= _in_subprocess("times", side, pruned=True)
        for kind, pruned in (("dense", False), ("pruned", True)):
            for part in ("memory", "files"):
                seen[side][kind] |= _in_subprocess(part, side, pruned=pruned)
    first, second = (seen[side] for side in SIDES)
    weights = first["pruned"]["of"]
    print(
        f"{flags.network}, {weights:,} prunable weights, {SPARSITY:.0%} sparse, batch of "
        f"{flags.batch_size}, {os.cpu_count()} CPUs"
    )
    rows = [("less is better", *SIDES, "better?")]
    for row in ROWS:
        a, b = row.figure(first), row.figure(second)
        rows.append((row.name, row.text(a), row.text(b), verdict(a, b)))
    print(aligned(rows, text_columns=1))
    for side, figures in seen.items():
        pruned = figures["pruned"]
        print(
            f"{side}: {pruned['got']:,} nonzeros, {pruned['wanted']:,} wanted; dense step "
            f"{pruned['dense_ms']:.1f} ms, middle half of the ratio {pruned['wall_half']}"
        )


def _in_subprocess(part: str, side: str, *, pruned: bool) -> dict:
    arguments = [f"--part={part}", f"--side={side}", *(["--pruned"] if pruned else [])]
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], *arguments],
        env={**os.environ, **({"TF_USE_LEGACY_KERAS": "1"} if side == "tfmot" else {})},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="resnet20")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=200, help="steps timed of each variant")
    parser.add_argument("--update_rounds", type=int, default=60, help="updates timed of each")
    parser.add_argument("--jit", action="store_true", help="compile the step with XLA")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--pruned", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
