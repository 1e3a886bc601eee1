"""Units of several weights that are pruned as one: the filters of a dependency group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Coupling:
    """Which units of some weights are one.

    Attributes:
        members: Positions of the weights of each entry, which is what counts as a weight: its units
            are pruned, counted and ranked as those of a weight are.
        units: For each weight, which unit of its entry each of its own units is a part of.
        sizes: Number of units of each entry.

    Example:

    >>> coupling = Coupling.of([(0, 1), (2, 3, 4), (4, 3, 2)])
    >>> coupling.members, coupling.sizes
    (((0,), (1, 2)), (2, 3))
    >>> scores = [tf.constant(v) for v in ([1.0, 2.0], [1.0, 2.0, 3.0], [10.0, 20.0, 30.0])]
    >>> [score.numpy().tolist() for score in coupling.added(scores)]
    [[1.0, 2.0], [31.0, 22.0, 13.0]]
    >>> masks = coupling.spread([tf.constant([True, False]), tf.constant([True, False, False])])
    >>> masks[2].numpy().tolist()
    [False, False, True]
    """

    members: tuple[tuple[int, ...], ...]
    units: tuple[np.ndarray, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, channels: Sequence[Sequence[int]]) -> Coupling:
        """The coupling of weights whose outputs lead to these channels, by number.

        Weights that have a channel in common belong to the same entry, and so do those that are
        joined by a third one.
        """
        entries: list[tuple[set[int], list[int]]] = []
        for i, own in enumerate(map(set, channels)):
            joined = [entry for entry in entries if entry[0] & own]
            entries = [entry for entry in entries if not entry[0] & own]
            places = sorted(sum((entry[1] for entry in joined), [i]))
            entries.append((own.union(*(entry[0] for entry in joined)), places))
        entries.sort(key=lambda entry: entry[1][0])
        units: list[np.ndarray] = [np.zeros(0, int)] * len(channels)
        for _, places in entries:
            # The order of the first weight that has them: ties go to the lower index.
            ordered = list(dict.fromkeys(c for place in places for c in channels[place]))
            where = {number: i for i, number in enumerate(ordered)}
            for place in places:
                units[place] = np.array([where[c] for c in channels[place]])
        members = tuple(tuple(places) for _, places in entries)
        return cls(members, tuple(units), tuple(len(numbers) for numbers, _ in entries))

    def added(self, scores: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """A vector for each weight -> their sums for each entry."""
        return self._merged(scores, tf.math.unsorted_segment_sum, tf.add_n)

    def any(self, masks: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Masks of the weights' own units -> those of entries: active where one of a unit is."""
        numbers = [tf.cast(mask, tf.int32) for mask in masks]
        return [count > 0 for count in self.added(numbers)]

    def spread(self, of_entries: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """A vector for each entry -> one for each weight."""
        by_weight = {
            place: vector
            for places, vector in zip(self.members, of_entries, strict=True)
            for place in places
        }
        return [_taken(by_weight[i], units) for i, units in enumerate(self.units)]

    def _merged(self, vectors, sum_of_segments: Callable, sum_of_all: Callable):
        merged = []
        for places, size in zip(self.members, self.sizes, strict=True):
            parts = [
                vectors[i]
                if _is_identity(self.units[i], size)
                else sum_of_segments(vectors[i], self.units[i], size)
                for i in places
            ]
            merged.append(parts[0] if len(parts) == 1 else sum_of_all(parts))
        return merged


def _is_identity(units: np.ndarray, size: int) -> bool:
    return len(units) == size and bool((units == np.arange(size)).all())


def _taken(vector, units):
    return vector if _is_identity(units, vector.shape[0]) else tf.gather(vector, units)
