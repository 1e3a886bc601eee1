"""Methods of `granet_tf.methods` against slow NumPy versions of their papers, and their state."""

import collections
import dataclasses
import functools
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import granet_tf
from granet_tf.masks.allocation import allocate
from granet_tf.methods.acdc import AlternatingPhases
from granet_tf.methods.records import Snapshot
from granet_train import files, models
from granet_train.errors import TrainingStopped
from granet_train.networks import small_dense
from granet_train.progress import Progress
from keras_layers.layouts import Layout
from tests.support import reference, short_runs

# Keras casts the momentum by way of float32.
RATE, MOMENTUM, STEPS = 0.05, float(np.float32(0.9)), 40


def wrapped(weights, method, **options):
    """The reference's network."""
    layers = keras.layers
    inputs = keras.Input((6,))
    hidden = layers.Dense(12, activation="relu", use_bias=False, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(4, use_bias=False, name="out")(hidden))
    model.set_weights(weights)
    return granet_tf.wrap(model, method, **options)


def train(model, batches):
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), "mse")
    for x, y in batches:
        model.train_on_batch(x, y)
        yield (
            [p.variable.numpy() for p in model.pruned],
            [p.mask.numpy() for p in model.pruned],
            [v.numpy() for v in model.optimizer.inner_optimizer.momentums if v.ndim],
        )


def assert_same_run(model, batches, expected):
    steps = 0
    for step, (ours, theirs) in enumerate(zip(train(model, batches), expected, strict=True), 1):
        for name, a, b in zip(("weights", "masks", "momentum"), ours, theirs, strict=False):
            for x, y in zip(a, b, strict=False):
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-9, err_msg=f"{name}, {step=}")
        steps += 1
    assert steps == STEPS


# Runs.


def test_acdc(float64):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.ACDC(
        0.8, begin_step=5, end_step=30, sparse_phase=4, dense_phase=3, total_steps=STEPS
    )
    model = wrapped(weights, method)
    sparse = {*range(5, 9), *range(12, 16), *range(19, 23), *range(30, 41)}
    expected = reference.acdc(
        weights,
        batches,
        rate=RATE,
        momentum=MOMENTUM,
        sparsity=0.8,
        is_sparse=lambda step: step in sparse,
    )
    assert_same_run(model, batches, expected)
    assert model.nonzeros == 24


def test_dpf(float64):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.DPF(0.8, end_step=20, frequency=4, total_steps=STEPS)
    model = wrapped(weights, method)
    expected = reference.dpf(
        weights, batches, rate=RATE, momentum=MOMENTUM, final=0.8, end=20, frequency=4
    )
    assert_same_run(model, batches, expected)
    assert (model.nonzeros, model.mask_only) == (24, True)


def test_top_kast(float64):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.TopKAST(
        0.8,
        backward_sparsity=0.5,
        exploration_decay=0.02,
        frequency=3,
        total_steps=STEPS,
        distribution="uniform",
    )
    model = wrapped(weights, method)
    expected = reference.top_kast(
        weights,
        batches,
        rate=RATE,
        momentum=MOMENTUM,
        forward=0.8,
        backward=0.5,
        decay=0.02,
        frequency=3,
    )
    assert_same_run(model, batches, expected)
    # 72 and 48 weights: at 80 % what is used, at 50 % what learns.
    assert [int(p.mask.numpy().sum()) for p in model.pruned] == [14, 10]
    assert [int(p.state["backward"].numpy().sum()) for p in model.pruned] == [36, 24]


@pytest.mark.parametrize(
    ("method", "learns"),
    # DPF: all weights, as PyTorch's decay of the dense ones. Top-KAST: the set B, here 3 of 4.
    [
        (granet_tf.DPF(0.5, frequency=1, end_step=1), 4),
        (granet_tf.TopKAST(0.5, backward_sparsity=0.25, exploration_decay=0.0, frequency=1), 3),
    ],
    ids=["dpf", "top_kast"],
)
def test_weight_decay_acts_on_dormant_weights_that_learn(float64, method, learns):
    decay, x, w = 0.5, np.array([1.0, -2.0, 0.5, 1.5]), np.array([0.9, -0.5, 0.2, -0.1])
    layer = keras.layers.Dense(1, use_bias=False, kernel_regularizer=keras.regularizers.L2(decay))
    network = keras.Sequential([keras.Input((4,)), layer])
    network.set_weights([w[:, None]])
    model = granet_tf.wrap(network, dataclasses.replace(method, total_steps=9))
    model.compile(keras.optimizers.SGD(RATE), "mse", run_eagerly=True)

    def largest(count):
        return np.isin(np.arange(4), np.argsort(-abs(w))[:count])

    # DPF begins dense.
    used, learning = largest(4 if learns == 4 else 2), largest(learns)
    for _ in range(3):
        gradient = 2.0 * ((w * used) @ x - 1.0) * x + 2.0 * decay * w
        w = w - RATE * gradient * learning
        used, learning = largest(2), largest(learns)
        model.train_on_batch(x[None], np.array([[1.0]]))
        np.testing.assert_allclose(layer.kernel.numpy()[:, 0], w, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(model.pruned[0].mask.numpy()[:, 0], used)


def test_snfs(float64):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.SNFS(
        0.6, drop_fraction=0.4, frequency=5, growth_momentum=0.8, total_steps=STEPS
    )
    model = wrapped(weights, method)
    before = [int(p.mask.numpy().sum()) for p in model.pruned]
    expected = reference.snfs(
        weights,
        [p.mask.numpy() for p in model.pruned],
        batches,
        rate=RATE,
        momentum=MOMENTUM,
        beta=0.8,
        r=0.4,
        frequency=5,
        total=STEPS,
    )
    assert_same_run(model, batches, expected)
    after = [int(p.mask.numpy().sum()) for p in model.pruned]
    assert sum(after) == sum(before)
    assert after != before


def test_snfs_has_its_momentum_with_any_optimizer():
    weights, [(x, y)] = reference.problem(1)
    model = wrapped(weights, granet_tf.SNFS(0.6, frequency=5, total_steps=STEPS))
    first = [p.variable.numpy() for p in model.pruned]
    model.compile("rmsprop", "mse")  # It has no momentum.
    model.train_on_batch(x, y)
    for p, gradient in zip(model.pruned, reference.MLP.gradients(first, x, y), strict=True):
        np.testing.assert_allclose(p.state["momentum"], gradient, rtol=1e-5, atol=1e-7)


def test_str(float64):
    # Keras casts the decay by way of float32, which an eighth survives.
    weights, batches = reference.problem(STEPS)
    method = granet_tf.STR(threshold_init=-2.0, threshold_decay=0.125)
    model = wrapped(weights, method)
    expected = list(
        reference.soft_threshold(
            weights, batches, rate=RATE, momentum=MOMENTUM, init=-2.0, decay=0.125
        )
    )
    assert_same_run(model, batches, expected)
    thresholds = [float(p.state["threshold"].numpy()) for p in model.pruned]
    assert thresholds == pytest.approx(expected[-1][3], abs=1e-9)
    assert model.nonzeros == sum(int(m.sum()) for m in expected[-1][1]) < 100


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_st3(float64, scope):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.ST3(0.8, end_step=20, total_steps=STEPS, scope=scope)
    model = wrapped(weights, method)
    if scope == "layer":
        # Each for itself comes to the same as a network of that layer alone would, at step 1.
        [*_] = train(model, batches[:1])
        for p, w in zip(model.pruned, weights, strict=True):
            k = round(w.size * (0.8 * (19 / 20) ** 3 + 0.2))
            sizes = np.sort(abs(p.variable.numpy()).ravel())
            assert float(p.state["threshold"].numpy()) == pytest.approx(sizes[-k - 1], abs=1e-12)
        return
    settings = {"rate": RATE, "momentum": MOMENTUM, "final": 0.8, "end": 20}
    expected = list(reference.st3(weights, batches, **settings))
    assert_same_run(model, batches, expected)
    last, _, _, threshold = expected[-1]
    values = [reference.st3_value(w, threshold) for w in last]
    assert [float(p.state["threshold"].numpy()) for p in model.pruned] == pytest.approx(
        [threshold] * 2, abs=1e-9
    )
    assert (model.nonzeros, model.mask_only) == (24, True)
    for layer, value in zip(granet_tf.strip(model).layers[1:], values, strict=True):
        np.testing.assert_allclose(layer.kernel, value, rtol=0, atol=1e-8)


# Single updates.


def st3_in_torch(weight, threshold):
    """`set_prune` and `STEPrunedLayer.get_quantized_weights` of the authors, outputs first."""
    axes, size = tuple(range(1, weight.ndim)), abs(weight)
    mask = size > threshold
    share = (size * mask).mean(axes, keepdims=True) + 1e-6
    share /= size.mean(axes, keepdims=True) + 1e-6
    return 1.01 / (share + 0.01) * (weight - np.sign(weight) * threshold) * mask


@pytest.mark.parametrize("normalized", [False, True], ids=["st3", "st3 sigma"])
def test_st3_computes_with_what_the_authors_code_does(normalized):
    # 72 + 49 weights: their 0.75 quantile is the 91st of them, and 30 are above.
    rng = np.random.default_rng(3)
    conv, dense = rng.normal(size=(4, 2, 3, 3)), 0.3 * rng.normal(size=(7, 7))
    units = [1 / np.sqrt(sum(w.shape)) if normalized else 1.0 for w in (conv, dense)]
    sizes = [abs(w) / unit for w, unit in zip((conv, dense), units, strict=True)]
    threshold = np.quantile(np.concatenate([s.ravel() for s in sizes]), 0.75)
    expected = [st3_in_torch(w, threshold * u) for w, u in zip((conv, dense), units, strict=True)]

    inputs = keras.Input((3, 3, 2))
    hidden = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
    hidden = keras.layers.Dense(7, trainable=False, name="between")(keras.layers.Flatten()(hidden))
    model = keras.Model(inputs, keras.layers.Dense(7, use_bias=False, name="dense")(hidden))
    model.get_layer("conv").set_weights([conv.transpose(2, 3, 1, 0)])
    model.get_layer("dense").set_weights([dense.T])
    method = granet_tf.ST3(0.75, initial_sparsity=0.75, normalized=normalized)
    sparse = granet_tf.wrap(model, method)
    assert [p.path.split("/")[-2] for p in sparse.pruned] == ["conv", "dense"]
    assert sparse.nonzeros == 30
    stripped = granet_tf.strip(sparse)
    found = stripped.get_layer("conv").kernel.numpy().transpose(3, 2, 0, 1)
    np.testing.assert_allclose(found, expected[0], atol=1e-5)
    np.testing.assert_allclose(stripped.get_layer("dense").kernel.numpy().T, expected[1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "masks", "thresholds"),
    [
        # All together, the three largest of six: 6, 5 and 4.
        ({}, ["110", "001"], [3.0, 3.0]),
        # Each for itself, 3 · 0.5 rounded to the even 2.
        ({"scope": "layer"}, ["110", "011"], [1.0, 2.0]),
        # The first all dense, so nothing is taken off it; none is left for the second.
        ({"pinned": {0: 0.0}}, ["111", "000"], [0.0, 4.0]),
        # The second keeps two, the largest of the first is left.
        ({"capped": {1: 0.3}}, ["100", "011"], [2.0, 2.0]),
        # |w| · sqrt(3), as both have this shape: no other ranking, no other threshold.
        ({"normalized": True}, ["110", "001"], [3.0, 3.0]),
    ],
    ids=["global", "layer", "pinned", "capped", "normalized"],
)
def test_st3_thresholds(options, masks, thresholds):
    weights = [np.float32([6, -5, 1]), np.float32([2, 3, -4])]
    if "capped" in options:
        weights = [np.float32([6, -2, 1]), np.float32([2, 3, -4])]
    method = granet_tf.ST3(0.5, initial_sparsity=0.5, **options)
    states = [{"threshold": tf.constant(0.0)}] * 2
    every = snapshots(weights, [np.ones(3, bool)] * 2, states)
    new = method.initial_state(every)
    found = ["".join(str(int(x)) for x in each.mask.numpy().ravel()) for each in new]
    assert found == masks
    assert [float(each.state["threshold"]) for each in new] == pytest.approx(thresholds)


def test_st3_moves_all_weights_by_the_gradient_at_what_it_computes_with():
    # w = (3, -1), of which -1 is dormant: the threshold is 1, c = 1.01 / (1.5 / 2 + 0.01), and
    # v = (2 c, 0). The output for x = (1, 2) is 2 c, and its gradient against 0 is 4 c x.
    layer = keras.layers.Dense(1, use_bias=False)
    network = keras.Sequential([keras.Input((2,)), layer])
    network.set_weights([np.array([[3.0], [-1.0]])])
    model = granet_tf.wrap(network, granet_tf.ST3(0.5, initial_sparsity=0.5))
    c = 1.01 / 0.76
    x = np.array([[1.0, 2.0]])
    np.testing.assert_allclose(model(x), [[2.0 * c]], rtol=1e-5)
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    model.fit(x, np.zeros((1, 1)), epochs=1, verbose=0)
    moved = [3.0 - 0.4 * c, -1.0 - 0.8 * c]
    np.testing.assert_allclose(layer.kernel.numpy()[:, 0], moved, rtol=1e-5)


def snapshots(weights, masks, states, layouts=None):
    layouts = layouts or [Layout()] * len(weights)
    return [
        Snapshot(f"w{i}", tf.constant(w, tf.float32), tf.constant(m, tf.bool), None, state, layout)
        for i, (w, m, state, layout) in enumerate(zip(weights, masks, states, layouts, strict=True))
    ]


def columns(updates):
    """Masks, survivors and states of all weights."""
    return zip(*((u.mask, u.survivors, u.state) for u in updates), strict=True)


def threshold_state(value, count):
    return [{"threshold": tf.constant(value)} for _ in range(count)]


@pytest.mark.parametrize(
    ("threshold", "dropped", "adapted"),
    # 8 active weights, of which 2 are to be dropped, or 20 % more or less.
    [(0.05, 0, 0.1), (0.3, 2, 0.3), (0.5, 4, 0.25)],
)
def test_dsr_drops_below_its_threshold_and_adapts_it(threshold, dropped, adapted):
    a = np.array([0.9, -0.2, 0.4, 0.1, 0.0, 0.0, 0.0, 0.0])
    b = np.array([-0.8, 0.7, 0.6, 0.45, 0.0, 0.0])
    masks = [a != 0.0, b != 0.0]
    method = granet_tf.DSR(
        0.5,
        drop_fraction=0.25,
        final_drop_fraction=0.25,
        threshold_tolerance=0.2,
        frequency=1,
        total_steps=10,
    )
    new, kept, states = columns(
        method.update(
            tf.constant(1),
            snapshots([a, b], masks, threshold_state(threshold, 2)),
            dormant_compete=False,
        )
    )
    expected = [(abs(w) >= threshold) & m for w, m in zip([a, b], masks, strict=True)]
    for k, e in zip(kept, expected, strict=True):
        np.testing.assert_array_equal(k, e)
    survived = [int(e.sum()) for e in expected]
    assert 8 - sum(survived) == dropped
    numbers = reference.allocate(dropped, survived, [8 - survived[0], 6 - survived[1]])
    for mask, k, number in zip(new, kept, numbers, strict=True):
        assert bool(tf.reduce_all(mask | ~k))
        assert int(tf.math.count_nonzero(mask & ~k)) == number
    assert [float(s["threshold"]) for s in states] == pytest.approx([adapted] * 2)


def test_dsr_leaves_each_layer_its_largest():
    weights = [np.array([0.01, 0.02, 0.0]), np.array([0.9, 0.8, 0.0])]
    masks = [w != 0.0 for w in weights]
    _, kept, _ = columns(
        granet_tf.DSR(0.3, total_steps=10).update(
            tf.constant(1),
            snapshots(weights, masks, threshold_state(0.5, 2)),
            dormant_compete=False,
        )
    )
    assert [k.numpy().tolist() for k in kept] == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_deep_r_rewires_what_crossed_zero(scope):
    weights = [np.array([0.5, -0.1, 0.0, 0.2, 0.0, 0.0]), np.array([-0.3, -0.2, 0.0, 0.0])]
    positive = [[True, True, False, False, True, False], [False, False, True, True]]
    masks = [[True, True, True, True, False, False], [True, True, False, False]]
    states = [{"positive": tf.constant(p)} for p in positive]
    method = granet_tf.DeepR(0.4, scope=scope)
    new, kept, _ = columns(
        method.update(tf.constant(3), snapshots(weights, masks, states), dormant_compete=False)
    )
    # −0.1 should be positive and 0.2 negative; one that has just grown is 0 and stays.
    assert kept[0].numpy().tolist() == [True, False, True, False, False, False]
    assert kept[1].numpy().tolist() == masks[1]
    counts = [int(tf.math.count_nonzero(m)) for m in new]
    assert sum(counts) == 6
    if scope == "layer":
        assert counts == [4, 2]
    for mask, k in zip(new, kept, strict=True):
        assert bool(tf.reduce_all(mask | ~k))


def test_deep_r_moves_active_weights_by_pull_and_noise():
    weight, mask = np.zeros(20000), np.arange(20000) < 10000
    positive = {"positive": tf.constant(np.arange(20000) % 2 == 0)}
    method = granet_tf.DeepR(0.5, l1=3.0, noise_temperature=2.0)
    [after] = method.after_step(
        tf.constant(7), snapshots([weight], [mask], [positive]), tf.constant(0.1)
    )
    moved = after.weight.numpy()
    assert np.all(moved[10000:] == 0.0)
    # η α = 0.3; sqrt(2 η T) = 0.632. Means of 5000 draws, to five standard deviations.
    for start, mean in ((0, -0.3), (1, 0.3)):
        drawn = moved[start:10000:2]
        assert np.mean(drawn) == pytest.approx(mean, abs=5 * 0.632 / 5000**0.5)
        assert np.std(drawn) == pytest.approx(0.4**0.5, rel=0.05)


def test_deep_r_never_computes_with_a_wrong_sign():
    weights, batches = reference.problem(STEPS)
    model = wrapped(weights, granet_tf.DeepR(0.7, l1=0.01, noise_temperature=1e-3))
    signs, first = [np.sign(w) for w in weights], [p.mask.numpy() for p in model.pruned]
    seen = set()
    for values, masks, _ in train(model, batches):
        for value, sign, mask in zip(values, signs, masks, strict=True):
            assert np.all(value * sign >= 0.0) and np.all(value[~mask] == 0.0)
        seen.add(tuple(int(m.sum()) for m in masks))
    assert seen == {tuple(int(m.sum()) for m in first)}
    assert not np.array_equal(masks[0], first[0])


@pytest.mark.parametrize(
    "method",
    [
        granet_tf.SNFS(0.6, pattern=granet_tf.NM(2, 4), total_steps=10),
        granet_tf.DSR(0.6, pattern=granet_tf.NM(2, 4), prune_threshold=0.7, total_steps=10),
        granet_tf.SNFS(0.5, pattern=granet_tf.Filter(), total_steps=10),
        granet_tf.DSR(0.5, pattern=granet_tf.Block((4, 1)), prune_threshold=3.0, total_steps=10),
    ],
    ids=lambda m: f"{type(m).__name__}-{type(m.pattern).__name__}",
)
def test_redistribution_keeps_the_pattern_and_the_total_of_units(method):
    rng = np.random.default_rng(0)
    shapes = {"a": (16, 12), "b": (8, 20)}
    masks = [m.numpy() for m in method.initial_masks(shapes).values()]
    weights = [rng.normal(size=s) * m for s, m in zip(shapes.values(), masks, strict=True)]
    states = [{s.name: s.initial(tf.constant(w)) for s in method.states} for w in weights]
    if isinstance(method, granet_tf.SNFS):
        # The second has the larger mean.
        states = [{"momentum": tf.abs(rng.normal(size=m.shape)) * (i + 1)}
                  for i, m in enumerate(masks)]  # fmt: skip
    new, _, _ = columns(
        method.update(tf.constant(1), snapshots(weights, masks, states), dormant_compete=False)
    )

    def units(mask):
        return int(tf.math.count_nonzero(method.pattern.units(tf.constant(mask))))

    before, after = [units(m) for m in masks], [units(m.numpy()) for m in new]
    assert sum(after) == sum(before)
    assert any(not np.array_equal(a, b) for a, b in zip(new, masks, strict=True))
    if isinstance(method.pattern, granet_tf.NM):
        for mask in new:
            assert mask.numpy().reshape(-1, 4, mask.shape[1]).sum(1).max() <= 2


BY_KIND = granet_tf.ByKind(
    {"dense": granet_tf.NM(1, 4), "convolution": granet_tf.Filter()}, granet_tf.Block((4, 1))
)


@pytest.mark.parametrize("pattern", ["litert", BY_KIND], ids=["litert", "by kind"])
@pytest.mark.parametrize(
    "method",
    [
        granet_tf.SNFS(0.75, drop_fraction=0.4, total_steps=10),
        granet_tf.SNFS(0.75, drop_fraction=0.4, total_steps=10, capped={-1: 0.75}, pinned={1: 0.5}),
        granet_tf.DSR(0.75, prune_threshold=0.5, total_steps=10),
    ],
    ids=["SNFS", "SNFS with pins", "DSR"],
)
def test_redistribution_keeps_the_number_of_units_of_each_pattern(method, pattern):
    """Momentum is such that the dense layers would grow all. Blocks at edges are smaller: the
    layers of the kind "other" have 10 and 6 inputs."""
    kinds = ["convolution"] * 2 + ["dense"] * 2 + ["other"] * 2
    shapes = [(3, 3, 4, 8), (1, 1, 8, 12), (16, 12), (8, 20), (10, 9), (6, 7)]
    layouts = [Layout(kind) for kind in kinds]
    method = dataclasses.replace(method, pattern=pattern)
    paths = [f"w{i}" for i in range(len(shapes))]
    by_path = dict(zip(paths, layouts, strict=True))
    initial = method.initial_masks(dict(zip(paths, shapes, strict=True)), by_path)
    rng = np.random.default_rng(0)
    masks = [m.numpy() for m in initial.values()]
    weights = [rng.normal(size=s) * m for s, m in zip(shapes, masks, strict=True)]
    states = [{s.name: s.initial(tf.constant(w)) for s in method.states} for w in weights]
    if isinstance(method, granet_tf.SNFS):
        states = [
            {"momentum": rng.random(shape) * (100.0 if kind == "dense" else 1.0)}
            for shape, kind in zip(shapes, kinds, strict=True)
        ]
    given = snapshots(weights, masks, states, layouts)
    new, _, _ = columns(method.update(tf.constant(1), given, dormant_compete=False))

    def counts(masks):
        """{pattern: units}, by hand: blocks of a column, as high as a filter or a single weight."""
        found = collections.Counter()
        for kind, mask in zip(kinds, map(np.asarray, masks), strict=True):
            filters = mask.size // mask.shape[-1]
            by_kind = {"convolution": filters, "dense": 1, "other": 4}[kind]
            one = kind != "dense"
            name, height = (one, 1 if one else 4) if pattern == "litert" else (kind, by_kind)
            column = mask.reshape(-1, mask.shape[-1])
            column = np.pad(column, [[0, -len(column) % height], [0, 0]])
            found[name] += int(column.reshape(-1, height, mask.shape[-1]).any(axis=1).sum())
        return found

    assert counts(new) == counts(masks)
    changed = [k for k, a, b in zip(kinds, masks, new, strict=True) if not np.array_equal(a, b)]
    assert {"dense", "other"} <= set(changed)


@pytest.mark.parametrize("method", [granet_tf.SNFS, granet_tf.DSR])
def test_each_pattern_ends_with_its_sparsity(method):
    """A block of four is not exchanged for one weight: 0.75 of each, and so 0.75 in all."""
    layers = [keras.Input((6, 6, 4)), keras.layers.Conv2D(8, 3, name="a"), keras.layers.Flatten()]
    layers += [keras.layers.Dense(16, name="b"), keras.layers.Dense(8, name="c")]
    model = granet_tf.wrap(keras.Sequential(layers), method(0.75, frequency=2, pattern="litert"))
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 6, 6, 4)), rng.normal(size=(32, 8))
    before = [p.mask.numpy() for p in model.pruned]
    model.fit(x, y, batch_size=4, verbose=0)
    assert any(not np.array_equal(p.mask, m) for p, m in zip(model.pruned, before, strict=True))
    assert (model.sparsity, np.mean(model.pruned[0].mask.numpy())) == (0.75, 0.25)


@pytest.mark.parametrize("method", [granet_tf.SNFS, granet_tf.DSR])
def test_filters_of_all_sizes_are_treated_alike(method):
    """Two layers of the same |w|, one with filters 18 times as large: each loses and grows as much,
    where sums would let the large ones win."""
    shapes = [(2, 8), (36, 8)]
    active = np.arange(8) < 4
    masks = [np.broadcast_to(active, shape) for shape in shapes]
    # Means |w| of 1, 2, 3 and 4 in both.
    weights = [mask * (1.0 + np.arange(8)) for mask in masks]
    options = {"pattern": granet_tf.Filter(), "total_steps": 10, "drop_fraction": 0.5}
    if method is granet_tf.DSR:
        method = method(0.5, prune_threshold=2.5, **options)
        states = [{s.name: s.initial(tf.constant(w)) for s in method.states} for w in weights]
    else:
        method = method(0.5, **options)
        states = [{"momentum": np.where(mask, 1.0, 2.0)} for mask in masks]
    new, kept, _ = columns(
        method.update(tf.constant(0), snapshots(weights, masks, states), dormant_compete=False)
    )
    assert [np.asarray(m).any(axis=0).sum() for m in new] == [4, 4]
    for mask in kept:
        np.testing.assert_array_equal(np.asarray(mask)[0].nonzero(), [[2, 3]])


@pytest.mark.parametrize(
    "method",
    [
        granet_tf.SNFS(0.8, pinned={0: 0.25}, capped={-1: 0.5}, total_steps=10),
        granet_tf.DSR(0.8, pinned={0: 0.25}, capped={-1: 0.5}, prune_threshold=0.7, total_steps=10),
        granet_tf.DeepR(
            0.5, pinned={0: 0.25}, capped={-1: 0.5}, scope="global", distribution="uniform"
        ),
    ],
    ids=lambda m: type(m).__name__,
)
def test_redistribution_obeys_pins_and_caps(method):
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 8), "b": (10, 20), "c": (10, 10)}
    masks = [m.numpy() for m in method.initial_masks(shapes).values()]
    first = [int(m.sum()) for m in masks]
    assert first[0] == 48 and first[2] == 50
    # Momentum and survivors are such that the second would grow all.
    sizes = (1e-3, 100.0, 1.0)
    weights = [
        rng.normal(size=s) * m * size
        for s, m, size in zip(shapes.values(), masks, sizes, strict=True)
    ]
    states = {
        "momentum": [
            tf.constant(size * rng.uniform(size=s), tf.float32)
            for s, size in zip(shapes.values(), sizes, strict=True)
        ],
        "threshold": [tf.constant(0.7)] * 3,
        "positive": [tf.constant(w * rng.choice([1, 1, -1], w.shape) >= 0) for w in weights],
    }
    [name] = [state.name for state in method.states]
    states = [{name: value} for value in states[name]]
    new, _, _ = columns(
        method.update(tf.constant(1), snapshots(weights, masks, states), dormant_compete=False)
    )
    after = [int(tf.math.count_nonzero(m)) for m in new]
    assert after[0] == 48 and after[2] >= 50 and sum(after) == sum(first)
    assert any(not np.array_equal(a, b) for a, b in zip(new, masks, strict=True))


# Pieces.


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 3.0])),
        min_size=1,
        max_size=6,
    ),
    st.floats(0.0, 1.0),
)
def test_allocation(layers, fraction):
    room, shares = zip(*layers, strict=True)
    total = round(fraction * sum(room))
    numbers = allocate(total, tf.constant(shares, tf.float64), tf.constant(room)).numpy()
    assert numbers.sum() == total
    assert np.all((numbers >= 0) & (numbers <= room))
    assert numbers.tolist() == reference.allocate(total, shares, room)


def test_phases_of_the_paper():
    """100 epochs: dense for 10, by turns of 5, dense from 75, sparse from 85."""
    phases = granet_tf.ACDC(0.9, total_steps=100).make_schedule()
    sparse = [step for step in range(1, 101) if float(phases(step)[1])]
    turns = [step for start in range(10, 75, 10) for step in range(start, start + 5)]
    assert sparse == [*turns, *range(85, 101)]
    changes = [*range(10, 80, 5), 85]
    assert [step for step in range(1, 101) if phases(step)[0]] == changes


def test_phases_that_begin_at_once():
    phases = AlternatingPhases(0.5, 0, 4, sparse_steps=1, dense_steps=1)
    assert [step for step in range(0, 8) if phases(step)[0]] == [2, 3, 4]


@pytest.mark.parametrize("gradient_weight", [0.0, 0.7])
def test_mest_drops_what_is_small_and_does_not_move(gradient_weight):
    """Of 12 active weights the 4 of lowest |w| + λ |g| go, and 4 others come."""
    rng = np.random.default_rng(3)
    weight, gradient = rng.normal(size=(2, 6, 8)).astype("float32")
    mask = rng.permutation(48).reshape(6, 8) < 12
    method = granet_tf.MEST(
        0.75, gradient_weight=gradient_weight, final_drop_fraction=0.3, frequency=5, total_steps=50
    )
    update = [["kernel"], [weight], [tf.constant(mask)], [tf.constant(gradient)]]
    [new], [survivors] = method.update_masks(tf.constant(10, tf.int64), *update)
    score = np.where(mask, abs(weight) + gradient_weight * abs(gradient), np.inf)
    lowest = np.sort(score, axis=None)[3]
    dropped = score <= lowest
    assert np.sum(dropped) == 4 and np.sum(new) == 12
    assert np.all(new.numpy()[mask & ~dropped]) and not np.any(survivors & ~mask)
    other = granet_tf.MEST(0.75, gradient_weight=1e6, frequency=5, total_steps=50)
    assert np.any(other.update_masks(tf.constant(10, tf.int64), *update)[0][0] != new)


def test_itop_rate_is_the_union_of_all_masks(tmp_path):
    weights, batches = reference.problem(STEPS)
    method = granet_tf.ITOP(0.8, frequency=4, total_steps=STEPS)
    model = wrapped(weights, method, track_explored=True)
    union = [p.mask.numpy() for p in model.pruned]
    assert model.itop_rate == pytest.approx(sum(u.sum() for u in union) / 120)
    for step, (_, masks, _) in enumerate(train(model, batches), start=1):
        union = [u | m for u, m in zip(union, masks, strict=True)]
        if step == 20:
            model.save(tmp_path / "middle.keras")
            loaded = keras.models.load_model(tmp_path / "middle.keras")
            assert loaded.itop_rate == sum(u.sum() for u in union) / 120
    assert model.itop_rate == sum(u.sum() for u in union) / 120 > 0.3


# All of them.

METHODS = {
    "acdc": granet_tf.ACDC(0.8, begin_step=3, end_step=14, sparse_phase=2, dense_phase=3),
    "deep_r": granet_tf.DeepR(0.8, noise_temperature=1e-4),
    "dpf": granet_tf.DPF(0.8, frequency=3),
    "dsr": granet_tf.DSR(0.8, frequency=3, prune_threshold=0.1),
    "dsr, mask_only": granet_tf.DSR(0.8, frequency=3, prune_threshold=0.1),
    "itop": granet_tf.ITOP(0.8, frequency=3),
    "mest": granet_tf.MEST(0.8, frequency=3),
    "snfs": granet_tf.SNFS(0.8, frequency=3),
    "snfs, mask_only": granet_tf.SNFS(0.8, frequency=3),
    "st3": granet_tf.ST3(0.8),
    "st3, rarely": granet_tf.ST3(0.8, frequency=3),
    "str": granet_tf.STR(threshold_init=-3.0, threshold_decay=0.1),
    "top_kast": granet_tf.TopKAST(0.8, frequency=3),
}


def compiled(method, strategy=None, mask_only=False, **options):
    keras.utils.set_random_seed(5)
    with (strategy or tf.distribute.get_strategy()).scope():
        inputs = keras.Input((6,))
        hidden = keras.layers.Dense(12, activation="relu", name="hidden")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(4, name="out")(hidden))
        model = granet_tf.wrap(model, method, mask_only=mask_only, track_explored=True)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", **options)
    return model


def named(name, strategy=None):
    return compiled(METHODS[name], strategy, mask_only=name.endswith("mask_only"))


def fit(model, **options):
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, x[:, :4])).batch(8)
    model.fit(batches, epochs=5, shuffle=False, verbose=0, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A function from the name of a method to its run, and to the file of that after 2 epochs."""

    @functools.cache
    def run(name):
        path = tmp_path_factory.mktemp(name) / "middle.keras"

        class Saving(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    self.model.save(path)

        model = named(name)
        fit(model, callbacks=[Saving()])
        return model, path

    return run


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_from_a_file_bit_by_bit(name, whole):
    model, path = whole(name)
    resumed = keras.models.load_model(path)
    assert resumed.method == model.method
    fit(resumed, initial_epoch=2)
    for kind in ("weights", "non_trainable_variables"):
        for a, b in zip(getattr(model, kind), getattr(resumed, kind), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=a.path)
    for a, b in zip(model.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    kept = [p.variable.numpy()[~p.mask.numpy()] for p in model.pruned]
    assert np.any(np.concatenate(kept)) == model.mask_only
    # 72 and 48 weights at 80 %; of random masks, each has its own count by ERK.
    assert name == "str" or model.nonzeros in (24, 25)
    assert resumed.itop_rate == model.itop_rate


@pytest.mark.optimized
@pytest.mark.parametrize("name", METHODS)
def test_replicas_agree_to_the_bit_and_with_one_device(name, whole, mirrored):
    alone, _ = whole(name)
    model = named(name, mirrored)
    fit(model)
    for pruned in model.pruned:
        for variable in (pruned.variable, pruned.mask, pruned.explored, *pruned.state.values()):
            first, second = mirrored.experimental_local_results(variable.value)
            np.testing.assert_array_equal(first.numpy(), second.numpy())
    for a, b in zip(model.pruned, alone.pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.variable, b.variable, atol=1e-5)


@pytest.mark.optimized
@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize("name", ["snfs", "st3"])
def test_compiled_by_xla(name, whole):
    alone, _ = whole(name)
    model = compiled(METHODS[name], jit_compile=True)
    fit(model)
    for a, b in zip(model.pruned, alone.pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.variable, b.variable, atol=1e-5)


@pytest.mark.parametrize("name", ["st3", "str"])
def test_strip_leaves_what_the_model_computed_and_does_not_shrink_it_again(name, whole):
    model = keras.models.load_model(whole(name)[1])
    x = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    before, nonzeros = model(x).numpy(), model.nonzeros
    for _ in range(2):
        stripped = granet_tf.strip(model)
        np.testing.assert_allclose(stripped(x), before, atol=1e-6)
        np.testing.assert_allclose(model(x), before, atol=1e-6)
    kernels = [layer.kernel.numpy() for layer in stripped.layers[1:]]
    assert sum(int(np.count_nonzero(k)) for k in kernels) == nonzeros


@pytest.mark.parametrize("name", METHODS)
def test_config_round_trip(name):
    config = keras.saving.serialize_keras_object(METHODS[name])
    assert keras.saving.deserialize_keras_object(config) == METHODS[name]


@pytest.mark.parametrize(
    "method", [granet_tf.GraNet(0.8), granet_tf.GMP(0.8), granet_tf.RigL(0.8)], ids=repr
)
def test_methods_that_declare_nothing_have_no_state(method):
    model = compiled(method)
    assert all(not p.state for p in model.pruned)
    plain = granet_tf.wrap(granet_tf.strip(model), method)
    assert len(plain.non_trainable_variables) == len(plain.pruned)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: granet_tf.ACDC(0.9, sparse_phase=0),
            r"`sparse_phase`.*Received: sparse_phase=0$",
        ),
        (lambda: granet_tf.ACDC(0.9, dense_phase=1.5), r"`dense_phase`.*dense_phase=1\.5$"),
        (
            lambda: granet_tf.TopKAST(0.5, backward_sparsity=0.6),
            r"`backward_sparsity` must not be above.*final_sparsity=0\.5$",
        ),
        (lambda: granet_tf.TopKAST(exploration_decay=-1.0), r"exploration_decay=-1\.0$"),
        (lambda: granet_tf.SNFS(growth_momentum=1.0), r"`growth_momentum`.*=1\.0$"),
        (lambda: granet_tf.DSR(prune_threshold=0.0), r"`prune_threshold`.*=0\.0$"),
        (lambda: granet_tf.DeepR(l1=float("nan")), r"`l1`.*Received: l1=nan$"),
        (lambda: granet_tf.DeepR(pattern=granet_tf.Filter()), r"`pattern` must be Element"),
        (
            lambda: granet_tf.ST3(pattern=granet_tf.Filter()),
            r"`pattern` must be Element.*pattern=filters$",
        ),
        (
            lambda: granet_tf.ST3(schedule=granet_tf.GraNetSchedule(0.0, 0.9, 0, 9, 9)),
            r"`schedule` must not regenerate.*Received: schedule=GraNetSchedule",
        ),
        (lambda: granet_tf.STR(threshold_decay=-1.0), r"`threshold_decay`.*=-1\.0$"),
        (lambda: granet_tf.ITOP().resolve(1000), r"`frequency` must be shorter.*frequency=4000$"),
        (
            lambda: (
                compiled(granet_tf.DeepR()).model
                and granet_tf.wrap(
                    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
                    granet_tf.DeepR(),
                    mask_only=True,
                )
            ),
            r"DeepR sets dormant weights to zero.*mask_only=True",
        ),
        (lambda: compiled_without().itop_rate, r"track_explored=True\). Received"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def compiled_without():
    return granet_tf.wrap(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))


# granet-train.


@pytest.mark.parametrize("sparsity", [0.9, 0.98])
def test_small_dense_has_the_parameters_of_the_sparse_network(sparsity):
    def trainable(network):
        return sum(v.shape.num_elements() for v in network.trainable_variables)

    image = ((8, 8, 1), 10)
    width = small_dense.width_of("small_cnn", *image, 1.0, sparsity)
    # 93,728 prunable weights; 2 · 224 of batch normalization and 10 biases stay.
    wanted = (1.0 - sparsity) * 93_728 + 458
    assert trainable(models.make("small_cnn", *image, width)) == pytest.approx(wanted, rel=0.04)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Those with state of each kind on the digits; 5 steps an epoch."""
    workdir = tmp_path_factory.mktemp("runs")
    others = "deep_r,str,small_dense"
    short_runs.run(
        *short_runs.SHORT, *short_runs.QUIET, "--epochs=2", "--method=snfs", "--frequency=3",
        f"--compare={others}", "--track_explored", f"--workdir={workdir}",
    )  # fmt: skip
    return workdir, ["snfs", *others.split(",")]


def test_the_binary_trains_each_of_them(runs):
    workdir, names = runs
    figures = short_runs.summary(workdir)["runs"]
    assert list(figures) == names
    for name in names[:-1]:
        run = figures[name]
        # Random masks by ERK are off by the rounding of each of four layers.
        assert name == "str" or abs(run["nonzeros"] - 9_373) <= 2
        assert run["nonzeros"] / 93_728 <= run["itop_rate"] <= 1.0
        assert run["training_flops"] <= 1.0
    assert figures["small_dense"]["itop_rate"] is None
    assert figures["small_dense"]["nonzeros"] == pytest.approx(9_373, rel=0.04)
    last = {line["run"]: line for line in short_runs.table(workdir / files.METRICS)}
    assert all(float(last[n]["itop_rate"]) == figures[n]["itop_rate"] for n in names[:-1])
    # The dense gradient of each step: (2 · sparse + dense) / 3 of a dense training.
    flops = figures["snfs"]["inference_flops"]
    assert figures["snfs"]["training_flops"] == pytest.approx((2 * flops + 1) / 3, rel=0.05)


def test_its_checkpoints_have_the_state(runs):
    workdir, _ = runs
    floats, bools = {}, {}
    for name in ("snfs", "deep_r", "str"):
        _, values = short_runs.state(workdir / "checkpoints" / name, 10)
        shapes = [(dtype, tuple(shape)) for dtype, shape, _ in values.values()]
        kernel = (3, 3, 64, 128)
        floats[name] = sum(dtype == np.float32 and shape == kernel for dtype, shape in shapes)
        bools[name] = sum(dtype == np.bool_ for dtype, _ in shapes)
    # Weight and velocity, and the momentum of SNFS; mask and explored, and the signs of
    # Deep-R.
    assert floats == {"snfs": 3, "deep_r": 2, "str": 2}
    assert bools == {"snfs": 8, "deep_r": 12, "str": 8}


def test_stopped_and_gone_on_is_the_same_run(runs, tmp_path, monkeypatch):
    workdir, _ = runs
    argv = (
        *short_runs.SHORT, *short_runs.QUIET, "--epochs=2", "--method=snfs", "--frequency=3",
        "--track_explored", f"--workdir={tmp_path}",
    )  # fmt: skip
    progress = Progress.progress

    def stop(self, now, figures):
        progress(self, now, figures)
        if now >= 3:
            monkeypatch.setattr(Progress, "progress", progress)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "progress", stop)
    with pytest.raises(TrainingStopped):
        short_runs.run(*argv)
    assert "going on after step" in short_runs.run(*argv)
    one = short_runs.state(workdir / "checkpoints" / "snfs", 10)
    assert one == short_runs.state(tmp_path / "checkpoints" / "snfs", 10)
