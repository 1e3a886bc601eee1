"""`NM`: n nonzeros in every m inputs."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from granet_tf.masks.patterns.axes import Axes, Matrices, check_rank, checked_axes, positive
from granet_tf.masks.patterns.base import Capacity, SingleWeights
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class NM(SingleWeights):
    """N:M sparsity: at most `n` nonzeros in every `m` consecutive inputs, such as 2:4.

    Groups run along the inputs of each output, at each position of a convolution's window, as
    sparse tensor cores want them. tfmot counts zeros instead: its `sparsity_m_by_n=(1, 4)` is
    `NM(3, 4)`.

    Units are single weights. What is chosen, at random, by magnitude or to be grown, is first the
    best `n` of each group; what does not fit comes after all that does. So:

    - From sparsity 1 - n / m on, no group has more than `n` after any update, and at that sparsity
      each has exactly `n`. Growth fills groups that what was dropped has left room in.
    - Below, where a method starts dense or with a small `initial_sparsity`, groups hold more. Only
      what is beyond the best `n` of its group is pruned, until nothing is. Growth fills groups with
      less than `n` first, then goes by gradient anywhere, so that counts hold.

    Where the inputs are no multiple of `m`, the last group is filled up with zeros, which a
    sparsity counts: a convolution of 3 channels keeps 2 of each 3 weights at 2:4 and sparsity 0.5.

    Args:
        n: Nonzeros that a group may keep, 0 < n < m.
        m: Weights in a group.
        axis: The axis of inputs, or several, which then count as one. None takes that of the layer
            that the weight belongs to (-1 in transposed convolutions), or -2 for a bare tensor.

    Raises:
        ValueError: On `n`, `m` and `axis` that are none; on a weight with one axis only.

    Example:

    >>> from granet_tf.masks.selection import select
    >>> weight = tf.constant([[1.0], [4.0], [3.0], [2.0]])
    >>> fitting, others = NM(2, 4).tiers(weight, tf.ones_like(weight, tf.bool))
    >>> fitting.numpy().ravel().tolist()
    [False, True, True, False]
    """

    n: int
    m: int
    axis: Axes | None = None

    def __post_init__(self):
        integers = isinstance(self.n, int) and isinstance(self.m, int)
        if not (integers and 0 < self.n < self.m):
            raise ValueError(
                "`n` and `m` must be integers with 0 < n < m, nonzeros in a group of weights. "
                f"Received: n={self.n}, m={self.m}"
            )
        if self.axis is not None:
            object.__setattr__(self, "axis", checked_axes(self.axis, "axis"))

    def __str__(self):
        return f"{self.n}:{self.m}"

    def bound(self, layout):
        return self if self.axis is not None else NM(self.n, self.m, layout.inputs)

    def tiers(self, score, eligible, kept=None):
        matrices = self._matrices(score.shape)
        # -inf is behind all that is eligible.
        ranked = tf.where(eligible, score, tf.constant(-np.inf, score.dtype))
        groups = self._groups(matrices(ranked), -np.inf)
        earlier = tf.reshape(tf.range(self.m), (-1, 1))
        place = tf.zeros(groups.shape, tf.int32)
        for j in range(self.m):
            other = groups[:, :, j : j + 1]
            # Of equals, the first is the stronger.
            ahead = (other > groups) | ((other == groups) & (earlier > j))
            place += tf.cast(ahead, tf.int32)
        room = self.n
        if kept is not None:
            taken = self._groups(matrices(kept), False)
            room -= tf.reduce_sum(tf.cast(taken, tf.int32), axis=2, keepdims=True)
        shape = (groups.shape[0], -1, groups.shape[3])
        fits = tf.reshape(place < room, shape)[:, : matrices.inputs]
        first = eligible & matrices.back(fits)
        return first, eligible & ~first

    def capacity(self, shape):
        if self.axis == ():  # Nothing to group, as in a depthwise kernel.
            return super().capacity(shape)
        inputs = self._matrices(shape).inputs
        rows = math.prod(shape) // inputs
        whole, rest = divmod(inputs, self.m)
        groups = whole + (rest > 0)
        fitting = whole * self.n + min(self.n, rest)
        return Capacity(rows * groups * self.m, rows * groups * self.n, rows * fitting)

    def _matrices(self, shape):
        check_rank(shape, "N:M groups")
        inputs = positive(-2 if self.axis is None else self.axis, len(shape))
        # What comes before them is a position, which spares moving axes in most kernels.
        outputs = tuple(range(max(inputs, default=-1) + 1, len(shape)))
        return Matrices.of(shape, inputs, outputs)

    def _groups(self, matrices, filler):
        """(1, groups, weights of a group, everything else)."""
        edges = [[0, 0], [0, -matrices.shape[1] % self.m], [0, 0]]
        padded = tf.pad(matrices, edges, constant_values=filler)
        return tf.reshape(padded, (padded.shape[0], -1, self.m, padded.shape[2]))
