"""What is pruned as one unit. Selection ranks units; a pattern says what they are.

A new pattern implements the three methods of `Pattern`: methods and optimizer handle it without
change, as they only ever see units. Counts and sparsities are then those of units. One whose units
can't be drawn at random or grown one by one says `prunes_only = True`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import keras
import numpy as np
import tensorflow as tf

from granet_tf.schedules import PACKAGE


class Pattern(Protocol):
    """Maps a weight tensor to its units and back."""

    def pool(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units."""

    def units(self, mask: tf.Tensor) -> tf.Tensor:
        """Mask of single weights -> mask of units."""

    def expand(self, units: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Mask of units -> mask of the weights of a tensor of `shape`."""


class _Plain:
    """Saved as its fields."""

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        return cls(**config)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Element(_Plain):
    """Each weight is its own unit: unstructured sparsity."""

    def pool(self, score):
        return score

    def units(self, mask):
        return mask

    def expand(self, units, shape):
        del shape
        return units


# {pooling: (reduction over a block, what fills up a block at the edge)}
_POOLINGS: dict[str, tuple[Callable, float]] = {
    "sum": (tf.reduce_sum, 0.0),
    "avg": (tf.reduce_sum, 0.0),
    "max": (tf.reduce_max, -np.inf),
}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Block(_Plain):
    """Blocks of `size` = (inputs, outputs): of the last two axes of a kernel.

    A dense kernel (inputs, outputs) is cut as it is; a convolution's, (height, width, inputs,
    outputs), at each position of the window for itself. Blocks at the edges may be smaller.

    On x86, LiteRT runs dense layers faster where zeros come in blocks of (4, 1) float32 or (16, 1)
    int8 weights.

    Args:
        size: Inputs and outputs of a block, both > 0.
        pooling: The score of a block: "sum", "avg" or "max" over its weights' scores. tfmot has
            the latter two, and scores of weights are |w| there as here.

    Raises:
        ValueError: On a size or pooling that is none of these; on a weight with one axis only.

    Example:

    >>> block = Block((2, 1))
    >>> block.pool(tf.constant([[1.0, 0.0], [2.0, 4.0], [0.0, 5.0]]))[0].numpy().tolist()
    [[3.0, 4.0], [0.0, 5.0]]
    >>> block.expand(tf.constant([[[True, False], [False, True]]]), (3, 2)).numpy().tolist()
    [[True, False], [True, False], [False, True]]
    """

    size: tuple[int, int]
    pooling: str = "sum"

    def __post_init__(self):
        size = tuple(self.size) if isinstance(self.size, (list, tuple)) else ()
        if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ValueError(
                f"`size` must be two integers > 0, inputs and outputs. Received: size={self.size}"
            )
        if self.pooling not in _POOLINGS:
            raise ValueError(
                f"`pooling` must be one of {', '.join(_POOLINGS)}. "
                f"Received: pooling={self.pooling!r}"
            )
        object.__setattr__(self, "size", size)  # A list, when it comes from JSON.

    def pool(self, score):
        reduce, filler = _POOLINGS[self.pooling]
        pooled = reduce(self._blocks(score, filler), axis=(2, 4))
        if self.pooling != "avg":
            return pooled
        ones = tf.ones(score.shape[-2:], score.dtype)
        return pooled / tf.reduce_sum(self._blocks(ones, 0.0), axis=(2, 4))

    def units(self, mask):
        return tf.reduce_any(self._blocks(mask, False), axis=(2, 4))

    def expand(self, units, shape):
        weights = tf.repeat(tf.repeat(units, self.size[0], axis=1), self.size[1], axis=2)
        return tf.reshape(weights[:, : shape[-2], : shape[-1]], shape)

    def _blocks(self, values, filler):
        """(positions, rows of blocks, inputs of a block, columns of blocks, outputs of a block)."""
        if len(values.shape) < 2:
            raise ValueError(
                "Blocks need a weight with two axes or more. "
                f"Received: a weight of shape {tuple(values.shape)}"
            )
        inputs, outputs = values.shape[-2:]
        edges = [[0, -n % size] for n, size in zip((inputs, outputs), self.size, strict=True)]
        values = tf.pad(
            tf.reshape(values, (-1, inputs, outputs)), [[0, 0], *edges], constant_values=filler
        )
        rows, columns = (-(-n // s) for n, s in zip((inputs, outputs), self.size, strict=True))
        return tf.reshape(values, (-1, rows, self.size[0], columns, self.size[1]))


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Filter(_Plain):
    """Whole filters and units: all weights that lead to one output.

    The score is the sum over them: of |w| to prune and drop, of |gradient| to grow, as in the
    paper's filter pruning (Appendix A, after Li et al., 2017). Sums grow with the size of a filter,
    so scope "layer" is the sensible one.

    Args:
        axis: The axis of outputs. The last one in dense and convolution kernels, -2 in those of
            transposed convolutions.

    Example:

    >>> Filter().pool(tf.constant([[1.0, 2.0], [3.0, 4.0]])).numpy().tolist()
    [4.0, 6.0]
    >>> Filter().expand(tf.constant([True, False]), (2, 2)).numpy().tolist()
    [[True, False], [True, False]]
    """

    axis: int = -1

    def pool(self, score):
        return tf.reduce_sum(score, self._inputs(score.shape))

    def units(self, mask):
        return tf.reduce_any(mask, self._inputs(mask.shape))

    def expand(self, units, shape):
        outputs = [1] * len(shape)
        outputs[self.axis] = shape[self.axis]
        return tf.broadcast_to(tf.reshape(units, outputs), shape)

    def _inputs(self, shape):
        return [i for i in range(len(shape)) if i != self.axis % len(shape)]


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class NM(_Plain):
    """N:M sparsity: at most `n` nonzeros in every `m` consecutive inputs, such as 2:4.

    Groups run along the inputs of each output, at each position of a convolution's window, as
    sparse tensor cores want them. Where the inputs are no multiple of `m`, the last group is filled
    up with zeros. tfmot counts zeros instead: its `sparsity_m_by_n=(1, 4)` is `NM(3, 4)`.

    Units are single weights, but ranked by their place in their group first: the strongest of all
    groups, then all the second ones, and so on. So a method that only prunes, and starts dense,
    comes to N:M from above and is there at sparsity 1 - n / m.

    Args:
        n: Nonzeros that a group may keep, 0 < n < m.
        m: Weights in a group.
        axis: The axis of inputs: -2 in dense and convolution kernels, -1 in those of transposed
            convolutions.

    Raises:
        ValueError: On `n` and `m` that are not such integers; on a weight with one axis only.

    Example:

    >>> from granet_tf.selection import select
    >>> weight = tf.constant([[1.0], [4.0], [3.0], [2.0]])
    >>> pooled = NM(2, 4).pool(weight)
    >>> [chosen] = select([pooled], [tf.ones_like(pooled, tf.bool)], 2)
    >>> NM(2, 4).expand(chosen, (4, 1)).numpy().ravel().tolist()
    [False, True, True, False]
    """

    n: int
    m: int
    axis: int = -2

    # Growth and random masks rank without regard to what a group has left.
    prunes_only: ClassVar[bool] = True

    def __post_init__(self):
        integers = isinstance(self.n, int) and isinstance(self.m, int)
        if not (integers and 0 < self.n < self.m):
            raise ValueError(
                "`n` and `m` must be integers with 0 < n < m, nonzeros in a group of weights. "
                f"Received: n={self.n}, m={self.m}"
            )

    def pool(self, score):
        # In what fills up the last group, -inf: it comes after all weights.
        groups = self._groups(score, -np.inf)
        place = tf.zeros_like(groups)
        for j in range(self.m):
            other = groups[..., j : j + 1]
            earlier = tf.range(self.m) > j  # Of equals, the first is the stronger.
            place += tf.cast((other > groups) | ((other == groups) & earlier), groups.dtype)
        # Less than half a place, so that it only orders weights of the same place.
        return 0.4 * tf.sigmoid(groups) - place

    def units(self, mask):
        return self._groups(mask, True)

    def expand(self, units, shape):
        order = self._order(len(shape))
        moved = [shape[i] for i in order]
        weights = tf.reshape(units, (*moved[:-1], -1))[..., : moved[-1]]
        return tf.transpose(weights, np.argsort(order))

    def _groups(self, values, filler):
        """(..., groups, weights of a group), inputs last."""
        if len(values.shape) < 2:
            raise ValueError(
                "N:M groups need a weight with two axes or more. "
                f"Received: a weight of shape {tuple(values.shape)}"
            )
        moved = tf.transpose(values, self._order(len(values.shape)))
        edges = [[0, 0]] * (len(moved.shape) - 1) + [[0, -moved.shape[-1] % self.m]]
        padded = tf.pad(moved, edges, constant_values=filler)
        return tf.reshape(padded, (*moved.shape[:-1], -1, self.m))

    def _order(self, rank):
        inputs = self.axis % rank
        return [*(i for i in range(rank) if i != inputs), inputs]
