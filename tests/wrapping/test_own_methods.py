"""A wrapped model of a user's own class trains, evaluates and predicts as that class says."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.models import Functional

import granet_tf
from tests.support import models
from tests.support.cases import MODES, NEVER, uniform_gmp
from tests.support.processes import run_python
from tests.support.replicas import assert_replicas_agree

L = keras.layers
EAGER = pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
HALF = uniform_gmp(schedule=granet_tf.ConstantSparsity(0.5, 0, frequency=1))
X, Y = models.data(models.sequential)


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


# Everything that a user may override


class Everything:
    """To be mixed into a class of models: overrides what Keras lets one override, and notes it."""

    def begin(self):
        self.factor, self.calls = 3.0, []
        self.tracker = keras.metrics.Mean("tracked")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.calls.append("compute_loss")
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        self.tracker.update_state(loss)
        return self.factor * loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.calls.append("compute_metrics")
        result = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**result, "largest": keras.ops.max(y_pred)}

    def get_metrics_result(self):
        self.calls.append("get_metrics_result")
        return super().get_metrics_result()

    def reset_metrics(self):
        self.calls.append("reset_metrics")
        super().reset_metrics()

    @property
    def metrics(self):
        return [m for m in super().metrics if m.name != "mae"]

    def train_step(self, data):
        self.calls.append("train_step")
        return {**super().train_step(data), "trained": 1.0}

    def test_step(self, data):
        self.calls.append("test_step")
        return {**super().test_step(data), "tested": 1.0}

    def predict_step(self, data):
        self.calls.append("predict_step")
        return 2.0 * super().predict_step(data)

    def make_train_function(self, force=False):
        self.calls.append("make_train_function")
        return super().make_train_function(force)

    def fit(self, *args, **kwargs):
        self.calls.append("fit")
        return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        self.calls.append("evaluate")
        return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        self.calls.append("predict")
        return super().predict(*args, **kwargs)

    def compile(self, optimizer, *, factor, **kwargs):
        super().compile(optimizer, **kwargs)
        self.calls.append("compile")
        self.factor = factor


@keras.saving.register_keras_serializable("test_own_methods")
class Subclassed(Everything, models.Subclassed):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.begin()


@keras.saving.register_keras_serializable("test_own_methods")
class Stack(Everything, keras.Sequential):
    pass


@keras.saving.register_keras_serializable("test_own_methods")
class Graph(Everything, keras.Model):
    pass


def subclassed():
    model = Subclassed(name="own")
    model(X)
    return model


def stack():
    layers = [keras.Input((8,)), L.Dense(16, name="hidden"), L.Dense(4, name="head")]
    model = Stack(layers, name="own")
    model.begin()
    return model


def graph():
    inputs = keras.Input((8,))
    outputs = L.Dense(4, name="head")(L.Dense(16, name="hidden")(inputs))
    model = Graph(inputs, outputs, name="own")
    model.begin()
    return model


OWN = pytest.mark.parametrize("build", [subclassed, stack, graph], ids=lambda f: f.__name__)


def used(model, eager):
    """All numbers that come of a model, and its weights."""
    model.compile(sgd(), factor=5.0, loss="mse", metrics=["mse"], run_eagerly=eager)
    options = {"batch_size": 8, "verbose": 0}
    history = model.fit(X, Y, epochs=2, shuffle=False, validation_data=(X, Y), **options).history
    return history, model.evaluate(X, Y, **options), model.predict(X, **options)


@pytest.mark.parametrize(
    ("build", "eager"),
    [(subclassed, True), (stack, True), (graph, True), (subclassed, False)],
    ids=["subclassed", "stack", "graph", "subclassed_compiled"],
)
@MODES
def test_every_method_is_called_and_all_figures_are_those_of_the_plain_model(
    build, mask_only, eager
):
    keras.utils.set_random_seed(1)
    plain = build()
    expected = used(plain, eager)
    keras.utils.set_random_seed(1)
    model = build()
    sparse = granet_tf.wrap(model, NEVER, mask_only=mask_only)
    ours = used(sparse, eager)
    assert ours[0].keys() == expected[0].keys()
    assert {"trained", "tracked", "val_tested", "val_largest"} <= ours[0].keys()
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert model.calls == plain.calls and model.factor == plain.factor == 5.0
    assert {
        *("compute_loss", "compute_metrics", "get_metrics_result", "reset_metrics", "compile"),
        *("train_step", "test_step", "predict_step", "make_train_function"),
        *("fit", "evaluate", "predict"),
    } == set(model.calls)
    for a, b in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@MODES
@OWN
def test_it_is_pruned_saved_copied_and_stripped(tmp_path, build, mask_only):
    model = build()
    kind = type(model)
    sparse = granet_tf.wrap(model, HALF, mask_only=mask_only)
    used(sparse, eager=True)
    assert isinstance(sparse, granet_tf.SparseModel) and isinstance(sparse, kind)
    assert type(sparse.optimizer) is granet_tf.SparseOptimizer
    assert sparse.sparsity == 0.5
    # The graph is the model inside; Keras must not take the wrapper for one.
    assert not isinstance(sparse, (keras.Sequential, Functional))
    sparse.save(tmp_path / "model.keras")
    with warnings.catch_warnings():  # compile() takes what Keras does not save, as in plain Keras.
        warnings.filterwarnings("ignore", ".*was not called as part of model loading")
        copies = [
            keras.models.load_model(tmp_path / "model.keras"),
            copy.deepcopy(sparse),
            pickle.loads(pickle.dumps(sparse)),
        ]
    for other in copies:
        assert type(other) is type(sparse) and type(other.model) is kind
        np.testing.assert_array_equal(other(X), sparse(X))
        other.model.begin()
        used(other, eager=True)
        assert other.sparsity == 0.5 and "train_step" in other.model.calls
    for other in (keras.models.clone_model(sparse), keras.models.model_from_json(sparse.to_json())):
        assert type(other) is type(sparse) and type(other.model) is kind
    assert granet_tf.strip(sparse) is model and type(model) is kind
    assert sum(models.counts(model).values()) == 96


def test_a_file_loads_in_another_process(tmp_path):
    model = subclassed()
    granet_tf.wrap(model, granet_tf.StaticSparse(0.5)).save(tmp_path / "model.keras")
    out = run_python(
        "import keras, granet_tf, tests.wrapping.test_own_methods as t\n"
        f"model = keras.models.load_model({str(tmp_path / 'model.keras')!r})\n"
        "t.used(model, eager=True)\n"
        "print(isinstance(model, t.Subclassed), model.sparsity, 'test_step' in model.model.calls)",
    )
    assert out.split() == ["True", "0.5", "True"]


def test_a_class_that_overrides_nothing_of_training_stays_a_plain_wrapper():
    assert type(granet_tf.wrap(models.subclassed())) is granet_tf.SparseModel
    assert type(granet_tf.wrap(models.sequential())) is granet_tf.SparseModel


# Attributes


class Counting(models.Subclassed):
    steps = 0  # A class may begin with values.

    def __init__(self):
        super().__init__(rate=0.0)
        self.seen, self.batches, self.queue = 0, [], tf.Variable(tf.zeros(4))
        self._hidden_note = "kept"

    def train_step(self, data):
        self.steps += 1
        self.seen += len(data[0])
        self.batches.append(len(data[0]))
        self.queue.assign_add(tf.ones(4))
        self.latest = self._hidden_note
        return super().train_step(data)

    def encode(self, inputs):
        return self.hidden(inputs)


def test_what_methods_assign_stays_with_the_users_model_where_it_has_it():
    model = Counting()
    model(X)
    sparse = granet_tf.wrap(model, NEVER)
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(X, Y, batch_size=8, verbose=0)
    for each in (sparse, model):
        assert (each.steps, each.seen, each.batches) == (4, 32, [8, 8, 8, 8])
        assert each.queue.numpy().tolist() == [4.0] * 4
    assert Counting.steps == 0
    assert sparse.latest == "kept" and not hasattr(model, "latest")
    sparse.seen = 7
    assert model.seen == 7
    np.testing.assert_array_equal(sparse.encode(X), model.encode(X))
    with pytest.raises(AttributeError, match="'Counting' object has no attribute 'nothing'"):
        _ = sparse.nothing


class Tracks(keras.Model):
    """Overrides nothing, and updates a metric in call()."""

    def __init__(self):
        super().__init__()
        self.dense, self.mean = L.Dense(4), keras.metrics.Mean("mean")

    def call(self, inputs):
        self.mean.update_state(2.0)
        return self.dense(inputs)


def test_metrics_that_a_model_has_as_attributes_are_reported_and_reset():
    model = Tracks()
    model(X)
    sparse = granet_tf.wrap(model, NEVER)
    sparse.compile("sgd", "mse", run_eagerly=True)
    history = sparse.fit(X, Y, epochs=2, verbose=0).history
    assert history["mean"] == [2.0, 2.0]
    assert sparse.metrics_names == ["loss", "mean"]
    model.compile("sgd", "mse", run_eagerly=True)
    assert model.metrics_names == ["loss", "mean"]


class Scaling(keras.Model):
    """Has what Keras calls by itself, and must be done once."""

    def __init__(self):
        super().__init__()
        self.saved, self.dense = [], L.Dense(4)

    def __call__(self, inputs, **kwargs):
        return super().__call__(10.0 * inputs, **kwargs)

    def __getattr__(self, name):
        if name == "made_up":
            return 5
        raise AttributeError(name)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)

    def get_build_config(self):
        return {"input_shape": (None, 8)}

    def get_config(self):
        return {}

    def save(self, path):
        self.saved.append(str(path))
        super().save(path)

    def train_step(self, data):
        return super().train_step(data)


def test_what_the_model_inside_does_is_done_once(tmp_path):
    model = Scaling()
    expected = model(X)
    sparse = granet_tf.wrap(model, HALF, mask_only=True)
    assert isinstance(sparse, Scaling) and sparse.made_up == 5
    np.testing.assert_array_equal(sparse(X), expected)
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(X, Y, batch_size=16, verbose=0)
    np.testing.assert_allclose(sparse.predict(X, verbose=0), sparse(X), rtol=1e-5)
    assert sparse.compute_output_spec(keras.KerasTensor((None, 8))).shape == (None, 4)
    with keras.saving.custom_object_scope({"Scaling": Scaling}):
        sparse.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert model.saved == [str(tmp_path / "model.keras")]
    np.testing.assert_array_equal(loaded(X), sparse(X))
    outputs = sparse(X)
    np.testing.assert_allclose(granet_tf.strip(sparse)(X), outputs, rtol=1e-5)


# Several optimizers, and layers that are called by themselves


@keras.saving.register_keras_serializable("test_own_methods")
class GAN(keras.Model):
    """Two networks, an optimizer for each, and no call(): as in Keras's guides."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential([keras.Input((4,)), L.Dense(8), L.Dense(8)])
        self.critic = keras.Sequential([keras.Input((8,)), L.Dense(8), L.Dense(1)])

    def compile(self, critic_optimizer, generator_optimizer, eager=True):
        super().compile(run_eagerly=eager)
        self.critic_optimizer = critic_optimizer
        self.generator_optimizer = generator_optimizer
        self.average = keras.metrics.Mean("average")

    @property
    def metrics(self):
        return [self.average]

    def train_step(self, real):
        with tf.GradientTape() as tape:
            scores = self.critic(real)
            fakes = self.critic(self.generator(real[:, :4]))
            loss = tf.reduce_mean(scores + 0.1 * scores**2) - tf.reduce_mean(fakes)
        weights = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(self.generator(real[:, :4])))
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(loss, weights), weights)
        self.average.update_state(loss)
        return {"average": self.average.result()}


def gan_weights(mask_only, eager):
    """What is trained of it with random masks, and the masks."""
    keras.utils.set_random_seed(2)
    sparse = granet_tf.wrap(GAN(), NEVER, mask_only=mask_only)
    rng = np.random.default_rng(0)
    for pruned in sparse.pruned:
        pruned.mask.assign(rng.random(pruned.variable.shape) < 0.5)
        if not mask_only:
            pruned.variable.assign(pruned.variable * pruned.mask.numpy())
    sparse.compile(sgd(), generator_optimizer=sgd(), eager=eager)
    # From arrays, Keras's own model without masks does not train alike each time either.
    data = tf.data.Dataset.from_tensor_slices(X).batch(8).cache()
    history = sparse.fit(data, epochs=2, verbose=0).history
    values = {p.path: p.variable.numpy() * p.mask.numpy() for p in sparse.pruned}
    return history["average"], values, sparse


@EAGER
def test_layers_that_a_method_calls_compute_with_masked_weights(eager):
    """The two semantics agree while masks do not change."""
    average, values, zero = gan_weights(False, eager)
    other, others, kept = gan_weights(True, eager)
    np.testing.assert_allclose(average, other, rtol=1e-5)
    for a, b in zip(values.values(), others.values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert any(np.any(p.variable.numpy()[~p.mask.numpy()]) for p in kept.pruned)
    # Outside of its methods, a layer is the user's own again.
    assert np.abs(kept.generator(X[:, :4]) - zero.generator(X[:, :4])).max() > 0.01


@MODES
@pytest.mark.filterwarnings("ignore:.*was not called as part of model loading")
def test_each_optimizer_of_a_gan_updates_the_masks_of_what_it_trains(tmp_path, mask_only):
    gan = GAN()
    assert not gan.built
    sparse = granet_tf.wrap(gan, HALF, mask_only=mask_only)
    sparse.compile(keras.optimizers.Adam(), generator_optimizer=keras.optimizers.Adam())
    history = sparse.fit(X, batch_size=8, verbose=0).history
    assert list(history) == ["average"]
    assert [r.nonzeros for r in granet_tf.summarize(sparse).rows if r.pruned] == [16, 32, 32, 4]
    groups = [sparse.critic_optimizer._groups, sparse.generator_optimizer._groups]
    owned = [{id(p.variable) for g in each for p in g.pruned} for each in groups]
    parts = (gan.critic, gan.generator)
    assert owned == [{id(v) for v in part.trainable_variables if v.ndim > 1} for part in parts]
    sparse.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    np.testing.assert_array_equal(loaded.generator.get_weights()[0], gan.generator.get_weights()[0])
    loaded.compile(keras.optimizers.Adam(), keras.optimizers.Adam())
    loaded.fit(X, batch_size=8, verbose=0)
    assert loaded.sparsity == 0.5
    assert granet_tf.strip(sparse) is gan
    assert sorted(models.counts(gan).values()) == [4, 16, 32, 32]


class OwnOptimizer(models.Subclassed):
    """Makes its optimizer itself."""

    def __init__(self):
        super().__init__(rate=0.0)
        self.mine = sgd()

    def compile(self):
        super().compile(loss="mse", run_eagerly=True)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.mine.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


def test_an_optimizer_that_a_class_makes_itself_keeps_the_masks():
    model = OwnOptimizer()
    model(X)
    sparse = granet_tf.wrap(model, HALF)
    sparse.compile()
    sparse.fit(X, Y, batch_size=8, verbose=0)
    assert type(sparse.mine) is granet_tf.SparseOptimizer and type(model.mine) is type(sgd())
    assert list(models.counts(model).values()) == [64, 32]


@keras.saving.register_keras_serializable("test_own_methods")
class Saves(models.Subclassed):
    """Has a compile() of its own, and says how to save what it takes."""

    def compile(self, best, factor):
        super().compile(best, "mse", run_eagerly=True)
        self.factor = factor

    def get_compile_config(self):
        return {"best": self.optimizer, "factor": self.factor}

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss(self, *args, **kwargs):
        return self.factor * super().compute_loss(*args, **kwargs)


def test_a_file_goes_on_with_a_compile_of_the_users_own(tmp_path):
    def fit(model):
        return model.fit(X, Y, batch_size=8, shuffle=False, verbose=0).history["loss"]

    model = Saves(rate=0.0)
    model(X)
    sparse = granet_tf.wrap(model, HALF)
    sparse.compile(keras.optimizers.Adam(0.01), factor=3.0)
    fit(sparse)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 4
    np.testing.assert_allclose(fit(loaded), fit(sparse), rtol=1e-6)
    assert loaded.sparsity == 0.5


def test_thresholds_that_a_method_trains_are_among_the_trainable_variables():
    model = Counting()
    model(X)
    sparse = granet_tf.wrap(model, granet_tf.STR(threshold_init=-5.0))
    states = [v for p in sparse.pruned for v in p.state.values()]
    before = [v.numpy() for v in states]
    sparse.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    sparse.fit(X, Y, batch_size=8, verbose=0)
    assert model.steps == 4
    assert all(np.any(v.numpy() != old) for v, old in zip(states, before, strict=True))


# Strategies


class Tied(keras.Model):
    """A step and a loss of its own, and a layer's weights used twice."""

    def __init__(self):
        super().__init__()
        self.dense, self.seen = L.Dense(6), keras.metrics.Sum("seen")

    def call(self, inputs):
        return self.dense(inputs) @ keras.ops.transpose(self.dense.kernel)

    def train_step(self, data):
        self.seen.update_state(tf.shape(data[0])[0])
        return super().train_step(data)

    def compute_loss(self, *args, **kwargs):
        return 2.0 * super().compute_loss(*args, **kwargs)


def tied(strategy, mask_only):
    keras.utils.set_random_seed(3)
    with strategy.scope():
        model, optimizer = Tied(), sgd()
        model(X[:1])
    sparse = granet_tf.wrap(model, HALF, mask_only=mask_only)
    sparse.compile(optimizer, "mse")
    data = tf.data.Dataset.from_tensor_slices((X, X)).batch(8)
    return sparse, sparse.fit(data, epochs=2, shuffle=False, verbose=0).history


@pytest.mark.optimized
@MODES
def test_two_replicas_do_as_one_device(mirrored, mask_only):
    replicas, ours = tied(mirrored, mask_only)
    alone, expected = tied(tf.distribute.get_strategy(), mask_only)
    assert_replicas_agree(mirrored, replicas.pruned)
    np.testing.assert_array_equal(replicas.pruned[0].mask, alone.pruned[0].mask)
    np.testing.assert_allclose(replicas.pruned[0].variable, alone.pruned[0].variable, atol=1e-5)
    assert replicas.nonzeros == 24
    assert ours["seen"] == expected["seen"] == [32.0, 32.0]
    np.testing.assert_allclose(ours["loss"], expected["loss"], rtol=1e-5)


# What can't be honoured


class Taken(keras.Model):
    """Means something of its own by a name that wrapped models have."""

    def __init__(self):
        super().__init__()
        self.model = L.Dense(4)

    def call(self, inputs):
        return self.model(inputs)

    def compute_loss(self, *args, **kwargs):
        return 2.0 * super().compute_loss(*args, **kwargs)

    def train_step(self, data):
        return super().train_step(data)


def test_a_name_that_wrapped_models_have_is_told_with_all_that_is_ignored():
    model = Taken()
    model(X)
    with pytest.warns(UserWarning) as caught:
        sparse = granet_tf.wrap(model, HALF)
    [message] = [str(w.message) for w in caught]
    assert message.startswith(
        "The wrapped model does not use compute_loss(), train_step() of Taken, as Taken means "
        "something of its own by `model`, which wrapped models have. Rename it, or compile"
    )
    assert caught[0].filename == __file__
    assert type(sparse) is granet_tf.SparseModel and sparse.model is model
    model.compile(granet_tf.SparseOptimizer("sgd", sparse), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert list(models.counts(model).values()) == [16]


def test_masks_that_are_chosen_by_another_loss_than_the_classs_own_are_told():
    model = Tied()
    model(X)
    sparse = granet_tf.wrap(model, granet_tf.SNIP(0.5))
    sparse.compile("sgd", "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match=r"not by compute_loss\(\) of Tied\. To choose them by"):
        sparse.fit(X, X, verbose=0)
    assert sparse.sparsity == 0.5
