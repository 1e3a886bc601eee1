"""Training steps against slow NumPy versions of the algorithms, and gradients against finite
differences."""

import dataclasses
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from tests.support import reference

pytestmark = [pytest.mark.usefixtures("float64"), pytest.mark.optimized]

# Keras casts the momentum by way of float32.
RATE, MOMENTUM, STEPS = 0.05, float(np.float32(0.9)), 60


def keras_mlp(weights, l2=0.0):
    """The reference's network."""
    regularizer = keras.regularizers.L2(l2) if l2 else None
    options = {"use_bias": False, "kernel_regularizer": regularizer}
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(12, activation="relu", name="hidden", **options)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, name="out", **options)(hidden))
    model.set_weights(weights)
    return model


def train(model, batches, **options):
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
    model.compile(optimizer, "mse", **options)
    for x, y in batches:
        model.train_on_batch(x, y)
        weights = [p.variable.numpy() for p in model.pruned]
        masks = [p.mask.numpy() for p in model.pruned]
        velocities = [v.numpy() for v in model.optimizer.inner_optimizer.momentums]
        yield weights, masks, velocities


def assert_same_run(run, expected, steps):
    compared = 0
    for step, (ours, theirs) in enumerate(zip(run, expected, strict=True), start=1):
        for name, a, b in zip(("weights", "masks", "momentum"), ours, theirs, strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-9, err_msg=f"{name}, {step=}")
        compared += 1
    assert compared == steps


@pytest.mark.parametrize("l2", [0.0, 2.0**-7])
def test_mask_only_gmp_is_the_original(l2):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.GMP(0.8, distribution="uniform", end_step=50, frequency=5)
    model = granet_tf.wrap(keras_mlp(weights, l2), method, mask_only=True)
    expected = reference.gmp_mask_only(
        weights,
        batches,
        rate=RATE,
        momentum=MOMENTUM,
        l2=l2,
        final=0.8,
        end=50,
        frequency=5,
    )
    assert_same_run(train(model, batches), expected, STEPS)
    # 72 and 48 weights at 80 %; and values were kept.
    assert [int(p.mask.numpy().sum()) for p in model.pruned] == [14, 10]
    assert all(np.all(p.variable.numpy() != 0.0) for p in model.pruned)


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_zero_mode_granet_is_algorithm_1(initial):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.GraNet(
        0.8, initial_sparsity=initial, end_step=40, frequency=5, drop_fraction=0.4, total_steps=60
    )
    model = granet_tf.wrap(keras_mlp(weights), method)
    masks = [p.mask.numpy() for p in model.pruned]
    expected = reference.granet_zero(
        weights,
        masks,
        batches,
        rate=RATE,
        momentum=MOMENTUM,
        initial=initial,
        final=0.8,
        end=40,
        frequency=5,
        total=60,
        r=0.4,
    )
    assert_same_run(train(model, batches), expected, STEPS)
    # 120 weights at 80 %.
    assert sum(int(p.mask.numpy().sum()) for p in model.pruned) == 24


def test_the_count_follows_the_schedule_at_every_update_and_regeneration_keeps_it():
    weights, batches = reference.problem(STEPS)
    method = granet_tf.GraNet(0.9, end_step=40, frequency=4, total_steps=60)
    model = granet_tf.wrap(keras_mlp(weights), method)
    counts = [sum(int(m.sum()) for m in masks) for _, masks, _ in train(model, batches)]
    expected, count = [], 120
    for step in range(1, 61):
        if step % 4 == 0 and step <= 40:
            count = reference.keep_count(120, reference.cubic(step, 0.0, 0.9, 0, 40))
        expected.append(count)
    assert counts == expected
    assert counts[-1] == 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spy(granet_tf.RigL):
    """RigL that notes the gradient it ranks; only works eagerly."""

    seen: ClassVar[list] = []

    def grow_score(self, weight, gradient, seed):
        self.seen.append(gradient.numpy())
        return super().grow_score(weight, gradient, seed)


@pytest.mark.parametrize("mask_only", [False, True])
@pytest.mark.parametrize("l2", [0.0, 2.0**-7])
def test_growth_ranks_the_true_dense_gradient(mask_only, l2):
    weights, batches = reference.problem(STEPS)
    x, y = batches[0]
    method = Spy(0.5, frequency=1, total_steps=10)
    model = granet_tf.wrap(keras_mlp(weights, l2), method, mask_only=mask_only)
    masked = [p.variable.numpy() * p.mask.numpy() for p in model.pruned]
    Spy.seen.clear()
    next(train(model, batches[:1], run_eagerly=True))

    def loss(values):
        return reference.MLP.loss(values, x, y) + l2 * sum(np.sum(v**2) for v in values)

    assert len(Spy.seen) == 2
    for i, gradient in enumerate(Spy.seen):
        for index in np.ndindex(gradient.shape):
            shifted = [[v.copy() for v in masked] for _ in range(2)]
            shifted[0][i][index] += 1e-6
            shifted[1][i][index] -= 1e-6
            slope = (loss(shifted[0]) - loss(shifted[1])) / 2e-6
            assert gradient[index] == pytest.approx(slope, abs=1e-7)

    variables = [tf.Variable(v) for v in masked]
    with tf.GradientTape() as tape:
        hidden = tf.nn.relu(x @ variables[0])
        value = tf.reduce_mean((hidden @ variables[1] - y) ** 2)
        value += l2 * tf.add_n([tf.reduce_sum(v**2) for v in variables])
    for gradient, independent in zip(Spy.seen, tape.gradient(value, variables), strict=True):
        np.testing.assert_allclose(gradient, independent, atol=1e-12)


@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize("mask_only", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 4}],
    ids=lambda options: next(iter(options)),
)
def test_the_same_however_it_is_executed(mask_only, options):
    def run(**options):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(12, activation="relu", name="hidden")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(4, name="out")(hidden))
        model = granet_tf.wrap(model, granet_tf.GraNet(0.8, frequency=3), mask_only=mask_only)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", **options)
        x = np.random.default_rng(0).normal(size=(96, 6))
        model.fit(x, x[:, :4], batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model

    plain, other = run(), run(**options)
    for a, b in zip(plain.pruned, other.pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.variable, b.variable, atol=1e-6)
    # 6·12 + 12·4 weights at 80 %.
    assert plain.nonzeros == other.nonzeros == 24


def test_mask_only_graNet_keeps_values_of_dormant_weights():
    weights, batches = reference.problem(STEPS)
    model = granet_tf.wrap(
        keras_mlp(weights),
        granet_tf.GraNet(0.8, end_step=20, frequency=5, total_steps=40),
        mask_only=True,
    )
    run = list(train(model, batches[:40]))
    # The gradient of a dormant weight is masked, but its momentum goes on from where it was.
    assert all(np.all(w != 0.0) for w in run[-1][0])
    assert model.nonzeros == 24


def test_growth_in_a_layer_without_gradient_falls_back_to_the_index():
    unused = keras.layers.Dense(4, use_bias=False, name="unused")
    unused.build((None, 4))

    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = keras.layers.Dense(4, use_bias=False), unused

        def call(self, x):
            return self.used(x)

    model = Half()
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model(x)
    sparse = granet_tf.wrap(model, granet_tf.RigL(0.5, frequency=1, total_steps=8))
    sparse.compile("sgd", "mse")
    sparse.fit(x, x, batch_size=4, epochs=4, verbose=0)
    assert [int(p.mask.numpy().sum()) for p in sparse.pruned] == [8, 8]
