"""Convolutions: plain, grouped, transposed and separable."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from keras import layers

from granet_tf.compaction.channelwise import members_of
from granet_tf.compaction.mixing import Connections, Mixing
from granet_tf.compaction.rules import (
    Rule,
    channel_axis,
    of_ranks,
    register,
    values_of,
)


def padded_taps(
    size: int | None, window: int, stride: int, dilation: int, padding: str
) -> np.ndarray:
    """Which taps of a window meet padding at some position of one axis.

    TensorFlow's "same" shares out the padding alike, with one more behind if it is odd.

    Args:
        size: Length of the axis; None if it is open, for any length.
        window: Length of the window, in taps.
        stride: Of the window.
        dilation: Distance of its taps.
        padding: "valid", "same" or "causal".

    Example:

    >>> padded_taps(8, 3, stride=1, dilation=1, padding="same").tolist()
    [True, False, True]
    >>> padded_taps(8, 3, stride=2, dilation=1, padding="same").tolist()
    [False, False, True]
    """
    at = np.arange(window) * dilation
    # What a length leaves over when divided by the stride decides, and short ones are special.
    span = at[-1] + 1
    sizes = [size] if size is not None else range(1, span + stride + 1)
    return np.any([_PADDED_TAPS[padding](n, at, stride) for n in sizes], axis=0)


def _same(size: int, at: np.ndarray, stride: int) -> np.ndarray:
    last = (-(-size // stride) - 1) * stride
    before = max(last + at[-1] + 1 - size, 0) // 2
    return (at - before < 0) | (last + at - before >= size)


_PADDED_TAPS = {
    "valid": lambda size, at, stride: np.zeros(len(at), bool),
    "same": _same,
    "causal": lambda size, at, stride: at < at[-1],
}


class Convolution(Mixing):
    """Conv1D, Conv2D and Conv3D of one group."""

    def axis(self, rank):
        return channel_axis(self.layer, rank)

    def padded_taps(self):
        layer, shape = self.layer, self.call.input_shapes[0]
        first = 2 if self.axis(len(shape)) == 1 else 1
        padded = np.zeros(layer.kernel_size, bool)
        for i, window in enumerate(layer.kernel_size):
            taps = padded_taps(
                shape[first + i], window, layer.strides[i], layer.dilation_rate[i], layer.padding
            )
            padded |= taps.reshape([-1 if j == i else 1 for j in range(padded.ndim)])
        return padded

    def _config(self, kernel):
        return {"filters": kernel.shape[-1]}


class GroupedConvolution(Convolution):
    """Groups of inputs, each with filters of its own.

    All groups must stay alike in size, so that some channels stay for the sake of other groups. A
    group without any goes.
    """

    can_merge = False

    @functools.cached_property
    def connections(self):
        in_group = super().connections
        inputs, outputs = in_group.total.shape
        group = np.arange(self.layer.groups)
        together = np.repeat(group, inputs)[:, None] == np.repeat(group, outputs // len(group))
        return Connections(
            *(
                np.where(together, np.tile(part, (len(group), 1)), np.zeros((), part.dtype))
                for part in (in_group.nonzero, in_group.cut, in_group.total)
            )
        )

    def also_keep(self, kept):
        ids = [super().also_keep(kept)]
        sides = [self._by_group(x) for x in (self.inputs[0], self.output)]
        masks = [None if side is None else kept[side] for side in sides]
        alive = np.zeros(self.layer.groups, bool)
        for mask in masks:
            alive |= True if mask is None else mask.any(1)
        for side, mask in zip(sides, masks, strict=True):
            if side is None:
                continue
            target = max(1, mask.sum(1).max())
            for group in np.flatnonzero(alive):
                missing = target - mask[group].sum()
                ids.append(side[group][~mask[group]][: max(missing, 0)])
        return np.concatenate(ids)

    def couple(self, ties):
        for side in (self._by_group(x) for x in (self.inputs[0], self.output)):
            for group in () if side is None else side[1:]:
                ties.join(side[0], group)

    def _by_group(self, channels):
        return None if channels is None else channels.ids.reshape(self.layer.groups, -1)

    def _cut(self, kernel, kept_in, kept_out):
        groups = self.layer.groups
        inputs, outputs = kernel.shape[-2:]
        kept_in = _mask(kept_in, groups * inputs).reshape(groups, inputs)
        kept_out = _mask(kept_out, outputs).reshape(groups, -1)
        parts = np.split(kernel, groups, axis=-1)
        return np.concatenate(
            [
                part[..., into, :][..., out]
                for part, into, out in zip(parts, kept_in, kept_out, strict=True)
                if out.any()
            ],
            axis=-1,
        )

    def resized(self, plan):
        resized = super().resized(plan)
        kept_out = _mask(plan.kept(self.output), self.layer.filters)
        groups = int(kept_out.reshape(self.layer.groups, -1).any(1).sum())
        resized.config["groups"] = groups
        return resized


def _mask(kept, size: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[kept] = True
    return mask


def convolution(call, *, shared: bool) -> Rule:
    """The rule for a call of a convolution.

    Example:

    >>> from granet_tf.compaction.calls import call_graph
    >>> conv = keras.layers.Conv1D(4, 3, groups=2)
    >>> [call] = call_graph(keras.Sequential([keras.Input((8, 2)), conv])).calls
    >>> type(convolution(call, shared=False)).__name__
    'GroupedConvolution'
    """
    kind = Convolution if call.operation.groups == 1 else GroupedConvolution
    return kind(call, shared=shared)


class TransposedConvolution(Convolution):
    """Its windows overlap differently from position to position, as if all taps met padding."""

    def kernel(self):
        return np.swapaxes(values_of(self.layer.kernel), -1, -2)

    def padded_taps(self):
        return np.ones((), bool)

    def _stored(self, kernel):
        return {"kernel": np.swapaxes(kernel, -1, -2)}

    def why(self, known):
        return Rule.why(self, known)


class SeparableConvolution(Convolution):
    """A depthwise convolution and a pointwise one in a layer."""

    can_merge = False

    def kernel(self):
        depthwise, pointwise = self._depthwise(), self._pointwise()
        return np.einsum("...cm,cmo->...co", depthwise, pointwise)

    def _depthwise(self):
        return values_of(self.layer.depthwise_kernel).astype("float64")

    def _pointwise(self):
        """(inputs, multiplier, outputs)."""
        pointwise = values_of(self.layer.pointwise_kernel).astype("float64")
        return pointwise.reshape(-1, self.layer.depth_multiplier, pointwise.shape[-1])

    def members(self):
        x, depth = self.inputs[0], self.layer.depth_multiplier
        spread = None if x is None else dataclasses.replace(x, ids=np.repeat(x.ids, depth))
        return [
            *members_of(spread, self.layer.depthwise_kernel),
            *members_of(self.output, self.layer.pointwise_kernel),
        ]

    def resized(self, plan):
        resized = super().resized(plan)
        kept_in, kept_out = plan.kept(self.inputs[0]), plan.kept(self.output)
        pointwise = self._pointwise()[kept_in][..., kept_out]
        del resized.weights["kernel"]
        resized.weights["depthwise_kernel"] = self._depthwise()[..., kept_in, :]
        resized.weights["pointwise_kernel"] = pointwise.reshape(
            *self.layer.pointwise_kernel.shape[:-2], -1, pointwise.shape[-1]
        )
        return resized


register(convolution, of_ranks("Conv"))
register(
    TransposedConvolution, [layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose]
)
register(SeparableConvolution, of_ranks("SeparableConv"))
