"""Blocks of a transformer that are one layer, as KerasHub has them: what is inside can go.

The block normalises what goes in and what comes out, so that all of that stays. Hidden units can
go, and heads of encoders. Those of decoders stay: whoever generates text with them makes caches for
as many heads as fill the width.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import keras
import numpy as np

from granet_tf.compaction import averaging
from granet_tf.compaction.attention import (
    HEADS,
    MASKS_HEADS,
    Attention,
    arguments_of,
    masks_heads,
)
from granet_tf.compaction.channelwise import is_elementwise, keeps_zero
from granet_tf.compaction.rules import Member, Opaque, Resized, register, values_of
from granet_tf.registered.narrow_attention import narrow_encoder
from keras_layers.keras_internals import layers_of

UNITS = "hidden units"


class TransformerBlock(Opaque):
    """Two dense layers inside, one after the other; between them are hidden units."""

    resizes = True
    why_opaque: ClassVar[str] = averaging.REASON

    def __init__(self, call, *, shared: bool):
        super().__init__(call, self.why_opaque)
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


class DecoderBlock(TransformerBlock):
    """Hidden units."""

    why_opaque = f"{averaging.REASON}; heads stay, too, as caches are made for all of them"


class AttentionInside(Attention):
    """The attention of a block: its heads, which go if their values are 0 or not read.

    What it reads and writes is the block's, and stays.
    """

    _makes_channels = False
    _steady = False  # The block may be given a mask that leaves nothing to attend to.

    def __init__(self, call, layer: keras.Layer):
        super().__init__(call, shared=False)
        self.layer = layer

    def _of(self, role):
        return None


class EncoderBlock(TransformerBlock):
    """Hidden units and heads. Fewer heads of the same size take a class that is told the size."""

    def obstacle(self, inputs):
        return MASKS_HEADS if masks_heads(arguments_of(self.call)) else super().obstacle(inputs)

    @functools.cached_property
    def _attention(self) -> AttentionInside:
        return AttentionInside(self.call, self._parts["self_attention_layer"])

    def forward(self, ties):
        super().forward(ties)
        self._attention.forward(ties)
        self.inside |= self._attention.inside
        if self._attention.has_single_numbers:
            ties.pin(self.inside[HEADS])
        return None

    def needs_inside(self, needed):
        return super().needs_inside(needed) | self._attention.needs_inside(needed)

    def members(self):
        return super().members() + self._attention.members()

    def offsets(self):
        return super().offsets() + self._attention.offsets()

    def resized(self, plan):
        block, heads = super().resized(plan), self._attention.resized(plan)
        inside = block.inside | heads.inside
        if plan.stays[self.inside[HEADS]].all():
            return Resized(block.config, inside=inside)
        size = self._attention.layer.key_dim
        config = block.config | {"num_heads": heads.config["num_heads"], "head_size": size}
        return Resized(config, inside=inside, kind=narrow_encoder())


register(DecoderBlock, ["keras_hub>TransformerDecoder"])
register(EncoderBlock, ["keras_hub>TransformerEncoder", "granet_tf>TransformerEncoder"])
