"""`granet_tf.sparsity.keras`: what tfmot's own tests ask of it, and tfmot's masks themselves."""

import copy
import json
import pickle
import runpy
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf as tfmot
from granet_tf.optimization.groups import groups_of
from granet_tf.sparsity.keras import callbacks
from tests.support import models
from tests.support.cases import HALF
from tests.support.keras_versions import NAMES_HISTOGRAMS_BY_PATH
from tests.support.models import wrapped
from tests.support.processes import run_python

L = keras.layers
api = tfmot.sparsity.keras
Wrapped = api.PruneLowMagnitude


@keras.saving.register_keras_serializable("tests")
class Prunable(L.Layer, api.PrunableLayer):
    def build(self, input_shape):
        self.first = self.add_weight(shape=(input_shape[-1], 6), name="first")
        self.second = self.add_weight(shape=(6, 4), name="second")

    def call(self, inputs):
        return inputs @ self.first @ self.second

    def get_prunable_weights(self):
        return [self.first]


class Unknown(L.Layer):
    def build(self, input_shape):
        self.weight = self.add_weight(shape=(input_shape[-1], 4))

    def call(self, inputs):
        return inputs @ self.weight

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], 4


@keras.saving.register_keras_serializable("tests")
class OwnStep(keras.Model):
    """Made as a functional model, trained its own way."""

    def train_step(self, data):
        self.steps = getattr(self, "steps", 0) + 1
        return super().train_step(data)


def active(model):
    return [int(np.count_nonzero(p.mask)) for layer in wrapped(model) for p in layer.pruned]


def kernels(model):
    return {v.path: int(np.count_nonzero(v)) for v in model.trainable_variables if v.ndim > 1}


def fit(model, build, **options):
    x, y = models.data(build, 16)
    model.fit(x, y, batch_size=8, verbose=0, **options)


# prune_low_magnitude, of models.


@pytest.mark.parametrize(
    "build",
    [models.sequential, models.functional, models.nested, models.shared, models.multi_input],
)
def test_a_model_is_wrapped_trained_and_stripped(build):
    model = build()
    x, _ = models.data(build, 16)
    sizes = [int(np.prod(v.shape)) for v in model.trainable_variables if v.ndim > 1]
    pruned = api.prune_low_magnitude(model, HALF)
    assert isinstance(pruned, type(model)) and pruned.name == model.name
    assert not wrapped(model)
    np.testing.assert_allclose(pruned(x), model(x), atol=1e-6)
    pruned.compile("sgd", "mse", run_eagerly=True)
    fit(pruned, build)  # No callback.
    halves = sorted(round(size / 2) for size in sizes)  # A half goes to the even neighbour.
    assert sorted(active(pruned)) == halves

    outputs = pruned(x)
    stripped = api.strip_pruning(pruned)
    assert type(stripped) is type(model)
    names = [layer.name for layer in model._flatten_layers()]
    assert [layer.name for layer in stripped._flatten_layers()] == names
    assert sorted(kernels(stripped).values()) == halves
    np.testing.assert_allclose(stripped(x), outputs, atol=1e-6)
    assert "granet_tf" not in json.dumps(stripped.get_config(), default=str)


def test_layers_with_nothing_to_prune_and_frozen_ones_stay_as_they_are():
    model = models.functional()
    model.get_layer("head").trainable = False
    pruned = api.prune_low_magnitude(model, HALF)
    assert [x.name for x in pruned.layers if isinstance(x, Wrapped)] == ["prune_low_magnitude_conv"]
    assert [x.layer.name for x in wrapped(pruned)] == ["conv"]
    reasons = {row.path.split("/")[-2]: row.reason for row in tfmot.summarize(pruned).rows}
    assert (reasons["conv"], reasons["head"]) == ("bias or scale", "not trainable")


def test_the_defaults_are_half_every_hundred_steps():
    [layer] = wrapped(api.prune_low_magnitude(models.shared()))[:1]
    assert layer.pruning_schedule == api.ConstantSparsity(0.5, 0, end_step=-1, frequency=100)
    settings = (layer.block_size, layer.block_pooling_type, layer.sparsity_m_by_n)
    assert settings == ((1, 1), "AVG", None)
    assert not layer.mask_only


def test_layers_wrapped_already_keep_their_settings():
    own = api.prune_low_magnitude(L.Dense(8), api.ConstantSparsity(0.75, 0, frequency=1))
    model = keras.Sequential([keras.Input((8,)), own, L.Dense(4)])
    pruned = api.prune_low_magnitude(model, HALF)
    assert pruned.layers[0] is own
    pruned.compile("sgd", "mse", run_eagerly=True)
    fit(pruned, models.sequential)
    assert active(pruned) == [16, 16]


def test_a_sequential_model_without_input_is_built_by_its_data():
    model = keras.Sequential([L.Dense(8), L.ReLU(), L.Dense(4)])
    pruned = api.prune_low_magnitude(model, HALF)
    assert not pruned.built
    pruned.compile("sgd", "mse", run_eagerly=True)
    fit(pruned, models.sequential)
    assert active(pruned) == [32, 16]


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_an_input_shape_given_to_the_first_layer():
    inside = api.prune_low_magnitude(L.Dense(4, input_shape=(8,)), HALF)
    outside = api.prune_low_magnitude(L.Dense(4), HALF, input_shape=(8,), name="own_name")
    assert outside.name == "own_name"
    for layer in (inside, outside):
        assert keras.Sequential([layer]).built
        assert layer.layer.kernel.shape == (8, 4)


def test_a_model_that_was_compiled_with_a_loss_of_ones_own_comes_back_not_compiled():
    model = models.functional()
    model.compile("sgd", loss=lambda y, z: tf.reduce_mean((y - z) ** 2))
    pruned = api.prune_low_magnitude(model, HALF)
    assert model.compiled and not pruned.compiled
    pruned.compile("sgd", "mse")
    assert not api.strip_pruning(pruned).compiled


def test_a_functional_model_with_its_own_train_step_keeps_it():
    inputs = keras.Input((8,))
    model = OwnStep(inputs, L.Dense(4)(inputs))
    pruned = api.prune_low_magnitude(model, HALF)
    assert isinstance(pruned, OwnStep) and pruned is not model
    pruned.compile("sgd", "mse", run_eagerly=True)
    fit(pruned, models.sequential)
    assert pruned.steps == 2 and active(pruned) == [16]
    assert type(api.strip_pruning(pruned)) is OwnStep


# Of layers and lists.


def test_a_list_of_layers():
    layers = [L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.LSTM(3), Prunable()]
    own = Wrapped(L.Dense(3), HALF)
    pruned = api.prune_low_magnitude([*layers, own], HALF)
    assert [isinstance(x, Wrapped) for x in pruned] == [True, False, False, False, True, True, True]
    assert [getattr(x, "layer", x) for x in pruned[:-1]] == layers
    assert pruned[-1] is own


def test_a_custom_layer_names_its_weights():
    layer = api.prune_low_magnitude(Prunable(), HALF)
    model = keras.Sequential([keras.Input((8,)), layer])
    assert [p.variable is layer.layer.first for p in layer.pruned] == [True]
    with pytest.raises(TypeError, match="abstract method"):
        type("Nothing", (api.PrunableLayer,), {})()
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert active(model) == [24]


@pytest.mark.parametrize(
    "layer",
    [
        L.MultiHeadAttention(2, 4),
        L.GroupQueryAttention(4, 2, 2),
        L.TimeDistributed(L.Dense(2)),
        L.Bidirectional(L.LSTM(2)),
        L.RNN([L.GRUCell(2), L.LSTMCell(2)]),
        L.Embedding(4, 2),
        L.SeparableConv2D(2, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_kinds_of_layers_that_are_not_built_yet(layer):
    assert isinstance(api.prune_low_magnitude(layer), Wrapped)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (models.Subclassed, r"must be built before it is pruned: call it once.*<Subclassed"),
        (lambda: "model", r"a list of layers or a model\. Received: 'model' of <class 'str'>"),
        (Unknown, r"get_prunable_weights\(\).*Received: layer=<Unknown"),
        (
            lambda: keras.Sequential([keras.Input((3,)), Unknown()]),
            r"get_prunable_weights\(\).*prunable=granet_tf.default_prunable.*layer=<Unknown",
        ),
        (lambda: [L.Dense(2), Unknown()], r"get_prunable_weights\(\).*Received: layer=<Unknown"),
        (lambda: [L.Dense(2), 3], r"Received: 3 of <class 'int'>"),
    ],
)
def test_what_cannot_be_pruned_is_told(make, text):
    with pytest.raises(ValueError, match=text):
        api.prune_low_magnitude(make(), HALF)


def test_a_layer_that_does_not_say_stays_where_that_is_asked_for():
    model = keras.Sequential([keras.Input((3,)), Unknown(), L.Dense(4)])
    pruned = api.prune_low_magnitude(model, HALF, prunable=tfmot.default_prunable)
    assert [type(layer) for layer in pruned.layers] == [Unknown, Wrapped]
    reasons = {row.reason for row in tfmot.summarize(pruned).rows}
    assert "Unknown names no get_prunable_weights()" in reasons


@keras.saving.register_keras_serializable("tests")
class OwnCell(L.Layer):
    """A cell of a recurrent layer that does not say what of it to prune."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        output = inputs @ self.kernel + states[0]
        return output, [output]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class SayingCell(OwnCell):
    def get_prunable_weights(self):
        return [self.kernel]


class Around(L.Wrapper):
    """A wrapper of one's own."""

    def call(self, inputs):
        return self.layer(inputs)


class Together(L.Layer):
    """Made of other layers, with a scale of its own."""

    def __init__(self, *layers, **kwargs):
        super().__init__(**kwargs)
        self.parts = list(layers)

    def build(self, input_shape):
        self.scale = self.add_weight((), name="scale", initializer="ones")
        for part in self.parts:
            part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs * self.scale


# {name: makes a layer for (5, 3) inputs that has a silent one in it}
SILENT = {
    "cells": lambda: L.RNN([L.LSTMCell(4), OwnCell(8)]),
    "cell": lambda: L.RNN(OwnCell(8)),
    "stacked": lambda: L.RNN(L.StackedRNNCells([OwnCell(8), L.GRUCell(4)])),
    "bidirectional": lambda: L.Bidirectional(L.RNN([L.LSTMCell(4), OwnCell(8)])),
    "distributed": lambda: L.TimeDistributed(Unknown()),
    "model_inside": lambda: L.TimeDistributed(keras.Sequential([L.Dense(4), Unknown()])),
    "own_wrapper": lambda: Around(Unknown()),
    "own_layers": lambda: Together(L.Dense(4), Unknown()),
}


@pytest.mark.filterwarnings("ignore:Layer 'own_cell")
@pytest.mark.parametrize("name", SILENT)
def test_a_layer_of_ones_own_must_say_what_to_prune_in_any_container_too(name):
    def functional(layer):
        inputs = keras.Input((5, 3))
        return keras.Model(inputs, layer(inputs))

    def subclassed(layer):
        class Net(keras.Model):
            def __init__(self):
                super().__init__()
                self.inner = layer

            def call(self, inputs):
                return self.inner(inputs)

        net = Net()
        net(np.ones((1, 5, 3)))
        return net

    def built(layer):
        layer(np.ones((1, 5, 3)))
        return layer

    places = (
        lambda layer: layer,
        built,
        lambda layer: [L.Dense(2), layer],
        lambda layer: keras.Sequential([layer]),
        functional,
        subclassed,
    )
    text = r"get_prunable_weights\(\).*Received: layer=<(Unknown|OwnCell) .*, in <"
    for place in places:
        with pytest.raises(ValueError, match=text):
            api.prune_low_magnitude(place(SILENT[name]()), HALF)
    # What is named is pruned, what is not stays, where that is asked for.
    left = api.prune_low_magnitude(
        functional(SILENT[name]()), HALF, prunable=tfmot.default_prunable
    )
    rows = tfmot.summarize(left).rows
    silent = {row.reason for row in rows if "names no get_prunable_weights()" in row.reason}
    assert silent <= {f"{x} names no get_prunable_weights()" for x in ("Unknown", "OwnCell")}
    assert silent
    with_kernels = name not in ("cell", "distributed", "own_wrapper")
    assert any(row.pruned for row in rows) == with_kernels


@pytest.mark.filterwarnings("ignore:Layer 'saying_cell")
def test_what_says_what_to_prune_is_pruned_in_any_container():
    frozen = OwnCell(8, trainable=False)
    cells = api.prune_low_magnitude(L.RNN([L.LSTMCell(4), SayingCell(8), frozen]), HALF)
    cells(np.ones((1, 5, 3)))
    assert [p.variable.shape for p in cells.pruned] == [(3, 16), (4, 16), (4, 8)]
    together = api.prune_low_magnitude(Together(L.Dense(4)), HALF)
    together(np.ones((1, 3)))
    assert [p.variable.shape for p in together.pruned] == [(3, 4)]
    normed = Around(L.BatchNormalization())
    normed(np.ones((1, 3)))
    assert api.prune_low_magnitude(normed, HALF) is normed  # Made of a layer of Keras.


def test_the_wrapper_itself_tells_what_stays_dense():
    layer = Wrapped(Together(L.Dense(4, name="said"), Unknown(name="unsaid")), HALF)
    with pytest.warns(UserWarning, match=r"leaves \['unsaid'\] dense.*prunable=granet_tf\."):
        layer(np.ones((1, 3)))
    assert [p.variable.shape for p in layer.pruned] == [(3, 4)]


def test_a_rule_also_chooses_in_layers_of_ones_own_that_are_not_built():
    def matrices(layer, weight):
        return len(weight.shape) == 2 and not isinstance(layer, L.Dense)

    model = keras.Sequential([Unknown(), L.Dense(4), L.ReLU()])
    pruned = api.prune_low_magnitude(model, HALF, prunable=matrices)
    pruned.build((None, 3))
    assert active(pruned) == [12]
    assert [len(layer.pruned) for layer in wrapped(pruned)] == [1, 0]
    layer = api.prune_low_magnitude(Unknown(), HALF, prunable=["*variable*"])
    layer(np.ones((1, 3)))
    assert [p.variable.shape for p in layer.pruned] == [(3, 4)]
    silent = Unknown()
    assert api.prune_low_magnitude(silent, HALF, prunable=tfmot.default_prunable) is silent


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("make", [L.Flatten, L.BatchNormalization, L.ReLU])
def test_arguments_for_a_layer_with_nothing_to_prune_are_not_lost(tmp_path, make):
    first = api.prune_low_magnitude(make(), HALF, input_shape=(4, 4), name="first")
    model = keras.Sequential([first, api.prune_low_magnitude(L.Dense(2), HALF)])
    assert model.built and model.input_shape == (None, 4, 4) and model.layers[0].name == "first"
    x = np.ones((4, 4, 4), "float32")
    model.compile("sgd", "mse", run_eagerly=True)
    y = np.zeros(model(x).shape)
    model.fit(x, y, verbose=0, callbacks=[api.UpdatePruningStep()])
    assert active(model) == [model.layers[1].layer.kernel.shape[0]]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert [type(layer) for layer in api.strip_pruning(loaded).layers] == [make, L.Dense]


def test_arguments_for_a_wrapper_that_there_must_not_be_are_refused():
    class Nothing(api.PruningPolicy):
        def allow_pruning(self, layer):
            return False

        def ensure_model_supports_pruning(self, model):
            pass

    cases = {
        "it is frozen; name its": (L.Dense(4, trainable=False), {}),
        "it has masks of its own": (api.prune_low_magnitude(L.Dense(4), HALF), {}),
        "it is an input": (L.InputLayer((4,)), {}),
        "`pruning_policy` does not": (L.Dense(4), {"pruning_policy": Nothing()}),
    }
    for reason, (layer, options) in cases.items():
        assert api.prune_low_magnitude(layer, HALF, **options) is layer
        with pytest.raises(ValueError, match=rf"\['name'\] must be left out.*{reason}.*Received: "):
            api.prune_low_magnitude(layer, HALF, name="x", **options)


# Layers of Keras, and get_prunable_weights().


def sparsities_by_name(model):
    """As tfmot's own examples print them."""
    return {
        layer.name: [
            1.0 - np.count_nonzero(weight) / weight.numpy().size
            for weight in layer.layer.get_prunable_weights()
        ]
        for layer in model.layers
        if isinstance(layer, Wrapped)
    }


def test_the_layer_inside_says_what_of_it_is_pruned():
    layers = [
        L.Embedding(10, 4),
        L.LSTM(4, return_sequences=True),
        L.Bidirectional(L.RNN([L.GRUCell(2), SayingCell(2)])),
        L.BatchNormalization(),
        L.Dense(2),
        Prunable(),
    ]
    model = keras.Sequential([keras.Input((5,)), *(Wrapped(x, HALF, name=x.name) for x in layers)])
    expected = {
        "embedding": [0.5],
        "lstm": [0.5, 0.5],
        "bidirectional": [0.5] * 6,
        "batch_normalization": [],
        "dense": [0.5],
        "prunable": [0.5],
    }
    assert list(sparsities_by_name(model).values()) == [
        [0.0] * len(values) for values in expected.values()
    ]
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.arange(20).reshape(4, 5) % 10
    model.fit(x, np.ones((4, 4)), verbose=0, callbacks=[api.UpdatePruningStep()])
    assert list(sparsities_by_name(model).values()) == list(expected.values())
    for layer in model.layers:
        weights = layer.layer.get_prunable_weights()
        assert [id(v) for v in weights] == [id(v) for v in layer.prunable_weights]


def test_the_layer_inside_stays_the_very_layer(tmp_path):
    dense = L.Dense(4, name="dense")
    model = keras.Sequential([keras.Input((8,)), Wrapped(dense, HALF)])
    assert model.layers[0].layer is dense and type(dense) is L.Dense
    assert dense.get_prunable_weights() == [dense.kernel]
    assert not hasattr(L.Dense, "get_prunable_weights")
    model.save(tmp_path / "model.keras")
    for other in (
        keras.models.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        keras.models.clone_model(model),
    ):
        [kernel] = other.layers[0].layer.get_prunable_weights()
        assert kernel is other.layers[0].layer.kernel and kernel is not dense.kernel
    stripped = api.strip_pruning(model)
    assert stripped.layers[0] is dense
    # It says no more than before of what is to be pruned.
    dense.trainable = False
    assert {row.reason for row in tfmot.summarize(stripped).rows} == {"frozen", "not trainable"}
    dense.trainable = True
    assert [r.pruned for r in tfmot.summarize(tfmot.wrap(stripped)).rows] == [True, False]
    copied = copy.deepcopy(stripped).layers[0]
    assert copied.get_config() == dense.get_config()


def test_a_layer_of_ones_own_that_was_wrapped_still_does_not_say_what_to_prune():
    own = Unknown()
    own(np.ones((1, 3)))
    assert [p.variable is own.weight for p in Wrapped(own, HALF, prunable=["*"]).pruned] == [True]
    assert own.get_prunable_weights() == []
    with pytest.raises(ValueError, match=r"get_prunable_weights\(\).*Received: layer=<Unknown"):
        api.prune_low_magnitude(own, HALF)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"block_pooling_type": "MIN"}, r"must be 'AVG' or 'MAX'\. Received: 'MIN'"),
        ({"block_size": (4,)}, r"`block_size` must be a pair of integers\. Received: "),
        ({"block_size": (0, 1)}, r"`block_size` must be two integers > 0\. Received: \(0, 1\)"),
        ({"sparsity_m_by_n": (2, 4, 8)}, r"`sparsity_m_by_n` must be a pair of integers"),
        ({"sparsity_m_by_n": (2, 4.0)}, r"`sparsity_m_by_n` must be a pair of integers"),
        ({"sparsity_m_by_n": 2}, r"`sparsity_m_by_n` must be a pair of integers\. Received: .*=2"),
        ({"sparsity_m_by_n": (4, 2)}, r"must be \(m, n\) with 0 < m < n.*Received: \(4, 2\)"),
        ({"sparsity_m_by_n": (2, 4), "block_size": (4, 1)}, r"can't be combined\. Received: "),
    ],
)
def test_bad_settings_are_told(settings, text):
    with pytest.raises(ValueError, match=text):
        api.prune_low_magnitude(L.Dense(4), HALF, **settings)


# Blocks and groups.


def test_layers_of_the_same_settings_share_a_group():
    layers = [
        *api.prune_low_magnitude([L.Dense(8), L.Dense(8)], HALF, block_size=(4, 1)),
        *api.prune_low_magnitude([L.Dense(8), L.Dense(8)], HALF, sparsity_m_by_n=(2, 4)),
        api.prune_low_magnitude(L.Dense(8), HALF, block_size=(4, 1), block_pooling_type="MAX"),
        api.prune_low_magnitude(L.Dense(8), HALF),
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    groups = list(groups_of(model))
    assert [len(group.pruned) for group in groups] == [2, 2, 1, 1]
    assert [group.method().pattern for group in groups] == [
        tfmot.Block((4, 1), "avg"),
        tfmot.NM(2, 4),
        tfmot.Block((4, 1), "max"),
        tfmot.Element(),
    ]


def test_n_by_m_is_chosen_once_whatever_the_schedule():
    schedule = api.PolynomialDecay(0.0, 0.9, begin_step=2, end_step=4, frequency=1)
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3), L.Flatten(), L.Dense(4)])
    pruned = api.prune_low_magnitude(model, schedule, sparsity_m_by_n=(2, 4))
    pruned.compile("sgd", "mse", run_eagerly=True)
    x, y = np.ones((1, 8, 8, 3)), np.ones((1, 4))
    masks = []
    for _ in range(4):
        pruned.train_on_batch(x, y)
        masks.append([layer.pruned[0].mask.numpy() for layer in wrapped(pruned)])
    convolution, dense = masks[0]
    # Three channels are filled up to four: two stay.
    assert np.all(convolution.sum(axis=2) == 2)
    assert np.all(dense.reshape(-1, 4, 4).sum(axis=1) == 2)
    for later in masks[1:]:
        np.testing.assert_array_equal(later[0], convolution)
        np.testing.assert_array_equal(later[1], dense)


# Files.


def test_models_load_and_go_on_without_a_scope(tmp_path):
    x, y = models.data(models.functional, 16)
    schedule = api.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=4, frequency=1)
    pruned = api.prune_low_magnitude(models.functional(), schedule)
    pruned.compile("adam", "mse", run_eagerly=True)
    fit(pruned, models.functional)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), pruned(x))
    loaded.run_eagerly = True
    for model in (pruned, loaded):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert active(loaded) == active(pruned) == [144 // 4, 32 // 4]
    stripped = api.strip_pruning(loaded)
    stripped.save(tmp_path / "stripped.keras")
    assert list(kernels(keras.models.load_model(tmp_path / "stripped.keras")).values()) == [36, 8]


def test_a_model_of_ones_own_goes_on_with_the_callback(tmp_path):
    model = by_hand()
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert active(loaded) == [16]
    fit(loaded, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert active(loaded) == [16] and int(loaded.optimizer.iterations) == 4


def test_settings_are_in_the_config():
    for settings in (
        {"block_size": (4, 2), "block_pooling_type": "MAX"},
        {"sparsity_m_by_n": (1, 4)},
    ):
        layer = api.prune_low_magnitude(L.Dense(4), HALF, **settings)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        with api.prune_scope():
            again = keras.saving.deserialize_keras_object(config)
        assert {name: getattr(again, name) for name in settings} == settings
        assert again.pruning_schedule == HALF and not again.mask_only


def test_schedules_are_pickled():
    for schedule in (HALF, api.PolynomialDecay(0.1, 0.9, 2, 8)):
        assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_stripping_what_is_not_pruned():
    model = models.sequential()
    assert api.strip_pruning(model) is model
    with pytest.raises(ValueError, match=r"`model` must be a Keras 3 model\. Received: "):
        api.strip_pruning(L.Dense(2))


# Callbacks.


def by_hand():
    """A user's own model of wrapped layers, compiled with a plain optimizer."""
    layer = api.prune_low_magnitude(L.Dense(4), HALF)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile("adam", "mse")
    return model


def test_the_callback_makes_the_optimizer_update_masks():
    model = by_hand()
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert active(model) == [16]
    optimizer = model.optimizer
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert model.optimizer is optimizer and int(optimizer.iterations) == 4


def test_without_it_a_line_says_so_and_it_still_helps_later():
    model = by_hand()
    with pytest.warns(UserWarning, match=r"_dense.* stays dense.*UpdatePruningStep.*SparseOptimi"):
        fit(model, models.sequential)
    assert active(model) == [32]
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert active(model) == [16] and int(model.optimizer.iterations) == 4


@pytest.mark.filterwarnings("error")
def test_no_line_where_it_would_be_wrong():
    model = by_hand()
    x, y = models.data(models.sequential, 8)
    model.predict(x, verbose=0), model.evaluate(x, y, verbose=0), model(x, training=False)
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])


@pytest.mark.parametrize("mask_only", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_the_loop_of_tfmots_guide(late, mask_only):
    def train(take_from_model):
        keras.utils.set_random_seed(0)
        schedule = api.PolynomialDecay(0.25, 0.75, begin_step=1, end_step=5, frequency=2)
        layer = api.prune_low_magnitude(L.Dense(4), schedule, mask_only=mask_only)
        model = keras.Sequential([keras.Input((8,)), layer])
        optimizer, callback = keras.optimizers.Adam(0.1), api.UpdatePruningStep()
        if late:
            callback.set_model(model)
        model.optimizer = optimizer
        if not late:
            callback.set_model(model)
        callback.on_train_begin()
        optimizer = model.optimizer if take_from_model else optimizer
        x, y = models.data(models.sequential, 8)
        seen = []
        for _ in range(3):
            for _ in range(2):
                callback.on_train_batch_begin(batch=-1)
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            callback.on_epoch_end(batch=-1)
            seen.append(layer.pruned[0].mask.numpy())
        return seen, model.get_weights(), int(optimizer.iterations)

    masks, weights, steps = train(take_from_model=False)
    # Cubic from step 1 to 5, every second step: 24, 10 and 8 of 32 are left after 1, 3 and 5.
    assert [int(mask.sum()) for mask in masks] == [24, 10, 8] and steps == 6
    expected_masks, expected, _ = train(take_from_model=True)
    np.testing.assert_array_equal(masks, expected_masks)
    for weight, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-6)


def test_the_callback_on_models_that_do_not_need_it():
    plain = models.sequential()
    plain.compile("sgd", "mse")
    fit(plain, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert type(plain.optimizer) is keras.optimizers.SGD
    sparse = tfmot.wrap(models.sequential(), tfmot.GMP(0.5))
    sparse.compile("sgd", "mse", run_eagerly=True)
    optimizer = sparse.optimizer
    fit(sparse, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert sparse.optimizer is optimizer
    model = by_hand()
    model.optimizer = None
    callback = api.UpdatePruningStep()
    callback.set_model(model)
    with pytest.raises(ValueError, match=r"must have an optimizer when training begins"):
        callback.on_train_begin()


def test_the_callback_under_mixed_float16():
    layer = api.prune_low_magnitude(L.Dense(4, dtype="mixed_float16"), HALF)
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
    fit(model, models.sequential, callbacks=[api.UpdatePruningStep()])
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert active(model) == [16]


@pytest.mark.optimized
def test_two_replicas(mirrored):
    with mirrored.scope():
        pruned = api.prune_low_magnitude(models.sequential(), HALF)
        pruned.compile("sgd", "mse")
    fit(pruned, models.sequential)
    assert active(pruned) == [64, 32]


def test_summaries_are_written(tmp_path):
    pruned = api.prune_low_magnitude(models.sequential(), HALF)
    pruned.compile("sgd", "mse", run_eagerly=True)
    summaries = api.PruningSummaries(str(tmp_path), update_freq=1)
    fit(pruned, models.sequential, callbacks=[summaries])
    written = {}
    for file in (tmp_path / "metrics").iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                written[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    # What is due at step 0 is pruned before the first step.
    assert [written["sparsity", step] for step in (0, 1, 2)] == [0.5, 0.5, 0.5]
    assert written["net/head/kernel/sparsity", 2] == 0.5
    head = wrapped(pruned)[1].pruned[0]
    smallest = np.abs(head.variable.numpy()[head.mask.numpy()]).min()
    assert written["net/head/kernel/threshold", 2] == pytest.approx(smallest)


def test_summaries_are_a_tensorboard_callback_where_that_is_installed(tmp_path):
    read = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pruned = api.prune_low_magnitude(models.sequential(), HALF)
    pruned.compile("sgd", "mse", run_eagerly=True)
    summaries = api.PruningSummaries(tmp_path, histogram_freq=1)
    fit(pruned, models.sequential, callbacks=[summaries])
    assert isinstance(summaries, keras.callbacks.TensorBoard)

    def events(folder):
        found = read.EventAccumulator(str(tmp_path / folder)).Reload()
        tags = found.Tags()["tensors"]
        return {
            tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in found.Tensors(tag)]
            for tag in tags
        }

    written = events("metrics")
    weights = [f"net/{name}/kernel" for name in ("hidden", "head")]
    assert set(written) == {
        "sparsity",
        *(f"{w}/{t}" for w in weights for t in ("sparsity", "threshold")),
    }
    for tag in ("sparsity", "net/head/kernel/sparsity"):
        assert written[tag] == [(0, 0.5), (2, 0.5)]
    kernel = wrapped(pruned)[1].pruned[0].variable.numpy()
    [_, (step, threshold)] = written["net/head/kernel/threshold"]
    assert (step, threshold) == (2, pytest.approx(np.abs(kernel[kernel != 0]).min()))
    assert {
        "epoch_loss",
        "net/head/kernel/histogram" if NAMES_HISTOGRAMS_BY_PATH else "kernel/histogram",
    } <= set(events("train"))


def test_without_tensorboard_further_arguments_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    summaries = runpy.run_path(callbacks.__file__)["PruningSummaries"]
    assert not issubclass(summaries, keras.callbacks.TensorBoard)
    assert summaries(tmp_path).update_freq == "epoch"
    with pytest.raises(ImportError, match=r"pip install tensorboard\. Received: \['histogram_f"):
        summaries(tmp_path, histogram_freq=1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("",), r"`log_dir` must be a non-empty string\. Received: ''"),
        ((3,), r"`log_dir` must be a non-empty string\. Received: 3"),
        (("logs", "step"), r"`update_freq` must be 'epoch', 'batch' or a number.*'step'"),
    ],
)
def test_bad_input_of_summaries(arguments, text):
    with pytest.raises(ValueError, match=text):
        api.PruningSummaries(*arguments)


# Policies.


def xnnpack_network(stem=3, last=L.Conv2D, middle=(), pool=True, pad=1):
    """Convolution with stride 2, depthwise, 1×1 with a skip connection, pooling."""
    inputs = keras.Input((16, 16, 3))
    x = L.ZeroPadding2D(pad)(inputs)
    x = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, stem, strides=2, padding="valid")(x)))
    x = L.DepthwiseConv2D(3, strides=2, padding="valid")(L.ZeroPadding2D(1)(x))
    short = L.Conv2D(8, 1, name="first")(x)
    x = L.Activation("relu")(L.BatchNormalization()(last(8, 1, name="second")(short)))
    for layer in middle:
        x = layer(x)
    x = L.Add()([x, short]) + short
    x = L.GlobalAveragePooling2D()(x) if pool else L.Flatten()(x)
    return keras.Model(inputs, L.Dense(4)(x))


def test_the_policy_for_xnnpack():
    model = xnnpack_network()
    pruned = api.prune_low_magnitude(model, HALF, pruning_policy=api.PruneForLatencyOnXNNPack())
    assert [layer.layer.name for layer in wrapped(pruned)] == ["first", "second"]
    # What is wrapped already is looked into.
    api.PruneForLatencyOnXNNPack().ensure_model_supports_pruning(pruned)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (models.subclassed, r"must be a sequential or functional model\. Received"),
        (lambda: keras.Sequential([L.Dense(2)]), r"`model` must be built"),
        (lambda: xnnpack_network(stem=5), r"3×3 Conv2D of stride 2 .* Received"),
        (lambda: xnnpack_network(pad=2), r"after a ZeroPadding2D\(1\)"),
        (lambda: xnnpack_network(pool=False), r"GlobalAveragePooling2D on each way to an output"),
        (lambda: xnnpack_network(middle=[L.Conv2D(8, 3, padding="same")]), r"whose <Conv2D"),
        (
            lambda: xnnpack_network(middle=[L.Conv2D(8, 1, dilation_rate=2)]),
            r"whose <Conv2D.* it does not run sparse",
        ),
        (lambda: xnnpack_network(middle=[L.Softmax()]), r"whose <Softmax"),
        (lambda: xnnpack_network(middle=[L.Activation("tanh")]), r"whose <Activation"),
        (
            lambda: xnnpack_network(middle=[L.DepthwiseConv2D(5, dilation_rate=2, padding="same")]),
            r"whose <DepthwiseConv2D",
        ),
    ],
)
def test_models_that_do_not_fit_the_policy(make, text):
    with pytest.raises(ValueError, match=text):
        api.PruneForLatencyOnXNNPack().ensure_model_supports_pruning(make())


def test_a_policy_of_ones_own():
    class OnlyHead(api.PruningPolicy):
        def allow_pruning(self, layer):
            return layer.name == "head"

        def ensure_model_supports_pruning(self, model):
            self.seen = model

    policy, model = OnlyHead(), models.sequential()
    pruned = api.prune_low_magnitude(model, HALF, pruning_policy=policy)
    assert [x.layer.name for x in wrapped(pruned)] == ["head"] and policy.seen is model
    with pytest.raises(TypeError, match="abstract method"):
        api.PruningPolicy()


# The same masks as tfmot.

PARITY = """
import json
import granet_tf
import keras
import numpy as np
import tensorflow as tf
import tf_keras
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_utils

rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 6, 6, 4)).astype("float32"), rng.normal(size=(8, 8)).astype("float32")


def network(lib, convolution):
    first = [lib.layers.Conv2D(8, 3), lib.layers.ReLU()] if convolution else []
    layers = [*first, lib.layers.Flatten(), lib.layers.Dense(16), lib.layers.Dense(8)]
    model = lib.Sequential([lib.Input((6, 6, 4)), *layers])
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(size=w.shape) * 0.1 for w in model.get_weights()])
    return model


def history(api, lib, masks, settings, schedule, rate, steps):
    model = network(lib, "block_size" not in settings)
    model = api.prune_low_magnitude(model, api.PolynomialDecay(**schedule), **settings)
    model.compile(lib.optimizers.SGD(rate), "mse", run_eagerly=True)
    callback = api.UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    seen = []
    for _ in range(steps):
        model.train_on_batch(x, y)
        seen.append([m.numpy() > 0 for layer in model.layers for m in masks(layer)])
    callback.on_epoch_end(0)
    weights = api.strip_pruning(model).get_weights()
    return seen, [np.count_nonzero(w) for w in weights if w.ndim > 1]


def ours(*args):
    masks = lambda layer: [p.mask for p in getattr(layer, "pruned", ())]
    return history(granet_tf.sparsity.keras, keras, masks, *args)


def theirs(*args):
    masks = lambda layer: [v[1] for v in getattr(layer, "pruning_vars", ())]
    return history(tfmot.sparsity.keras, tf_keras, masks, *args)


def same(a, b):
    steps = zip(a, b, strict=True)
    return all(np.array_equal(m, n) for s in steps for m, n in zip(*s, strict=True))


settings = {
    "single": {},
    "4x1 AVG": {"block_size": (4, 1)},
    "2x4 MAX": {"block_size": [2, 4], "block_pooling_type": "MAX"},
    "2:4": {"sparsity_m_by_n": (2, 4)},
    "3:4": {"sparsity_m_by_n": (1, 4)},
}
schedule = dict(initial_sparsity=0.2, final_sparsity=0.75, begin_step=2, end_step=6, frequency=2)
later = {**schedule, "begin_step": 3, "end_step": 7}
report = {}
for name, setting in settings.items():
    (a, a_left), (b, b_left) = (run(setting, schedule, 0.0, 6) for run in (ours, theirs))
    report[name] = [same(a, b), a_left == b_left, [int(n) for n in a_left]]
for name in ("single", "4x1 AVG"):
    (c, c_left), (d, d_left) = (
        ours(settings[name], schedule, 0.05, 7),
        theirs(settings[name], later, 0.05, 8),
    )
    kept, _ = ours({**settings[name], "mask_only": True}, schedule, 0.05, 7)
    report[f"{name}, trained"] = [same(c, d[1:]), c_left == d_left, same(kept, d[1:])]


def groups_of_ours(weight, m, n):
    once = granet_tf.ConstantSparsity(m / n, 0)
    method = granet_tf.GMP(schedule=once, pattern=granet_tf.NM(n - m, n))
    everything = tf.ones_like(weight, tf.bool)
    [mask], _ = method.update_masks(tf.constant(0), ["w"], [weight], [everything], [None])
    return mask.numpy()


def groups_of_theirs(weight, m, n):
    mask = pruning_utils.generate_m_by_n_mask(pruning_utils.weights_rearrange(weight), (m, n))
    return pruning_utils.m_by_n_sparsity_mask_prepare(mask, weight.shape).numpy() > 0


report["groups"] = [
    np.array_equal(groups_of_ours(weight, m, n), groups_of_theirs(weight, m, n))
    for shape in [(3, 3, 3, 8), (7, 5), (1, 1, 1, 6), (8, 8)]
    for m, n in [(2, 4), (1, 4), (3, 4), (1, 2), (4, 8)]
    for weight in [tf.constant(rng.normal(size=shape).astype("float32"))]
]
print(json.dumps(report))
"""


def test_masks_are_those_of_tfmot():
    report = json.loads(run_python(PARITY).splitlines()[-1])
    # Sparsity 0.75 of 288 + 2048 + 128 weights; of 144 · 16 and 16 · 8, in blocks; half; a quarter.
    assert report["single"] == [True, True, [72, 512, 32]]
    assert report["4x1 AVG"] == report["2x4 MAX"] == [True, True, [576, 32]]
    assert report["2:4"] == [True, True, [144, 1024, 64]]
    assert report["3:4"] == [True, True, [216, 1536, 96]]
    assert report["groups"] == [True] * 20
    # tfmot prunes before its step t, when t - 1 updates have been made.
    for name in ("single", "4x1 AVG"):
        assert report[f"{name}, trained"] == [True, True, True]
