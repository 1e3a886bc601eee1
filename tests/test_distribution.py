"""Two logical CPUs under MirroredStrategy: every replica's copy, and the one-device run."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from tests.support.replicas import assert_replicas_agree

METHODS = {
    "granet": granet_tf.GraNet(0.8, frequency=3),
    "granet_from_half": granet_tf.GraNet(0.8, initial_sparsity=0.5, frequency=3),
    "gmp": granet_tf.GMP(0.8, frequency=3),
    "rigl": granet_tf.RigL(0.8, frequency=3),
    "set": granet_tf.SET(0.8, frequency=3),
}


def train(strategy, method, mask_only=False, policy="float32", **options):
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 8, 8, 1)).astype("float32")
    y = rng.integers(0, 4, 128)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(8, 3, name="conv", kernel_regularizer="l2", dtype=policy),
                keras.layers.ReLU(dtype=policy),
                keras.layers.Flatten(dtype=policy),
                keras.layers.Dense(4, name="head", dtype=policy),
            ]
        )
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    # Outside the scope on purpose: wrap and compile find the model's strategy.
    sparse = granet_tf.wrap(model, method, mask_only=mask_only)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sparse.compile(optimizer, loss, **options)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    sparse.fit(batches, epochs=2, shuffle=False, verbose=0)
    return sparse


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("name", "mask_only"),
    [*((name, False) for name in METHODS), ("granet", True), ("gmp", True)],
)
def test_replicas_agree_to_the_bit_and_with_one_device(mirrored, name, mask_only):
    model = train(mirrored, METHODS[name], mask_only)
    assert_replicas_agree(mirrored, model.pruned)
    alone = train(tf.distribute.get_strategy(), METHODS[name], mask_only)
    for a, b in zip(model.pruned, alone.pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.variable, b.variable, atol=1e-5)
    # 3·3·8 + 6·6·8·4 weights at 80 %, to one weight for each tensor.
    assert abs(model.nonzeros - 244.8) <= 2.0


def test_loss_scaling_inside_a_strategy(mirrored):
    model = train(mirrored, METHODS["granet"], policy="mixed_float16")
    assert_replicas_agree(mirrored, model.pruned)
    assert model.nonzeros == 245


def test_a_custom_loop_under_a_strategy(mirrored):
    with mirrored.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, use_bias=False)])
        method = granet_tf.GraNet(0.75, end_step=8, frequency=2, total_steps=16)
        sparse = granet_tf.wrap(model, method)
        optimizer = granet_tf.SparseOptimizer(keras.optimizers.Adam(0.01), sparse)
        optimizer.build(sparse.trainable_variables)
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    batches = mirrored.experimental_distribute_dataset(
        tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(8)
    )

    @tf.function
    def step(batch):
        def on_replica(x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum((sparse(x, training=True) - 1.0) ** 2) / 64.0
            gradients = tape.gradient(loss, sparse.trainable_variables)
            optimizer.apply(gradients, sparse.trainable_variables)

        mirrored.run(on_replica, args=(batch,))

    for batch in batches:
        step(batch)
    assert int(optimizer.iterations.numpy()) == 16
    assert_replicas_agree(mirrored, sparse.pruned)
    assert sparse.nonzeros == 12


def test_a_step_without_update_communicates_no_more_than_the_optimizer_alone(mirrored):
    def collectives(sparse):
        with mirrored.scope():
            model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, use_bias=False)])
            optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
            if sparse:
                method = granet_tf.GraNet(0.75, frequency=2, total_steps=16)
                model = granet_tf.wrap(model, method)
                optimizer = granet_tf.SparseOptimizer(optimizer, model)
            optimizer.build(model.trainable_variables)

        @tf.function
        def step(x):
            def on_replica():
                with tf.GradientTape() as tape:
                    loss = tf.reduce_sum(model(x, training=True) ** 2)
                gradients = tape.gradient(loss, model.trainable_variables)
                optimizer.apply(gradients, model.trainable_variables)

            mirrored.run(on_replica)

        # What an update needs is in the branch of a condition, not among these.
        graph = step.get_concrete_function(tf.ones((4, 6))).graph
        return [op.type for op in graph.get_operations() if "Collective" in op.type]

    dense = collectives(sparse=False)
    assert dense
    assert collectives(sparse=True) == dense
