"""Calls that join tensors: sums and the like, channel by channel, and concatenation."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from granet_tf.compaction.channels import Channels, unknown
from granet_tf.compaction.rules import Rule, found, register
from keras_layers.keras_internals import Multiply, numpy_operations


class Joining(Rule):
    """Several tensors; those whose channels all stay get channels that are pinned."""

    def obstacle(self, inputs):
        axes = {x.axis for x in inputs if x is not None}
        shapes = self.call.input_shapes
        if not axes:
            return None
        [axis, *others] = axes
        if others or len({len(shape) for shape in shapes}) > 1:
            return "it joins tensors whose channels are not on one axis"
        return self.misfit(axis, shapes)

    def misfit(self, axis: int, shapes: list[tuple]) -> str | None:
        """Why tensors of these shapes are not joined channel by channel."""
        sizes = {shape[axis] for shape in shapes}
        if len(sizes) > 1 or None in sizes:
            return "it broadcasts over channels"
        arguments = self.call.node.arguments
        others = keras.tree.flatten((arguments.args, arguments.kwargs))
        if any(np.ndim(x) for x in others if not isinstance(x, keras.KerasTensor)):
            return "an array goes into it"
        return None

    def why(self, known):
        if known:
            return f"'{self.layer.name}' joins it with channels that are not dead"
        return super().why(known)

    def labelled(self, ties) -> list[Channels] | None:
        """Channels for each input, or None if there are none in any."""
        axis = next((x.axis for x in self.inputs if x is not None), None)
        if axis is None:
            return None
        sizes = [shape[axis] for shape in self.call.input_shapes]
        return [
            _pinned(size, axis, ties) if x is None else x.unframed()
            for x, size in zip(self.inputs, sizes, strict=True)
        ]


def _pinned(size: int, axis: int, ties) -> Channels:
    ids = ties.fresh(size)
    ties.pin(ids)
    return unknown(ids, axis)


class ChannelByChannel(Joining):
    """Channel i of the output depends on channel i of each input."""

    def forward(self, ties):
        inputs = self.labelled(ties)
        if inputs is None:
            return None
        first, *others = inputs
        for other in others:
            ties.join(first.ids, other.ids)
        known = self.known(inputs)
        rank = len(self.call.output_shape)
        shape = [-1 if i == first.axis else 1 for i in range(rank)]
        values = [
            keras.ops.convert_to_tensor(x.value.reshape(shape), tensor.dtype)
            for x, tensor in zip(inputs, self.call.tensors, strict=True)
        ]
        value = keras.ops.convert_to_numpy(self.call.run(values)).ravel().astype("float64")
        return first.with_constants(known, value)

    def known(self, inputs: list[Channels]) -> np.ndarray:
        """Which channels of the output are constant."""
        return np.all([x.known for x in inputs], axis=0)

    def needs(self, needed, merging):
        return [np.zeros(0, bool) if x is None else needed for x in self.inputs]


class Product(ChannelByChannel):
    """A product is constant also where one factor is 0.

    `Multiply` leaves out factors at positions that a mask hides.
    """

    def known(self, inputs):
        if isinstance(self.layer, layers.Multiply) and self.call.on_masked_tensors:
            return np.zeros(len(inputs[0].ids), bool)
        zero = np.any([x.known & (x.value == 0) for x in inputs], axis=0)
        return super().known(inputs) | zero


class Concatenation(Joining):
    """Along channels, or along another axis, where channel i stays channel i."""

    def misfit(self, axis, shapes):
        if None in [shape[axis] for shape in shapes]:
            return "its channels are not counted"
        return None

    def forward(self, ties):
        inputs = self.labelled(ties)
        if inputs is None:
            return None
        first, *others = inputs
        if self._along_channels(first):
            ids, known, value = (
                np.concatenate([getattr(x, name) for x in inputs])
                for name in ("ids", "known", "value")
            )
            return Channels(ids, first.axis, known, value)
        for other in others:
            ties.join(first.ids, other.ids)
        alike = np.all([x.known & (x.value == first.value) for x in inputs], axis=0)
        return first.with_constants(alike, first.value)

    def needs(self, needed, merging):
        if self.output is None:
            return [np.zeros(0, bool) for _ in self.inputs]
        if not self._along_channels(self.output):
            return [np.zeros(0, bool) if x is None else needed for x in self.inputs]
        sizes = [shape[self.output.axis] for shape in self.call.input_shapes]
        parts = np.split(needed, np.cumsum(sizes)[:-1])
        return [
            np.zeros(0, bool) if x is None else part
            for x, part in zip(self.inputs, parts, strict=True)
        ]

    def _along_channels(self, channels: Channels) -> bool:
        return self.layer.axis % len(self.call.output_shape) == channels.axis


register(ChannelByChannel, found(layers, "Add Subtract Average Maximum Minimum"))
register(ChannelByChannel, found(numpy_operations, "Add Subtract Maximum Minimum"))
register(Product, [layers.Multiply, Multiply])
register(Concatenation, [layers.Concatenate])
