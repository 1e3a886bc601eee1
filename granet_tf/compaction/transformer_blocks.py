"""Blocks of a transformer that are one layer, as KerasHub has them: hidden units inside can go.

The block normalises what goes in and what comes out, so that all of that stays. Its heads stay,
too: the block makes the size of a head from their number, so that it can't be built with fewer.
"""

from __future__ import annotations

import functools

import keras
import numpy as np

from granet_tf.compaction import averaging
from granet_tf.compaction.channelwise import is_elementwise, keeps_zero
from granet_tf.compaction.rules import Member, Opaque, Resized, register, values_of
from keras_layers.keras_internals import layers_of

UNITS = "hidden units"


class TransformerBlock(Opaque):
    """Two dense layers inside, one after the other; between them are hidden units."""

    resizes = True

    def __init__(self, call, *, shared: bool):
        super().__init__(call, f"{averaging.REASON}; heads stay, too, as it sets their size")
        self.shared = shared

    def obstacle(self, inputs):
        if not is_elementwise(self._first.activation):
            return "its activation may mix channels"
        return None

    @functools.cached_property
    def _parts(self) -> dict[str, keras.Layer]:
        return {part.name: part for part in layers_of(self.layer, include_self=False)}

    @property
    def _first(self):
        return self._parts["feedforward_intermediate_dense"]

    @property
    def _second(self):
        return self._parts["feedforward_output_dense"]

    def forward(self, ties):
        self.inside = {UNITS: ties.fresh(self._first.units)}
        self._constant = self._without_weights()
        return None

    def needs_inside(self, needed):
        first, second = values_of(self._first.kernel), values_of(self._second.kernel)
        return {UNITS: first.any(0) & second.any(1)}

    def couple(self, ties):
        if not keeps_zero(self._first.activation):
            ties.pin(self.inside[UNITS])  # Without weights, one is a constant that is read.

    def members(self):
        return [Member(self._first.kernel, self.inside[UNITS])]

    def offsets(self):
        return [Member(self._first.bias, self.inside[UNITS])]

    def resized(self, plan):
        stays, first, second = plan.stays[self.inside[UNITS]], self._first, self._second
        return Resized(
            {"intermediate_dim": int(np.count_nonzero(stays))},
            inside={
                id(first.kernel): values_of(first.kernel)[:, stays],
                id(first.bias): values_of(first.bias)[stays],
                id(second.kernel): values_of(second.kernel)[stays],
                id(second.bias): values_of(second.bias) + self._constant[~stays].sum(0),
            },
        )

    def _without_weights(self) -> np.ndarray:
        """(units, outputs): what a unit adds that has no weights or that is not read."""
        value = keras.ops.convert_to_tensor(self._first.bias, self._first.compute_dtype)
        if self._first.activation is not None:
            value = self._first.activation(value)
        value = keras.ops.convert_to_numpy(value).astype("float64")
        return value[:, None] * values_of(self._second.kernel)


register(TransformerBlock, ["keras_hub>TransformerEncoder", "keras_hub>TransformerDecoder"])
