"""Wrapped layers and models compute what they compute alone: no cast, no lost state, no lost mask.

The right value is always that of the plain Keras layer or model.
"""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from tests.support.cases import MODES

L, api = keras.layers, granet_tf.sparsity.keras
Wrapped = api.PruneLowMagnitude
DENSE = api.ConstantSparsity(0.0, 0, frequency=1)
LATE = granet_tf.GMP(0.5, begin_step=1000, end_step=2000, frequency=10)
RNG = np.random.default_rng(0)


def by_wrap(model, mask_only):
    return granet_tf.wrap(model, LATE, mask_only=mask_only)


def by_prune(model, mask_only):
    return api.prune_low_magnitude(model, DENSE, mask_only=mask_only)


def by_layer(model, mask_only):
    """Each layer wrapped by hand, and put together anew; with the weights of `model`."""
    layers = [type(x).from_config(x.get_config()) for x in model.layers]
    wrapped = [Wrapped(x, DENSE, mask_only=mask_only) for x in layers]
    made = keras.Sequential([keras.Input(**input_of(model)), *wrapped])
    for ours, theirs in zip(layers, model.layers, strict=True):
        ours.set_weights(theirs.get_weights())
    return made


def input_of(model):
    tensor = model.inputs[0]
    return {"batch_shape": tensor.shape, "dtype": tensor.dtype}


WAYS = pytest.mark.parametrize(
    ("way", "mask_only"),
    [(way, mask_only) for way in (by_wrap, by_prune, by_layer) for mask_only in (False, True)],
    ids=lambda value: value.__name__ if callable(value) else ("zero", "mask_only")[value],
)


@pytest.fixture
def policy(request):
    """Sets the global dtype policy, and takes it back."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


POLICIES = pytest.mark.parametrize(
    "policy", ["float32", "mixed_bfloat16", "mixed_float16", "float64"], indirect=True
)


def assert_same(ours, theirs):
    """Bit for bit, and of the same type."""
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


@keras.saving.register_keras_serializable("test_transparent")
class Precise(L.Layer):
    """Computes in float64, so that whatever has been cast before shows."""

    def __init__(self, autocast=True, **kwargs):
        super().__init__(autocast=autocast, **kwargs)

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], 3), name="kernel")

    def call(self, inputs):
        return keras.ops.matmul(*(keras.ops.cast(x, "float64") for x in (inputs, self.kernel)))

    def get_prunable_weights(self):
        return [self.kernel]

    def get_config(self):
        return {**super().get_config(), "autocast": self.autocast}


TOKENS = np.array([[257.0, 300.0, 999.0], [5.0, 0.0, 0.0]], "float32")
REAL = RNG.normal(size=(2, 5))
# {name: (dtype of the input, layers, data)}
NETWORKS = {
    "float_tokens": ("float32", lambda p: [L.Embedding(6000, 4, dtype=p)], TOKENS),
    "tokens": ("int32", lambda p: [L.Embedding(6000, 4, dtype=p)], TOKENS.astype("int32")),
    "masked": (
        "float32",
        lambda p: [L.Embedding(6000, 4, mask_zero=True, dtype=p), L.GRU(3, dtype=p)],
        TOKENS,
    ),
    "dense": ("float64", lambda p: [L.Dense(4, dtype=p)], REAL),
    "own": ("float64", lambda p: [Precise(dtype=p)], REAL),
    "own_without_autocast": ("float64", lambda p: [Precise(autocast=False, dtype=p)], REAL),
    "bool": ("bool", lambda p: [Precise(dtype=p)], REAL > 0),
}


@pytest.mark.parametrize("name", NETWORKS)
@POLICIES
def test_outputs_are_those_of_the_plain_model_whatever_the_dtypes(policy, name):
    dtype, make, x = NETWORKS[name]
    for own in (None, "mixed_bfloat16", "float64"):
        model = keras.Sequential([keras.Input(x.shape[1:], dtype=dtype), *make(own)])
        expected = model(x)
        for way in (by_wrap, by_prune, by_layer):
            for mask_only in (False, True):
                assert_same(way(model, mask_only)(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
@POLICIES
def test_outputs_of_a_layer_alone_are_those_of_the_plain_layer(policy, name):
    """Keras casts the weights of a layer that is called outermost by a rule of its own."""
    _, make, x = NETWORKS[name]
    for own in (None, "float32", keras.DTypePolicy("mixed_float16"), "mixed_bfloat16", "float64"):
        layer = make(own)[0]
        expected = layer(x)
        for mask_only in (False, True):
            assert_same(Wrapped(layer, DENSE, mask_only=mask_only)(x), expected)


@POLICIES
def test_float_tokens_choose_their_rows(policy):
    x = np.array([[257.0, 300.0, 999.0]])
    model = keras.Sequential([keras.Input((3,)), L.Embedding(6000, 4)])
    rows = keras.ops.convert_to_numpy(model.layers[0].embeddings)[[257, 300, 999]]
    expected = keras.ops.convert_to_numpy(keras.ops.cast(rows, model.compute_dtype))[None]
    for wrapped in (by_wrap(model, False), by_prune(model, False)):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(wrapped(x)), expected)


@WAYS
@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_what_a_wrapper_says_of_dtypes_is_what_the_layer_says(policy, way, mask_only):
    model = keras.Sequential([keras.Input((5,)), Precise(autocast=False, dtype="float64")])
    wrapped = way(model, mask_only)
    [outer] = [x for x in wrapped._flatten_layers() if hasattr(x, "pruned")]
    inner = model if way is by_wrap else outer.layer
    for name in ("dtype_policy", "compute_dtype", "variable_dtype", "dtype", "input_dtype"):
        assert getattr(outer, name) == getattr(inner, name)
    assert (outer.autocast, outer.supports_masking) == (inner.autocast, inner.supports_masking)
    assert outer.compute_dtype == ("bfloat16" if way is by_wrap else "float64")


def test_settings_of_the_wrapper_are_set_on_the_layer():
    layer = Wrapped(L.Dense(4), DENSE)
    layer.dtype_policy = "mixed_bfloat16"
    layer.autocast = False
    assert layer.layer.dtype_policy.name == "mixed_bfloat16" and not layer.layer.autocast
    assert not Wrapped(layer.layer.from_config({"units": 4}), DENSE, trainable=False).trainable
    for name, value in {"dtype": "float16", "autocast": False}.items():
        with pytest.raises(ValueError, match=rf"`{name}` must be given to the layer.*Received: "):
            Wrapped(L.Dense(4), DENSE, **{name: value})
    assert Wrapped(L.Dense(4, dtype="float16"), DENSE, dtype="float16").dtype == "float16"


@MODES
@pytest.mark.parametrize("policy", ["mixed_bfloat16"], indirect=True)
def test_files_do_not_depend_on_the_policy_they_are_loaded_under(tmp_path, policy, mask_only):
    model = keras.Sequential([keras.Input((3,)), L.Embedding(6000, 4), L.GRU(3, dtype="float32")])
    for way in (by_wrap, by_prune):
        wrapped = way(model, mask_only)
        expected = wrapped(TOKENS)
        wrapped.save(tmp_path / "model.keras")
        assert_same(copy.deepcopy(wrapped)(TOKENS), expected)
        for other in ("float32", "float64", "mixed_bfloat16"):
            keras.config.set_dtype_policy(other)
            assert_same(keras.models.load_model(tmp_path / "model.keras")(TOKENS), expected)


def test_the_dtype_in_old_files_was_that_of_the_wrapper():
    config = Wrapped(L.Dense(4, dtype="float64"), DENSE).get_config()
    assert "dtype" not in config
    assert Wrapped.from_config({**config, "dtype": "mixed_bfloat16"}).compute_dtype == "float64"


@MODES
def test_inputs_are_checked_as_the_layer_checks_them(mask_only):
    wrapped = Wrapped(L.LSTM(3), DENSE, mask_only=mask_only)
    with pytest.raises(ValueError, match=r"expected ndim=3, found ndim=2"):
        wrapped(REAL)
    assert not wrapped.layer.built


@keras.saving.register_keras_serializable("test_transparent")
class Table(L.Layer):
    """Takes integers, and leaves building to the layers in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(3)

    def call(self, inputs):
        return self.dense(tf.one_hot(inputs, 4))


@MODES
def test_a_layer_without_a_build_of_its_own_is_built_with_inputs_of_their_dtype(mask_only):
    wrapped = Wrapped(Table(), DENSE, mask_only=mask_only)
    x = np.array([0, 3])
    assert_same(wrapped(x), wrapped.layer(x))
    assert [p.path.rsplit("/", 2)[-2:] for p in wrapped.pruned] == [["dense", "kernel"]]


@MODES
def test_keras_masks_come_and_go_as_without_a_wrapper(mask_only):
    def network(change):
        keras.utils.set_random_seed(1)
        words = keras.Input((3,))
        vectors = change(L.Embedding(1000, 4, mask_zero=True))(words)
        return keras.Model(words, [vectors, change(L.LSTM(3, return_sequences=True))(vectors)])

    plain = network(lambda layer: layer)
    wrapped = network(lambda layer: Wrapped(layer, DENSE, mask_only=mask_only))
    mask = np.array([[True, False, True], [True, True, False]])
    for model in (wrapped, by_wrap(network(lambda layer: layer), mask_only)):
        for ours, theirs in zip(model(TOKENS), plain(TOKENS), strict=True):
            assert_same(ours, theirs)
            assert_same(ours._keras_mask, theirs._keras_mask)
        assert_same(model(TOKENS, mask=mask), plain(TOKENS, mask=mask))
    assert [x._keras_mask is None for x in wrapped.outputs] == [False, False]


@MODES
def test_arguments_that_keras_hands_down_arrive(mask_only):
    class Shifted(Precise):
        def call(self, inputs, shift=0.0, training=False):
            return super().call(inputs) + shift + (100.0 if training else 0.0)

    layer = Shifted(dtype="float64")
    layer._register_call_context_args("shift")
    expected = layer(REAL, shift=10.0, training=True)
    assert_same(
        Wrapped(layer, DENSE, mask_only=mask_only)(REAL, shift=10.0, training=True), expected
    )

    class Model(keras.Model):
        def __init__(self):
            super().__init__(dtype="float64")
            self.layer = layer
            self._register_call_context_args("shift")

        def call(self, inputs):
            return self.layer(inputs)

    model = Model()
    assert_same(model(REAL, shift=10.0, training=True), expected)
    assert_same(by_wrap(model, mask_only)(REAL, shift=10.0, training=True), expected)


@MODES
def test_a_model_whose_call_knows_no_training_is_trained_as_keras_does(mask_only):
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.dropout = L.Dense(4), L.Dropout(0.9)

        def call(self, inputs):
            return self.dropout(self.dense(inputs))

    x = REAL.astype("float32")
    losses = []
    for change in (lambda model: model, lambda model: by_wrap(model, mask_only)):
        keras.utils.set_random_seed(0)
        model = Plain()
        model(x)
        model = change(model)
        model.compile("sgd", "mse", run_eagerly=True)
        losses.append(model.evaluate(x, x[:, :4], verbose=0))
        assert model.fit(x, x[:, :4], verbose=0).history["loss"] == losses[-1:]
    assert losses[0] == losses[1]


# State.


@keras.saving.register_keras_serializable("test_transparent")
class Stateful(L.Layer):
    """Changes variables of every kind: its own, and some that Keras knows nothing of."""

    elsewhere = keras.Variable(0.0, name="elsewhere")

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], 3), name="kernel", regularizer="l2")
        self.calls = self.add_weight((), name="calls", initializer="zeros", trainable=False)
        self.metric = keras.metrics.Mean()
        # Not tracked: out of Keras's sight.
        self.__dict__["hidden"] = keras.Variable(0.0), keras.random.SeedGenerator(3)

    def call(self, inputs):
        counter, seed = self.hidden
        for variable in (self.calls, counter, self.elsewhere):
            variable.assign_add(1.0)
        self.metric.update_state(counter)
        self.add_loss(keras.ops.sum(self.kernel**2))
        self.__dict__["seen"] = len(self.losses)
        return keras.random.dropout(inputs, 0.5, seed=seed) @ self.kernel

    def get_prunable_weights(self):
        return [self.kernel]

    def state(self):
        counter, seed = self.hidden
        variables = [self.calls, counter, self.elsewhere, seed.state, *self.metric.variables]
        return [*(variable.numpy().tolist() for variable in variables), self.seen]


def stateful():
    keras.utils.set_random_seed(0)
    Stateful.elsewhere.assign(0.0)
    layer = Stateful()
    return keras.Sequential([keras.Input((5,)), layer, L.BatchNormalization()]), layer


def run(model, layer, training):
    outputs = [model(REAL.astype("float32"), training=training) for _ in range(3)]
    moved = [v.numpy() for v in model.non_trainable_variables if "moving" in v.path]
    losses = [[float(x) for x in each.losses] for each in (model, layer)]
    return outputs, layer.state(), moved, losses


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mask_only", [False, True], ids=["zero", "mask_only"])
@pytest.mark.parametrize("way", [by_wrap, by_prune])
def test_each_variable_changes_once_as_in_the_plain_model(way, mask_only, training):
    outputs, state, moved, losses = run(*stateful(), training)
    model, layer = stateful()
    ours = run(way(model, mask_only), layer, training)
    # Three calls, and the count after each of them in the mean.
    assert ours[1][:3] == state[:3] == [3.0, 3.0, 3.0]
    assert ours[1][4:] == [6.0, 3.0, 2] and ours[1][3] == state[3]
    assert_same(ours[0], outputs)
    assert_same(ours[2], moved)
    assert ours[3] == losses and len(losses[1]) == 2
    assert not np.array_equal(*outputs[:2])


@pytest.mark.optimized
@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_each_variable_changes_once_in_a_graph(jit_compile):
    states = []
    for change in (lambda model: model, lambda model: by_wrap(model, True)):
        model, layer = stateful()
        model = change(model)
        model.compile("sgd", "mse", jit_compile=jit_compile)
        x = RNG.normal(size=(8, 5)).astype("float32")
        model.fit(x, x[:, :3], batch_size=2, shuffle=False, verbose=0)
        states.append(layer.state())
    assert states[0] == states[1] and states[0][:3] == [4.0, 4.0, 4.0]


@pytest.mark.optimized
def test_each_variable_changes_once_on_every_replica(mirrored):
    states = []
    for change in (lambda model: model, lambda model: by_wrap(model, True)):
        with mirrored.scope():
            model, layer = stateful()
            model = change(model)
            counter = layer.hidden[0].value

            @tf.function
            def step(x, model=model):
                return mirrored.run(lambda x: model(x, training=True), (x,))

            for _ in range(2):
                step(tf.ones((2, 5)))
            states.append(
                [v.numpy().tolist() for v in mirrored.experimental_local_results(counter)]
            )
    assert states == [[2.0, 2.0]] * 2


@pytest.mark.parametrize("cell", [L.GRU, L.LSTM, L.SimpleRNN])
@MODES
def test_a_stateful_layer_keeps_its_state(cell, mask_only):
    x = RNG.normal(size=(2, 4, 5)).astype("float32")
    outputs = []
    for way in (lambda model, _: model, by_wrap, by_prune):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input(batch_shape=x.shape), cell(3, stateful=True)])
        model = way(model, mask_only)
        outputs.append([model.predict(x, batch_size=2, verbose=0) for _ in range(2)])
    assert np.abs(outputs[0][0] - outputs[0][1]).max() > 1e-3
    assert_same(outputs[1], outputs[0])
    assert_same(outputs[2], outputs[0])


@MODES
def test_a_weight_that_its_layer_assigns_changes(mask_only):
    """Spectral normalisation divides the kernel itself at each step."""
    x = REAL.astype("float32")
    layers = []
    for change in (lambda model: model, lambda model: by_prune(model, mask_only)):
        keras.utils.set_random_seed(0)
        layer = L.SpectralNormalization(L.Dense(3))
        model = change(keras.Sequential([keras.Input((5,)), layer]))
        for _ in range(3):
            model(x, training=True)
        layers.append(layer)
    for ours, theirs in zip(layers[1].weights, layers[0].weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_dormant_keeps_its_value_when_a_layer_assigns_the_weight():
    class Doubling(Precise):
        def call(self, inputs):
            self.kernel.assign(2.0 * self.kernel)
            return super().call(inputs)

    layer = Wrapped(Doubling(), DENSE, mask_only=True)
    layer.build((1, 2))
    layer.layer.kernel.assign([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    layer.pruned[0].mask.assign([[True, False, True], [False, True, True]])
    np.testing.assert_array_equal(layer(np.ones((1, 2))), [[2.0, 10.0, 18.0]])
    np.testing.assert_array_equal(layer.layer.kernel, [[2.0, 2.0, 6.0], [4.0, 10.0, 12.0]])


@pytest.mark.parametrize("outer", [False, True])
def test_masked_layers_in_a_masked_model_and_in_a_scope_of_keras(outer):
    model, layer = stateful()
    _, state, _, losses = run(model, layer, True)
    model, layer = stateful()
    wrapped = by_wrap(
        keras.Sequential([keras.Input((5,)), Wrapped(layer, DENSE, mask_only=True), L.Dense(3)])
        if outer
        else model,
        True,
    )
    if outer:
        wrapped.model.layers[-1].set_weights([np.eye(3), np.zeros(3)])
    ours = run(wrapped, layer, True)
    assert ours[1:2] + ours[3:] == (state, losses)
    # Keras's own way without side effects has none, whatever is inside.
    before = [*layer.state(), *(v.numpy().tolist() for v in wrapped.variables)]
    _, values = wrapped.stateless_call(
        [v.value for v in wrapped.trainable_variables],
        [v.value for v in wrapped.non_trainable_variables],
        tf.ones((2, 5)),
    )
    after = [*layer.state(), *(v.numpy().tolist() for v in wrapped.variables)]
    assert after == before
    calls = [id(v) for v in wrapped.non_trainable_variables].index(id(layer.calls))
    assert float(values[calls]) == 4.0 and float(layer.calls) == 3.0


def test_a_shared_layer_called_twice_changes_its_state_twice():
    for change in (lambda model: model, lambda model: by_wrap(model, True)):
        Stateful.elsewhere.assign(0.0)
        inputs = keras.Input((3,))
        layer = Stateful()
        model = change(keras.Model(inputs, layer(layer(inputs))))
        model(np.ones((1, 3)))
        assert layer.state()[:3] == [2.0, 2.0, 2.0]
        assert len(model.losses) == len(layer.losses) == 3  # One is the regulariser's.


def test_masks_count_in_a_function_that_a_layer_has_made_of_its_own_code():
    class Compiled(Precise):
        @tf.function
        def product(self, inputs):
            return inputs @ self.kernel

        def call(self, inputs):
            return self.product(inputs)

    wrapped = Wrapped(Compiled(), DENSE, mask_only=True)
    x = tf.ones((1, 2))
    wrapped(x)
    wrapped.layer.kernel.assign(np.ones((2, 3)))
    for mask in ([[True] * 3, [True] * 3], [[True, False, True], [False] * 3]):
        wrapped.pruned[0].mask.assign(mask)
        np.testing.assert_array_equal(wrapped(x), [np.sum(mask, axis=0)])


def test_what_would_compute_without_masks_is_refused():
    class Compiled(Precise):
        call = tf.function(Precise.call)

    with keras.RematScope(mode="full"):
        again = L.Dense(3)
    for layer, text in ((Compiled(), r"is a tf\.function"), (again, r"is rematerialized")):
        x = np.ones((1, 2), "float32")
        expected = layer(x)
        assert_same(Wrapped(layer, DENSE)(x), expected)
        wrapped = Wrapped(layer, DENSE, mask_only=True)
        with pytest.raises(ValueError, match=rf"`mask_only` must be False.*{text}.*Received: "):
            wrapped(x)
        model = by_wrap(keras.Sequential([keras.Input((2,)), layer]), True)
        with pytest.raises(ValueError, match=rf"`mask_only` must be False.*{text}.*Received: "):
            model(x)


def test_a_loop_over_time_computes_the_masked_weights_once():
    """As a loop of many steps would do so at each of them."""
    layer = Wrapped(L.LSTM(3), DENSE, mask_only=True)
    layer.build((1, 6, 2))
    graph = tf.function(lambda x: layer(x)).get_concrete_function(tf.ones((1, 6, 2))).graph
    bodies = [f for f in graph.as_graph_def().library.function if "while_body" in f.signature.name]
    assert bodies
    assert not [node for body in bodies for node in body.node_def if node.op == "SelectV2"]
