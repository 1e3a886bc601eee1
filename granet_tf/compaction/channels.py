"""What is known of the channels of a tensor, and which channels come and go together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Channels:
    """The channels of one tensor: who they are, and which of them are constant.

    A channel is constant if it has one value at all positions and for all samples.

    Attributes:
        ids: An integer for each channel. Those with the same integer are kept or removed together.
        axis: The axis of channels, 1 or more.
        known: Which channels are constant.
        value: Their constants; 0 for the others.
        framed: Whether zero padding has put zeros around the constants.
    """

    ids: np.ndarray
    axis: int
    known: np.ndarray
    value: np.ndarray
    framed: bool = False

    @property
    def everywhere(self) -> np.ndarray:
        """Which channels have their constant in the frame, too."""
        return self.known & (self.value == 0) if self.framed else self.known

    def unframed(self) -> Channels:
        """The same, but what is not constant everywhere is unknown."""
        return self.with_constants(self.everywhere, self.value)

    def with_constants(self, known: np.ndarray, value: np.ndarray) -> Channels:
        """The same channels with other constants."""
        known = known & np.isfinite(value)
        return dataclasses.replace(
            self, known=known, value=np.where(known, value, 0.0), framed=False
        )

    def arranged(self, arrange: Any, axis: int) -> Channels:
        """Channels in another order or number, as `arrange` puts an array of them."""
        return Channels(
            *(arrange(self.ids), axis, arrange(self.known), arrange(self.value)), self.framed
        )


def unknown(ids: np.ndarray, axis: int) -> Channels:
    """Channels of which nothing is known.

    Example:

    >>> unknown(np.array([4, 5]), axis=1).known.tolist()
    [False, False]
    """
    return Channels(ids, axis, np.zeros(len(ids), bool), np.zeros(len(ids)))


class Ties:
    """Which ids must be kept or removed together: sets that are joined pair by pair.

    Example:

    >>> ties = Ties()
    >>> left, right, other = ties.fresh(2), ties.fresh(2), ties.fresh(1)
    >>> ties.join(left, right)
    >>> (ties.find(left) == ties.find(right)).all(), ties.find(other)[0] in ties.find(left)
    (np.True_, np.False_)
    """

    def __init__(self):
        self._parent: list[int] = []
        self.pinned: list[np.ndarray] = []

    def __len__(self):
        return len(self._parent)

    def fresh(self, count: int) -> np.ndarray:
        """New ids, each by itself."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Ties the first to the first, the second to the second, and so on."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            self._parent[self._root(a)] = self._root(b)

    def pin(self, ids: np.ndarray) -> None:
        """Has these kept, whatever is found."""
        self.pinned.append(ids)

    def find(self, ids: np.ndarray) -> np.ndarray:
        """One id for all that are tied together."""
        return np.array([self._root(i) for i in ids.tolist()], int)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            # Halves the way for the next one.
            self._parent[i] = i = self._parent[self._parent[i]]
        return i
