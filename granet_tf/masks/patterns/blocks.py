"""`Block`: rectangles of a kernel, such as engines compute with."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from granet_tf.masks.patterns.axes import Axes, Matrices, are_outputs, check_rank, checked_axes
from granet_tf.masks.patterns.base import Pattern
from granet_tf.schedules import PACKAGE

# {pooling: (reduction over a block, what fills up a block at the edge)}
_POOLINGS: dict[str, tuple[Callable, float]] = {
    "sum": (tf.reduce_sum, 0.0),
    "avg": (tf.reduce_sum, 0.0),
    "max": (tf.reduce_max, -np.inf),
}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Block(Pattern):
    """Blocks of `size` = (inputs, outputs) of a kernel.

    A dense kernel (inputs, outputs) is cut as it is; a convolution's at each position of the window
    for itself. Blocks at the edges may be smaller. Where a block holds all inputs of an output, the
    layers whose outputs are those of the model are spared, as by `Filter`.

    On x86, LiteRT runs dense layers faster where zeros come in blocks of (4, 1) float32 or (16, 1)
    int8 weights; `pattern="litert"` is that. MNN runs them and convolutions faster in blocks of
    (1, 4), `pattern="mnn"`.

    Args:
        size: Inputs and outputs of a block, both > 0.
        pooling: The score of a block: "sum", "avg" or "max" over its weights' scores. tfmot has
            the latter two, and scores of weights are |w| there as here.
        axes: (axes of the inputs, axes of the outputs), each an int or several. None takes those of
            the layer that the weight belongs to, or the last two for a bare tensor.

    Raises:
        ValueError: On a size, pooling or axes that are none; on a weight with one axis only.

    Example:

    >>> block = Block((2, 1))
    >>> block.pool(tf.constant([[1.0, 0.0], [2.0, 4.0], [0.0, 5.0]]))[0].numpy().tolist()
    [[3.0, 4.0], [0.0, 5.0]]
    >>> block.expand(tf.constant([[[True, False], [False, True]]]), (3, 2)).numpy().tolist()
    [[True, False], [True, False], [False, True]]
    """

    size: tuple[int, int]
    pooling: str = "sum"
    axes: tuple[Axes, Axes] | None = None

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
        if self.axes is not None:
            axes = tuple(self.axes) if isinstance(self.axes, (list, tuple)) else ()
            if len(axes) != 2:
                raise ValueError(
                    "`axes` must be a pair, the axes of the inputs and of the outputs. "
                    f"Received: axes={self.axes}"
                )
            object.__setattr__(self, "axes", tuple(checked_axes(each, "axes") for each in axes))

    def __str__(self):
        return f"blocks {self.size[0]}×{self.size[1]}"

    def bound(self, layout):
        if self.axes is not None:
            return self
        return dataclasses.replace(self, axes=(layout.inputs, layout.outputs))

    def pool(self, score):
        reduce, filler = _POOLINGS[self.pooling]
        pooled = reduce(self._blocks(score, filler), axis=(2, 4))
        if self.pooling != "avg":
            return pooled
        ones = tf.ones(score.shape, score.dtype)
        return pooled / tf.reduce_sum(self._blocks(ones, 0.0), axis=(2, 4))

    def removes_outputs(self, layout, shape=None):
        if shape is None or len(shape) < 2:
            return False
        block = self.bound(layout)
        matrices = block._matrices(shape)
        one_position = math.prod(shape) == matrices.inputs * matrices.outputs
        whole = one_position and 1 < matrices.inputs <= self.size[0]
        return whole and are_outputs(block.axes[1], layout, len(shape))

    def units(self, mask):
        return tf.reduce_any(self._blocks(mask, False), axis=(2, 4))

    def expand(self, units, shape):
        matrices = self._matrices(shape)
        weights = tf.repeat(tf.repeat(units, self.size[0], axis=1), self.size[1], axis=2)
        return matrices.back(weights[:, : matrices.inputs, : matrices.outputs])

    def _matrices(self, shape):
        check_rank(shape, "Blocks")
        return Matrices.of(shape, *((-2, -1) if self.axes is None else self.axes))

    def _blocks(self, values, filler):
        """(positions, rows of blocks, inputs of a block, columns of blocks, outputs of a block)."""
        values = self._matrices(values.shape)(values)
        sides = list(zip(values.shape[1:], self.size, strict=True))
        edges = [[0, 0], *([0, -n % size] for n, size in sides)]
        rows, columns = (-(-n // size) for n, size in sides)
        padded = tf.pad(values, edges, constant_values=filler)
        return tf.reshape(padded, (-1, rows, self.size[0], columns, self.size[1]))
