"""Calls that treat each channel for itself: normalisation, activation, pooling, depthwise.

What becomes of a constant is found by running the layer on constants, so that its arithmetic and
its padding count as they are.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers

from granet_tf.compaction.rules import (
    Member,
    Resized,
    Rule,
    channel_axis,
    found,
    of_ranks,
    register,
    values_of,
)
from keras_layers.keras_internals import nn_operations, numpy_operations

# Which activations see one value at a time. The others mix channels.
_MIXING = {"glu", "log_softmax", "softmax", "sparsemax"}
ACTIVATIONS = {
    function
    for name, function in vars(keras.activations).items()
    if callable(function) and name not in {*_MIXING, "deserialize", "get", "serialize"}
}
_SAVED_AS = {"keras_hub>gelu_approximate"}
_ACTIVATION_LAYERS = (layers.ReLU, layers.LeakyReLU, layers.ELU)

# Positions in place of an axis whose length is open. More than any usual window.
_OPEN_AXIS = 32


def is_elementwise(activation) -> bool:
    """Whether an activation, or None, is known to see one value at a time.

    Example:

    >>> is_elementwise(keras.activations.relu), is_elementwise(keras.activations.softmax)
    (True, False)
    """
    return (
        activation is None
        or type(activation) in _ACTIVATION_LAYERS
        or any(activation is function for function in ACTIVATIONS)
        or keras.saving.get_registered_name(activation) in _SAVED_AS
    )


def keeps_zero(activation) -> bool:
    """Whether an activation, or None, sees one value at a time and makes 0 of 0.

    Example:

    >>> keeps_zero(keras.activations.tanh), keeps_zero(keras.activations.sigmoid)
    (True, False)
    """
    if activation is None or not is_elementwise(activation):
        return activation is None
    return not keras.ops.convert_to_numpy(activation(keras.ops.zeros(1))).any()


class Channelwise(Rule):
    """Output channel i depends on input channel i only."""

    # Which channels of the output are the same for any input.
    blind: np.ndarray | bool = False

    def obstacle(self, inputs):
        reason = super().obstacle(inputs)
        if reason is None and inputs[0] is not None:
            rank = len(self.call.input_shapes[0])
            if inputs[0].axis != channel_axis(self.layer, rank):
                reason = "its channels are on another axis"
        return reason

    def forward(self, ties):
        x = self.inputs[0]
        if x is None:
            return None
        rank = len(self.call.output_shape)
        y = x.unframed().arranged(self.spread, x.axis if x.axis < rank else rank - 1)
        known = y.known | self.blind
        if not known.any() or self.call.masked:
            return y.with_constants(np.zeros(len(known), bool), y.value)
        steady, value = self._run(x.unframed(), y.axis)
        return y.with_constants(known & steady, value)

    def spread(self, of_inputs: np.ndarray) -> np.ndarray:
        """An array with an entry for each input channel -> one for each output channel."""
        return of_inputs

    def needs(self, needed, merging):
        if self.output is None:
            return [np.zeros(0, bool)]
        needed = needed & ~np.broadcast_to(self.blind, needed.shape)
        return [needed.reshape(len(self.inputs[0].ids), -1).any(1)]

    def shape(self) -> tuple[int, ...]:
        """A shape for a sample of the input, big enough to see the borders."""
        open_axis = max([_OPEN_AXIS, *np.ravel(getattr(self.layer, "pool_size", 0)).tolist()])
        return 1, *(open_axis if n is None else n for n in self.call.input_shapes[0][1:])

    def _run(self, x, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Which channels of the output are the same at all positions, and their values."""
        values = np.broadcast_to(_along(x.value, x.axis, len(self.shape())), self.shape())
        out = keras.ops.convert_to_numpy(self.call.run([_tensor(values, self.call)]))
        out = np.moveaxis(out, axis, 0).reshape(len(self.spread(x.ids)), -1).astype("float64")
        low, high = out.min(1), out.max(1)
        return high - low <= 1e-6 * np.maximum(abs(low), abs(high)), (low + high) / 2


def members_of(channels, *vectors) -> list[Member]:
    """The vectors that there are, with an entry for each channel."""
    present = [vector for vector in vectors if vector is not None and channels is not None]
    return [Member(vector, channels.ids) for vector in present]


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def _tensor(values: np.ndarray, call):
    return keras.ops.convert_to_tensor(values, call.tensors[0].dtype)


class Elementwise(Channelwise):
    """Output value i depends on input value i only: channels may be on any axis."""

    def obstacle(self, inputs):
        if not is_elementwise(getattr(self.layer, "activation", None)):
            return "its activation may mix channels"
        return Rule.obstacle(self, inputs)

    def shape(self):
        x, shape = self.inputs[0], self.call.input_shapes[0]
        return tuple(n if i == x.axis else 1 for i, n in enumerate(shape))


class ElementwiseOperation(Elementwise):
    """One of `keras.ops`."""

    def obstacle(self, inputs):
        # An array would have to be cut, too.
        arguments = self.call.node.arguments
        if any(np.ndim(x) for x in keras.tree.flatten((arguments.args[1:], arguments.kwargs))):
            return "an array goes into it"
        return Rule.obstacle(self, inputs)


class Dropping(Elementwise):
    """Nothing at inference, unless the shape of its noise counts channels."""

    def obstacle(self, inputs):
        x, noise_shape = inputs[0], getattr(self.layer, "noise_shape", None)
        if x is not None and noise_shape is not None and noise_shape[x.axis] not in (None, 1):
            return "its `noise_shape` counts channels"
        return super().obstacle(inputs)


class Rescaling(Elementwise):
    """The same scale and offset for all channels."""

    def obstacle(self, inputs):
        if np.ndim(self.layer.scale) or np.ndim(self.layer.offset):
            return "it scales channels one by one"
        return super().obstacle(inputs)


class ZeroPadding(Channelwise):
    """Leaves constants as they are, and puts zeros around them."""

    def forward(self, ties):
        x = self.inputs[0]
        if x is None or x.framed:
            return super().forward(ties)
        return dataclasses.replace(x, framed=True)


class Normalization(Channelwise):
    """Batch normalisation with its moving statistics."""

    resizes = True

    def obstacle(self, inputs):
        reason = Rule.obstacle(self, inputs)
        if reason is None and inputs[0] is not None:
            rank = len(self.call.input_shapes[0])
            if inputs[0].axis != self.layer.axis % rank:
                reason = "its channels are on another axis"
        return reason

    @property
    def blind(self):
        return values_of(self.layer.gamma) == 0 if self.layer.scale else False

    def shape(self):
        return Elementwise.shape(self)

    def offsets(self):
        return members_of(self.output, self.layer.beta, self.layer.moving_mean)

    def scales(self):
        return members_of(self.output, self.layer.gamma)

    def variances(self):
        return members_of(self.output, self.layer.moving_variance)

    def resized(self, plan):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        kept = plan.kept(self.inputs[0])
        weights = {name: getattr(self.layer, name) for name in names}
        return Resized({}, {k: values_of(v)[kept] for k, v in weights.items() if v is not None})


class PReLU(Elementwise):
    """A slope for each channel, or for each value."""

    resizes = True

    def shape(self):
        return Channelwise.shape(self)

    def resized(self, plan):
        alpha, axis = values_of(self.layer.alpha), self.inputs[0].axis - 1
        if alpha.shape[axis] > 1:
            alpha = np.moveaxis(np.moveaxis(alpha, axis, 0)[plan.kept(self.inputs[0])], 0, axis)
        return Resized({}, {"alpha": alpha})


class Depthwise(Channelwise):
    """Filters of one input channel each, `depth_multiplier` of them for each channel."""

    resizes = True

    def obstacle(self, inputs):
        if not is_elementwise(self.layer.activation):
            return "its activation may mix channels"
        return super().obstacle(inputs)

    @property
    def blind(self):
        kernel = values_of(self.layer.kernel)
        return ~kernel.any(tuple(range(kernel.ndim - 2))).ravel()

    def spread(self, of_inputs):
        return np.repeat(of_inputs, self.layer.depth_multiplier)

    def members(self):
        return members_of(self.output, self.layer.kernel)

    def offsets(self):
        return members_of(self.output, self.layer.bias)

    def resized(self, plan):
        weights = {"kernel": values_of(self.layer.kernel)[..., plan.kept(self.inputs[0]), :]}
        if self.layer.use_bias:
            weights["bias"] = values_of(self.layer.bias)[plan.kept(self.output)]
        return Resized({}, weights)


register(
    Elementwise, found(layers, "Activation ReLU ELU LeakyReLU Identity ActivityRegularization")
)
register(Dropping, found(layers, "Dropout AlphaDropout GaussianDropout GaussianNoise"))
register(Dropping, of_ranks("SpatialDropout"))
register(Rescaling, [layers.Rescaling])
register(PReLU, [layers.PReLU])
register(Normalization, [layers.BatchNormalization])
register(Depthwise, of_ranks("DepthwiseConv"))
register(ZeroPadding, of_ranks("ZeroPadding"))
register(
    Channelwise,
    of_ranks(
        "MaxPooling AveragePooling GlobalMaxPooling GlobalAveragePooling UpSampling Cropping "
        "AdaptiveMaxPooling AdaptiveAveragePooling"
    ),
)
register(
    ElementwiseOperation,
    found(
        nn_operations,
        "Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink SparsePlus Silu Squareplus "
        "LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh "
        "HardShrink Threshold",
    )
    + found(numpy_operations, "Absolute Abs Exp Negative Sin Cos Square Tanh Clip Sqrt"),
)
