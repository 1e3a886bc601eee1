"""`prune_low_magnitude` of models of a user's own class: subclassed ones, GANs, own train steps."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf as tfmot
from tests.support import models
from tests.support.cases import HALF, MODES
from tests.support.keras_versions import TRACKS_BESIDE_THE_GRAPH

L = keras.layers
api = tfmot.sparsity.keras
X, Y = models.data(models.subclassed, 16)


@keras.saving.register_keras_serializable("tests")
class Pair(L.Layer):
    """A block that leaves building to its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = L.Dense(4, name="first"), L.Dense(8, name="second")

    def call(self, inputs):
        return self.second(self.first(inputs))


Ends = collections.namedtuple("Ends", "norm head")


@keras.saving.register_keras_serializable("tests")
class Everywhere(keras.Model):
    """Has layers in every kind of container, a model in it, and uses a layer's own weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stem = L.Dense(8, name="stem")
        self.blocks = [L.Dense(8, name="a"), [L.Dense(8, name="b")]]
        self.named = {"block": Pair(name="pair"), "relu": L.ReLU(name="relu")}
        self.inner = keras.Sequential([keras.Input((8,)), L.Dense(8, name="in")], name="inner")
        self.ends = Ends(L.BatchNormalization(name="norm"), L.Dense(4, name="head"))
        self.fixed = L.Dense(8, name="fixed", trainable=False)
        self.steps = 0

    def call(self, inputs, training=None):
        x = self.blocks[1][0](self.blocks[0](self.stem(inputs)))
        x = self.named["relu"](self.named["block"](x)) + self.stem(inputs)
        x = self.fixed(self.inner(x)) @ keras.ops.transpose(self.stem.kernel)
        return self.ends.head(self.ends.norm(x, training=training))

    def train_step(self, data):
        self.steps += 1
        return super().train_step(data)


# {last two parts of a path: number of weights} of what is pruned of it.
SIZES = {
    **{f"{name}/kernel": 64 for name in ("stem", "a", "b", "in")},
    **{f"{name}/kernel": 32 for name in ("first", "second", "head")},
}


def everywhere():
    model = Everywhere(name="net")
    model(X)
    return model


def active(model):
    rows = tfmot.summarize(model).rows
    return {"/".join(r.path.split("/")[-2:]): r.nonzeros for r in rows if r.pruned}


def halves(sizes):
    return {path: size // 2 for path, size in sizes.items()}


def kinds(model):
    return [type(layer).__name__ for layer in model._flatten_layers(include_self=False)]


def leaves(model):
    """Without models, whose graphs are made anew, and their inputs."""
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if not isinstance(layer, (keras.Model, L.InputLayer))]


@MODES
def test_layers_in_all_containers_are_wrapped_trained_saved_and_stripped(tmp_path, mask_only):
    model = everywhere()
    before, expected, layers = kinds(model), model(X), leaves(model)
    pruned = api.prune_low_magnitude(model, HALF, mask_only=mask_only)
    assert pruned is model and isinstance(model, Everywhere) and not model.compiled
    assert kinds(model).count("PruneLowMagnitude") == 6  # The two of `Pair` are in one.
    assert isinstance(model.ends, Ends)
    np.testing.assert_allclose(model(X), expected, atol=1e-6)
    assert active(model) == SIZES
    rows = {"/".join(r.path.split("/")[-2:]): r.reason for r in tfmot.summarize(model).rows}
    assert (rows["fixed/kernel"], rows["norm/gamma"]) == ("frozen", "bias or scale")

    model.compile("adam", "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert model.steps == 2 and active(model) == halves(SIZES)

    model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert isinstance(loaded, Everywhere) and kinds(loaded) == kinds(model)
    assert active(loaded) == halves(SIZES)
    np.testing.assert_array_equal(loaded(X), model(X))
    for each in (model, loaded):
        each.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert loaded.steps == 2
    np.testing.assert_allclose(loaded(X), model(X), atol=1e-6)

    outputs = model(X)
    stripped = api.strip_pruning(model)
    assert stripped is model and type(model) is Everywhere and not model.compiled
    assert kinds(model) == before
    assert all(a is b for a, b in zip(leaves(model), layers, strict=True))
    np.testing.assert_allclose(model(X), outputs, atol=1e-6)
    nonzeros = {"/".join(path.split("/")[-2:]): n for path, n in models.counts(model).items()}
    assert nonzeros == halves(SIZES)
    model.save(tmp_path / "stripped.keras")
    loaded = keras.models.load_model(tmp_path / "stripped.keras")
    assert type(loaded) is Everywhere
    np.testing.assert_array_equal(loaded(X), outputs if mask_only is False else model(X))


def test_weights_and_checkpoints_of_a_subclassed_model(tmp_path):
    def trained(build):
        model = api.prune_low_magnitude(build(), HALF)
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    model, other, third = (trained(models.subclassed) for _ in range(3))
    model.fit(X, Y, batch_size=8, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    path = tf.train.Checkpoint(model=model).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=third).restore(path).assert_existing_objects_matched()
    for each in (other, third):
        assert active(each) == {"hidden/kernel": 64, "head/kernel": 32}
        np.testing.assert_array_equal(each(X), model(X))


def test_exporting_leaves_the_model_as_it_is(tmp_path):
    model = api.prune_low_magnitude(models.subclassed(), HALF, mask_only=True)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0)
    weights, names = [v.numpy() for v in model.variables], kinds(model)
    tfmot.export_tflite(model, str(tmp_path / "model.tflite"))
    assert kinds(model) == names and model.compiled
    for variable, value in zip(model.variables, weights, strict=True):
        np.testing.assert_array_equal(variable, value)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert active(model) == {"hidden/kernel": 64, "head/kernel": 32}


@keras.saving.register_keras_serializable("tests")
class GAN(keras.Model):
    """Two networks, each trained by an optimizer of its own, as in Keras's guides."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential([keras.Input((4,)), L.Dense(8), L.Dense(8)])
        self.critic = keras.Sequential([keras.Input((8,)), L.Dense(8), L.Dense(1)])

    def compile(self, critic_optimizer, generator_optimizer):
        super().compile(run_eagerly=True)
        self.critic_optimizer = critic_optimizer
        self.generator_optimizer = generator_optimizer

    def call(self, noise):
        return self.critic(self.generator(noise))

    def train_step(self, real):
        noise = tf.ones((tf.shape(real)[0], 4))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.critic(real)) - tf.reduce_mean(self(noise))
        weights = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(noise))
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


@MODES
@pytest.mark.filterwarnings("ignore:.*was not called as part of model loading")
def test_each_optimizer_of_a_gan_updates_the_masks_of_what_it_trains(tmp_path, mask_only):
    gan = GAN()
    gan(np.ones((1, 4)))
    gan = api.prune_low_magnitude(gan, HALF, mask_only=mask_only)
    gan.compile(keras.optimizers.Adam(), generator_optimizer=keras.optimizers.Adam())
    gan.fit(X, batch_size=8, verbose=0)
    assert [r.nonzeros for r in tfmot.summarize(gan).rows if r.pruned] == [32, 16, 4, 32]
    groups = [gan.critic_optimizer._groups, gan.generator_optimizer._groups]
    owned = [{id(p.variable) for g in each for p in g.pruned} for each in groups]
    parts = (gan.critic, gan.generator)
    expected = [{id(v) for v in part.trainable_variables if v.ndim > 1} for part in parts]
    assert owned == expected
    gan.save(tmp_path / "gan.keras")
    loaded = keras.models.load_model(tmp_path / "gan.keras")
    np.testing.assert_array_equal(loaded(X[:, :4]), gan(X[:, :4]))
    loaded.compile(keras.optimizers.Adam(), keras.optimizers.Adam())
    loaded.fit(X, batch_size=8, verbose=0, callbacks=[api.UpdatePruningStep()])
    assert tfmot.summarize(loaded).sparsity == 0.5
    stripped = api.strip_pruning(gan)
    assert type(stripped) is GAN and type(stripped.critic_optimizer) is keras.optimizers.Adam
    assert kinds(stripped).count("PruneLowMagnitude") == 0


def test_a_loop_may_use_the_plain_optimizers_of_a_gan():
    gan = GAN()
    gan(np.ones((1, 4)))
    gan = api.prune_low_magnitude(gan, HALF)
    plain = keras.optimizers.Adam(), keras.optimizers.Adam()
    gan.compile(*plain)
    callback = api.UpdatePruningStep()
    callback.set_model(gan)
    callback.on_train_begin()
    for _ in range(2):
        callback.on_train_batch_begin(batch=-1)
        for optimizer, part in zip(plain, (gan.critic, gan.generator), strict=True):
            weights = part.trainable_variables
            optimizer.apply([tf.ones(w.shape) for w in weights], weights)
    callback.on_epoch_end(batch=-1)
    assert [r.nonzeros for r in tfmot.summarize(gan).rows if r.pruned] == [32, 16, 4, 32]


@keras.saving.register_keras_serializable("tests")
class OwnGraph(keras.Model):
    """A functional model that makes its graph itself, with a metric and a layer as attributes."""

    def __init__(self, units=8, **kwargs):
        # As in KerasHub: before there is a graph, and not in its order.
        self.head, self.dense = L.Dense(4, name="head"), L.Dense(units, name="dense")
        inputs = keras.Input((8,))
        super().__init__(inputs, self.head(self.dense(inputs)), **kwargs)
        self.units = units
        self.average = keras.metrics.Mean("average")

    def train_step(self, data):
        self.average.update_state(3.0)
        return {**super().train_step(data), "average": self.average.result()}

    def get_config(self):
        return {"units": self.units, "name": self.name}


@keras.saving.register_keras_serializable("tests")
class OwnStack(keras.Sequential):
    """A sequential model that trains in its own way."""

    def train_step(self, data):
        return {**super().train_step(data), "average": 3.0}


def own_stack():
    layers = [keras.Input((8,)), L.Dense(8, name="dense"), L.Dense(4, name="head")]
    return OwnStack(layers, name="net")


@pytest.mark.parametrize("build", [OwnGraph, own_stack])
def test_functional_and_sequential_models_of_ones_own_class_are_copied(tmp_path, build):
    model = build()
    kind, expected = type(model), model(X)
    pruned = api.prune_low_magnitude(model, HALF)
    assert isinstance(pruned, kind) and pruned is not model and type(model) is kind
    assert "PruneLowMagnitude" not in kinds(model)
    np.testing.assert_allclose(pruned(X), expected, atol=1e-6)
    pruned.compile("adam", "mse", run_eagerly=True)
    history = pruned.fit(X, Y, batch_size=8, verbose=0).history
    assert history["average"] == [3.0]
    assert active(pruned) == {"dense/kernel": 32, "head/kernel": 16}
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, kind) and sorted(kinds(loaded)) == sorted(kinds(pruned))
    np.testing.assert_array_equal(loaded(X), pruned(X))
    assert loaded.fit(X, Y, batch_size=8, verbose=0).history["average"] == [3.0]
    stripped = api.strip_pruning(pruned)
    assert type(stripped) is kind and sorted(kinds(stripped)) == sorted(kinds(model))
    np.testing.assert_allclose(stripped(X), pruned(X), atol=1e-6)


def test_a_layer_that_is_an_attribute_too_is_wrapped_once():
    pruned = api.prune_low_magnitude(OwnGraph(), HALF)
    assert pruned.dense is pruned.layers[1] and type(pruned.dense) is api.PruneLowMagnitude


def test_a_subclassed_model_in_a_functional_one(tmp_path):
    inner = models.subclassed(name="own")
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(4, name="last")(inner(inputs)))
    pruned = api.prune_low_magnitude(model, HALF)
    pruned.compile("sgd", "mse", run_eagerly=True)
    pruned.fit(X, Y, batch_size=8, verbose=0)
    counts = {"hidden/kernel": 64, "head/kernel": 32, "last/kernel": 8}
    assert active(pruned) == counts
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert active(loaded) == counts
    np.testing.assert_array_equal(loaded(X), pruned(X))
    stripped = api.strip_pruning(pruned)
    assert type(inner) is models.Subclassed
    np.testing.assert_allclose(stripped(X), loaded(X), atol=1e-6)


def test_a_shared_layer_of_a_subclassed_model_is_wrapped_once():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = self.second = L.Dense(8, name="dense")

        def call(self, inputs):
            return self.second(self.first(inputs))

    model = Twice()
    model(X)
    api.prune_low_magnitude(model, HALF)
    assert model.first is model.second
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, X, batch_size=8, verbose=0)
    assert active(model) == {"dense/kernel": 32} and int(model.optimizer.iterations) == 2


def test_a_policy_chooses_among_the_layers_of_nested_and_subclassed_models():
    class Short(api.PruningPolicy):
        def allow_pruning(self, layer):
            asked.append(layer.name)
            return layer.name in ("a", "in", "fixed")

        def ensure_model_supports_pruning(self, model):
            asked.append(type(model).__name__)

    asked, model = [], everywhere()
    pruned = api.prune_low_magnitude(model, HALF, pruning_policy=Short())
    # Frozen layers stay out, whatever the policy says.
    assert active(pruned) == {"a/kernel": 64, "in/kernel": 64}
    assert asked[0] == "Everywhere"
    assert sorted(asked[1:]) == sorted(
        ["stem", "a", "b", "pair", "relu", "in", "norm", "head", "fixed"]
    )
    reasons = {r.path.split("/")[-2]: r.reason for r in tfmot.summarize(pruned).rows if r.size > 8}
    assert (reasons["stem"], reasons["fixed"]) == ("not wrapped", "frozen")


def test_frozen_layers_are_pruned_where_they_are_asked_for():
    model = everywhere()
    asked = api.prune_low_magnitude(model, HALF, prunable=lambda layer, weight: weight.ndim > 1)
    assert active(asked) == {**SIZES, "fixed/kernel": 64}
    asked.compile("sgd", "mse", run_eagerly=True)
    asked.fit(X, Y, batch_size=8, verbose=0)
    assert active(asked) == {**halves(SIZES), "fixed/kernel": 32}
    assert np.count_nonzero(asked.fixed.kernel) == 32
    alone = L.Dense(4, trainable=False)
    assert api.prune_low_magnitude(alone, HALF) is alone
    layer = api.prune_low_magnitude(alone, HALF, prunable=["*kernel"])
    keras.Sequential([keras.Input((8,)), layer])
    assert [p.variable is alone.kernel for p in layer.pruned] == [True]


def test_a_model_that_was_compiled_comes_back_without_an_optimizer():
    model = everywhere()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, Y, verbose=0)
    api.prune_low_magnitude(model, HALF)
    assert model.optimizer is None and not model.compiled


def test_what_cannot_be_done_with_a_subclassed_model_is_told():
    class WithWeights(keras.Model):
        def build(self, shape):
            self.kernel = self.add_weight((8, 4))

        def call(self, inputs):
            return inputs @ self.kernel

        def get_prunable_weights(self):
            return [self.kernel]

    model = WithWeights()
    model(X)
    with pytest.raises(
        ValueError, match=r"Use granet_tf\.wrap\(model\), or put.*Received: to_prune=<With"
    ):
        api.prune_low_magnitude(model, HALF)
    with pytest.raises(ValueError, match=r"must be built before it is pruned"):
        api.prune_low_magnitude(models.Subclassed(), HALF)
    with pytest.raises(ValueError, match=r"`prunable` must be a callable.*for more than one layer"):
        api.prune_low_magnitude(models.sequential(), HALF, prunable=["*kernel"])


@keras.saving.register_keras_serializable("tests")
class Tokenizer(L.Layer):
    """Has no weights, ever, and is built when it is called, as KerasHub's preprocessors are."""

    def __init__(self, inner=None, **kwargs):
        super().__init__(**kwargs)
        self._convert_input_args, self._allow_non_tensor_positional_args = False, True
        self.inner = inner

    def build(self, input_shape=None):
        self.table = ["a", "b"]

    def call(self, inputs):
        return tf.strings.length(inputs)

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "inner": keras.saving.deserialize_keras_object(config["inner"])})


@keras.saving.register_keras_serializable("tests")
class Classifier(keras.Model):
    """A functional model of one's own class with a preprocessor beside its graph."""

    def __init__(self, preprocessor=None, **kwargs):
        inputs = keras.Input((8,))
        super().__init__(inputs, L.Dense(4, name="head")(inputs), **kwargs)
        self.preprocessor = preprocessor

    def get_config(self):
        given = keras.saving.serialize_keras_object(self.preprocessor)
        return {"preprocessor": given, "name": self.name}

    @classmethod
    def from_config(cls, config):
        given = keras.saving.deserialize_keras_object(config["preprocessor"])
        return cls(**{**config, "preprocessor": given})


class Beside(keras.Model):
    """A subclassed one."""

    def __init__(self, preprocessor):
        super().__init__()
        self.parts = [preprocessor, L.Dense(4, name="head")]

    def call(self, inputs):
        return self.parts[1](inputs)


class Idle(keras.Model):
    """A model that only preprocesses, and has not been called."""

    def __init__(self):
        super().__init__()
        self.tokenizer = Tokenizer()

    def call(self, inputs):
        return self.tokenizer(inputs)


@pytest.mark.parametrize("prunable", [None, tfmot.default_prunable])
@pytest.mark.parametrize("kind", [Classifier, Beside])
@pytest.mark.parametrize("make", [Tokenizer, lambda: Tokenizer(Tokenizer()), Idle, L.StringLookup])
def test_layers_without_weights_that_are_not_built_are_no_obstacle(kind, make, prunable):
    for called in (False, True):
        preprocessor = make()
        if called and isinstance(preprocessor, Tokenizer):
            preprocessor(tf.constant(["a"]))
        model = kind(preprocessor)
        model(X)
        tracked = preprocessor in model._flatten_layers()
        pruned = api.prune_low_magnitude(model, HALF, prunable=prunable)
        assert tracked or not TRACKS_BESIDE_THE_GRAPH
        assert (preprocessor in pruned._flatten_layers()) is tracked
        assert kinds(pruned).count("PruneLowMagnitude") == 1
        pruned.compile("sgd", "mse", run_eagerly=True)
        pruned.fit(X, Y, batch_size=8, verbose=0)
        assert active(pruned) == {"head/kernel": 16}
        stripped = api.strip_pruning(pruned)
        assert "PruneLowMagnitude" not in kinds(stripped)


def test_a_file_holds_layers_without_weights_too(tmp_path):
    pruned = api.prune_low_magnitude(Classifier(Tokenizer(Tokenizer())), HALF)
    pruned.compile("sgd", "mse", run_eagerly=True)
    pruned.fit(X, Y, batch_size=8, verbose=0)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.preprocessor.inner) is Tokenizer and active(loaded) == {"head/kernel": 16}
    np.testing.assert_array_equal(loaded(X), pruned(X))


def test_what_will_have_weights_is_still_asked_for():
    class Late(L.Layer):
        def build(self, input_shape):
            self.matrix = self.add_weight((input_shape[-1], 4))

    # In nothing that is built, there is no telling that it stays without weights.
    for given in (Late(), [Late()], keras.Sequential([Late(), L.Dense(2)]), Tokenizer()):
        with pytest.raises(ValueError, match=r"get_prunable_weights\(\).*prunable=granet_tf\.def"):
            api.prune_low_magnitude(given, HALF)
        # And what the message says to do, does it.
        api.prune_low_magnitude(given, HALF, prunable=tfmot.default_prunable)
    model = Beside(models.Subclassed())
    model(X)
    with pytest.raises(ValueError, match=r"must be built before it is pruned"):
        api.prune_low_magnitude(model, HALF)
