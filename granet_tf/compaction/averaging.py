"""Layers that average over channels: each channel that goes in has a part in all that come out."""

from __future__ import annotations

from keras import layers

from granet_tf.compaction.calls import Call
from granet_tf.compaction.rules import Opaque, found, register

REASON = "it averages over channels, so that each has a part in all others"


def averaging(call: Call, *, shared: bool) -> Opaque:
    """The rule for a call of a layer that averages over channels: all of them stay.

    Example:

    >>> import keras
    >>> from granet_tf.compaction.calls import call_graph
    >>> model = keras.Sequential([keras.Input((4,)), layers.LayerNormalization(name="norm")])
    >>> averaging(call_graph(model).calls[0], shared=False).why(known=False)  # doctest: +ELLIPSIS
    "'norm' reads it, which stays as it is: it averages over channels, so that each has ..."
    """
    return Opaque(call, REASON)


register(
    averaging,
    found(layers, "LayerNormalization RMSNormalization GroupNormalization UnitNormalization"),
)
