"""Vectors that go with channels: what becomes of them where channels are pruned and grown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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


@dataclasses.dataclass(frozen=True)
class ChannelVectors:
    """The vectors of a model that have an entry for each channel, with the channels.

    Attributes:
        offsets: What would give a channel without weights a value nevertheless: biases, the offsets
            and moving means of batch normalisations.
        variances: Moving variances.
        scales: What batch normalisations multiply by.
        last_scales: Ids of those scales behind which no other normalises the channel once more.
        normalized: Ids of the weights behind which channels are normalised, at once or farther on.
    """

    offsets: Sequence[tuple[keras.Variable, Sequence[int]]] = ()
    variances: Sequence[tuple[keras.Variable, Sequence[int]]] = ()
    scales: Sequence[tuple[keras.Variable, Sequence[int]]] = ()
    last_scales: frozenset[int] = frozenset()
    normalized: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class HeldVectors:
    """All vectors of a model that go with channels that are pruned together.

    Attributes:
        witnesses: Weights whose masks tell which channels are alive.
        vectors: Offsets, which are held at zero where a channel is pruned.
        variances: Moving variances.
        scales: What batch normalisations multiply by.
        last_scales: Ids of those scales behind which no other normalises the channel once more.
        normalized: Ids of the weights behind which channels are normalised, at once or farther on.

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
    variances: tuple[HeldVector, ...] = ()
    scales: tuple[HeldVector, ...] = ()
    last_scales: frozenset[int] = frozenset()
    normalized: frozenset[int] = frozenset()

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

    def begin(self, own: Callable, fresh: Mapping[int, tf.Tensor], *, rescale: bool) -> None:
        """Gives the vectors of channels that have just been grown values to begin with.

        Behind a batch normalisation a channel that puts out nothing but 0 is divided by √ε: its
        first gradient is hundreds of times as large as others are, and with a moving variance near
        0 inference would be, too. So a grown channel has the mean variances and scales of those
        that go on; but the last scale is 0, which leaves what the network computes as it is. (If
        one before it were 0 as well, neither would have a gradient.)

        Args:
            own: From a variable's value to that of one replica.
            fresh: {id of a weight: which entries of it have just been grown}.
            rescale: Whether scales begin anew, too, and not with what they had.
        """
        parts = [
            alive_outputs(fresh[id(w.variable)], w.layout.outputs)
            if id(w.variable) in fresh
            else tf.zeros(len(w.layout.channels or ()), tf.bool)
            for w in self.witnesses
        ]
        grown = tf.concat([*parts, [False]], 0)
        others = self.alive(own) & ~grown
        for vector in self.vectors:
            there = own(vector.variable.value)
            value = tf.convert_to_tensor(there)
            there.assign(_where(~grown, vector, value, vector.open_value))
        for vector in (*self.variances, *(self.scales if rescale else ())):
            # What is pruned has the mean, too: what a channel is grown by is multiplied by it.
            there = own(vector.variable.value)
            value = tf.convert_to_tensor(there)
            fill = mean = _mean_size(value, tf.gather(others, vector.places))
            if id(vector.variable) in self.last_scales:
                fill = tf.where(tf.gather(grown, vector.places), tf.zeros_like(mean), mean)
            there.assign(_where(others, vector, value, fill))

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


def held_vectors(channels: ChannelVectors, pruned: Sequence[PrunedWeight]) -> HeldVectors | None:
    """Those vectors whose channels the masks of `pruned` tell of; None if there are none.

    Args:
        channels: All vectors of the model.
        pruned: Weights with the channels of their outputs in `layout.channels`.

    Example:

    >>> held_vectors(ChannelVectors(), []) is None
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
    offsets, variances, scales = (
        tuple(
            HeldVector(variable, _shaped([place.get(channel, count) for channel in own], variable))
            for variable, own in kind
            if any(channel in place for channel in own)
        )
        for kind in (channels.offsets, channels.variances, channels.scales)
    )
    if not (offsets or variances or scales):
        return None
    return HeldVectors(
        tuple(witnesses), offsets, variances, scales, channels.last_scales, channels.normalized
    )


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
    return tf.where(tf.gather(alive, vector.places), value, tf.cast(fill, value.dtype))


def _mean_size(values, chosen):
    """The mean |value| of the chosen ones; 1 where there are none."""
    chosen = tf.cast(chosen, values.dtype)
    total = tf.reduce_sum(tf.abs(values) * chosen)
    return tf.where(tf.reduce_any(chosen > 0), total / tf.reduce_sum(chosen), 1.0)
