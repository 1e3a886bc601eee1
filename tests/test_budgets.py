"""`sparsity_for`: the sparsity that it finds, against what the exported model then has."""

import itertools

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf import budgets
from granet_tf.export.running import Latency

layers = keras.layers


def net():
    keras.utils.set_random_seed(0)
    # Biases as of training: equal ones take less room in a file.
    options = {"bias_initializer": "random_normal"}
    first, last = layers.Dense(256, "relu", **options), layers.Dense(64, **options)
    return keras.Sequential([keras.Input((128,)), first, last])


def test_biases_that_have_not_been_trained_count_as_if_they_had():
    untrained = keras.models.clone_model(net())
    for variable in untrained.variables:
        if len(variable.shape) == 1:
            variable.assign(np.zeros(variable.shape))
    wanted = 60_000
    expected = granet_tf.sparsity_for(net(), max_bytes=wanted)
    found = granet_tf.sparsity_for(untrained, max_bytes=wanted)
    assert found == pytest.approx(expected, abs=0.01)


def trained_to(sparsity, scope="global"):
    """The same network pruned by magnitude, as `fit` does before its first step."""
    method = granet_tf.GMP(sparsity, scope=scope, end_step=0)
    model = granet_tf.wrap(net(), method)
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.prune_at_start()
    return model


@pytest.mark.parametrize("format", ["float32", "dynamic_range"])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_file_is_as_large_as_asked_for(format, share, tmp_path):
    whole = granet_tf.export_tflite(net(), tmp_path / "w.tflite", format=format, encoding="dense")
    wanted = int(share * whole.sparse_bytes)
    sparsity = granet_tf.sparsity_for(net(), max_bytes=wanted, format=format)
    report = granet_tf.export_tflite(trained_to(sparsity), tmp_path / "m.tflite", format=format)
    assert 0.98 * wanted <= report.sparse_bytes <= wanted


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_flops_are_as_few_as_asked_for(scope):
    wanted = granet_tf.count_flops(net()).dense // 10
    method = granet_tf.GMP(0.5, scope=scope)
    sparsity = granet_tf.sparsity_for(net(), max_flops=wanted, method=method)
    assert 0.98 * wanted <= granet_tf.count_flops(trained_to(sparsity, scope)).sparse <= wanted


def test_latency_is_measured_in_the_fastest_engine(monkeypatch):
    calls = itertools.count(1)

    def compare(plain, threads, seconds):
        next(calls)
        zeros = 1 - np.count_nonzero(plain.layers[0].kernel) / plain.layers[0].kernel.numpy().size
        taken = Latency(*[10.0 - 8.0 * zeros] * 3, 9)
        row = granet_tf.export.engines.EngineLatency("MNN", "sparse", 1, taken)
        return granet_tf.EngineComparison((row,), {}, "here", {})

    monkeypatch.setattr(budgets, "compare_engines", compare)
    model = keras.Sequential([keras.Input((128,)), layers.Dense(256)])
    assert granet_tf.sparsity_for(model, max_latency_ms=4.0) == pytest.approx(0.75, abs=0.005)
    assert next(calls) < 8


def test_the_model_is_as_it_was():
    model = net()
    before = model.get_weights()
    granet_tf.sparsity_for(model, max_flops=9000, method=granet_tf.RigL(0.9))
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    granet_tf.wrap(model)  # It is not wrapped.

    sparse = granet_tf.wrap(net(), granet_tf.StaticSparse(0.5))
    before = sparse.get_weights()
    granet_tf.sparsity_for(sparse, max_flops=9000)
    for ours, theirs in zip(sparse.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_fits_already_needs_no_zeros():
    assert granet_tf.sparsity_for(net(), max_bytes=10**9) == 0.0


def test_a_budget_that_nothing_meets():
    with pytest.raises(
        ValueError,
        match=r"No sparsity meets this budget: at 0.999 it is still 9\d, from 98,304 without zeros"
        r"\. Received: max_flops=50$",
    ):
        granet_tf.sparsity_for(net(), max_flops=50)


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ({}, "none of them"),
        ({"max_bytes": 0}, r"\{'max_bytes': 0\}"),
        ({"max_bytes": 9, "max_flops": 9}, r"\{'max_bytes': 9, 'max_flops': 9\}"),
        ({"max_flops": "few"}, r"\{'max_flops': 'few'\}"),
    ],
)
def test_not_one_budget(given, received):
    message = rf"Exactly one of `max_bytes`, `max_flops`, .* Received: {received}$"
    with pytest.raises(ValueError, match=message):
        granet_tf.sparsity_for(net(), **given)


def test_a_method_for_what_has_one():
    with pytest.raises(ValueError, match=r"leave `method` out\. Received: method=GMP"):
        granet_tf.sparsity_for(granet_tf.wrap(net()), max_flops=9, method=granet_tf.GMP(0.9))
