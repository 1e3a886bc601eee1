"""Which weights of each Keras layer are pruned, and which of their axes are what: by hand.

Sizes are chosen so that each axis can be told by its size. A row of the table of known layers
without an entry here fails a test.
"""

import inspect

import keras
import numpy as np
import pytest

from keras_layers.known_layers import BY_CLASS, ROWS, known, layout_of
from keras_layers.layouts import Layout
from keras_layers.prunable import may_be_pruned, weights_of
from tests.support.keras_versions import NORMALIZES_SEVERAL_AXES

L = keras.layers


def zeros(*shape, dtype="float32"):
    return np.zeros((1, *shape), dtype)


def conv(*shape):
    return "convolution", shape, (-2,), (-1,)


def transposed(*shape):
    return "transposed_convolution", shape, (-1,), (-2,)


def recurrent(*shape):
    return "recurrent", shape, (-2,), (-1,)


def matrix(kind, *shape):
    return kind, shape, (-2,), (-1,)


def itself(layer, x):
    return layer(x)


def twice(layer, x):
    return layer(x, x)


def there_and_back(layer, x):
    return layer(layer(x), reverse=True)


SCALE = "bias or scale"
STATISTICS = {"moving_mean": "not trainable", "moving_variance": "not trainable"}
SERIES, IMAGE, VOLUME, FILM = zeros(6, 7), zeros(6, 6, 7), zeros(4, 4, 4, 7), zeros(2, 4, 4, 4, 7)
TOKENS = zeros(4, dtype="int32")
# {name: (layer, input, how it is called, {pruned weight: (kind, shape, axes of inputs, axes of
# outputs)}, {other weight: why it is not pruned})}. Inputs have 7 channels, outputs 5.
LAYERS = {
    "Dense": (
        lambda: L.Dense(5), SERIES, itself,
        {"kernel": matrix("dense", 7, 5)}, {"bias": SCALE},
    ),
    "EinsumDense": (
        lambda: L.EinsumDense("abc,cde->abde", (6, 2, 5), bias_axes="de"), SERIES, itself,
        {"kernel": ("einsum", (7, 2, 5), (-3,), (-2, -1))}, {"bias": SCALE},
    ),
    "EinsumDense that contracts two axes": (
        lambda: L.EinsumDense("abc,bcd->ad", 5), SERIES, itself,
        {"kernel": ("einsum", (6, 7, 5), (-3, -2), (-1,))}, {},
    ),
    "EinsumDense with its outputs first": (
        lambda: L.EinsumDense("abc,dc->abd", (6, 5)), SERIES, itself,
        {"kernel": ("einsum", (5, 7), (-1,), (-2,))}, {},
    ),
    "Conv1D": (lambda: L.Conv1D(5, 3), SERIES, itself, {"kernel": conv(3, 7, 5)}, {"bias": SCALE}),
    "Conv2D": (
        lambda: L.Conv2D(5, (3, 2)), IMAGE, itself,
        {"kernel": conv(3, 2, 7, 5)}, {"bias": SCALE},
    ),
    "Conv2D, grouped, without a bias": (
        lambda: L.Conv2D(14, 3, groups=7, use_bias=False), IMAGE, itself,
        {"kernel": conv(3, 3, 1, 14)}, {},
    ),
    "Conv3D": (
        lambda: L.Conv3D(5, (3, 2, 1)), VOLUME, itself,
        {"kernel": conv(3, 2, 1, 7, 5)}, {"bias": SCALE},
    ),
    "Conv1DTranspose": (
        lambda: L.Conv1DTranspose(5, 3), SERIES, itself,
        {"kernel": transposed(3, 5, 7)}, {"bias": SCALE},
    ),
    "Conv2DTranspose": (
        lambda: L.Conv2DTranspose(5, (3, 2)), IMAGE, itself,
        {"kernel": transposed(3, 2, 5, 7)}, {"bias": SCALE},
    ),
    "Conv3DTranspose": (
        lambda: L.Conv3DTranspose(5, (3, 2, 1)), VOLUME, itself,
        {"kernel": transposed(3, 2, 1, 5, 7)}, {"bias": SCALE},
    ),
    "SeparableConv1D": (
        lambda: L.SeparableConv1D(5, 3, depth_multiplier=2), SERIES, itself,
        {"pointwise_kernel": conv(1, 14, 5)},
        {"depthwise_kernel": "depthwise kernel", "bias": SCALE},
    ),
    "SeparableConv2D": (
        lambda: L.SeparableConv2D(5, 3, depth_multiplier=2), IMAGE, itself,
        {"pointwise_kernel": conv(1, 1, 14, 5)},
        {"depthwise_kernel": "depthwise kernel", "bias": SCALE},
    ),
    "DepthwiseConv1D": (
        lambda: L.DepthwiseConv1D(3, depth_multiplier=2), SERIES, itself,
        {}, {"kernel": "depthwise kernel", "bias": SCALE},
    ),
    "DepthwiseConv2D": (
        lambda: L.DepthwiseConv2D(3, depth_multiplier=2), IMAGE, itself,
        {}, {"kernel": "depthwise kernel", "bias": SCALE},
    ),
    "SimpleRNN": (
        lambda: L.SimpleRNN(5), SERIES, itself,
        {
            "simple_rnn_cell/kernel": recurrent(7, 5),
            "simple_rnn_cell/recurrent_kernel": recurrent(5, 5),
        },
        {"simple_rnn_cell/bias": SCALE},
    ),
    "GRU": (
        lambda: L.GRU(5), SERIES, itself,
        {"gru_cell/kernel": recurrent(7, 15), "gru_cell/recurrent_kernel": recurrent(5, 15)},
        {"gru_cell/bias": SCALE},  # Of two rows.
    ),
    "LSTM": (
        lambda: L.LSTM(5), SERIES, itself,
        {"lstm_cell/kernel": recurrent(7, 20), "lstm_cell/recurrent_kernel": recurrent(5, 20)},
        {"lstm_cell/bias": SCALE},
    ),
    "ConvLSTM1D": (
        lambda: L.ConvLSTM1D(5, 3), IMAGE, itself,
        {
            "conv_lstm_cell/kernel": recurrent(3, 7, 20),
            "conv_lstm_cell/recurrent_kernel": recurrent(3, 5, 20),
        },
        {"conv_lstm_cell/bias": SCALE},
    ),
    "ConvLSTM2D": (
        lambda: L.ConvLSTM2D(5, 3), VOLUME, itself,
        {
            "conv_lstm_cell/kernel": recurrent(3, 3, 7, 20),
            "conv_lstm_cell/recurrent_kernel": recurrent(3, 3, 5, 20),
        },
        {"conv_lstm_cell/bias": SCALE},
    ),
    "ConvLSTM3D": (
        lambda: L.ConvLSTM3D(5, 3), FILM, itself,
        {
            "conv_lstm_cell/kernel": recurrent(3, 3, 3, 7, 20),
            "conv_lstm_cell/recurrent_kernel": recurrent(3, 3, 3, 5, 20),
        },
        {"conv_lstm_cell/bias": SCALE},
    ),
    "RNN of several cells": (
        lambda: L.RNN(
            L.StackedRNNCells([L.GRUCell(3, name="a"), L.LSTMCell(5, name="b")], name="cells")
        ),
        SERIES, itself,
        {
            "cells/a/kernel": recurrent(7, 9),
            "cells/a/recurrent_kernel": recurrent(3, 9),
            "cells/b/kernel": recurrent(3, 20),
            "cells/b/recurrent_kernel": recurrent(5, 20),
        },
        {"cells/a/bias": SCALE, "cells/b/bias": SCALE},
    ),
    "Bidirectional": (
        lambda: L.Bidirectional(L.SimpleRNN(5, name="rnn")), SERIES, itself,
        {
            "forward_rnn/simple_rnn_cell/kernel": recurrent(7, 5),
            "forward_rnn/simple_rnn_cell/recurrent_kernel": recurrent(5, 5),
            "backward_rnn/simple_rnn_cell/kernel": recurrent(7, 5),
            "backward_rnn/simple_rnn_cell/recurrent_kernel": recurrent(5, 5),
        },
        {
            "forward_rnn/simple_rnn_cell/bias": SCALE,
            "backward_rnn/simple_rnn_cell/bias": SCALE,
        },
    ),
    "TimeDistributed": (
        lambda: L.TimeDistributed(L.Conv1D(5, 3, name="conv")), IMAGE, itself,
        {"conv/kernel": conv(3, 7, 5)}, {"conv/bias": SCALE},
    ),
    "Embedding": (
        lambda: L.Embedding(9, 5), TOKENS, itself,
        {"embeddings": matrix("embedding", 9, 5)}, {},
    ),
    "ReversibleEmbedding": (
        lambda: L.ReversibleEmbedding(9, 5, tie_weights=False), TOKENS, there_and_back,
        # The latter leads from features back to tokens.
        {
            "embeddings": matrix("embedding", 9, 5),
            "reverse_embeddings": matrix("embedding", 5, 9),
        },
        {},
    ),
    "MultiHeadAttention": (
        lambda: L.MultiHeadAttention(2, 3, value_dim=5), SERIES, twice,
        {
            "query/kernel": ("einsum", (7, 2, 3), (-3,), (-2, -1)),
            "key/kernel": ("einsum", (7, 2, 3), (-3,), (-2, -1)),
            "value/kernel": ("einsum", (7, 2, 5), (-3,), (-2, -1)),
            "attention_output/kernel": ("einsum", (2, 5, 7), (-3, -2), (-1,)),
        },
        {f"{name}/bias": SCALE for name in ("query", "key", "value", "attention_output")},
    ),
    "GroupQueryAttention": (
        lambda: L.GroupQueryAttention(3, 4, 2, use_bias=False), SERIES, twice,
        {
            "query/kernel": ("einsum", (7, 4, 3), (-3,), (-2, -1)),
            "key/kernel": ("einsum", (7, 2, 3), (-3,), (-2, -1)),
            "value/kernel": ("einsum", (7, 2, 3), (-3,), (-2, -1)),
            "attention_output/kernel": ("einsum", (4, 3, 7), (-3, -2), (-1,)),
        },
        {},
    ),
    "Attention": (
        lambda: L.Attention(use_scale=True), [SERIES, SERIES], itself, {}, {"scale": SCALE},
    ),
    "BatchNormalization": (
        L.BatchNormalization, IMAGE, itself, {}, {"gamma": SCALE, "beta": SCALE, **STATISTICS},
    ),
    "LayerNormalization over two axes": (
        lambda: L.LayerNormalization(axis=(1, 2)), SERIES, itself,
        {}, {"gamma": SCALE, "beta": SCALE},
    ),
    "GroupNormalization": (
        lambda: L.GroupNormalization(7), IMAGE, itself, {}, {"gamma": SCALE, "beta": SCALE},
    ),
    "RMSNormalization": (L.RMSNormalization, SERIES, itself, {}, {"scale": "bias or scale"}),
    "RMSNormalization over two axes": (
        lambda: L.RMSNormalization(axis=(1, 2)), SERIES, itself, {}, {"scale": SCALE},
    ),
    "PReLU": (L.PReLU, SERIES, itself, {}, {"alpha": "slope of an activation"}),
    "STFTSpectrogram, trained": (
        lambda: L.STFTSpectrogram(frame_length=8, frame_step=4, trainable=True), zeros(16, 1),
        itself, {}, {"real_kernel": "Fourier transform", "imag_kernel": "Fourier transform"},
    ),
    "AveragePooling1D": (lambda: L.AveragePooling1D(2), SERIES, itself, {}, {}),
    "AveragePooling2D": (lambda: L.AveragePooling2D(2), IMAGE, itself, {}, {}),
    "AveragePooling3D": (lambda: L.AveragePooling3D(2), VOLUME, itself, {}, {}),
    "GlobalAveragePooling1D": (L.GlobalAveragePooling1D, SERIES, itself, {}, {}),
    "GlobalAveragePooling2D": (L.GlobalAveragePooling2D, IMAGE, itself, {}, {}),
    "GlobalAveragePooling3D": (L.GlobalAveragePooling3D, VOLUME, itself, {}, {}),
}  # fmt: skip
INSTALLED = [
    name
    for name in LAYERS
    if hasattr(L, name.split()[0].rstrip(","))
    and (name != "RMSNormalization over two axes" or NORMALIZES_SEVERAL_AXES)
]


def called(name):
    make, x, call, *_ = LAYERS[name]
    layer = make()
    call(layer, x)
    return layer


def by_path(layer):
    return {w.path.removeprefix(f"{layer.name}/"): w for w in weights_of(layer)}


@pytest.mark.parametrize("name", INSTALLED)
def test_weights_that_are_pruned_and_their_axes(name):
    *_, pruned, others = LAYERS[name]
    layer = called(name)
    weights = by_path(layer)
    assert {path: w.reason for path, w in weights.items() if not w.prunable} == others
    found = {}
    for path, weight in weights.items():
        if weight.prunable:
            layout = layout_of(weight.layer, weight.variable)
            shape = tuple(weight.variable.shape)
            found[path] = (layout.kind, shape, layout.inputs, layout.outputs)
    assert found == pruned
    assert any(map(may_be_pruned, layer._flatten_layers())) == bool(pruned)


@pytest.mark.parametrize(
    ("name", "weight", "shape"),
    [
        ("DepthwiseConv1D", "kernel", (3, 7, 2)),
        ("DepthwiseConv2D", "kernel", (3, 3, 7, 2)),
        ("SeparableConv1D", "depthwise_kernel", (3, 7, 2)),
        ("SeparableConv2D", "depthwise_kernel", (3, 3, 7, 2)),
    ],
)
def test_a_depthwise_kernel_has_axes_too_for_those_who_ask_for_it(name, weight, shape):
    found = by_path(called(name))[weight]
    assert tuple(found.variable.shape) == shape
    assert layout_of(found.layer, found.variable) == Layout("depthwise", (), (-2, -1))


@pytest.mark.parametrize("name", ["Dense", "Conv2DTranspose", "LSTM", "BatchNormalization"])
def test_a_weight_of_one_axis_has_the_default_layout(name):
    for weight in by_path(called(name)).values():
        if len(weight.variable.shape) < 2:
            assert layout_of(weight.layer, weight.variable) == Layout("other", (-2,), (-1,))


@pytest.mark.parametrize("name", ["Dense", "Conv2DTranspose", "LSTMCell", "PReLU", "Bidirectional"])
def test_a_subclass_has_the_row_of_its_base_class(name):
    base = getattr(L, name)
    options = {"Bidirectional": {"layer": L.LSTM(2)}, "PReLU": {}}.get(name, {"units": 2})
    if name == "Conv2DTranspose":
        options = {"filters": 2, "kernel_size": 3}
    inheriting = type("Inheriting", (base,), {})
    assert known(inheriting(**options)) is BY_CLASS[base]


def test_every_row_is_of_layers_tried_here_and_no_layer_has_two():
    assert sum(len(row.classes) for row in ROWS) == len(BY_CLASS)
    tried = {type(part) for name in INSTALLED for part in called(name)._flatten_layers()}
    lineages = {base for kind in tried for base in inspect.getmro(kind)}
    assert set(BY_CLASS) <= lineages


def test_multiply_adds_are_counted_of_all_but_these():
    uncounted = {
        kind.__name__
        for row in ROWS
        if row.multiply_adds is None and (row.prunable or row.why_not)
        for kind in row.classes
    }
    assert uncounted == {"ConvLSTMCell", "STFTSpectrogram"}
