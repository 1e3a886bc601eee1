"""Axes of a weight: checked, and brought into the order positions, inputs, outputs."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_layers.layouts import Layout

Axes = int | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Matrices:
    """Views a tensor as (positions, inputs, outputs), and such matrices as the tensor again.

    Example:

    >>> matrices = Matrices.of((2, 3, 4), inputs=-1, outputs=0)
    >>> matrices(tf.zeros((2, 3, 4))).shape, matrices.back(tf.zeros((3, 4, 2))).shape
    (TensorShape([3, 4, 2]), TensorShape([2, 3, 4]))
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    inputs: int
    outputs: int

    @classmethod
    def of(cls, shape, inputs: Axes, outputs: Axes) -> Matrices:
        inputs, outputs = positive(inputs, len(shape)), positive(outputs, len(shape))
        positions = tuple(i for i in range(len(shape)) if i not in (*inputs, *outputs))
        sizes = (math.prod(shape[i] for i in axes) for axes in (inputs, outputs))
        return cls(tuple(shape), (*positions, *inputs, *outputs), *sizes)

    def __call__(self, values):
        moved = tf.transpose(values, self.order) if self._moves else values
        return tf.reshape(moved, (-1, self.inputs, self.outputs))

    def back(self, matrices):
        moved = tf.reshape(matrices, [self.shape[i] for i in self.order])
        return tf.transpose(moved, np.argsort(self.order)) if self._moves else moved

    @property
    def _moves(self):
        return self.order != tuple(range(len(self.order)))


def check_rank(shape: tuple[int, ...], what: str) -> None:
    """Raises ValueError unless a weight has inputs and outputs."""
    if len(shape) < 2:
        raise ValueError(
            f"{what} need a weight with two axes or more. "
            f"Received: a weight of shape {tuple(shape)}"
        )


def checked_axes(axes: Axes, name: str) -> Axes:
    """As they are, or a tuple where JSON has made a list of them.

    Raises:
        ValueError: On what is no axis, or the same twice.
    """
    several = tuple(axes) if isinstance(axes, (list, tuple)) else (axes,)
    if not all(isinstance(axis, int) for axis in several) or len(set(several)) < len(several):
        raise ValueError(
            f"`{name}` must be an axis, an integer, or several. Received: {name}={axes!r}"
        )
    return axes if isinstance(axes, int) else several


def positive(axes: Axes, rank: int) -> tuple[int, ...]:
    """The axes counted from the front.

    Raises:
        ValueError: On an axis that a weight of `rank` axes does not have.

    Example:

    >>> positive((-2, -1), 4), positive(-1, 2)
    ((2, 3), (1,))
    """
    several = (axes,) if isinstance(axes, int) else axes
    if not all(-rank <= axis < rank for axis in several):
        raise ValueError(
            "The axes of a pattern must be those of the weight. "
            f"Received: axes {axes} for a weight with {rank} axes"
        )
    return tuple(axis % rank for axis in several)


def are_outputs(axes: Axes, layout: Layout, rank: int) -> bool:
    """Whether these axes are among those of a weight's outputs."""
    return set(positive(axes, rank)) <= set(positive(layout.outputs, rank))
