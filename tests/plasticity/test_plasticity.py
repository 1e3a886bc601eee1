"""Pruning once and training on: against NumPy, and what granet-plasticity makes a grid of."""

import csv
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import plasticity
from granet_train import figures, files
from granet_train.errors import Interrupted, UsageError
from granet_train.stopping import Stop
from granet_train.studies.grid import Grid
from granet_train.studies.plasticity import figure, flags, main, run, table
from tests.support.models import sequential
from tests.support.reference import MLP, SGD, keep_count, top_k

# 5 steps an epoch. The learning rate drops in the middle.
RECIPE = (
    *("--epochs=6", "--batch_size=256", "--learning_rate=0.05", "--momentum=0.9", "--width=0.25"),
    *("--learning_rate_schedule=step", "--milestones=3e"),
)
SMALL = (*RECIPE, "--sparsities=0.5", "--rates=0.9", "--prune_at=2e,4e", "--recovery_epochs=2")
SIZE = 9 * (1 * 8 + 8 * 16 + 16 * 32) + 32 * 10  # the kernels of small_cnn at a quarter
ACTIVE = sum(round(n / 2) for n in (9 * 8, 9 * 8 * 16, 9 * 16 * 32, 320))

W0 = np.array([[0.9, -0.1, 0.4], [-0.7, 0.05, 0.3]], np.float32)
W1 = np.array([[1.2], [-0.2], [0.6]], np.float32)


def mlp(weights=(W0, W1), method=None, **options):
    """Two dense layers without biases."""
    stack = [keras.Input((2,))]
    stack += [keras.layers.Dense(3, activation="relu", use_bias=False, name="hidden")]
    stack += [keras.layers.Dense(1, use_bias=False, name="head")]
    network = keras.Sequential(stack)
    network.set_weights(weights)
    return granet_tf.wrap(network, method or granet_tf.StaticSparse(0.0), **options)


def masks(model):
    return [p.mask.numpy() for p in model.pruned]


def gradients_of(model, *arrays):
    return {p.path: tf.constant(a) for p, a in zip(model.pruned, arrays, strict=True)}


# prune_once


def test_global_without_regeneration():
    model = mlp()
    done = plasticity.prune_once(model, 0.6)  # 9 weights: 3.6, so 4 stay
    assert [m.astype(int).tolist() for m in masks(model)] == [
        [[1, 0, 0], [1, 0, 0]],
        [[1], [0], [1]],
    ]
    assert done == plasticity.OneShot(pruned=5, regenerated=0, nonzeros=4, emptied=())
    np.testing.assert_array_equal(model.pruned[0].variable, np.where(masks(model)[0], W0, 0))


def test_layer_wise_with_regeneration():
    model = mlp()
    g0 = np.array([[0, 5, 0], [0, 1, 4]], np.float32)
    g1 = np.array([[0], [-2], [3]], np.float32)
    plasticity.prune_once(model, 0.5, scope="layer")  # 3 and 2 (1.5, half to even) stay
    assert [int(m.sum()) for m in masks(model)] == [3, 2]
    done = plasticity.prune_once(model, 0.4, scope="layer", gradients=gradients_of(model, g0, g1))
    # 1.8 and 1.2 stay: 2 and 1. Each tensor gets one back: the largest gradient of what is dormant.
    assert [m.astype(int).tolist() for m in masks(model)] == [
        [[1, 1, 0], [1, 0, 0]],
        [[1], [0], [1]],
    ]
    assert (done.pruned, done.regenerated, done.nonzeros) == (2, 2, 5)
    # 0.6 was active, pruned and grown again: it starts from 0.
    assert model.pruned[1].variable.numpy().ravel().tolist() == pytest.approx([1.2, 0, 0])


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("regenerates", [False, True])
def test_masks_are_those_of_a_slow_numpy_version(scope, rate, regenerates):
    random = np.random.default_rng(3)
    model = granet_tf.wrap(sequential(), granet_tf.StaticSparse(0.5, distribution="uniform"))
    weights = [random.normal(size=p.variable.shape).astype(np.float32) for p in model.pruned]
    before = masks(model)
    for p, weight, mask in zip(model.pruned, weights, before, strict=True):
        p.variable.assign(weight * mask)
    dense = [random.normal(size=w.shape).astype(np.float32) for w in weights]
    gradients = gradients_of(model, *dense) if regenerates else None
    plasticity.prune_once(model, rate, scope=scope, gradients=gradients)

    magnitudes = [np.abs(w) for w in weights]
    if scope == "global":
        kept = top_k(magnitudes, before, keep_count(sum(int(m.sum()) for m in before), rate))
    else:
        kept = [
            top_k([w], [m], keep_count(int(m.sum()), rate))[0]
            for w, m in zip(magnitudes, before, strict=True)
        ]
    expected = kept
    if regenerates:
        expected = [
            k | top_k([np.abs(g)], [~k], int(m.sum()) - int(k.sum()))[0]
            for k, g, m in zip(kept, dense, before, strict=True)
        ]
    for p, mask, keep, weight in zip(model.pruned, expected, kept, weights, strict=True):
        np.testing.assert_array_equal(p.mask, mask)
        np.testing.assert_array_equal(p.variable, np.where(keep, weight, 0))


def test_slots_of_what_is_pruned_or_new_start_afresh():
    model = mlp()
    model.compile(keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.25), "mse")
    x = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    model.fit(x, x[:, :1], verbose=0)
    accumulators = [v for v in model.optimizer.variables if v.shape == model.pruned[0].mask.shape]
    [accumulator] = accumulators
    before = accumulator.numpy()
    assert np.all(before > 0.25)
    weight = model.pruned[0].variable.numpy()
    gradients = gradients_of(model, np.ones((2, 3), np.float32), np.ones((3, 1), np.float32))
    plasticity.prune_once(model, 0.5, scope="layer", gradients=gradients)
    [kept] = top_k([np.abs(weight)], [np.ones_like(weight, bool)], 3)
    np.testing.assert_array_equal(accumulator, np.where(kept, before, 0.25))
    assert model.nonzeros == 9


def test_filters_go_by_their_sums():
    model = mlp(method=granet_tf.StaticSparse(0.0, pattern=granet_tf.Filter(), pinned={-1: 0.0}))
    # |w| of the three units of the hidden layer: 1.6, 0.15, 0.7; gradients: 1, 3, 2.
    plasticity.prune_once(model, 0.34, scope="layer")
    assert masks(model)[0].astype(int).tolist() == [[1, 0, 1], [1, 0, 1]]
    g0 = np.array([[1, 3, -1], [0, 0, 1]], np.float32)
    plasticity.prune_once(
        model, 0.5, scope="layer", gradients=gradients_of(model, g0, np.zeros((3, 1), np.float32))
    )
    assert masks(model)[0].astype(int).tolist() == [[1, 1, 0], [1, 1, 0]]
    assert masks(model)[1].all()  # pinned


def test_a_layer_may_lose_all_weights_but_not_all_filters():
    weights = (W0 / 1000, W1)
    model = mlp(weights)
    assert plasticity.prune_once(model, 0.7).emptied == (model.pruned[0].path,)
    # Of bare sums, as relative ones empty no layer, and outputs included, as these are spared.
    method = granet_tf.StaticSparse(0.0, pattern=granet_tf.Filter(normalization=None))
    model = mlp(weights, method, prunable=granet_tf.default_prunable)
    with pytest.raises(ValueError, match=r"nothing would be left of .*hidden/kernel.*Received: "):
        plasticity.prune_once(model, 0.75)
    assert model.nonzeros == 9


def mixed(sparsity=0.0, **options):
    """A convolution whose weights are tiny beside those of a dense layer of two blocks by two."""
    stack = [keras.Input((4, 2)), keras.layers.Conv1D(2, 1, use_bias=False, name="conv")]
    stack += [keras.layers.Flatten(), keras.layers.Dense(2, use_bias=False, name="head")]
    network = keras.Sequential(stack)
    conv = np.array([[[1, -4], [3, 2]]], np.float32) / 1000
    head = np.array([[1, 2, 3, 4, 1, 1, 1, 1], [5, -5, 5, 5, 9, -9, 9, 9]], np.float32).T
    network.set_weights([conv, head])
    method = granet_tf.StaticSparse(sparsity, distribution="uniform", **options)
    return granet_tf.wrap(network, method)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_blocks_and_single_weights_are_ranked_apart(scope):
    model = mixed(pattern="litert")
    done = plasticity.prune_once(model, 0.5, scope=scope)
    conv, head = masks(model)
    assert conv.astype(int).tolist() == [[[0, 1], [1, 0]]]
    # Sums of the four blocks: 10 and 4, 20 and 36.
    assert head.T.astype(int).tolist() == [[0] * 8, [1] * 8]
    assert done == plasticity.OneShot(pruned=2 + 8, regenerated=0, nonzeros=10, emptied=())
    dense = np.zeros((8, 2), np.float32)
    dense[0, 0], dense[4, 0], dense[4, 1] = 7.0, 8.0, 9.0
    gradients = gradients_of(model, np.array([[[0, 0], [0, 5]]], np.float32), dense)
    plasticity.prune_once(model, 0.5, scope=scope, gradients=gradients)
    conv, head = masks(model)
    assert conv.astype(int).tolist() == [[[0, 1], [0, 1]]]
    # The block of 20 went, and that of the largest gradient that is dormant came.
    assert head.T.astype(int).tolist() == [[0] * 4 + [1] * 4] * 2


def test_patterns_by_kind_keep_the_axes_of_their_layers():
    """The transposed convolution has (height, width, outputs, inputs)."""
    stack = [keras.Input((2, 2, 2))]
    stack += [keras.layers.Conv2DTranspose(3, 1, use_bias=False, name="up")]
    stack += [keras.layers.Conv2D(4, 1, use_bias=False, name="conv"), keras.layers.Flatten()]
    stack += [keras.layers.Dense(1, use_bias=False, name="head")]
    up = np.array([[[[1, 1], [5, 5], [3, -4]]]], np.float32)
    conv = np.array([[[[1, 2, 3, 4], [4, 3, 2, 1], [2, 2, 2, 2]]]], np.float32)
    head = np.ones((16, 1), np.float32)
    kinds = {
        "transposed_convolution": granet_tf.Filter(),
        "convolution": granet_tf.Element(),
    }
    network = keras.Sequential(stack)
    network.set_weights([up, conv, head])
    method = granet_tf.StaticSparse(
        0.0, pattern=granet_tf.ByKind(kinds, granet_tf.Block((4, 1))), pinned={-1: 0.0}
    )
    model = granet_tf.wrap(network, method)
    plasticity.prune_once(model, 0.34)
    # Filters of 2, 10 and 7: 1.98 stay. Of 12 single weights 7.92, the first of equals.
    assert masks(model)[0].astype(int).tolist() == [[[[0, 0], [1, 1], [1, 1]]]]
    assert masks(model)[1].astype(int).tolist() == [[[[0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]]]
    assert masks(model)[2].all()  # pinned
    dense = [np.zeros_like(up), np.zeros_like(conv), np.zeros_like(head)]
    dense[0][0, 0, 0] = [2.0, -1.0]
    dense[0][0, 0, 2] = [0.0, 2.5]
    plasticity.prune_once(model, 0.5, gradients=gradients_of(model, *dense))
    assert masks(model)[0].astype(int).tolist() == [[[[1, 1], [1, 1], [0, 0]]]]


@pytest.mark.parametrize("transposed", [False, True])
def test_groups_get_back_no_more_than_fit(transposed):
    """1:2 along the inputs, which are the last axis of a transposed convolution."""
    kernel = np.array([[5, 0], [0, 4], [1, 0], [0, 2]], np.float32)  # (inputs, outputs)
    gradient = np.array([[0, 8], [99, 0], [0, 9], [7, 1]], np.float32)
    layer = keras.layers.Dense(2, use_bias=False)
    shape = (4,)
    if transposed:
        layer = keras.layers.Conv2DTranspose(2, 1, use_bias=False)
        shape = (1, 1, 4)
        kernel, gradient = kernel.T[None, None], gradient.T[None, None]
    network = keras.Sequential([keras.Input(shape), layer])
    model = granet_tf.wrap(network, granet_tf.StaticSparse(0.5, pattern=granet_tf.NM(1, 2)))
    layer.kernel.assign(kernel)
    model.pruned[0].mask.assign(kernel != 0)
    plasticity.prune_once(model, 0.5, gradients=gradients_of(model, gradient))
    # 5 and 4 stay. The gradient of 99 finds its group full, and that of 8 too.
    expected = np.array([[1, 0], [0, 1], [0, 1], [1, 0]])
    [mask] = masks(model)
    np.testing.assert_array_equal(mask, expected.T[None, None] if transposed else expected)


BY_KIND = granet_tf.ByKind({"convolution": granet_tf.Filter(), "dense": granet_tf.NM(2, 4)})


@pytest.mark.parametrize(
    ("pattern", "sparsity", "nonzeros"),
    # Of 4 single weights and 4 blocks half stay; of a filter of 2 weights, which must stay, and 8
    # weights in groups.
    [("litert", 0.0, [10, 20]), (BY_KIND, 0.5, [6, 10])],
    ids=["litert", "by kind"],
)
def test_plasticity_with_patterns_by_kind(pattern, sparsity, nonzeros):
    model = mixed(sparsity, pattern=pattern)
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(8, 4, 2)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(4)
    outcomes = plasticity.measure(model, data, data, rates=[0.5], epochs=1, metric="mae")
    assert [o.nonzeros for o in outcomes] == nonzeros
    assert model.nonzeros == nonzeros[1]


@pytest.mark.parametrize("rate", [0, 1, -0.5, 1.5, float("nan"), "half"])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match=r"`rate` must be .* in \(0, 1\)\. Received: rate="):
        plasticity.prune_once(mlp(), rate)


def test_other_bad_arguments():
    model = mlp()
    with pytest.raises(ValueError, match=r"`scope` must be one of .* Received: scope='all'"):
        plasticity.prune_once(model, 0.5, scope="all")
    with pytest.raises(ValueError, match=r"must have a gradient of shape \(2, 3\) .* none"):
        plasticity.prune_once(model, 0.5, gradients={})
    bad = gradients_of(model, np.full((2, 3), np.nan, np.float32), np.ones((3, 1), np.float32))
    with pytest.raises(ValueError, match=r"finite numbers.*Received: NaN"):
        plasticity.prune_once(model, 0.5, gradients=bad)
    with pytest.raises(TypeError, match=r"granet_tf.wrap\(keras_model\).*Received: "):
        plasticity.prune_once(model.model, 0.5)
    with pytest.raises(ValueError, match="mask_only=False"):
        plasticity.prune_once(granet_tf.wrap(sequential(), mask_only=True), 0.5)
    assert model.nonzeros == 9


# Gradients and training on, against NumPy


def regression(seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(12, 2)).astype(np.float32)
    y = (x[:, :1] - 0.5 * x[:, 1:]).astype(np.float32)
    return x, y, tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def test_dense_gradients():
    x, y, data = regression()
    model = mlp(method=granet_tf.StaticSparse(0.5))
    model.compile("sgd", "mse")
    weights = [p.variable.numpy().astype(np.float64) for p in model.pruned]
    state = [v.numpy() for v in model.variables]
    found = plasticity.dense_gradients(model, data.take(2))
    for i, p in enumerate(model.pruned):
        expected = sum(MLP.gradients(weights, x[a : a + 4], y[a : a + 4])[i] for a in (0, 4))
        np.testing.assert_allclose(found[p.path], expected, rtol=1e-4, atol=1e-6)
    for variable, value in zip(model.variables, state, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_dense_gradients_count_sample_weights_as_training_does():
    x, y, _ = regression()
    model = mlp()
    model.compile("sgd", "mse")
    weight = np.array([2.0] * 4 + [0.0] * 8, np.float32)
    found = plasticity.dense_gradients(model, [(x, y, weight)])
    # The sum over 12 samples, of which 4 count twice: 2/3 of the mean of these 4.
    for p, expected in zip(model.pruned, MLP.gradients([W0, W1], x[:4], y[:4]), strict=True):
        np.testing.assert_allclose(found[p.path], 2 / 3 * expected, rtol=1e-4, atol=1e-6)


def test_dense_gradients_leave_batch_statistics_alone():
    inputs = keras.Input((2,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(4)(inputs))
    model = granet_tf.wrap(keras.Model(inputs, x), granet_tf.StaticSparse(0.0))
    model.compile("sgd", "mse")
    state = [v.numpy() for v in model.variables]
    batch = (tf.random.normal((8, 2)), tf.random.normal((8, 4)))
    plasticity.dense_gradients(model, [batch])
    for variable, value in zip(model.variables, state, strict=True):
        np.testing.assert_array_equal(variable, value)
    with pytest.raises(ValueError, match="`batches` must hold a batch"):
        plasticity.dense_gradients(model, [])


def train(weights, x, y, sgd, rates, keep):
    """NumPy's SGD over batches of 4, with masks."""
    for step, rate in enumerate(rates):
        a = 4 * step % 12
        sgd.rate = rate
        gradients = MLP.gradients(weights, x[a : a + 4], y[a : a + 4])
        sgd.step(weights, [g * k for g, k in zip(gradients, keep, strict=True)])


@pytest.mark.parametrize("measure", ["plasticity", "final"])
def test_measures_are_those_of_numpy(measure):
    x, y, data = regression()
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([2, 5], [0.05, 0.02, 0.01])
    model = mlp()
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), "mse")
    model.fit(data, verbose=0)  # 3 steps at 0.05: the last one is step 2
    state = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    arguments = {"rates": [0.4], "epochs": 2, "metric": "loss"}
    if measure == "plasticity":
        outcomes = plasticity.measure(model, data, data, **arguments)
        rates = [0.05] * 6
    else:
        outcomes = plasticity.measure_final_gap(model, data, data, **arguments)
        rates = [0.02] * 3 + [0.01] * 3

    everything = [np.ones_like(W0), np.ones_like(W1)]
    weights, sgd = [W0.astype(np.float64), W1.astype(np.float64)], None
    sgd = SGD(weights, 0.05, 0.9)
    train(weights, x, y, sgd, [0.05] * 3, everything)
    start, velocities = [w.copy() for w in weights], [v.copy() for v in sgd.velocities]
    reference = MLP.loss(start, x, y)
    if measure == "final":
        train(weights, x, y, sgd, rates, everything)
        reference = MLP.loss(weights, x, y)
    kept = top_k([np.abs(w) for w in start], [k > 0 for k in everything], 5)
    for outcome, keep in zip(outcomes, (kept, everything), strict=True):
        weights = [w * k for w, k in zip(start, kept, strict=True)]
        sgd.velocities = [v * k for v, k in zip(velocities, kept, strict=True)]
        assert outcome.pruned == pytest.approx(MLP.loss(weights, x, y), rel=1e-4)
        train(weights, x, y, sgd, rates, keep)
        assert outcome.reached == pytest.approx(MLP.loss(weights, x, y), rel=1e-4)
        assert outcome.reference == pytest.approx(reference, rel=1e-4)
        assert outcome.difference == outcome.reached - outcome.reference
    assert [(o.regenerated, o.nonzeros) for o in outcomes] == [(False, 5), (True, 9)]
    now = [v.numpy() for v in (*model.variables, *model.optimizer.variables)]
    for before, after in zip(state, now, strict=True):
        np.testing.assert_array_equal(before, after)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)


def test_a_method_that_changes_masks_is_put_aside():
    _, _, data = regression()
    method = granet_tf.GraNet(0.8, end_step=60, frequency=1, total_steps=60)
    model = mlp(method=method)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(data, verbose=0)
    before = model.nonzeros
    [outcome] = plasticity.measure(
        model, data, data, rates=[0.5], regenerate=[True], epochs=2, metric="loss"
    )
    assert outcome.nonzeros == before == model.nonzeros
    assert model.method == method
    model.fit(data, verbose=0)
    assert model.nonzeros < before


@pytest.mark.parametrize("measure", [plasticity.measure, plasticity.measure_final_gap])
def test_mistakes_are_found_before_anything_is_trained(measure, monkeypatch):
    x, y, data = regression()
    model = mlp()
    with pytest.raises(ValueError, match=r"`model` must be compiled.*Received: .*, not compiled$"):
        measure(model, data, data, epochs=1)
    model.compile("sgd", "mse")
    monkeypatch.setattr(model, "fit", lambda *args, **options: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"`metric` must be one .*: loss\. Received: metric='acc"):
        measure(model, data, data, epochs=1)
    with pytest.raises(ValueError, match=r"`epochs` must be a whole .*Received: epochs=0$"):
        measure(model, data, data, epochs=0)
    with pytest.raises(ValueError, match=r"`rate` must be .* Received: rate=1\.5$"):
        measure(model, data, data, rates=[0.5, 1.5], epochs=1)
    with pytest.raises(ValueError, match=r"`scope` must be .* Received: scope='all'$"):
        measure(model, data, data, scope="all", epochs=1)
    with pytest.raises(ValueError, match=r"`test` must be a tf.data.Dataset.*test of type tuple$"):
        measure(model, data, (x, y), epochs=1)
    with pytest.raises(TypeError, match=r"granet_tf.wrap\(keras_model\).*Received: "):
        measure(model.model, data, data, epochs=1)


# The grid


def settings(workdir, *argv):
    return flags.read([*SMALL, *argv, f"--workdir={workdir}"])


def lines(workdir):
    with open(workdir / main.TABLE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("plasticity") / "study"
    main.main(settings(workdir))
    return workdir


def test_a_line_for_each_pruning(finished):
    rows = lines(finished)
    assert len(rows) == 2 * 2 * 2
    keys = {(r["measure"], r["epoch"], r["rate"], r["regenerated"]) for r in rows}
    assert len(keys) == len(rows)
    for row in rows:
        grown = row["regenerated"] == "yes"
        left = ACTIVE if grown else keep_count(ACTIVE, float(row["rate"]))
        assert int(row["nonzeros"]) == left
        assert float(row["sparsity"]) == pytest.approx(1 - left / SIZE, abs=1e-6)
        assert float(row["difference"]) == pytest.approx(
            float(row["accuracy"]) - float(row["reference_accuracy"]), abs=1e-6
        )
        # The rate drops after epoch 3.
        assert float(row["learning_rate"]) == pytest.approx(0.05 if row["epoch"] == "2" else 0.005)
    for name in ("plasticity", "final_gap"):
        assert (finished / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (finished / f"{name}.svg").read_text()


def test_references_are_those_of_granet_train(finished, tmp_path):
    from tests.support.short_runs import QUIET, run, table

    run(
        *RECIPE, *QUIET, "--method=static", "--final_sparsity=0.5", "--distribution=uniform",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    accuracy = {int(e["epoch"]): float(e["test_accuracy"]) for e in table(tmp_path / files.METRICS)}
    for row in lines(finished):
        epoch = int(row["epoch"]) if row["measure"] == "plasticity" else 6
        assert float(row["reference_accuracy"]) == pytest.approx(accuracy[epoch], abs=1e-6)


def test_the_learning_rate_is_held_for_the_plasticity_only(finished):
    def rates(name):
        path = finished / "cells" / name / files.METRICS
        with open(path, newline="", encoding="utf-8") as file:
            return [float(line["learning_rate"]) for line in csv.DictReader(file)]

    rest = "s0.5_seed0_epoch2_p0.9_without"
    assert rates(f"plasticity_{rest}") == pytest.approx([0.05, 0.05])
    assert rates(f"final_{rest}") == pytest.approx([0.005] * 4)


def test_finished_cells_are_not_run_again(finished, monkeypatch):
    def fail(*args):
        raise AssertionError("a cell is run again")

    results = {path: path.stat().st_mtime_ns for path in finished.rglob("result.json")}
    assert len(results) == 1 + 8
    before = (finished / main.TABLE).read_text()
    monkeypatch.setattr(run, "open_run", fail)
    main.main(settings(finished))
    # A part of the study is no other study.
    main.main(settings(finished, "--regenerate=yes"))
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("result.json")} == results
    assert len(lines(finished)) == 4
    main.main(settings(finished))
    assert (finished / main.TABLE).read_text() == before


@pytest.mark.slow
def test_a_study_that_was_stopped_comes_to_the_same(finished, tmp_path):
    """Stopped in a cell, again and again: after the first epoch of each."""
    mine = settings(tmp_path, "--measures=plasticity", "--regenerate=yes", "--prune_at=2e")
    grid, cells = Grid(tmp_path), mine.axes.cells()
    run_cell = run.open_run(grid, mine)
    with pytest.raises(
        UsageError, match=r"prune is gone\. Remove .*pretrained_s0\.5_seed0, and it"
    ):
        run_cell(cells[-1], lambda share: None, Stop())
    for cell in cells:
        stop = Stop()
        with pytest.raises(Interrupted):
            run_cell(cell, lambda share, s=stop: setattr(s, "signal", signal.SIGTERM), stop)
        assert grid.result(cell) is None
        run_cell(cell, lambda share: None, Stop())
    expected = [
        row
        for row in lines(finished)
        if (row["measure"], row["epoch"], row["regenerated"]) == ("plasticity", "2", "yes")
    ]
    found = table.rows(grid, mine.axes.prunings())
    assert [str(row.accuracy) for row in found] == [row["accuracy"] for row in expected]
    assert [str(row.pruned_accuracy) for row in found] == [
        row["pruned_accuracy"] for row in expected
    ]


def test_another_study_in_the_directory_is_named(finished):
    with pytest.raises(UsageError, match=r"--recovery_epochs=3 instead of 2, --scope=layer inst"):
        main.main(settings(finished, "--recovery_epochs=3", "--scope=layer"))
    with pytest.raises(UsageError, match=r"--epochs=8 instead of 6"):
        main.main(settings(finished, "--epochs=8"))


def test_a_cell_that_cannot_be_done_does_not_end_the_others(tmp_path, capsys):
    argv = (
        *(*SMALL, "--pattern=filter", "--scope=global", "--sparsities=0", "--rates=0.05,0.98"),
        *("--prune_at=2e", "--measures=plasticity", "--regenerate=no", f"--workdir={tmp_path}"),
    )
    with pytest.raises(SystemExit) as stopped:
        main.cli(argv)
    assert stopped.value.code == 1
    assert "nothing would be left of conv" in capsys.readouterr().err
    grid, axes = Grid(tmp_path), flags.read(argv).axes
    assert [grid.result(cell) is not None for cell in axes.cells()] == [True, True, False]
    [row] = table.rows(grid, axes.prunings())
    # 3 of the 8 + 16 + 32 filters, of 9, 72 or 144 weights each; of the head nothing.
    possible = {9 * a + 72 * b + 144 * (3 - a - b) for a in range(4) for b in range(4 - a)}
    assert row.rate == 0.05 and row.pruned in possible


# The command line


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--rates=0,0.5", "--rates must be a list of different shares of the active weights, each"),
        ("--rates=1", "each in (0, 1). Received: --rates=1"),
        ("--rates=0.5,0.5", "must be a list of different shares"),
        ("--rates=half", "Received: --rates=half"),
        ("--sparsities=1", "--sparsities must be a list of different sparsities in [0, 1)"),
        ("--prune_at=500", "--prune_at must be a list of fractions of training"),
        ("--prune_at=0.001 --epochs=10", "that is epochs 0"),
        ("--prune_at=10e --epochs=10", "--prune_at must lie within training, after the first of"),
        ("--recovery_epochs=0", "--recovery_epochs must be 1 or more"),
        ("--measures=speed", "--measures must be a list of any of plasticity, final, each once"),
        ("--regenerate=maybe", "--regenerate must be a list of any of no, yes, each once"),
        ("--jobs=0", "--jobs must be 1 or more. Received: --jobs=0"),
        ("--jobs=two", "--jobs must be an integer. Received: --jobs=two"),
        ("--seeds=1.5", "--seeds must be a list of different whole numbers"),
        ("--scope=all", "--scope must be one of global, layer. Received: --scope=all"),
        ("--rate=0.5", "There is no flag --rate. Did you mean --rates"),
        ("--seed=3", "This study has no use for --seed. Received: --seed=3"),
        ("--method=granet", "This study has no use for --method. Received: --method=granet"),
        ("--notensorboard", "This study has no use for --tensorboard"),
        ("--epochs=ten", "--epochs must be an integer. Received: --epochs=ten"),
        ("0.5", "Everything is a flag here"),
    ],
)  # fmt: skip
def test_mistakes(argv, text):
    with pytest.raises(UsageError) as raised:
        flags.read(argv.split())
    assert text in str(raised.value)
    assert "\n" not in str(raised.value) and "Received: " in str(raised.value)


def test_a_row_for_granet_train_serves():
    """What it says of methods is left out; what is on the command line wins."""
    mine = flags.read(["--row=table2/cifar10/vgg19/90/gmp", "--rates", "0.5"])
    values = mine.of_seed(3)
    assert (mine.model, mine.dataset, mine.axes.length) == ("vgg19", "cifar10", 160)
    assert mine.axes.epochs == (20, 40, 60, 80, 100, 120, 140)
    assert (values.method, values.seed, values.frequency) == ("static", 3, None)
    assert (values.batch_size, list(values.milestones)) == (128, ["80e", "120e"])


def test_filters_have_defaults_of_their_own():
    mine = flags.read(["--pattern=filter"])
    assert mine.axes.sparsities == (0, 0.1, 0.5, 0.7)
    assert (mine.scope, mine.pinned) == ("layer", ("-1:0.0",))
    assert flags.read([]).scope == "global"


# The figure


def test_figure(tmp_path, monkeypatch):
    drawn = []
    rows = [
        table.Row(
            measure, sparsity, epoch, 0.1, rate, regenerated, seed, 0.9, 0.5,
            0.9 - rate / 10 + seed / 100, -rate / 10 + seed / 100, 0.5, 9, 9, 0, 0,
        )
        for measure in ("plasticity", "final")
        for sparsity in (0.0, 0.9)
        for epoch in (10, 20, 30)
        for rate in (0.2, 0.5)
        for regenerated in ("no", "yes")
        for seed in (0, 1)
    ]  # fmt: skip
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda self, path, **kw: (drawn.append(self), path.touch())
    )
    figure.draw(tmp_path / "plasticity", rows, [15.0], "plasticity", "net on data")
    assert {path.name for path in tmp_path.iterdir()} == {"plasticity.png", "plasticity.svg"}
    panels = drawn[0].axes
    assert len(panels) == 2 * 2
    assert [axes.get_title() for axes in panels[:2]] == [
        "Pre-trained sparsity 0", "Pre-trained sparsity 0.9",
    ]  # fmt: skip
    for axes in panels:
        zero, drop, *curves = axes.lines
        assert list(zero.get_ydata()) == [0, 0] and list(drop.get_xdata()) == [15, 15]
        assert [line.get_label() for line in curves] == ["rate 0.2", "rate 0.5"]
        assert {line.get_marker() for line in curves} == {"o"}
        for line, rate in zip(curves, (0.2, 0.5), strict=True):
            assert list(line.get_xdata()) == [10, 20, 30]
            assert list(line.get_ydata()) == pytest.approx([-10 * rate + 0.5] * 3)


def test_a_narrow_figure_has_its_whole_title_and_each_of_many_rates_a_look(tmp_path, monkeypatch):
    drawn = []
    rates = [0.1, 0.2, 0.3, 0.5, 0.8, 0.9]
    rows = [
        table.Row("final", 0.0, 10, 0.1, rate, "no", 0, 0.9, 0.5, 0.8, -0.1, 0.5, 9, 9, 0, 0)
        for rate in rates
    ]

    def keep(self, path, **options):
        self.canvas.draw()
        drawn.append(self)
        path.touch()

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    figure.draw(
        tmp_path / "final_gap", rows, [], "final", "small_cnn on digits, pruning of weights"
    )
    of_figure = drawn[0].bbox
    for part in (drawn[0]._suptitle, drawn[0].legends[0]):
        box = part.get_window_extent()
        assert of_figure.x0 <= box.x0 and box.x1 <= of_figure.x1
    looks = {(line.get_color(), line.get_marker()) for line in drawn[0].axes[0].lines[1:]}
    assert len(looks) == len(rates)
