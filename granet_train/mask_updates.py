"""What an update did to the masks, seen from outside: before and after are compared."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

import granet_tf
from granet_tf.wrapping.stripping import pruned_weights


@dataclasses.dataclass(frozen=True)
class Masks:
    """The masks of a model at one moment, packed into bits.

    Attributes:
        bits: {path: mask, packed by `np.packbits`}; empty for a dense model.
        sizes: {path: number of weights, those included that have been removed since}, of a dense
            model those that could be pruned.
        nonzeros: {path: number of active weights}, of a dense model all of them.
    """

    bits: Mapping[str, np.ndarray]
    sizes: Mapping[str, int]
    nonzeros: Mapping[str, int]

    @classmethod
    def of(cls, model) -> Masks:
        weights = pruned_weights(model)
        masks = {p.path: p.mask.numpy() for p in weights}
        if not masks:
            sizes = {row.path: row.size for row in granet_tf.summarize(model).rows if row.pruned}
            return cls({}, sizes, sizes)
        return cls(
            bits={path: np.packbits(mask) for path, mask in masks.items()},
            sizes={p.path: math.prod(p.layout.full_shape or p.mask.shape) for p in weights},
            nonzeros={path: int(np.count_nonzero(mask)) for path, mask in masks.items()},
        )

    @property
    def active(self) -> int:
        """Number of active weights."""
        return sum(self.nonzeros.values())

    @property
    def size(self) -> int:
        """Number of prunable weights."""
        return sum(self.sizes.values())

    @property
    def emptied(self) -> set[str]:
        """Paths of weights of which nothing is active."""
        return {path for path, count in self.nonzeros.items() if count == 0}

    @property
    def sparsity(self) -> float:
        """Fraction of zeros; 0 for a dense model."""
        return 1.0 - self.active / self.size if self.size else 0.0

    def layers(self) -> dict[str, float]:
        """{path: sparsity}."""
        return {path: 1.0 - self.nonzeros[path] / size for path, size in self.sizes.items()}

    def flipped(self, later: Masks) -> tuple[int, int]:
        """How many weights became active, and how many dormant."""
        grown = dropped = 0
        for path, before in self.bits.items():
            after = later.bits[path]
            grown += int(np.unpackbits(after & ~before).sum())
            dropped += int(np.unpackbits(before & ~after).sum())
        return grown, dropped


def calendar(method: granet_tf.Method | None) -> Callable[[int, int], int | None]:
    """A function that finds the first step in [first, last] with an update due, or None.

    Args:
        method: The method, durations resolved; None never updates. Of one whose masks change at
            nearly every step, the function finds the last step.
    """
    if method is None:
        return lambda first, last: None
    if method.is_continuous:
        # Seen when the device comes back anyway.
        return lambda first, last: last if first <= last else None

    # Graph code: to ask a schedule step by step from Python takes as long as training.
    @tf.function(input_signature=[tf.TensorSpec([], tf.int64)] * 2, autograph=False)
    def search(first, last):
        return tf.while_loop(
            lambda step: (step <= last) & ~method.is_due(step), lambda step: (step + 1,), [first]
        )[0]

    def find(first, last):
        step = int(search(first, last))
        return step if step <= last else None

    return find
