"""What one mask update costs at the size of ResNet-50, and what it would cost by sorting.

Measured is `GraNet.update_masks` where pruning (all 54 kernels together, 25,502,912 weights) and
regeneration (each kernel for itself) are both due, as one tf.function, and the same update done
with `tf.math.top_k` over all elements of what is ranked, which is how tfmot finds a threshold. One
plain pass, `tf.reduce_sum` of every kernel, is the yardstick. The masks of both must be equal.

Three updates are measured: the first, of dense masks, and one in the middle of the pruning phase,
as mask-only training meets it, where dormant weights keep their values and are ranked too (what
tfmot does), and as weight-zeroing training does, where their scores are all alike and are sorted in
less time. The multiple must be met where every value is ranked.

"Extra memory" is what a process grows by at most in its first update, results included, less what
one grows by whose tensors are tiny, as tracing takes memory too (Linux only). A thread looks at it
all the time.

    python benchmarks/mask_update.py [--rounds=2] [--no-xla] [--no-memory]

About six minutes on two cores, most of them for top_k and XLA's compiler.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common import interleaved, ratios

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import keras
    import numpy as np
    import tensorflow as tf

    import granet_tf
    from granet_tf.masks.counts import keep_count
    from granet_tf.masks.selection import count, select
    from granet_tf.reports.table import aligned

MUST = 30  # Times faster than top_k.
OURS, XLA, TOP_K, PASS = "GraNet.update_masks", "GraNet.update_masks, XLA", "top_k", "one pass"

# The paper's frequency for ImageNet; half of training prunes.
METHOD = granet_tf.GraNet(0.9, end_step=200_000, frequency=4000, total_steps=400_000)


class State(NamedTuple):
    """What an update finds: after how many steps, and whether dormant weights keep their values."""

    step: int
    mask_only: bool


STATES = State(METHOD.frequency, False), State(100_000, True), State(100_000, False)

_TINY = 16  # Every dimension is divided by this.

Tensors = list[tf.Tensor]


def resnet50_kernels() -> list[tuple[int, ...]]:
    """Shapes of the 54 kernels of ResNet-50."""
    shapes: list[tuple[int, ...]] = [(7, 7, 3, 64)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(1, 1, channels, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            shapes += [(1, 1, channels, 4 * width)] if block == 0 else []
            channels = 4 * width
    return [*shapes, (2048, 1000)]


def problem(
    state: State, distinct: bool = True, shrink: int = 1
) -> tuple[Tensors, Tensors, Tensors]:
    """Weights, masks and gradients as the last update left them."""
    shapes = [tuple(-(-n // shrink) for n in shape) for shape in resnet50_kernels()]
    rng = np.random.default_rng(0)
    weights, gradients = (
        [rng.standard_normal(s, np.float32) * np.sqrt(2 / np.prod(s[:-1])) for s in shapes]
        for _ in range(2)
    )
    if distinct:
        weights, gradients = _distinct(weights), _distinct(gradients)
    weights = [tf.constant(w, tf.float32) for w in weights]
    gradients = [tf.constant(g, tf.float32) for g in gradients]
    size = sum(w.shape.num_elements() for w in weights)
    kept = keep_count(size, METHOD.make_schedule().exact_sparsity(state.step - METHOD.frequency))
    masks = select([tf.abs(w) for w in weights], [tf.ones_like(w, tf.bool) for w in weights], kept)
    if not state.mask_only:
        weights = [tf.where(m, w, 0.0) for m, w in zip(masks, weights, strict=True)]
    return weights, masks, gradients


def _distinct(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Moves tied magnitudes to the next free float: a threshold then cuts at an exact count."""
    flat = np.concatenate([a.ravel() for a in arrays]).astype(np.float32)
    order = np.argsort(np.abs(flat))
    ranks = np.arange(flat.size, dtype=np.int64)
    bits = np.maximum(np.abs(flat[order]).view(np.int32), 1)
    bits = np.maximum.accumulate(bits - ranks) + ranks
    flat[order] = np.copysign(bits.astype(np.int32).view(np.float32), flat[order])
    ends = np.cumsum([a.size for a in arrays])[:-1]
    return [part.reshape(a.shape) for part, a in zip(np.split(flat, ends), arrays, strict=True)]


def ours(
    mask_only: bool, step: tf.Tensor, weights: Tensors, masks: Tensors, gradients: Tensors
) -> tuple[Tensors, Tensors]:
    paths = [f"kernel_{i}" for i in range(len(weights))]
    return METHOD.update_masks(step, paths, weights, masks, gradients, dormant_compete=mask_only)


def by_sorting(
    mask_only: bool, step: tf.Tensor, weights: Tensors, masks: Tensors, gradients: Tensors
) -> tuple[Tensors, Tensors]:
    """The same update; every threshold is the k-th value of a sort of all elements."""
    schedule = METHOD.make_schedule()
    _, drop_fraction = schedule.regenerate(step)
    scores = [tf.abs(w) for w in weights]
    if not mask_only:
        scores = [tf.where(m, s, -1.0) for s, m in zip(scores, masks, strict=True)]
    sizes = [s.shape.num_elements() for s in scores]
    everything = tf.concat([tf.reshape(s, [-1]) for s in scores], 0)
    keep = _top_k_mask(everything, keep_count(sum(sizes), schedule.exact_sparsity(step)))
    parts = tf.split(keep, sizes)
    new_masks, survivors = [], []
    for score, mask, gradient, part in zip(scores, masks, gradients, parts, strict=True):
        active = tf.reshape(part, score.shape)
        alive = count(active)
        share = tf.math.ceil(drop_fraction * tf.cast(alive, tf.float64) - 1e-9)
        dropped = tf.cast(share, tf.int64)
        kept = _top_k_mask(tf.where(active, score, -1.0), alive - dropped)
        new = kept | _top_k_mask(tf.where(kept, -1.0, tf.abs(gradient)), dropped)
        new_masks.append(new)
        survivors.append(new & active & mask)
    return new_masks, survivors


def _top_k_mask(score, k):
    values, _ = tf.math.top_k(tf.reshape(score, [-1]), k=score.shape.num_elements())
    return score >= tf.gather(values, tf.maximum(k - 1, 0))


def one_pass(
    mask_only: bool, step: tf.Tensor, weights: Tensors, masks: Tensors, gradients: Tensors
) -> tf.Tensor:
    return tf.add_n([tf.reduce_sum(w) for w in weights])


FUNCTIONS: dict[str, Callable] = {
    OURS: tf.function(ours),
    XLA: tf.function(ours, jit_compile=True),
    TOP_K: tf.function(by_sorting),
    PASS: tf.function(one_pass),
}


def main() -> None:
    flags = _flags()
    if flags.memory_of:
        print(json.dumps(extra_memory(flags.memory_of, STATES[-1], flags.shrink)))
        return
    names = [name for name in FUNCTIONS if flags.xla or name != XLA]
    memory = {name: _extra_memory_of(name) for name in names if flags.memory and name != PASS}
    shapes = resnet50_kernels()
    size = sum(math.prod(shape) for shape in shapes)
    print(f"ResNet-50, {size:,} weights in {len(shapes)} kernels, {os.cpu_count()} CPUs")
    print(f"weights {4 * size / 2**20:.0f} MiB, masks {size / 2**20:.0f} MiB")
    for state in STATES:
        measure(state, names, memory, flags)
    print(f"\nstate beyond dense training: {state_bytes():.2f} bytes a weight")


def measure(
    state: State, names: list[str], memory: dict[str, int], flags: argparse.Namespace
) -> None:
    """Checks that all variants agree in this state, times them and prints a table."""
    arguments = _arguments(state)
    first, masks = {}, {}
    for name in names:
        start = time.perf_counter()
        results = FUNCTIONS[name](*arguments)
        first[name] = time.perf_counter() - start
        if name != PASS:
            masks[name] = results
    for name, results in masks.items():
        _check_equal(name, results, masks[TOP_K])
    before, after = (
        1.0 - sum(int(count(m)) for m in kept) / sum(m.shape.num_elements() for m in kept)
        for kept in (arguments[3], masks[TOP_K][0])
    )
    del masks, results

    taken = interleaved(
        {name: lambda name=name: FUNCTIONS[name](*arguments) for name in names},
        flags.rounds,
        # As long in all as a call of top_k, so that both meet the same disturbance.
        {name: 1 if name == TOP_K else flags.calls for name in names},
    )
    wall = {name: [t.wall for t in taken[name]] for name in names}
    rows = [("", "ms", "CPU ms", "top_k takes", "in plain passes", "extra memory", "first call")]
    for name in names:
        rows.append(
            (
                name,
                f"{1e3 * statistics.median(wall[name]):,.1f}",
                f"{1e3 * statistics.median(t.cpu for t in taken[name]):,.1f}",
                f"{_middle(wall[TOP_K], wall[name]):,.1f} ×",
                f"{_middle(wall[name], wall[PASS]):,.0f}",
                f"{memory[name] / 2**20:,.0f} MiB" if name in memory else "",
                f"{first[name]:.1f} s",
            )
        )
    semantics = "mask-only" if state.mask_only else "weight-zeroing"
    print(
        f"\nstep {state.step}, {semantics}: sparsity {before:.3f} -> {after:.3f}; masks are equal"
    )
    print(aligned(rows, text_columns=1))
    multiple = _middle(wall[TOP_K], wall[OURS])
    verdict = f"{multiple:.1f} × faster than top_k"
    if state.mask_only or not before:
        verdict += f", must be {MUST} × or more: {'met' if multiple >= MUST else 'MISSED'}"
    print(verdict, flush=True)


def _arguments(state, **options):
    return state.mask_only, tf.constant(state.step, tf.int64), *problem(state, **options)


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    yes_or_no = argparse.BooleanOptionalAction
    parser.add_argument("--rounds", type=int, default=2, help="calls of top_k")
    parser.add_argument("--calls", type=int, default=15, help="calls of the others in a round")
    parser.add_argument("--xla", action=yes_or_no, default=True)
    parser.add_argument("--memory", action=yes_or_no, default=True)
    parser.add_argument("--memory_of", choices=FUNCTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--shrink", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def _middle(seconds, base) -> float:
    return statistics.median(ratios(seconds, base))


def _check_equal(name, results, expected):
    for kind, got, want in zip(("masks", "survivors"), results, expected, strict=True):
        counts = [[int(count(m)) for m in masks] for masks in (got, want)]
        if counts[0] != counts[1]:
            raise AssertionError(f"{name}: {kind} have {counts[0]} entries, not {counts[1]}")
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b, f"{name}: {kind}")


def extra_memory(name: str, state: State, shrink: int) -> int:
    """Bytes that the first update adds at its peak to what is there before it."""
    arguments = _arguments(state, distinct=False, shrink=shrink)
    ctypes.CDLL(None).malloc_trim(0)  # What is free but kept would be used again unseen.
    before, seen, done = _resident(), [], threading.Event()

    def watch():
        while not done.is_set():
            seen.append(_resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    FUNCTIONS[name](*arguments)
    done.set()
    watcher.join()
    return max(seen) - before


def _resident():
    """Bytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _extra_memory_of(name: str) -> int:
    """That of an update beyond that of tracing it, which an update of tiny tensors shows."""
    real, tiny = (_in_subprocess(name, shrink) for shrink in (1, _TINY))
    return real - tiny


def _in_subprocess(name: str, shrink: int) -> int:
    command = [sys.executable, __file__, *sys.argv[1:], f"--memory_of={name}", f"--shrink={shrink}"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def state_bytes() -> float:
    """Bytes that masks and optimizer keep for each weight beyond the dense training's."""
    dense, sparse = (
        keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000, use_bias=False)])
        for _ in range(2)
    )
    size = dense.count_params()
    sparse = granet_tf.wrap(sparse, METHOD)
    for model in (dense, sparse):
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        model.optimizer.build(model.trainable_variables)
    totals = [
        sum(v.value.dtype.size * max(v.shape.num_elements(), 1) for v in _state(model))
        for model in (dense, sparse)
    ]
    return (totals[1] - totals[0]) / size


def _state(model):
    return [*model.variables, *model.optimizer.variables]


if __name__ == "__main__":
    main()
