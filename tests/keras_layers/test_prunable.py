"""What is pruned when the user says nothing, what when they do, and how `summarize` tells."""

import gc

import keras
import numpy as np
import pytest

import granet_tf
from keras_layers.masking import forget
from keras_layers.prunable import weights_of
from tests.support import models

L = keras.layers
IMAGE, VOLUME, SERIES = (6, 6, 2), (4, 4, 4, 2), (6, 3)
# A layer, the shape of its input, and the paths of what is pruned of it.
LAYERS = {
    "dense": (L.Dense(2, name="x"), (3,), {"x/kernel"}),
    "conv1d": (L.Conv1D(2, 2, name="x"), SERIES, {"x/kernel"}),
    "conv2d": (L.Conv2D(2, 2, name="x"), IMAGE, {"x/kernel"}),
    "conv3d": (L.Conv3D(2, 2, name="x"), VOLUME, {"x/kernel"}),
    "conv1d_transpose": (L.Conv1DTranspose(2, 2, name="x"), SERIES, {"x/kernel"}),
    "conv2d_transpose": (L.Conv2DTranspose(2, 2, name="x"), IMAGE, {"x/kernel"}),
    "conv3d_transpose": (L.Conv3DTranspose(2, 2, name="x"), VOLUME, {"x/kernel"}),
    "separable_conv1d": (L.SeparableConv1D(2, 2, name="x"), SERIES, {"x/pointwise_kernel"}),
    "separable_conv2d": (L.SeparableConv2D(2, 2, name="x"), IMAGE, {"x/pointwise_kernel"}),
    "depthwise_conv1d": (L.DepthwiseConv1D(2, name="x"), SERIES, set()),
    "depthwise_conv2d": (L.DepthwiseConv2D(2, name="x"), IMAGE, set()),
    "einsum_dense": (
        L.EinsumDense("abc,cde->abde", (6, 4, 2), bias_axes="de", name="x"),
        SERIES,
        {"x/kernel"},
    ),
    "embedding": (L.Embedding(10, 4, name="x"), (6,), {"x/embeddings"}),
    "simple_rnn": (
        L.SimpleRNN(2, name="x"),
        SERIES,
        {"x/simple_rnn_cell/kernel", "x/simple_rnn_cell/recurrent_kernel"},
    ),
    "gru": (L.GRU(2, name="x"), SERIES, {"x/gru_cell/kernel", "x/gru_cell/recurrent_kernel"}),
    "lstm": (L.LSTM(2, name="x"), SERIES, {"x/lstm_cell/kernel", "x/lstm_cell/recurrent_kernel"}),
    "stacked_cells": (
        L.RNN(
            L.StackedRNNCells([L.LSTMCell(2, name="a"), L.GRUCell(2, name="b")], name="cells"),
            name="x",
        ),
        SERIES,
        {
            "x/cells/a/kernel",
            "x/cells/a/recurrent_kernel",
            "x/cells/b/kernel",
            "x/cells/b/recurrent_kernel",
        },
    ),
    "bidirectional": (
        L.Bidirectional(L.GRU(2, name="gru"), name="x"),
        SERIES,
        {
            "x/forward_gru/gru_cell/kernel",
            "x/forward_gru/gru_cell/recurrent_kernel",
            "x/backward_gru/gru_cell/kernel",
            "x/backward_gru/gru_cell/recurrent_kernel",
        },
    ),
    "time_distributed": (
        L.TimeDistributed(L.Dense(2, name="dense"), name="x"),
        SERIES,
        {"x/dense/kernel"},
    ),
    "batch_normalization": (L.BatchNormalization(name="x"), IMAGE, set()),
    "layer_normalization": (L.LayerNormalization(axis=(1, 2), name="x"), IMAGE, set()),
    "group_normalization": (L.GroupNormalization(2, name="x"), IMAGE, set()),
    "prelu": (L.PReLU(name="x"), IMAGE, set()),
}
ATTENTION = {"query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"}


class Scaled(L.Layer):
    """A custom layer with two matrices, of which it lets one be pruned."""

    def build(self, input_shape):
        size = input_shape[-1]
        self.first = self.add_weight((size, 2), name="first")
        self.second = self.add_weight((size, 2), name="second")

    def call(self, inputs):
        return inputs @ self.first + inputs @ self.second


class Chosen(Scaled):
    def get_prunable_weights(self):
        return [self.second]


class WithoutOne(L.Dense):
    """A known layer that opts out."""

    def get_prunable_weights(self):
        return []


class Inheriting(L.Dense):
    """A subclass has what its base class has."""


def model_of(layer, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def pruned_paths(model, prunable=None):
    return {weight.path for weight in weights_of(model, prunable) if weight.prunable}


def reasons(model, prunable=None):
    return {weight.path: weight.reason for weight in weights_of(model, prunable)}


@pytest.mark.parametrize("name", LAYERS)
def test_the_default_rule_prunes_exactly(name):
    prototype, shape, expected = LAYERS[name]
    model = model_of(type(prototype).from_config(prototype.get_config()), shape)
    found = weights_of(model)
    assert {w.path for w in found if w.prunable} == expected
    assert {id(w.variable) for w in found} == {id(v) for v in model.weights}
    asked = {w.path for w in found if granet_tf.default_prunable(w.layer, w.variable)}
    assert asked == expected


@pytest.mark.parametrize("cls", [L.MultiHeadAttention, L.GroupQueryAttention])
def test_the_default_rule_prunes_attention_projections(cls):
    sizes = (2, 3) if cls is L.MultiHeadAttention else (3, 4, 2)
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, cls(*sizes, name="x")(inputs, inputs))
    assert pruned_paths(model) == {f"x/{name}" for name in ATTENTION}
    assert set(reasons(model).values()) == {"pruned", "bias or scale"}


def test_each_verdict_says_why():
    inputs = keras.Input((6, 6, 2))
    x = L.DepthwiseConv2D(2, name="depthwise")(inputs)
    x = L.SeparableConv2D(4, 2, name="separable")(x)
    x = L.BatchNormalization(name="norm")(x)
    x = L.Dense(3, name="frozen", trainable=False)(x)
    x = Scaled(name="scaled")(x)
    x = L.Reshape((16, 2))(x)
    model = keras.Model(inputs, L.GRU(2, name="gru")(x))
    assert reasons(model) == {
        "depthwise/kernel": "depthwise kernel",
        "depthwise/bias": "bias or scale",
        "separable/depthwise_kernel": "depthwise kernel",
        "separable/pointwise_kernel": "pruned",
        "separable/bias": "bias or scale",
        "norm/gamma": "bias or scale",
        "norm/beta": "bias or scale",
        "norm/moving_mean": "not trainable",
        "norm/moving_variance": "not trainable",
        "frozen/kernel": "frozen",
        "frozen/bias": "not trainable",
        "scaled/first": "Scaled names no get_prunable_weights()",
        "scaled/second": "Scaled names no get_prunable_weights()",
        "gru/gru_cell/kernel": "pruned",
        "gru/gru_cell/recurrent_kernel": "pruned",
        "gru/gru_cell/bias": "bias or scale",
    }


def test_a_frozen_submodel_is_not_pruned():
    model = models.nested()
    trunk = next(layer for layer in model.layers if layer.name == "net")
    trunk.trainable = False
    assert pruned_paths(model) == {"top/last/kernel"}
    assert reasons(model)["conv/kernel"] == "frozen"


def test_a_custom_layer_says_itself_what_is_prunable():
    assert pruned_paths(model_of(Chosen(name="x"), (3,))) == {"x/second"}
    assert pruned_paths(model_of(WithoutOne(2, name="x"), (3,))) == set()
    assert pruned_paths(model_of(Inheriting(2, name="x"), (3,))) == {"x/kernel"}


def test_a_custom_layer_trains_sparse():
    model = model_of(Chosen(name="x"), (8,))
    sparse = granet_tf.wrap(model, granet_tf.GMP(0.75, frequency=1))
    sparse.compile("sgd", "mse")
    sparse.fit(np.ones((16, 8)), np.ones((16, 2)), batch_size=4, verbose=0)
    assert models.counts(model) == {"x/first": 16, "x/second": 4}


def test_weights_of_a_shared_layer_are_listed_once():
    assert list(reasons(models.shared())) == [
        "twice/kernel",
        "twice/bias",
        "head/kernel",
        "head/bias",
    ]


def test_a_callable_chooses():
    model = models.functional()
    asked = []

    def only_convolutions(layer, weight):
        asked.append((layer.name, weight.name))
        return isinstance(layer, L.Conv2D) and weight.name == "kernel"

    sparse = granet_tf.wrap(model, granet_tf.StaticSparse(0.5), prunable=only_convolutions)
    assert [p.path for p in sparse.pruned] == ["conv/kernel"]
    assert models.counts(model) == {"conv/kernel": 72, "head/kernel": 32}
    assert asked == [
        ("conv", "kernel"),
        ("conv", "bias"),
        ("norm", "gamma"),
        ("norm", "beta"),
        ("norm", "moving_mean"),
        ("norm", "moving_variance"),
        ("head", "kernel"),
        ("head", "bias"),
    ]
    rows = {row.path: row.reason for row in granet_tf.summarize(sparse).rows}
    assert rows["head/kernel"] == "not chosen by `prunable`"


def test_patterns_choose_also_what_the_default_leaves_out():
    inputs = keras.Input((6, 6, 2))
    x = L.DepthwiseConv2D(2, name="depthwise")(inputs)
    x = L.SeparableConv2D(4, 2, name="separable")(x)
    model = keras.Model(inputs, L.Dense(3, name="head")(x))
    assert pruned_paths(model, ["depthwise/kernel"]) == {"depthwise/kernel"}
    assert pruned_paths(model, ("separable/*kernel", "he?d/kernel")) == {
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
        "head/kernel",
    }
    assert reasons(model, ["head/*"])["depthwise/kernel"] == "no pattern of `prunable` fits"
    sparse = granet_tf.wrap(model, granet_tf.StaticSparse(0.5), prunable=["depthwise/kernel"])
    assert models.counts(model)["depthwise/kernel"] == 4 and sparse.nonzeros == 4


def test_layers_of_the_same_name_in_two_submodels_are_told_apart():
    def submodel(units, name):
        inputs = keras.Input((8,))
        return keras.Model(inputs, L.Dense(units, name="dense")(inputs), name=name)

    inputs = keras.Input((8,))
    first, second = submodel(8, "first"), submodel(4, "second")
    model = keras.Model(inputs, second(first(inputs)))
    assert list(reasons(model)) == [
        "dense/kernel",
        "dense/bias",
        "dense/kernel#2",
        "dense/bias#2",
    ]
    method = granet_tf.StaticSparse(0.5, pinned={"dense/kernel": 0.25}, distribution="uniform")
    sparse = granet_tf.wrap(model, method)
    # 64 · 0.75 in the pinned one, 32 · 0.5 in the other.
    assert [p.path for p in sparse.pruned] == ["dense/kernel", "dense/kernel#2"]
    assert [np.count_nonzero(p.mask.numpy()) for p in sparse.pruned] == [48, 16]
    assert [np.count_nonzero(m.layers[1].kernel.numpy()) for m in (first, second)] == [48, 16]


def test_summary_of_a_plain_model_is_what_wrap_would_prune():
    summary = granet_tf.summarize(models.functional())
    assert [(r.path, r.shape, r.size, r.nonzeros, r.pruned, r.reason) for r in summary.rows] == [
        ("conv/kernel", (3, 3, 2, 8), 144, 144, True, "pruned"),
        ("conv/bias", (8,), 8, 0, False, "bias or scale"),
        ("norm/gamma", (8,), 8, 8, False, "bias or scale"),
        ("norm/beta", (8,), 8, 0, False, "bias or scale"),
        ("norm/moving_mean", (8,), 8, 0, False, "not trainable"),
        ("norm/moving_variance", (8,), 8, 8, False, "not trainable"),
        ("head/kernel", (8, 4), 32, 32, True, "pruned"),
        ("head/bias", (4,), 4, 0, False, "bias or scale"),
    ]
    assert (summary.size, summary.nonzeros, summary.sparsity) == (176, 176, 0.0)
    assert [row.sparsity for row in summary.rows][:3] == [0.0, 1.0, 0.0]


def test_summary_of_a_model_without_prunable_weights_is_not_an_error():
    summary = granet_tf.summarize(model_of(L.BatchNormalization(name="norm"), (3,)))
    assert (summary.size, summary.nonzeros, summary.sparsity) == (0, 0, 0.0)


@pytest.mark.parametrize("mask_only", [False, True])
def test_summary_of_a_wrapped_model_counts_masks_and_prints_a_table(mask_only):
    model = models.sequential()
    for layer in model.layers:
        layer.bias.assign(np.ones(layer.bias.shape))
    method = granet_tf.StaticSparse(0.75, pinned={-1: 0.5}, distribution="uniform")
    sparse = granet_tf.wrap(model, method, mask_only=mask_only)
    summary = granet_tf.summarize(sparse)
    assert str(summary) == (
        "weight             verdict        shape  weights  nonzeros  sparsity\n"
        "net/hidden/kernel  pruned         8×16       128        32    0.7500\n"
        "net/hidden/bias    bias or scale  16          16        16    0.0000\n"
        "net/head/kernel    pruned         16×4        64        32    0.5000\n"
        "net/head/bias      bias or scale  4            4         4    0.0000\n"
        "all prunable                                 192        64    0.6667"
    )
    assert (summary.size, summary.nonzeros) == (192, 64)
    assert summary.sparsity == sparse.sparsity == 1 - 64 / 192
    assert sparse.nonzeros == 64


def test_the_table_shows_thousands_with_commas():
    model = model_of(L.Dense(100, name="wide", use_bias=False), (100,))
    assert str(granet_tf.summarize(granet_tf.wrap(model, granet_tf.StaticSparse(0.5)))) == (
        "weight        verdict  shape    weights  nonzeros  sparsity\n"
        "wide/kernel   pruned   100×100   10,000     5,000    0.5000\n"
        "all prunable                     10,000     5,000    0.5000"
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_summary_of_prune_low_magnitude_layers(wrapped):
    schedule = granet_tf.ConstantSparsity(0.75, begin_step=1, frequency=1)
    first = granet_tf.PruneLowMagnitude(L.Dense(8, name="first"), schedule, name="sparse")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(4, name="second")(first(inputs)))
    mask = np.arange(64).reshape(8, 8) < 16
    first.pruned[0].mask.assign(mask)
    first.layer.kernel.assign(mask.astype("float32"))  # Dormant weights are 0.
    if wrapped:
        method = granet_tf.StaticSparse(0.5)
        summary = granet_tf.summarize(granet_tf.wrap(model, method))
    else:
        summary = granet_tf.summarize(model)
    rows = {r.path: (r.size, r.nonzeros, r.pruned) for r in summary.rows}
    assert rows == {
        "sparse/first/kernel": (64, 16, True),
        "sparse/first/bias": (8, 0, False),
        "second/kernel": (32, 16 if wrapped else 32, wrapped),
        "second/bias": (4, 0, False),
    }
    assert summary.nonzeros == (32 if wrapped else 16)
    reasons = {r.path: r.reason for r in summary.rows}
    assert reasons["second/kernel"] == ("pruned" if wrapped else "not wrapped")


def test_taking_masks_away_collects_no_garbage(monkeypatch):
    """Keras's `del` does for each variable, half a second each in a large program."""
    collections = []
    monkeypatch.setattr(gc, "collect", lambda *generation: collections.append(generation))
    model = granet_tf.wrap(models.sequential())
    assert len(model.weights) == 4 + 2 and model._mask_1 is model.pruned[1].mask
    forget(model, ("_mask",))
    assert [w.path for w in model.weights] == [w.path for w in model.model.weights]
    assert not hasattr(model, "_mask_1") and collections == []
