"""Calls that move channels to another place, and embeddings, where channels begin."""

from __future__ import annotations

import numpy as np
from keras import layers

from granet_tf.compaction.channels import unknown
from granet_tf.compaction.rules import Member, Resized, Rule, channel_axis, register, values_of


class Moving(Rule):
    """The same channels on another axis, each as often as `count` says."""

    def forward(self, ties):
        x = self.inputs[0]
        return None if x is None else self.moved(x.unframed())

    def moved(self, x):
        """The channels of the output for those of the input."""
        raise NotImplementedError

    def needs(self, needed, merging):
        if self.output is None:
            return [np.zeros(0, bool)]
        # Tells which input channel each output channel is.
        number = np.arange(len(self.inputs[0].ids))
        source = self.moved(unknown(number, self.inputs[0].axis)).ids
        return [np.bincount(source, needed, len(number)) > 0]


class Flattening(Moving):
    """Each channel becomes as many as it has positions."""

    def obstacle(self, inputs):
        if inputs[0] is not None and None in self.call.input_shapes[0][1:]:
            return "its input has an open shape"
        return super().obstacle(inputs)

    def moved(self, x):
        shape = self.call.input_shapes[0][1:]
        around = [-1 if axis == x.axis else 1 for axis in range(1, len(shape) + 1)]
        # Keras moves channels behind before it flattens.
        last = channel_axis(self.layer, len(shape) + 1) - 1

        def arrange(array):
            everywhere = np.broadcast_to(array.reshape(around), shape)
            return np.moveaxis(everywhere, last, -1).ravel()

        return x.arranged(arrange, 1)


class Permuting(Moving):
    """Axes in another order."""

    def moved(self, x):
        return x.arranged(lambda array: array, self.layer.dims.index(x.axis) + 1)


class Repeating(Moving):
    """A vector becomes a sequence."""

    def moved(self, x):
        return x.arranged(lambda array: array, 2)


class Reshaping(Moving):
    """Other axes are reshaped, the channels stay last."""

    resizes = True

    def obstacle(self, inputs):
        x, before, after = inputs[0], self.call.input_shapes[0], self.call.output_shape
        if x is not None and (x.axis != len(before) - 1 or before[-1] != after[-1]):
            return "it takes channels apart"
        return super().obstacle(inputs)

    def moved(self, x):
        return x.arranged(lambda array: array, len(self.call.output_shape) - 1)

    def resized(self, plan):
        channels = int(np.count_nonzero(plan.kept(self.inputs[0])))
        return Resized({"target_shape": (*self.layer.target_shape[:-1], channels)}, {})


class Lookup(Rule):
    """An embedding: its columns are channels, constant where a column is 0."""

    resizes = makes_channels = True

    def forward(self, ties):
        table = values_of(self.layer.embeddings)
        axis = len(self.call.output_shape) - 1
        y = unknown(ties.fresh(table.shape[1]), axis)
        return y.with_constants(~table.any(0), y.value)

    def needs(self, needed, merging):
        return [np.ones(0 if x is None else len(x.ids), bool) for x in self.inputs]

    def members(self):
        return [Member(self.layer.embeddings, self.output.ids)]

    def resized(self, plan):
        table = values_of(self.layer.embeddings)[:, plan.kept(self.output)]
        return Resized({"output_dim": table.shape[1]}, {"embeddings": table})

    def why(self, known):
        return f"'{self.layer.name}' reads it as an index"


register(Flattening, [layers.Flatten])
register(Permuting, [layers.Permute])
register(Repeating, [layers.RepeatVector])
register(Reshaping, [layers.Reshape])
register(Lookup, [layers.Embedding])
