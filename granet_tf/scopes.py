"""Pruning to an overall sparsity: across all tensors, or each tensor for itself.

Pins and caps are obeyed in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import tensorflow as tf

from granet_tf.selection import count, rank, top


def keep_count(size: int, sparsity: float | tf.Tensor) -> tf.Tensor:
    """k = max(1, round_half_even(size · (1 − sparsity))): int64, computed in float64.

    Example:

    >>> [int(keep_count(100, s)) for s in (0.0, 0.1, 0.9999)]
    [100, 90, 1]
    """
    kept = size * (1.0 - tf.cast(sparsity, tf.float64))
    # TensorFlow's graph optimizer reorders sums, which moves a half off by a rounding error; in
    # steps of 2**-20 it is a half again, in graphs as in eager execution.
    kept = tf.round(kept * 2.0**20) / 2.0**20
    return tf.maximum(tf.cast(tf.round(kept), tf.int64), 1)


def match(
    values: Mapping[str | int, float], paths: Mapping[str, Any], name: str
) -> dict[str, float]:
    """{path: value} of the weights that the keys (patterns or positions) of `values` mean.

    Raises:
        ValueError: If a key means no weight.
    """
    ordered = list(paths)
    found = {}
    for key, value in values.items():
        if isinstance(key, int):
            hits = ordered[key : key + 1 or None] if -len(ordered) <= key < len(ordered) else []
        else:
            hits = [path for path in ordered if fnmatchcase(path, key)]
        if not hits:
            raise ValueError(
                f"Each key of `{name}` must be a position or a pattern of one of the "
                f"{len(ordered)} prunable weights, {ordered}. Received: {name}={dict(values)}"
            )
        found.update(dict.fromkeys(hits, value))
    return found


def _keep_layer(method, shapes, scores, eligible, rankings, sparsity):
    """Prunes each tensor to its own count."""
    sizes = {p: s.shape.num_elements() for p, s in zip(shapes, scores, strict=True)}
    targets = _targets(method, shapes, sparsity)
    return [
        top([r], keep_count(sizes[p], targets[p]))[0] for p, r in zip(shapes, rankings, strict=True)
    ]


def _keep_global(method, shapes, scores, eligible, rankings, sparsity):
    """Prunes all tensors together; what is pinned or capped first gets the count it must have."""
    sizes = {p: s.shape.num_elements() for p, s in zip(shapes, scores, strict=True)}
    pinned = match(method.pinned, sizes, "pinned")
    capped = match(method.capped, sizes, "capped")
    targets = _targets(method, shapes, sparsity) if pinned else {}
    least = {p: keep_count(sizes[p], cap) for p, cap in capped.items()}
    least |= {p: keep_count(sizes[p], targets[p]) for p in pinned}
    k = keep_count(sum(sizes.values()), sparsity)
    if not least:
        return top(rankings, k)
    masks = [
        top([r], least[p])[0] if p in least else tf.zeros_like(e)
        for p, r, e in zip(shapes, rankings, eligible, strict=True)
    ]
    free = [
        tf.zeros_like(e) if p in pinned else e & ~m
        for p, e, m in zip(shapes, eligible, masks, strict=True)
    ]
    rest = tf.maximum(k - tf.add_n([count(m) for m in masks]), 0)
    others = [rank(s, f) for s, f in zip(scores, free, strict=True)]
    return [m | r for m, r in zip(masks, top(others, rest), strict=True)]


SCOPES: dict[str, Callable] = {"global": _keep_global, "layer": _keep_layer}


def _targets(method, shapes, sparsity):
    """Sparsity of each tensor at the overall `sparsity`, a scalar tensor.

    Linear between the distributions at the initial and the final sparsity, which keeps the overall
    sparsity exact.
    """
    first = method.distribute(shapes, method.initial_sparsity)
    last = method.distribute(shapes, method.final_sparsity)
    span = method.final_sparsity - method.initial_sparsity
    share = (sparsity - method.initial_sparsity) / span if span else 1.0

    def target(path):
        if (first[path], last[path]) == (method.initial_sparsity, method.final_sparsity):
            return sparsity
        # Written so that a share of 1 gives `last` itself, not its neighbour in float64.
        return tf.clip_by_value(last[path] - (1.0 - share) * (last[path] - first[path]), 0.0, 1.0)

    return {path: target(path) for path in shapes}
