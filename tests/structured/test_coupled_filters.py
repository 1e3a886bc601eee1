"""Filters that only go together are ranked, pruned, grown and counted as one."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import compaction
from granet_tf.masks.patterns.criteria import CRITERIA, Filters
from granet_tf.methods.records import Snapshot
from keras_layers.layouts import Layout
from tests.structured.test_shrinking import (
    COUPLED,
    LOSS,
    data,
    one_block,
    residual,
    trained,
    wrapped,
)
from tests.support.replicas import assert_replicas_agree

layers = keras.layers

# Two weights whose filters are coupled, in another order, and a third one by itself.
CHANNELS = {"a": (0, 1, 2, 3), "b": (3, 2, 1, 0), "c": (4, 5, 6, 7)}


def snapshots(rng, gradients=False, alive=None):
    found = []
    for path, channels in CHANNELS.items():
        shape = (2, 3, 4)
        mask = np.ones(shape, bool)
        if alive is not None:
            mask &= np.isin(channels, alive)
        weight = rng.normal(size=shape).astype("float32") * mask
        gradient = rng.normal(size=shape).astype("float32") if gradients else None
        layout = Layout("convolution", channels=channels)
        found.append(Snapshot(path, *map(_tensor, (weight, mask, gradient)), layout=layout))
    return found


def _tensor(value):
    return None if value is None else tf.constant(value)


def by_unit(weights, value):
    """{channel: sum of |value| over all that goes with it}, with NumPy."""
    total = {}
    for w in weights:
        sums = np.abs(value(w)).sum((0, 1))
        for channel, each in zip(w.layout.channels, sums, strict=True):
            total[channel] = total.get(channel, 0.0) + float(each)
    return total


def alive(masks):
    """Channels that are alive by each mask, in which each filter is all there or not at all."""
    found = []
    for (_, channels), mask in zip(CHANNELS.items(), masks, strict=True):
        filters = mask.numpy().reshape(-1, 4)
        assert (filters.all(0) == filters.any(0)).all()
        found.append({c for c, there in zip(channels, filters.all(0), strict=True) if there})
    return found


@pytest.mark.parametrize("seed", range(4))
def test_units_are_pruned_by_their_sum(seed):
    weights = snapshots(np.random.default_rng(seed))
    schedule = granet_tf.ConstantSparsity(0.5, 0)
    method = granet_tf.GMP(
        0.5, schedule=schedule, pattern=COUPLED, distribution="uniform", scope="layer"
    )
    new = method.update(tf.constant(0), weights, dormant_compete=False)
    a, b, c = alive([u.mask for u in new])
    score = by_unit(weights, lambda w: w.weight.numpy())
    best = {group: set(sorted(group, key=score.get)[2:]) for group in ((0, 1, 2, 3), (4, 5, 6, 7))}
    assert a == b == best[0, 1, 2, 3]
    assert c == best[4, 5, 6, 7]


@pytest.mark.parametrize("seed", range(4))
def test_units_are_exchanged_by_the_sum_of_gradients(seed):
    there = (0, 1, 4, 5)
    weights = snapshots(np.random.default_rng(seed), gradients=True, alive=there)
    method = granet_tf.RigL(
        0.5,
        frequency=1,
        drop_fraction=0.5,
        total_steps=100,
        pattern=COUPLED,
        distribution="uniform",
    )
    new = method.update(tf.constant(1), weights, dormant_compete=False)
    size = by_unit(weights, lambda w: w.weight.numpy())
    growth = by_unit(weights, lambda w: w.gradient.numpy())
    expected = set()
    for group in ((0, 1, 2, 3), (4, 5, 6, 7)):
        kept = max(set(group) & set(there), key=size.get)
        grown = max(set(group) - {kept}, key=growth.get)
        expected |= {kept, grown}
    a, b, c = alive([u.mask for u in new])
    assert a == b and a | c == expected


@pytest.mark.parametrize(("fraction", "exchanged"), [(0.1, 0), (0.2, 0), (0.3, 1), (0.7, 1)])
def test_the_number_exchanged_is_rounded_to_the_nearest(fraction, exchanged):
    """Of 2 living units; rounded up it would be 1 or 2 of them at any fraction."""
    there = (0, 1, 4, 5)
    weights = snapshots(np.random.default_rng(0), gradients=True, alive=there)
    most = {7: 100.0}  # What is grown first was not there.
    weights = [
        dataclasses.replace(w, gradient=tf.constant(_scaled(w.gradient, CHANNELS[w.path], most)))
        for w in weights
    ]
    method = granet_tf.RigL(
        0.5, frequency=1, drop_fraction=fraction, total_steps=10**6, pattern=COUPLED, scope="layer",
        distribution="uniform",
    )  # fmt: skip
    new = method.update(tf.constant(1), weights, dormant_compete=False)
    a, b, c = alive([u.mask for u in new])
    assert a == b and len(a) == len(c) == 2
    assert len(c - {*there}) == exchanged


def _scaled(gradient, channels, factors):
    return np.asarray(gradient) * [factors.get(channel, 1.0) for channel in channels]


def test_random_masks_are_the_same_for_a_group():
    method = granet_tf.StaticSparse(0.5, pattern=COUPLED, distribution="uniform")
    shapes = dict.fromkeys(CHANNELS, (2, 3, 4))
    layouts = {path: Layout(channels=channels) for path, channels in CHANNELS.items()}
    masks = method.initial_masks(shapes, layouts)
    a, b, c = alive(masks.values())
    assert a == b and len(a) == len(c) == 2


def test_without_a_model_nobody_knows_what_is_coupled():
    method = granet_tf.StaticSparse(0.5, pattern=COUPLED)
    with pytest.raises(ValueError, match=r"only a model tells which.*Received: pattern=Filter"):
        method.initial_masks({"a": (2, 4)})


def test_criteria_literally():
    weights = tf.constant([[3.0, -1.0], [-4.0, 2.0]])
    gradients = tf.constant([[1.0, 2.0], [0.5, -3.0]])
    filters = Filters(weights, gradients, tf.constant([-0.5, 0.25]))
    found = {
        name: (c.score(filters) if c.total is None else c.total(c.score(filters))).numpy().tolist()
        for name, c in CRITERIA.items()
    }
    assert found["l1"] == [7.0, 3.0]
    np.testing.assert_allclose(found["l2"], [5.0, 5**0.5])
    assert found["taylor"] == [5.0, 8.0]
    assert found["scale"] == [0.5, 0.25]


def criterion_of_largest(filters):
    return tf.reduce_max(tf.abs(filters.weights), 0)


@pytest.mark.parametrize("name", ["l1", "l2", "taylor", "scale", "own"])
def test_criteria_choose_what_is_pruned(name):
    criterion = granet_tf.Criterion(criterion_of_largest) if name == "own" else name
    pattern = granet_tf.Filter(coupled=True, criterion=criterion)
    method = granet_tf.GMP(
        0.5, schedule=granet_tf.ConstantSparsity(0.5, 1, frequency=1), pattern=pattern,
        scope="layer", distribution="uniform",
    )  # fmt: skip
    model = granet_tf.wrap(residual(), method)
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    rng = np.random.default_rng(0)
    for weight in model.model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    x, y = data()
    kernels = [p.variable for p in model.pruned]
    with tf.GradientTape() as tape:
        loss = LOSS(y, model.model(x, training=True))
    gradients = [g.numpy() for g in tape.gradient(loss, [k.value for k in kernels])]
    gammas = [layer.gamma for layer in model.model.layers if hasattr(layer, "gamma")]
    gammas = {p.path: g for p, g in zip(_in_graph_order(model), gammas, strict=True)}
    scores = {
        "l1": lambda p, w, g: abs(w).sum((0, 1, 2)),
        "l2": lambda p, w, g: (w**2).sum((0, 1, 2)),
        "taylor": lambda p, w, g: abs(w * g).sum((0, 1, 2)),
        "scale": lambda p, w, g: abs(gammas[p.path].numpy()),
        "own": lambda p, w, g: abs(w).max((0, 1, 2)),
    }
    own = [
        scores[name](p, p.variable.numpy(), g) for p, g in zip(model.pruned, gradients, strict=True)
    ]
    model.train_on_batch(x, y)
    stream = [i for i, p in enumerate(model.pruned) if "first" not in p.path]
    for places in (stream, *([i] for i in range(5) if i not in stream)):
        expected = np.sort(np.argsort(sum(own[i] for i in places))[4:])
        for i in places:
            kept = np.flatnonzero(model.pruned[i].mask.numpy().any((0, 1, 2)))
            np.testing.assert_array_equal(kept, expected)


def _in_graph_order(model):
    """Masked weights in the order of their normalisations."""
    order = ["stem", "first0", "second0", "first1", "second1"]
    return sorted(model.pruned, key=lambda p: order.index(p.path.split("/")[0]))


def test_numbers_of_filters_are_multiples():
    pattern = granet_tf.Filter(coupled=True, round_to=8)
    for scope in ("layer", "global"):
        for sparsity in (0.3, 0.5, 0.7):
            method = granet_tf.GMP(
                sparsity, schedule=granet_tf.ConstantSparsity(sparsity, 0), pattern=pattern,
                scope=scope, distribution="uniform",
            )  # fmt: skip
            model = granet_tf.wrap(residual(32), method)
            model.compile("sgd", LOSS)
            model.fit(*data(8), verbose=0)
            units = [int(p.mask.numpy().any((0, 1, 2)).sum()) for p in model.pruned]
            assert all(n % 8 == 0 and n > 0 for n in units)
            # 96 units; the multiple of 8 next to what is asked for.
            kept = units[0] + sum(n for p, n in zip(model.pruned, units, strict=True)
                                  if "first" in p.path)  # fmt: skip
            assert kept == round(96 * (1 - sparsity) / 8) * 8


def test_what_is_dead_puts_out_nothing():
    shares = {"scope": "layer", "distribution": "uniform"}
    model = wrapped(granet_tf.GraNet(0.5, frequency=2, total_steps=16, **shares))
    trained(model, 16)
    dead = {p.path: ~p.mask.numpy().any((0, 1, 2)) for p in model.pruned}
    assert all(each.sum() == 4 for each in dead.values())
    plain = granet_tf.strip(model)
    norms = [layer for layer in plain.layers if isinstance(layer, layers.BatchNormalization)]
    for norm, pruned in zip(norms, _in_graph_order(model), strict=True):
        assert (norm.beta.numpy()[dead[pruned.path]] == 0).all()
        assert (norm.moving_mean.numpy()[dead[pruned.path]] == 0).all()
        assert (norm.beta.numpy()[~dead[pruned.path]] != 0).all()
    assert [row.kept for row in compaction.explain(plain).rows if row.layer != "head"] == [4] * 5
    assert not compaction.explain(plain).left


def test_a_pruned_unit_has_a_gradient_to_be_grown_by():
    method = granet_tf.RigL(
        0.5, frequency=3, drop_fraction=0.6, total_steps=30, distribution="uniform"
    )
    model = wrapped(method)
    before = [p.mask.numpy() for p in model.pruned]
    trained(model, 12)
    changed = [(p.mask.numpy() != b).any() for p, b in zip(model.pruned, before, strict=True)]
    assert all(changed)
    x, y = data()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    kernels = [p.variable.value for p in model.pruned]
    for gradient, pruned in zip(tape.gradient(loss, kernels), model.pruned, strict=True):
        dead = ~pruned.mask.numpy().any((0, 1, 2))
        assert (np.abs(gradient.numpy()[..., dead]).sum((0, 1, 2)) > 0).all()


def norms_and_weights(model):
    """Each pruned kernel of `one_block` with the batch normalization behind it."""
    norms = [x for x in model.model.layers if isinstance(x, layers.BatchNormalization)]
    return zip(norms, _in_graph_order(model), strict=True)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_grown_channel_begins_gently(jit_compile, with_xla):
    """A filter of zeros is divided by the root of epsilon: its first step would be huge."""
    method = granet_tf.RigL(0.5, frequency=3, total_steps=30, distribution="uniform")
    model = wrapped(method, build=one_block)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), LOSS, jit_compile=jit_compile)
    trained(model, 2)
    before = {p.path: p.mask.numpy().any((0, 1, 2)) for p in model.pruned}
    trained(model, 1)
    kernels = {}
    for norm, pruned in norms_and_weights(model):
        now = pruned.mask.numpy().any((0, 1, 2))
        grown, others = now & ~before[pruned.path], now & before[pruned.path]
        assert grown.any() and others.any()
        kernel = pruned.variable.numpy()
        spread = np.sqrt((kernel[..., others] ** 2).mean())
        assert 0.05 < np.sqrt((kernel[..., grown] ** 2).mean()) / spread < 0.2
        gamma, variance = norm.gamma.numpy(), norm.moving_variance.numpy()
        assert (gamma[grown] == 0).all() and (gamma[others] != 0).all()
        np.testing.assert_allclose(gamma[~now], np.abs(gamma[others]).mean(), rtol=1e-5)
        np.testing.assert_allclose(variance[grown], variance[others].mean(), rtol=1e-5)
        kernel[..., grown] = 0.0
        kernels[pruned.path] = kernel
    # What the network computes is not changed by the channels that are new.
    x, _ = data()
    outputs = model(x, training=True)
    for pruned in model.pruned:
        pruned.variable.assign(kernels[pruned.path])
    np.testing.assert_allclose(model(x, training=True), outputs, atol=1e-4)


def separable():
    """Two normalizations one behind the other, with a depthwise convolution between them."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 4, 3))
    for name in ("one", "two"):
        x = layers.Conv2D(8, 1, use_bias=False, name=name)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


def normed_first():
    """Sums that are normalized where they are read, as in residual networks of the second kind."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    for name in ("one", "two"):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same", use_bias=False, name=name)(y)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("build", [one_block, separable, normed_first])
def test_a_grown_channel_changes_nothing_and_has_a_gradient(build):
    method = granet_tf.RigL(0.5, frequency=3, total_steps=30, distribution="uniform")
    model = wrapped(method, build=build)
    trained(model, 2)
    before = {p.path: p.mask.numpy().any((0, 1, 2)) for p in model.pruned}
    trained(model, 1)
    x, y = data()
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = LOSS(y, outputs)
    variables = [v.value for v in model.trainable_variables]
    slopes = dict(
        zip(map(id, model.trainable_variables), tape.gradient(loss, variables), strict=True)
    )
    norms = [each for each in model.model.layers if isinstance(each, layers.BatchNormalization)]
    # Each channel that is new has a scale that moves, and not by hundreds of times the others.
    moves = [np.abs(slopes[id(norm.gamma)].numpy()) for norm in norms]
    assert max(each.max() for each in moves) < 30.0 * np.mean([each.mean() for each in moves])
    closed = [norm.gamma.numpy() == 0 for norm in norms]
    assert any(each.any() for each in closed)
    for zero, slope in zip(closed, moves, strict=True):
        assert (slope[zero] > 0).all()
    for pruned in model.pruned:
        grown = pruned.mask.numpy().any((0, 1, 2)) & ~before[pruned.path]
        assert grown.any()
        kernel = pruned.variable.numpy()
        assert (np.abs(kernel[..., grown]) > 0).any((0, 1, 2)).all()
        pruned.variable.assign(kernel * ~grown)
    np.testing.assert_allclose(model(x, training=True), outputs, atol=1e-4)


@pytest.mark.parametrize("mask_only", [False, True])
def test_a_grown_channel_keeps_its_size(mask_only):
    method = granet_tf.RigL(0.5, frequency=3, total_steps=30, distribution="uniform")
    model = wrapped(method, build=one_block, mask_only=mask_only)
    trained(model, 2)
    before = {p.path: p.mask.numpy().any((0, 1, 2)) for p in model.pruned}
    trained(model, 3)
    for pruned in model.pruned:
        now = pruned.mask.numpy().any((0, 1, 2))
        sizes = np.abs(pruned.variable.numpy()).sum((0, 1, 2))
        grown, others = now & ~before[pruned.path], now & before[pruned.path]
        assert sizes[grown].max() < 5.0 * sizes[others].mean()


def test_uncoupled_filters_leave_channels_that_coupled_ones_do_not():
    left = {}
    for coupled in (False, True):
        method = granet_tf.StaticSparse(0.5, distribution="uniform")
        model = granet_tf.wrap(residual(), method, pattern=granet_tf.Filter(coupled=coupled))
        left[coupled] = granet_tf.compact(model).count_params()
    assert left[True] < left[False]
    rows = {r.layer: r.kept for r in compaction.explain(model).rows}
    assert rows == {"stem": 4, "first0": 4, "second0": 4, "first1": 4, "second1": 4, "head": 3}


def test_summarize_says_what_cannot_go_and_what_goes_together():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(3, 3, padding="same", name="skip")(inputs)
    x = layers.Add()([x, inputs])
    x = layers.Conv2D(4, 3, padding="same", name="one")(x)
    y = layers.Conv2D(4, 3, padding="same", name="two")(x)
    outputs = layers.Dense(2, name="head")(layers.Flatten()(layers.Add()([x, y])))
    model = granet_tf.wrap(keras.Model(inputs, outputs), granet_tf.GMP(0.5), pattern=COUPLED)
    assert [p.path for p in model.pruned] == ["one/kernel", "two/kernel"]
    reasons = {w.path: w.reason for w in model.weight_verdicts}
    assert reasons["skip/kernel"] == "it is joined with channels that can't be removed"
    assert reasons["head/kernel"] == "output of the model"
    text = str(granet_tf.summarize(model))
    assert "one/kernel, two/kernel" in text


def test_pins_hold_for_a_group():
    method = granet_tf.GMP(
        0.5, schedule=granet_tf.ConstantSparsity(0.5, 0), pinned={"second1/kernel": 0.25},
        distribution="uniform", scope="layer",
    )  # fmt: skip
    model = wrapped(method)
    assert model.method.pinned == {"stem/kernel": 0.25}
    model.fit(*data(8), verbose=0)
    units = {p.path: int(p.mask.numpy().any((0, 1, 2)).sum()) for p in model.pruned}
    assert units["stem/kernel"] == units["second0/kernel"] == units["second1/kernel"] == 6


@pytest.mark.parametrize("mask_only", [False, True])
def test_replicas_agree(mirrored, mask_only):
    with mirrored.scope():
        method = granet_tf.GraNet(0.5, frequency=2, end_step=0.5)
        model = wrapped(method, build=one_block, mask_only=mask_only)
    model.fit(*data(64), batch_size=8, epochs=2, verbose=0)
    assert_replicas_agree(mirrored, model.pruned)
    alive = {p.path: tuple(p.mask.numpy().any((0, 1, 2))) for p in model.pruned}
    assert alive["stem/kernel"] == alive["second0/kernel"]


def subclassed_model():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.head = layers.Dense(4), layers.Dense(2)

        def call(self, x):
            return self.head(self.dense(x))

    model = Own()
    model(np.zeros((1, 3)))
    return model


def without_normalization():
    return keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: granet_tf.wrap(subclassed_model(), granet_tf.GMP(0.5), pattern=COUPLED),
            "sequential or functional.*Received: model=.*Own",
        ),
        (
            lambda: granet_tf.wrap(
                without_normalization(),
                granet_tf.GMP(0.5),
                pattern=granet_tf.Filter(criterion="scale"),
            ),
            r"batch normalisation right behind.*dense\w*/kernel.*Received: pattern=Filter",
        ),
        (lambda: granet_tf.Filter(criterion="l3"), "`criterion` must be one of l1, l2.*='l3'"),
        (lambda: granet_tf.Filter(round_to=0), "`round_to` must be.*Received: round_to=0"),
        (
            lambda: granet_tf.wrap(
                keras.Sequential([keras.Input((3,)), layers.Dense(2)]),
                granet_tf.GMP(0.5),
                pattern=COUPLED,
            ),
            "must have a weight to prune.*output of the model",
        ),
    ],
)
def test_bad_calls_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_weights_that_were_asked_for_and_stay_are_named():
    model = residual()
    with pytest.warns(UserWarning, match="head/kernel: it is an output of the model"):
        sparse = granet_tf.wrap(model, granet_tf.GMP(0.5), pattern=COUPLED, prunable=["*kernel"])
    assert len(sparse.pruned) == 5


def test_patterns_are_saved_with_their_criterion(tmp_path):
    for pattern in (
        granet_tf.Filter(coupled=True, criterion="taylor", round_to=4),
        granet_tf.Filter(criterion=CRITERIA["l2"]),
    ):
        config = keras.saving.serialize_keras_object(pattern)
        assert keras.saving.deserialize_keras_object(config).get_config() == pattern.get_config()


# Those that choose by other means than GraNet and RigL.
OTHERS = {
    "acdc": lambda: granet_tf.ACDC(0.5, begin_step=2, end_step=10),
    "dpf": lambda: granet_tf.DPF(0.5, frequency=2),
    "dsr": lambda: granet_tf.DSR(0.5, frequency=2),
    "snfs": lambda: granet_tf.SNFS(0.5, frequency=2),
    "snip": lambda: granet_tf.SNIP(0.5),
    "synflow": lambda: granet_tf.SynFlow(0.5),
    "top_kast": lambda: granet_tf.TopKAST(0.5, frequency=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_see_a_group_as_one(name):
    model = wrapped(OTHERS[name](), build=one_block)
    model.fit(*data(), batch_size=8, epochs=3, verbose=0)
    alive = {}
    for pruned in model.pruned:
        filters = pruned.mask.numpy().reshape(-1, 8)
        assert (filters.any(0) == filters.all(0)).all()
        alive[pruned.path] = tuple(filters.any(0))
    assert alive["stem/kernel"] == alive["second0/kernel"]
    assert 0 < sum(map(sum, alive.values())) < 24
