"""Models of a user's own class under two replicas: every replica's copy, and the one-device run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf as tfmot
from granet_tf.wrapping.stripping import pruned_weights
from tests.support.cases import MODES
from tests.support.replicas import assert_replicas_agree

pytestmark = pytest.mark.optimized

L = keras.layers
api = tfmot.sparsity.keras
RISING = api.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=6, frequency=2)
GRANET = tfmot.GraNet(0.75, end_step=6, frequency=2, total_steps=8)
X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
ALONE = tf.distribute.get_strategy()


class Tied(keras.Model):
    """Layers in a list and in a model, one layer's weights used twice, a step of its own."""

    def __init__(self):
        super().__init__()
        self.blocks = [L.Dense(6), keras.Sequential([L.Dense(4), L.ReLU()])]
        self.norm = L.LayerNormalization()

    def call(self, inputs):
        x = self.norm(self.blocks[1](self.blocks[0](inputs)))
        x = x @ keras.ops.transpose(self.blocks[1].layers[0].kernel)
        return x @ keras.ops.transpose(self.blocks[0].kernel)

    def train_step(self, data):
        return super().train_step(data)


class GAN(keras.Model):
    """Two networks, each trained by an optimizer of its own."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((4,)), L.Dense(8)])
        self.critic = keras.Sequential([keras.Input((8,)), L.Dense(1)])

    def compile(self, critic_optimizer, generator_optimizer):
        super().compile()
        self.critic_optimizer = critic_optimizer
        self.generator_optimizer = generator_optimizer

    def call(self, noise):
        return self.critic(self.generator(noise))

    def train_step(self, real):
        replicas = tf.distribute.get_replica_context().num_replicas_in_sync
        with tf.GradientTape() as tape:
            scores = self.critic(real)
            loss = tf.reduce_mean(scores + 0.1 * scores**2) - tf.reduce_mean(self(real[:, :4]))
            loss /= replicas
        weights = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self(real[:, :4])) / replicas
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


def momentum():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def fit(model, data=X, **options):
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8)
    model.fit(batches, epochs=2, shuffle=False, verbose=0, **options)


def tied(strategy, folder, **options):
    with strategy.scope():
        model, optimizer = Tied(), momentum()
        model(X[:1])
    # Outside of the scope on purpose: the model knows its strategy.
    model = api.prune_low_magnitude(model, RISING, **options)
    model.compile(optimizer, "mse")
    summaries = api.PruningSummaries(folder / type(strategy).__name__)
    fit(model, (X, X), callbacks=[api.UpdatePruningStep(), summaries])
    return pruned_weights(model)


def gan(strategy):
    with strategy.scope():
        model, optimizers = GAN(), [momentum(), momentum()]
        model(X[:1, :4])
        for optimizer, part in zip(optimizers, (model.critic, model.generator), strict=True):
            optimizer.build(part.trainable_variables)
    model = api.prune_low_magnitude(model, RISING)
    model.compile(*optimizers)
    fit(model)
    return pruned_weights(model)


def gan_of_wrapped_parts(strategy):
    with strategy.scope():
        model = GAN()
        model(X[:1, :4])
        parts = [tfmot.wrap(part, GRANET) for part in (model.critic, model.generator)]
        optimizers = [tfmot.SparseOptimizer(momentum(), part) for part in parts]
        for optimizer, part in zip(optimizers, parts, strict=True):
            optimizer.build(part.trainable_variables)
        model.compile(*optimizers)
    fit(model)
    return [pruned for part in parts for pruned in part.pruned]


def seeded(train, *args, **options):
    keras.utils.set_random_seed(3)
    return train(*args, **options)


def assert_the_same(strategy, train, **options):
    """Masks on both replicas and on one device; returns the number of active weights by shape."""
    replicas = seeded(train, strategy, **options)
    assert_replicas_agree(strategy, replicas)
    for a, b in zip(replicas, seeded(train, ALONE, **options), strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.variable, b.variable, atol=1e-5)
    return {p.variable.shape: int(np.count_nonzero(p.mask)) for p in replicas}


@MODES
def test_a_subclassed_model(mirrored, mask_only, tmp_path):
    counts = assert_the_same(mirrored, tied, folder=tmp_path, mask_only=mask_only)
    assert counts == {(8, 6): 12, (6, 4): 6}
    [file] = (tmp_path / "MirroredStrategy" / "metrics").iterdir()
    events = [tf.compat.v1.Event.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(file))]
    assert [e.step for e in events for v in e.summary.value if v.tag == "sparsity"] == [0, 4, 8]


def test_a_gan_with_two_optimizers(mirrored):
    assert assert_the_same(mirrored, gan) == {(4, 8): 8, (8, 1): 2}


def test_a_gan_whose_parts_are_wrapped(mirrored):
    assert assert_the_same(mirrored, gan_of_wrapped_parts) == {(4, 8): 8, (8, 1): 2}


def test_what_is_made_outside_of_the_scope_is_refused(mirrored):
    text = r"must be made in the scope of the strategy.*Received: <.*%s.*of MirroredStrategy"
    outside = keras.Sequential([keras.Input((8,)), L.Dense(8)])
    with mirrored.scope():
        inside = keras.Sequential([keras.Input((8,)), L.Dense(8)])
        with pytest.raises(ValueError, match=text % "Sequential"):
            api.prune_low_magnitude(outside, RISING).compile("sgd", "mse")
    with pytest.raises(ValueError, match=text % "SGD"):
        api.prune_low_magnitude(inside, RISING).compile(momentum(), "mse")


def test_several_optimizers_must_be_built(mirrored):
    with mirrored.scope():
        model, optimizers = GAN(), [momentum(), momentum()]
        model(X[:1, :4])
    model = api.prune_low_magnitude(model, RISING)
    model.compile(*optimizers)
    with pytest.raises(ValueError, match=r"each of a model's optimizers must be built before"):
        fit(model)
