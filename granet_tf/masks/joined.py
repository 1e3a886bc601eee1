"""One flat tensor over the units of many weights.

What an update does is the same for each weight, and a user waits at the first step until all of it
is traced. So the units of many weights are laid end to end, and selected from at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from granet_tf.masks.bisection import WIDTH, Rows, cut
from granet_tf.masks.traced import is_compiled

# Weights of up to this number of units are joined, larger ones are not copied.
_SMALL = 1 << 18
_PART = 1 << 22


@dataclasses.dataclass(frozen=True)
class Parts:
    """How the units of several weights lie in a few flat tensors.

    Attributes:
        shapes: Shape of each weight's units.
        bounds: (first, end) of the weights in each part, which keep their order.
        width: Each weight is filled up to a multiple of this number of units.

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
    width: int = 1

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]]) -> Parts:
        """Parts for weights with units of these shapes."""
        # Each part is a program of its own for XLA to compile, so there it is one.
        compiled = is_compiled()
        small, most = (math.inf, math.inf) if compiled else (_SMALL, _PART)
        bounds: list[tuple[int, int]] = []
        filled = most
        for i, size in enumerate(map(math.prod, shapes)):
            if bounds and size <= small and filled + size <= most:
                bounds[-1] = (bounds[-1][0], i + 1)
                filled += size
            else:
                bounds.append((i, i + 1))
                filled = size if size <= small else most
        width = WIDTH if compiled else 1
        return cls(tuple(tuple(shape) for shape in shapes), tuple(bounds), width)

    @property
    def sizes(self) -> list[list[int]]:
        """Numbers of units of the weights of each part."""
        return [[math.prod(shape) for shape in self.shapes[a:b]] for a, b in self.bounds]

    @property
    def is_small(self) -> bool:
        """Whether there is one part, of weights that are small."""
        return len(self.bounds) == 1 and max(map(math.prod, self.shapes)) <= _SMALL

    @functools.cached_property
    def rows(self) -> Rows:
        """For XLA, the one part in rows."""
        [sizes] = self.sizes
        return Rows.of(sizes)

    def join(self, tensors: Sequence[tf.Tensor]) -> Joined:
        """Joins a tensor of each weight's units."""
        to_flat = tf.constant([-1])  # One operation for all, as each is traced.
        flat = [tf.reshape(tensor, to_flat) for tensor in tensors]
        return Joined(self, tuple(self._end_to_end(flat[a:b]) for a, b in self.bounds))

    def spread(self, values: tf.Tensor) -> Joined:
        """Gives each unit what `values`, a vector, has for its weight."""
        return self.join([tf.fill(shape, values[i]) for i, shape in enumerate(self.shapes)])

    def _end_to_end(self, tensors):
        if self.width > 1:
            # One operation, where padding each would be one more for each to compile.
            sizes = [-each.shape[0] % self.width for each in tensors]
            fill = {size: tf.zeros(size, tensors[0].dtype) for size in {*sizes}}
            pairs = zip(tensors, (fill[size] for size in sizes), strict=True)
            tensors = [piece for pair in pairs for piece in pair if piece.shape[0]]
        return tensors[0] if len(tensors) == 1 else tf.concat(tensors, 0)


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
        return flat_each([self])[0]

    def split(self) -> list[tf.Tensor]:
        """The tensor of each weight's units, in its shape."""
        shapes = {shape: tf.constant(shape, tf.int32) for shape in {*self.parts.shapes}}
        each = zip(self.flat(), self.parts.shapes, strict=True)
        return [tf.reshape(tensor, shapes[shape]) for tensor, shape in each]


def flat_each(values: Sequence[Joined]) -> list[list[tf.Tensor]]:
    """The flat tensors of each weight's units, of several values of the same weights.

    Example:

    >>> score = Parts.of([(2,), (1,)]).join([tf.constant([1, 2]), tf.constant([3])])
    >>> [ours, theirs] = flat_each([score, score.map(tf.negative)])
    >>> [tensor.numpy().tolist() for tensor in (*ours, *theirs)]
    [[1, 2], [3], [-1, -2], [-3]]
    """
    parts = values[0].parts
    if parts.width > 1:
        [sizes] = parts.sizes
        return cut([value.tensors[0] for value in values], sizes)
    return [
        [
            tensor
            for joined, sizes in zip(value.tensors, parts.sizes, strict=True)
            for tensor in ([joined] if len(sizes) == 1 else tf.split(joined, sizes))
        ]
        for value in values
    ]
