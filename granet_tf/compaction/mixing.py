"""Layers whose outputs are weighted sums over input channels: dense, and the base of convolutions.

Each has its kernel seen as (window..., inputs, outputs). An input channel of constant value adds a
constant to each output, except where zero padding stands in for it: only the taps of the window
that never meet padding may have weights then.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
from keras import layers

from granet_tf.compaction.channels import unknown
from granet_tf.compaction.channelwise import is_elementwise, members_of
from granet_tf.compaction.rules import Resized, Rule, register, values_of


@dataclasses.dataclass(frozen=True)
class Connections:
    """What leads from inputs to outputs; each is an array (inputs, outputs).

    Attributes:
        nonzero: Whether any weight does.
        cut: Whether one does at a tap that may meet padding.
        total: Sum of the weights over the window.
    """

    nonzero: np.ndarray
    cut: np.ndarray
    total: np.ndarray


class Mixing(Rule):
    """A dense layer; the base of the convolutions."""

    resizes = makes_channels = can_merge = True

    @property
    def differs_in_training(self):
        return False  # Only a quantized one does, and that has no rule.

    @property
    def dense(self):
        """The layer that has the weights."""
        return self.layer

    def obstacle(self, inputs):
        reason = super().obstacle(inputs)
        axis = self.axis(len(self.call.input_shapes[0]))
        if reason is None and inputs[0] is not None and inputs[0].axis != axis:
            reason = "its channels are on another axis"
        return reason

    def axis(self, rank: int) -> int:
        """The axis of channels."""
        return rank - 1

    def kernel(self) -> np.ndarray:
        """The weights as (window..., inputs, outputs)."""
        return values_of(self.dense.kernel)

    def padded_taps(self) -> np.ndarray:
        """Which taps of the window may meet padding."""
        return np.zeros((), bool)

    @functools.cached_property
    def connections(self) -> Connections:
        kernel = self.kernel()
        window = kernel.shape[:-2]
        flat = kernel.reshape(-1, *kernel.shape[-2:])
        padded = np.broadcast_to(self.padded_taps(), window).ravel()
        return Connections(flat.any(0), flat[padded].any(0), flat.sum(0, dtype="float64"))

    def absorbs(self, merging: bool = False) -> np.ndarray:
        """(inputs, outputs): whether a known, constant amount comes from this input."""
        x, c = self.inputs[0], self.connections
        if x is None:
            return ~c.nonzero
        zero = x.known & (x.value == 0)
        # A bias that other calls of the layer share has no room for what holds in one of them.
        if self.shared:
            return ~c.nonzero | zero[:, None]
        if merging and self.can_merge:
            return ~c.nonzero | x.known[:, None]
        return ~c.nonzero | zero[:, None] | (x.everywhere[:, None] & ~c.cut)

    def forward(self, ties):
        rank = len(self.call.output_shape)
        if not is_elementwise(self.dense.activation):
            return None
        y = unknown(ties.fresh(self.connections.total.shape[1]), self.axis(rank))
        absorbs = self.absorbs()
        known = absorbs.all(0)
        if not known.any():
            return y
        value = (self._amounts() * absorbs).sum(0)
        if self.dense.bias is not None:
            value = value + self._bias()
        value = keras.ops.convert_to_tensor(value, self.dense.compute_dtype)
        if self.dense.activation is not None:
            value = self.dense.activation(value)
        return y.with_constants(known, keras.ops.convert_to_numpy(value).astype("float64"))

    def _amounts(self) -> np.ndarray:
        """(inputs, outputs): what constant inputs add, where nothing cuts them."""
        x = self.inputs[0]
        return 0.0 if x is None else x.value[:, None] * self.connections.total

    def needs(self, needed, merging):
        needed = np.ones(self.connections.total.shape[1], bool) if needed is None else needed
        return [(needed & ~self.absorbs(merging)).any(1)]

    def members(self):
        return members_of(self.output, self.dense.kernel)

    def offsets(self):
        return members_of(self.output, self.dense.bias)

    def resized(self, plan):
        x = self.inputs[0]
        kernel = self.kernel().astype("float64")
        kept_in, kept_out = plan.kept(x), plan.kept(self.output)
        bias = 0.0 if self.dense.bias is None else self._bias()
        if x is not None:
            gone = ~kept_in
            merged = gone & self.needed_inputs[0]
            for i in np.flatnonzero(merged):
                j = plan.carrier(x, i)
                kernel[..., j, :] += x.value[i] / x.value[j] * kernel[..., i, :]
            folded = (gone & ~merged)[:, None] & self.absorbs()
            bias = bias + (self._amounts() * folded).sum(0)
        kernel = self._cut(kernel, kept_in, kept_out)
        config, weights = self._config(kernel), self._stored(kernel)
        if self.dense.bias is not None or np.any(bias):
            config |= self._with_bias()
            bias = np.broadcast_to(bias, len(self.connections.total.T))[kept_out]
            weights |= self._stored_bias(bias)
        return Resized(config, weights)

    def _cut(self, kernel, kept_in, kept_out) -> np.ndarray:
        return kernel[..., kept_in, :][..., kept_out]

    def _bias(self) -> np.ndarray:
        """The bias, one for each output."""
        return values_of(self.dense.bias).ravel()

    def _stored(self, kernel) -> dict[str, np.ndarray]:
        """The kernel as the layer has it."""
        return {"kernel": kernel}

    def _stored_bias(self, bias) -> dict[str, np.ndarray]:
        """The bias as the layer has it."""
        return {"bias": bias}

    def _config(self, kernel) -> dict[str, Any]:
        return {"units": kernel.shape[-1]}

    def _with_bias(self) -> dict[str, Any]:
        return {"use_bias": True}

    def why(self, known):
        if known and not self.shared:
            return f"zero padding cuts its constant at the border, before '{self.layer.name}'"
        return super().why(known)


register(Mixing, [layers.Dense])
