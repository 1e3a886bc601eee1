"""What an update adds to the graph of a step, and where it runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.masks.traced import when

L = keras.layers
pytestmark = pytest.mark.optimized


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("how", ["eager", "graph", "loop", "XLA"])
def test_when(apart, how):
    added, counter = tf.Variable(10), tf.Variable(0)

    def step(i, twice):
        when(i % 2 == 0, lambda: counter.assign_add(added * twice), apart=apart)
        return counter.read_value()

    def loop(n, twice):
        for i in tf.range(n):
            step(i, twice)
        return counter.read_value()

    if how == "loop":
        assert int(tf.function(loop)(tf.constant(5), tf.constant(2))) == 60
        return
    run = {"eager": step, "graph": tf.function(step), "XLA": tf.function(step, jit_compile=True)}
    seen = [int(run[how](tf.constant(i), tf.constant(2))) for i in range(5)]
    assert seen == [20, 20, 40, 40, 60]


def test_what_is_read_after_a_condition_has_been_updated():
    @tf.function
    def step(due):
        before = variable.read_value()
        when(due, lambda: variable.assign(before + 1), apart=True)
        variable.assign(variable * 10)
        when(due, lambda: variable.assign_add(1), apart=True)
        return before, variable.read_value()

    variable = tf.Variable(1)
    assert [int(x) for x in step(tf.constant(True))] == [1, 21]
    assert [int(x) for x in step(tf.constant(False))] == [21, 210]


def net(depth=3, devices=("CPU:0",)):
    x = inputs = keras.Input((8,))
    for i in range(depth):
        with tf.device(devices[i % len(devices)]):
            layer = L.Dense(8, activation="tanh", name=f"d{i}")
            layer.build((None, 8))
        x = layer(x)
    return keras.Model(inputs, x)


def trained(model, method, **options):
    keras.utils.set_random_seed(1)
    for weight in model.trainable_variables:
        weight.assign(np.random.normal(size=weight.shape))
    sparse = granet_tf.wrap(model, method, **options)
    sparse.compile(keras.optimizers.Adam(0.01), "mse")
    x = np.random.normal(size=(40, 8)).astype("float32")
    sparse.fit(x, x[:, ::-1], batch_size=8, epochs=3, shuffle=False, verbose=0)
    return [np.array(v) for p in sparse.pruned for v in (p.variable, p.mask)]


@pytest.mark.parametrize("mask_only", [False, True])
def test_weights_on_several_devices_are_pruned_alike(mask_only):
    method = granet_tf.GraNet(0.75, frequency=2, total_steps=15)
    if mask_only:
        method = granet_tf.GMP(0.75, frequency=2, total_steps=15)
    split = net(devices=("CPU:0", "CPU:1"))
    assert {w.value.device[-5:] for w in split.trainable_variables} == {"CPU:0", "CPU:1"}
    there = trained(split, method, mask_only=mask_only)
    here = trained(net(), method, mask_only=mask_only)
    for ours, reference in zip(there, here, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-6)
    assert sum(np.sum(mask) for mask in there[1::2]) == 48


def nodes(depth, method, **options):
    """Number of nodes of a training step, functions and all."""
    model = net(depth)
    if method is not None:
        model = granet_tf.wrap(model, method, **options)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    batch = tf.zeros((4, 8))
    step = tf.function(model.train_step, autograph=False)
    graph = step.get_concrete_function((batch, batch)).graph.as_graph_def()
    return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)


@pytest.mark.parametrize(
    ("method", "options", "most"),
    [
        # Forward, gradient and optimizer aside: 2 reads, 2 selections and an assignment; in the
        # update 3 values brought into line, 2 read, and the new ones assigned by a call.
        (granet_tf.GraNet(0.9, frequency=2, total_steps=20), {}, 12),
        (granet_tf.GMP(0.9, frequency=2, total_steps=20), {}, 11),
        (granet_tf.GMP(0.9, frequency=2, total_steps=20), {"mask_only": True}, 19),
    ],
)
def test_what_each_weight_adds_to_the_graph_of_a_step(method, options, most):
    few, many = (nodes(n, method, **options) - nodes(n, None) for n in (4, 12))
    assert 0 < (many - few) / 8 <= most
