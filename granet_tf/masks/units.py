"""The units of one weight: single weights, blocks, filters or the slots of N:M groups."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from granet_tf.masks.patterns import Pattern
from granet_tf.masks.scopes import best, ranked
from granet_tf.masks.selection import count
from granet_tf.methods.base import Method
from granet_tf.methods.hooks import Tensors


@dataclasses.dataclass(frozen=True)
class Units:
    """What is active of one weight, and what may become so, counted in units of its pattern.

    Attributes:
        pattern: The pattern, with the axes of the weight.
        shape: Shape of the weight.
        active: Which units are active.
        given: The pattern as it was given, without axes: units of equal ones may be exchanged. None
            is that of all the others that say nothing.

    Example:

    >>> from granet_tf.masks.patterns import Element
    >>> units = Units(Element(), (4,), tf.constant([True, True, False, False]))
    >>> kept = units.choose(tf.constant([1.0, 2.0, 3.0, 4.0]), 1, units.active)
    >>> kept.numpy().tolist(), int(units.room(kept))
    ([False, True, False, False], 3)
    """

    pattern: Pattern
    shape: tuple[int, ...]
    active: tf.Tensor
    given: Pattern | None = None

    @classmethod
    def of(cls, patterns: tuple[Pattern, Pattern], mask: tf.Tensor) -> Units:
        """The units of a weight with this mask.

        Args:
            patterns: As from `Method.patterns_of`.
            mask: The weight's mask.
        """
        given, bound = patterns
        return cls(bound, tuple(mask.shape), bound.units(mask), given)

    def pool(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units."""
        return self.pattern.pool(score)

    def mean(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units, for one weight of each: comparable between
        filters, or blocks, of different sizes."""
        return self.pattern.pool(score) / self.pattern.pool(tf.ones_like(score))

    def choose(self, score: tf.Tensor, k: tf.Tensor, eligible: tf.Tensor) -> tf.Tensor:
        """Mask of the k best of the `eligible` units."""
        return best([ranked(score, self.pattern.tiers(score, eligible))], k)[0]

    def add(self, score: tf.Tensor, k: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept`, and the k best units that fit beside it."""
        more = best([ranked(score, self.pattern.tiers(score, ~kept, kept))], k)
        return kept | more[0]

    def room(self, kept: tf.Tensor) -> tf.Tensor:
        """How many units fit beside `kept`."""
        anything = tf.zeros(kept.shape)
        return count(self.pattern.tiers(anything, ~kept, kept)[0])

    def expand(self, units: tf.Tensor) -> tf.Tensor:
        """Mask of units -> mask of the weight."""
        return self.pattern.expand(units, self.shape)


def units_of(method: Method, tensors: Tensors) -> list[Units]:
    """The units of each weight, by the pattern of `method`."""
    patterns = [method.patterns_of(layout) for layout in tensors.layouts]
    return [Units.of(each, mask) for each, mask in zip(patterns, tensors.masks, strict=True)]
