"""What is known of each Keras layer: one row for those that are alike, in one table.

A subclass is as its base class. A layer without a row has no weights that are pruned by default,
and its multiply-adds are not counted.
"""

from __future__ import annotations

import dataclasses

import keras
from keras import layers

from keras_layers import layouts, multiply_adds
from keras_layers.keras_internals import ConvLSTMCell
from keras_layers.layouts import FindLayout, Layout, always
from keras_layers.multiply_adds import MultiplyAdds, at_outputs


@dataclasses.dataclass(frozen=True)
class KnownLayer:
    """One row of the table. What it leaves out is as in a layer that is not known.

    Attributes:
        classes: The layers that it is true of.
        prunable: Names of the weights that are pruned by default.
        layout: What finds the axes of a weight that has two or more, also of one that is only
            pruned if the user asks for it.
        why_not: Why the other weights are not pruned, where their shape or name does not tell.
        multiply_adds: What counts those of one call, without those of sublayers.
        makes_pruned_layers: Whether it makes, when it is built, layers inside that are pruned.
        side_by_side: Attributes that hold the sublayers whose outputs all are outputs of it.
            Without any, the last sublayer has the outputs.
    """

    classes: tuple[type[keras.Layer], ...]
    prunable: tuple[str, ...] = ()
    layout: FindLayout | None = None
    why_not: str | None = None
    multiply_adds: MultiplyAdds | None = None
    makes_pruned_layers: bool = False
    side_by_side: tuple[str, ...] = ()


# Depthwise kernels, biases and normalisation are left out on purpose: few weights, much accuracy.
ROWS: tuple[KnownLayer, ...] = (
    KnownLayer(
        (layers.Dense,),
        prunable=("kernel",),
        layout=always(layouts.DENSE),
        multiply_adds=at_outputs("units", "kernel"),
    ),
    KnownLayer(
        (layers.EinsumDense,),  # and with it every projection of attention layers
        prunable=("kernel",),
        layout=layouts.einsum,
        multiply_adds=multiply_adds.einsum,
    ),
    KnownLayer(
        (layers.Conv1D, layers.Conv2D, layers.Conv3D),
        prunable=("kernel",),
        layout=always(layouts.CONVOLUTION),
        multiply_adds=at_outputs("filters", "kernel"),
    ),
    KnownLayer(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        prunable=("kernel",),
        layout=always(layouts.TRANSPOSED),
        multiply_adds=multiply_adds.transposed_convolution,
    ),
    KnownLayer(
        (layers.SeparableConv1D, layers.SeparableConv2D),
        prunable=("pointwise_kernel",),
        layout=layouts.separable,
        multiply_adds=at_outputs("filters", "depthwise_kernel", "pointwise_kernel"),
    ),
    KnownLayer(
        (layers.DepthwiseConv1D, layers.DepthwiseConv2D),
        layout=always(layouts.DEPTHWISE),
        why_not="depthwise kernel",
        multiply_adds=multiply_adds.depthwise_convolution,
    ),
    KnownLayer(
        multiply_adds.CELLS,
        prunable=("kernel", "recurrent_kernel"),
        layout=always(layouts.RECURRENT),
        multiply_adds=multiply_adds.nothing,  # The RNN counts all steps.
    ),
    KnownLayer(
        (ConvLSTMCell,), prunable=("kernel", "recurrent_kernel"), layout=always(layouts.RECURRENT)
    ),
    KnownLayer((layers.RNN,), multiply_adds=multiply_adds.recurrent),
    KnownLayer((layers.Bidirectional,), side_by_side=("forward_layer", "backward_layer")),
    KnownLayer(
        (layers.Embedding,),
        prunable=("embeddings", "reverse_embeddings"),  # the latter in ReversibleEmbedding
        layout=always(layouts.EMBEDDING),
        multiply_adds=multiply_adds.nothing,
    ),
    KnownLayer((layers.Attention,), multiply_adds=multiply_adds.attention),
    KnownLayer(
        (layers.MultiHeadAttention,),
        multiply_adds=multiply_adds.multi_head_attention,
        makes_pruned_layers=True,
    ),
    KnownLayer(
        (layers.GroupQueryAttention,),
        multiply_adds=multiply_adds.group_query_attention,
        makes_pruned_layers=True,
    ),
    KnownLayer(
        (
            layers.BatchNormalization,
            layers.GroupNormalization,
            layers.LayerNormalization,
            layers.RMSNormalization,
        ),
        why_not="bias or scale",
        multiply_adds=multiply_adds.nothing,
    ),
    KnownLayer(
        (layers.PReLU,), why_not="slope of an activation", multiply_adds=multiply_adds.nothing
    ),
    KnownLayer((layers.STFTSpectrogram,), why_not="Fourier transform"),
    KnownLayer(
        (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
        multiply_adds=multiply_adds.average,
    ),
    KnownLayer(
        (
            layers.GlobalAveragePooling1D,
            layers.GlobalAveragePooling2D,
            layers.GlobalAveragePooling3D,
        ),
        multiply_adds=multiply_adds.global_average,
    ),
)

BY_CLASS: dict[type[keras.Layer], KnownLayer] = {kind: row for row in ROWS for kind in row.classes}
_UNKNOWN = KnownLayer(())


def known(layer: keras.Layer) -> KnownLayer:
    """The row of the layer's class, or of the nearest of its base classes that has one.

    Example:

    >>> known(keras.layers.LSTMCell(2)).prunable, known(keras.layers.ReLU()).prunable
    (('kernel', 'recurrent_kernel'), ())
    """
    return next((BY_CLASS[c] for c in type(layer).__mro__ if c in BY_CLASS), _UNKNOWN)


def layout_of(layer: keras.Layer, weight: keras.Variable) -> Layout:
    """The layout of `weight`, a kernel of `layer`.

    A weight of a layer that is not known, such as one of your own, has the default: inputs in the
    last axis but one, outputs in the last.

    Example:

    >>> layer = keras.layers.Conv2DTranspose(8, 3)
    >>> layer.build((None, 6, 6, 2))
    >>> layout_of(layer, layer.kernel)  # (height, width, outputs, inputs)
    Layout(kind='transposed_convolution', inputs=(-1,), outputs=(-2,))
    """
    find = known(layer).layout
    return Layout() if find is None or len(weight.shape) < 2 else find(layer, weight)
