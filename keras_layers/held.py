"""Vectors that are held at zero where the channels that they belong to are pruned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_layers.masking import PrunedWeight

# Not 0 itself in training, as a ReLU lets no gradient through at 0: nothing behind a pruned channel
# would tell whether it is worth growing again, and a channel that is grown would stay at 0.
OPEN = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class HeldVector:
    """A vector and the channels of its entries.

    Attributes:
        variable: The vector.
        places: Where `HeldVectors.alive` tells of each entry; the last place is always true.
    """

    variable: keras.Variable
    places: np.ndarray

    @property
    def open_value(self) -> float:
        """What dead entries have in training."""
        return OPEN if self.variable.trainable else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class HeldVectors:
    """All vectors of a model that pruned channels would otherwise still have a value by.

    Attributes:
        witnesses: Weights whose masks tell which channels are alive.
        vectors: The vectors.

    Example:

    >>> from keras_layers.layouts import DENSE
    >>> kernel, bias = keras.Variable([[1.0, 2.0]]), keras.Variable([3.0, 4.0])
    >>> mask = keras.Variable([[True, False]], dtype="bool")
    >>> weight = PrunedWeight("kernel", kernel, mask, DENSE)
    >>> held = HeldVectors((weight,), (HeldVector(bias, np.array([0, 1])),))
    >>> held.hold(lambda value: value, 0.0)
    >>> bias.numpy().tolist()
    [3.0, 0.0]
    """

    witnesses: tuple[PrunedWeight, ...]
    vectors: tuple[HeldVector, ...]

    def alive(self, own: Callable, *, with_weights: bool = False) -> tf.Tensor:
        """Which channels are alive, a bool vector with one true entry more.

        Args:
            own: From a variable's value to that of one replica.
            with_weights: Whether channels whose weights are all 0 count as dead.
        """
        parts = []
        for witness in self.witnesses:
            active = tf.convert_to_tensor(own(witness.mask.value))
            if with_weights:
                active &= tf.convert_to_tensor(own(witness.variable.value)) != 0
            parts.append(alive_outputs(active, witness.layout.outputs))
        return tf.concat([*parts, [True]], 0)

    def hold(self, own: Callable, value: float | None = None) -> None:
        """Sets dead entries to `value`; None is what they have in training.

        A channel that has just been grown, whose weights are 0, is dead here, too: with the offset
        that it had when it was pruned, its ReLU may be closed, and it would never learn.

        Args:
            own: From a variable's value to that of one replica.
            value: The value.
        """
        alive = self.alive(own, with_weights=True)
        for vector in self.vectors:
            there = own(vector.variable.value)
            fill = vector.open_value if value is None else value
            there.assign(_where(alive, vector, tf.convert_to_tensor(there), fill))

    def mask_gradients(self, gradients: dict[int, tf.Tensor]) -> None:
        """Has the optimizer leave dead entries alone: {id of a variable: its gradient}, changed."""
        alive = self.alive(lambda value: value)
        for vector in self.vectors:
            gradient = gradients.get(id(vector.variable))
            if gradient is not None:
                gradients[id(vector.variable)] = _where(alive, vector, gradient, 0.0)


def hold(carrier: Any, value: float | None = None) -> None:
    """`HeldVectors.hold` of what a layer with masks holds, on every replica."""
    if carrier.held is not None:
        carrier.held.hold(lambda variable: variable, value)


def held_vectors(
    channels: Sequence[tuple[keras.Variable, Sequence[int]]],
    pruned: Sequence[PrunedWeight],
) -> HeldVectors | None:
    """Those vectors whose channels the masks of `pruned` tell of; None if there are none.

    Args:
        channels: Vectors, each with the channel of each entry.
        pruned: Weights with the channels of their outputs in `layout.channels`.

    Example:

    >>> held_vectors([], []) is None
    True
    """
    coupled = [p for p in pruned if p.layout.channels is not None]
    # The smaller a weight, the less there is to look through.
    coupled.sort(key=lambda p: p.variable.shape.num_elements())
    witnesses, place, count = [], {}, 0
    for weight in coupled:
        if all(channel in place for channel in weight.layout.channels):
            continue
        witnesses.append(weight)
        for i, channel in enumerate(weight.layout.channels):
            place.setdefault(channel, count + i)
        count += len(weight.layout.channels)
    vectors = [
        HeldVector(variable, _shaped([place.get(channel, count) for channel in own], variable))
        for variable, own in channels
        if any(channel in place for channel in own)
    ]
    return HeldVectors(tuple(witnesses), tuple(vectors)) if vectors else None


def _shaped(places, variable):
    """For the bias of attention, (heads, size of a head), too."""
    return np.array(places).reshape(variable.shape)


def alive_outputs(mask: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Which outputs of a weight have an active entry, in one row.

    Args:
        mask: The mask of the weight.
        axes: The axes of its outputs.

    Example:

    >>> alive_outputs(tf.constant([[True, False], [False, False]]), (-1,)).numpy().tolist()
    [True, False]
    """
    rank = len(mask.shape)
    outputs = [axis % rank for axis in axes]
    return tf.reshape(tf.reduce_any(mask, [i for i in range(rank) if i not in outputs]), [-1])


def _where(alive, vector, value, fill):
    return tf.where(tf.gather(alive, vector.places), value, tf.constant(fill, value.dtype))
