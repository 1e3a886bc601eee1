"""One flat tensor over the units of many weights.

What an update does is the same for each weight, and a user waits at the first step until all of it
is traced. So the units of many weights are laid end to end, and selected from at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from granet_tf.masks.traced import is_compiled

# Weights are joined up to this number of units. Larger ones are not copied.
_PART = 1 << 20


@dataclasses.dataclass(frozen=True)
class Parts:
    """How the units of several weights lie in a few flat tensors.

    Attributes:
        shapes: Shape of each weight's units.
        bounds: (first, end) of the weights in each part, which keep their order.

    Example:

    >>> parts = Parts.of([(2, 2), (3,)])
    >>> joined = parts.join([tf.constant([[1, 2], [3, 4]]), tf.constant([5, 6, 7])])
    >>> [tensor.numpy().tolist() for tensor in joined.tensors]
    [[1, 2, 3, 4, 5, 6, 7]]
    >>> [tensor.numpy().tolist() for tensor in joined.split()]
    [[[1, 2], [3, 4]], [5, 6, 7]]
    """

    shapes: tuple[tuple[int, ...], ...]
    bounds: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]]) -> Parts:
        """Parts for weights with units of these shapes."""
        # XLA must know all sizes, which a loop over the weights of a part would hide.
        limit = 0 if is_compiled() else _PART
        bounds: list[tuple[int, int]] = []
        filled = 0
        for i, size in enumerate(map(math.prod, shapes)):
            if bounds and filled + size <= limit:
                bounds[-1] = (bounds[-1][0], i + 1)
                filled += size
            else:
                bounds.append((i, i + 1))
                filled = size
        return cls(tuple(tuple(shape) for shape in shapes), tuple(bounds))

    @property
    def sizes(self) -> list[list[int]]:
        """Numbers of units of the weights of each part."""
        return [[math.prod(shape) for shape in self.shapes[a:b]] for a, b in self.bounds]

    def join(self, tensors: Sequence[tf.Tensor]) -> Joined:
        """Joins a tensor of each weight's units."""
        to_flat = tf.constant([-1])  # One operation for all, as each is traced.
        flat = [tf.reshape(tensor, to_flat) for tensor in tensors]
        return Joined(self, tuple(_end_to_end(flat[a:b]) for a, b in self.bounds))

    def spread(self, values: tf.Tensor) -> Joined:
        """Gives each unit what `values`, a vector, has for its weight."""
        repeated = zip(self.bounds, self.sizes, strict=True)
        return Joined(self, tuple(tf.repeat(values[a:b], sizes) for (a, b), sizes in repeated))


@dataclasses.dataclass(frozen=True)
class Joined:
    """A value for each unit of several weights.

    Attributes:
        parts: How they lie.
        tensors: A flat tensor for each part.

    Example:

    >>> mask = Parts.of([(2,), (1,)]).join([tf.constant([True, False]), tf.constant([True])])
    >>> [tensor.numpy().tolist() for tensor in (~mask).split()]
    [[False, True], [False]]
    """

    parts: Parts
    tensors: tuple[tf.Tensor, ...]

    def map(self, function: Callable[..., tf.Tensor], *others: Joined) -> Joined:
        """Applies a function of flat tensors to each part."""
        each = zip(self.tensors, *(other.tensors for other in others), strict=True)
        return Joined(self.parts, tuple(function(*tensors) for tensors in each))

    def __and__(self, other: Joined) -> Joined:
        return self.map(tf.logical_and, other)

    def __or__(self, other: Joined) -> Joined:
        return self.map(tf.logical_or, other)

    def __invert__(self) -> Joined:
        return self.map(tf.logical_not)

    def flat(self) -> list[tf.Tensor]:
        """The flat tensor of each weight's units."""
        return [
            tensor
            for joined, sizes in zip(self.tensors, self.parts.sizes, strict=True)
            for tensor in ([joined] if len(sizes) == 1 else tf.split(joined, sizes))
        ]

    def split(self) -> list[tf.Tensor]:
        """The tensor of each weight's units, in its shape."""
        shapes = {shape: tf.constant(shape, tf.int32) for shape in {*self.parts.shapes}}
        each = zip(self.flat(), self.parts.shapes, strict=True)
        return [tf.reshape(tensor, shapes[shape]) for tensor, shape in each]


def _end_to_end(tensors):
    return tensors[0] if len(tensors) == 1 else tf.concat(tensors, 0)
