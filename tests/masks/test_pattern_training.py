"""Training with patterns: each update against slow NumPy, counts, files, graphs."""

import dataclasses
import json
from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import GMP, NM, SET, Block, ByKind, Filter, GraNet, RigL, StaticSparse
from keras_layers.layouts import Layout
from tests.support import reference, slow_patterns

L = keras.layers
FAST = {"end_step": 20, "frequency": 4, "total_steps": 40}
LAYER = {"scope": "layer", "distribution": "uniform"}
RATE, MOMENTUM, STEPS = 0.05, 0.9, 40
SHAPES = [(6, 12), (12, 4)]
ALL = granet_tf.default_prunable  # Given as such, it prunes units that are outputs, too.
# A pattern, and the same of weights of 6 × 12 and 12 × 4, slow. 6 is no multiple of 4.
SLOW = {
    "block": (Block((2, 1)), lambda shape: slow_patterns.blocks(shape, (2, 1))),
    "filter": (Filter(), slow_patterns.filters),
    "2:4": (NM(2, 4), lambda shape: slow_patterns.n_of_m(shape, 2, 4)),
}


def run_of(model, batches):
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM), "mse")
    for x, y in batches:
        model.train_on_batch(x, y)
        velocities = [v.numpy() for v in model.optimizer.inner_optimizer.momentums]
        weights, masks = zip(
            *((p.variable.numpy(), p.mask.numpy()) for p in model.pruned), strict=True
        )
        yield list(weights), list(masks), velocities


def slow_run(units, weights, masks, batches, keep_at, drop_at, grow=None, mask_only=False):
    """As `run_of`: SGD on an MLP; `keep_at(step)` says what stays in each weight, or None, and
    `drop_at(step)` the fraction that is replaced, or None where nothing is due."""
    weights, masks = list(weights), [m.copy() for m in masks]
    momentum = float(np.float32(MOMENTUM))  # Keras casts it by way of float32.
    sgd = reference.SGD(weights, RATE, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        masked = [w * m for w, m in zip(weights, masks, strict=True)]
        weights = weights if mask_only else masked
        dense = reference.MLP.gradients(masked, x, y)
        sgd.step(weights, [g * m for g, m in zip(dense, masks, strict=True)])
        if not mask_only:
            weights = [w * m for w, m in zip(weights, masks, strict=True)]
        if drop_at(step) is not None:
            ranked = [abs(g) for g in dense] if grow is None else grow(step)
            masks, survivors = slow_patterns.update(
                units, weights, masks, ranked,
                keep=keep_at(step), drop=drop_at(step), dormant_compete=mask_only,
            )  # fmt: skip
            if not mask_only:
                weights = [w * s for w, s in zip(weights, survivors, strict=True)]
                kept = zip(sgd.velocities, survivors, strict=True)
                sgd.velocities = [v * s for v, s in kept]
        yield weights, masks, sgd.velocities


def problem():
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=SHAPES[0]) / 2.0, rng.normal(size=SHAPES[1]) / 3.0]
    batches = [(rng.normal(size=(16, 6)), rng.normal(size=(16, 4))) for _ in range(STEPS)]
    return weights, batches


def mlp(weights):
    options = {"use_bias": False}
    inputs = keras.Input((6,))
    hidden = L.Dense(12, activation="relu", name="hidden", **options)(inputs)
    model = keras.Model(inputs, L.Dense(4, name="out", **options)(hidden))
    model.set_weights(weights)
    return model


def assert_same(run, expected):
    steps = 0
    for step, (ours, theirs) in enumerate(zip(run, expected, strict=True), start=1):
        for name, a, b in zip(("weights", "masks", "momentum"), ours, theirs, strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-9, err_msg=f"{name}, {step=}")
        steps += 1
    assert steps == STEPS


@pytest.mark.parametrize(("initial", "mask_only"), [(0.0, False), (0.5, False), (0.0, True)])
@pytest.mark.parametrize("name", SLOW)
def test_granet_with_patterns_is_algorithm_1_over_units(float64, name, initial, mask_only):
    pattern, slow = SLOW[name]
    weights, batches = problem()
    method = GraNet(
        0.75, initial_sparsity=initial, drop_fraction=0.4, pattern=pattern, **FAST, **LAYER
    )
    model = granet_tf.wrap(mlp(weights), method, mask_only=mask_only, prunable=ALL)
    masks = [p.mask.numpy() for p in model.pruned]
    units = [slow(shape) for shape in SHAPES]

    def keep(step):
        sparsity = reference.cubic(step, initial, 0.75, 0, 20)
        return [u.to_keep(sparsity) if step <= 20 else None for u in units]

    def drop(step):
        due = step % 4 == 0 and step + 4 <= STEPS
        return reference.cosine(step, STEPS, 0.4, 0.005) if due else None

    expected = slow_run(units, weights, masks, batches, keep, drop, mask_only=mask_only)
    assert_same(run_of(model, batches), expected)
    for u, pruned in zip(units, model.pruned, strict=True):
        assert u.active(pruned.mask.numpy()).sum() == u.to_keep(0.75)
        assert all(sum(pruned.mask.numpy().ravel()[g]) <= 2 for g in u.groups)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spy(SET):
    """SET that notes what it draws; only works eagerly."""

    drawn: ClassVar[list] = []

    def grow_score(self, weight, gradient, seed):
        self.drawn.append(super().grow_score(weight, gradient, seed).numpy())
        return tf.constant(self.drawn[-1])


@pytest.mark.parametrize("kind", [RigL, Spy])
@pytest.mark.parametrize("name", SLOW)
def test_rigl_and_set_keep_the_count_of_units(float64, name, kind):
    """At 1 − n / m all groups are full, so growth must go where something was dropped."""
    pattern, slow = SLOW[name]
    weights, batches = problem()
    method = kind(
        0.5, end_step=STEPS, frequency=4, total_steps=STEPS, drop_fraction=0.3,
        final_drop_fraction=0.3, distribution="uniform", pattern=pattern,
    )  # fmt: skip
    model = granet_tf.wrap(mlp(weights), method, prunable=ALL)
    units = [slow(shape) for shape in SHAPES]
    masks = [p.mask.numpy() for p in model.pruned]
    for u, mask in zip(units, masks, strict=True):
        assert u.active(mask).sum() == u.to_keep(0.5)
        np.testing.assert_array_equal(u.mask(u.active(mask), mask.shape), mask)
        assert all(sum(mask.ravel()[g]) == min(2, len(g)) for g in u.groups)
    start = [p.variable.numpy() for p in model.pruned]
    Spy.drawn.clear()
    model.run_eagerly = True
    tf.config.run_functions_eagerly(kind is Spy)
    try:
        run = list(run_of(model, batches))
    finally:
        tf.config.run_functions_eagerly(False)
    grow = (lambda step: Spy.drawn[step // 4 * 2 - 2 : step // 4 * 2]) if kind is Spy else None
    never = lambda step: [None, None]  # noqa: E731
    drop = lambda step: 0.3 if step % 4 == 0 and step + 4 <= STEPS else None  # noqa: E731
    expected = slow_run(units, start, masks, batches, never, drop, grow)
    assert_same(run, expected)
    assert any(np.any(a != b) for _, new, _ in run for a, b in zip(masks, new, strict=True))
    if kind is Spy:
        assert len(Spy.drawn) == 18  # Two weights, at steps 4 to 36.


def test_granet_ranks_n_of_m_across_layers():
    """Two weights, sparsity 0.75 of both together, none above 1:2 in a group; by hand."""
    a = np.array([[8.0], [7.0], [6.0], [5.0]], np.float32)
    b = np.array([[1.0], [0.5], [0.4], [0.3]], np.float32)
    zeros = [np.zeros_like(a)] * 2
    method = GraNet(
        0.5, end_step=1, frequency=1, total_steps=4, pattern=NM(1, 2),
        drop_fraction=0.0, final_drop_fraction=0.0,
    )  # fmt: skip
    everything = [np.ones((4, 1), bool)] * 2
    masks, _ = method.update_masks(tf.constant(1), ["a", "b"], [a, b], everything, zeros)
    assert [m.numpy().ravel().tolist() for m in masks] == [[1, 0, 1, 0]] * 2
    method = dataclasses.replace(method, final_sparsity=0.75)
    masks, _ = method.update_masks(tf.constant(1), ["a", "b"], [a, b], everything, zeros)
    assert [m.numpy().ravel().tolist() for m in masks] == [[1, 0, 1, 0], [0, 0, 0, 0]]


def test_erk_leaves_no_layer_denser_than_its_pattern_lets():
    shapes = {"small": (8, 4), "large": (64, 64), "middle": (16, 16)}
    method = StaticSparse(0.75, pattern=NM(2, 4))
    plain = granet_tf.masks.distributions.erdos_renyi_kernel(shapes, 0.75)
    assert plain["small"] == 0.0
    masks = method.initial_masks(shapes)
    for path, mask in masks.items():
        assert np.all(mask.numpy().reshape(-1, 4, shapes[path][1]).sum(axis=1) <= 2), path
    # The others make up for it: a quarter of 4384 weights.
    assert sum(int(np.count_nonzero(m)) for m in masks.values()) == 1096
    assert np.count_nonzero(masks["small"]) == 16


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 3), (3, 8)])
@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 3, 4), (5, 6, 2)])
def test_growth_keeps_groups_and_counts(n, m, shape):
    method = RigL(
        0.75, frequency=1, end_step=100, drop_fraction=0.5, final_drop_fraction=0.5,
        distribution="uniform", pattern=NM(n, m),
    )  # fmt: skip
    units = slow_patterns.n_of_m(shape, n, m)
    rng = np.random.default_rng(0)
    mask = method.initial_masks({"w": shape})["w"]
    count = units.to_keep(0.75)
    for step in range(1, 9):
        weight, gradient = (rng.normal(size=shape).astype("float32") for _ in range(2))
        [mask], _ = method.update_masks(tf.constant(step), ["w"], [weight], [mask], [gradient])
        flat = mask.numpy().ravel()
        assert flat.sum() == count
        assert all(flat[group].sum() <= n for group in units.groups)


def test_pins_and_caps_with_groups():
    """The first stays dense, the last goes to 0.5 at most, the rest obeys 1:4, 36 in all."""
    shapes = {"first": (4, 2), "middle": (16, 5), "last": (8, 4)}
    weights = [np.random.default_rng(i).normal(size=s) for i, s in enumerate(shapes.values())]
    method = GraNet(
        0.7, end_step=1, frequency=1, total_steps=4, pattern=NM(1, 4),
        pinned={0: 0.0}, capped={-1: 0.5}, drop_fraction=0.0, final_drop_fraction=0.0,
    )  # fmt: skip
    method.check_fits(shapes)
    everything = [np.ones(s, bool) for s in shapes.values()]
    masks, _ = method.update_masks(
        tf.constant(1), list(shapes), weights, everything, [np.zeros(s) for s in shapes.values()]
    )
    first, middle, last = (m.numpy() for m in masks)
    assert [first.sum(), last.sum(), first.sum() + middle.sum() + last.sum()] == [8, 16, 36]
    assert np.all(middle.reshape(4, 4, 5).sum(axis=1) <= 1)


def test_random_groups_are_drawn_evenly():
    """1:4 at its sparsity: each place of a group is as likely as another."""
    masks = StaticSparse(0.75, pattern=NM(1, 4)).initial_masks({"w": (4000, 4)})
    places = masks["w"].numpy().reshape(1000, 4, 4)
    assert np.all(places.sum(axis=1) == 1)
    # 4000 draws of probability 1/4: five standard deviations are 137.
    assert np.all(np.abs(places.sum(axis=(0, 2)) - 1000) < 137)


def test_an_update_prunes_and_regenerates_whole_filters():
    """Li et al.: sum of |w| to prune and drop, of |gradient| to grow; worked out by hand."""
    sums = np.array([5.0, 1.0, 4.0, 2.0, 6.0, 3.0, 8.0, 7.0])  # by filter
    weight = np.stack([sums / 4, -3 * sums / 4]).astype(np.float32)
    gradient = np.zeros((2, 8), np.float32)
    gradient[:, [1, 3]] = [[2.0, -0.5], [-1.0, 0.5]]  # filter 1: 3, filter 3: 1
    method = GraNet(
        0.5, scope="layer", distribution="uniform", pattern=Filter(),
        end_step=1, frequency=1, drop_fraction=0.25, final_drop_fraction=0.25, total_steps=4,
    )  # fmt: skip
    [mask], [survivors] = method.update_masks(
        tf.constant(1, tf.int64),
        ["w"],
        [tf.constant(weight)],
        [tf.ones((2, 8), tf.bool)],
        [tf.constant(gradient)],
    )
    # 4 of 8 stay: 0, 4, 6, 7. One of them, the weakest, goes: 0. The one with most gradient comes.
    active = np.isin(np.arange(8), [1, 4, 6, 7])
    np.testing.assert_array_equal(mask, np.stack([active, active]))
    kept = np.isin(np.arange(8), [4, 6, 7])
    np.testing.assert_array_equal(survivors, np.stack([kept, kept]))


@pytest.mark.parametrize(
    ("method", "mask_only"),
    [
        (GraNet(0.5, pattern=Block((4, 1))), False),
        (GraNet(0.5, pattern=Block((2, 2), "avg"), scope="layer"), True),
        (GMP(0.5, pattern=Block((4, 1), "max"), scope="global"), True),
        (GMP(0.5, pattern=Filter()), False),
        (RigL(0.5, pattern=Filter(), frequency=3), False),
        (SET(0.5, pattern=Block((2, 2)), frequency=3), False),
        (StaticSparse(0.5, pattern=Block((4, 1))), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_methods_keep_units_whole_and_counts_exact(method, mask_only):
    pattern = method.pattern
    layers = [
        keras.Input((8, 8, 4)),
        keras.layers.Conv2D(8, 3, name="conv"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(4, name="head"),
    ]
    model = granet_tf.wrap(keras.Sequential(layers), method, mask_only=mask_only)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x = keras.random.normal((24, 8, 8, 4))
    model.fit(x, keras.random.normal((24, 4)), batch_size=2, verbose=0)

    kept = total = 0
    for pruned in model.pruned:
        mask = pruned.mask.numpy()
        units = pattern.units(tf.constant(mask))
        np.testing.assert_array_equal(pattern.expand(units, mask.shape), mask)
        kept += int(np.count_nonzero(units))
        total += int(np.prod(units.shape))
        if not mask_only:
            assert np.all(pruned.variable.numpy()[~mask] == 0.0)
    # Random masks are exact for each tensor, what is pruned is exact in all.
    slack = 0 if isinstance(method, (GMP, GraNet)) else len(model.pruned)
    assert abs(kept - total / 2) <= slack


MIXED = ByKind({"dense": Block((4, 1)), "convolution": NM(2, 4)})


def convnet():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            L.Conv2D(8, 3, name="conv"),
            L.Conv2DTranspose(4, 3, name="up"),
            L.GlobalAveragePooling2D(),
            L.Dense(8, name="head"),
        ],
        name="net",
    )


@pytest.mark.optimized
@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize(
    ("options", "mask_only"),
    [({"jit_compile": True}, False), ({"run_eagerly": True}, True)],
    ids=["xla", "eager"],
)
def test_mixed_patterns_are_the_same_however_they_are_executed(options, mask_only):
    def run(**options):
        keras.utils.set_random_seed(3)
        method = GraNet(0.75, initial_sparsity=0.5, frequency=3, pattern=MIXED)
        model = granet_tf.wrap(convnet(), method, mask_only=mask_only, prunable=ALL)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", **options)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(48, 8, 8, 4)), rng.normal(size=(48, 8))
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return model

    plain, other = run(), run(**options)
    for a, b in zip(plain.pruned, other.pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_allclose(a.variable, b.variable, atol=1e-5)
    conv, up, head = (p.mask.numpy() for p in plain.pruned)
    assert np.all(conv.sum(axis=2) <= 2)
    assert np.all(head.reshape(1, 4, 8).any(axis=1) == head.reshape(1, 4, 8).all(axis=1))
    # Each pattern is at 0.75: 288 single weights, 8 blocks, and 288 in groups.
    assert [m.sum() for m in (conv, up, head)] == [72, 72, 4 * 2]


def test_mixed_patterns_are_saved_with_the_model(tmp_path):
    method = GraNet(0.75, initial_sparsity=0.5, frequency=2, total_steps=12, pattern=MIXED)
    model = granet_tf.wrap(convnet(), method, prunable=ALL)
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 8, 8, 4)), rng.normal(size=(48, 8))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method.pattern == MIXED
    for each in (model, loaded):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(model.pruned, loaded.pruned, strict=True):
        assert a.layout == b.layout
        np.testing.assert_array_equal(a.mask, b.mask)


def test_a_dormant_filter_comes_back_from_zero():
    """Its weights start at 0 with fresh slots; its bias is not touched."""
    kernel = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]], np.float32)
    layer = L.Dense(3, name="dense")
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.set_weights([kernel, np.array([0.1, 0.2, 0.3], np.float32)])
    method = RigL(
        1 / 3, frequency=2, end_step=8, total_steps=8, drop_fraction=0.5,
        final_drop_fraction=0.5, pattern=Filter(),
    )  # fmt: skip
    sparse = granet_tf.wrap(model, method, prunable=ALL)
    sparse.pruned[0].mask.assign([[True, False, True]] * 2)
    layer.kernel.assign(kernel * [1.0, 0.0, 1.0])
    sparse.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse")
    x = np.ones((4, 2))
    y = x @ kernel + [0.2, 100.0, 0.4]  # The dormant filter has most to learn.
    sparse.train_on_batch(x, y)
    bias = layer.bias.numpy()
    assert bias[1] > 0.2 and not np.any(layer.kernel[:, 1])
    sparse.train_on_batch(x, y)
    # The weaker of the active two went, the third, and the dormant one came, with all its weights.
    np.testing.assert_array_equal(sparse.pruned[0].mask, [[True, True, False]] * 2)
    assert not np.any(layer.kernel[:, 1:])
    [velocity, _] = sparse.optimizer.inner_optimizer.momentums
    assert np.all(velocity[:, 0] != 0.0) and not np.any(velocity[:, 1:])
    assert layer.bias[1] > bias[1]
    sparse.train_on_batch(x, y)
    assert np.all(layer.kernel[:, 1] > 0.0)


# PruneLowMagnitude.


def pruned_dense(**options):
    layer = granet_tf.PruneLowMagnitude(L.Dense(1, use_bias=False), **options)
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.layer.kernel.assign(np.arange(1.0, 9.0)[:, None])
    model.compile(granet_tf.SparseOptimizer(keras.optimizers.SGD(0.0), model), "mse")
    return model, layer


def selection(layer):
    return np.flatnonzero(layer.pruned[0].mask).tolist()


def test_groups_are_selected_once_or_at_each_update():
    schedule = granet_tf.ConstantSparsity(0.9, begin_step=2, frequency=2)
    chosen = {}
    for reselect in (False, True):
        model, layer = pruned_dense(
            pruning_schedule=schedule, sparsity_m_by_n=(2, 4), reselect=reselect, mask_only=True
        )
        chosen[reselect] = []
        for step in range(1, 5):
            model.train_on_batch(np.ones((1, 8)), np.ones((1, 1)))
            chosen[reselect].append(selection(layer))
            if step == 2:
                kernel = layer.layer.kernel.numpy()
                kernel[0] = 100.0
                layer.layer.kernel.assign(kernel)
    assert chosen[False] == [[2, 3, 6, 7]] * 4
    assert chosen[True] == [list(range(8)), [2, 3, 6, 7], [2, 3, 6, 7], [0, 3, 6, 7]]


def test_groups_are_reselected_by_gradient_in_zero_mode():
    schedule = granet_tf.GraNetSchedule(
        0.0, 0.9, 1, 1, total_steps=9, frequency=1, drop_fraction=0.25, final_drop_fraction=0.25
    )
    model, layer = pruned_dense(pruning_schedule=schedule, sparsity_m_by_n=(2, 4), reselect=True)
    x = np.array([[1.0, 9.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0]])
    model.train_on_batch(x, np.ones((1, 1)))
    # Of [2, 3, 6, 7], 2 is dropped, so its group has room: 1 comes, and not 4.
    assert selection(layer) == [1, 3, 6, 7]
    model.train_on_batch(x[:, ::-1], np.ones((1, 1)))
    # 1 has just come and is 0, so it goes; of its group, 3 is active and has the most gradient.
    assert selection(layer) == [0, 3, 6, 7]


def test_a_layer_takes_a_pattern_and_keeps_it():
    half = granet_tf.ConstantSparsity(0.5, begin_step=1, frequency=1)
    model, layer = pruned_dense(pruning_schedule=half, pattern="litert")
    model.train_on_batch(np.ones((1, 8)), np.ones((1, 1)))
    assert selection(layer) == [4, 5, 6, 7]
    options = {"pattern": NM(2, 4)}, {"sparsity_m_by_n": (2, 4), "reselect": True}
    for each in options:
        layer = granet_tf.PruneLowMagnitude(L.Dense(2), half, mask_only=True, **each)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
        again = keras.saving.deserialize_keras_object(config)
        assert {name: getattr(again, name) for name in each} == each


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pattern": "2:4", "block_size": (4, 1)}, r"can't be combined .*block_size=\(4, 1\)"),
        ({"reselect": True}, r"`sparsity_m_by_n` must be given\. Received: reselect=True"),
        (
            {"sparsity_m_by_n": (2, 4), "reselect": True},
            r"needs mask_only=True or a schedule that regenerates.*Received: mask_only=False",
        ),
    ],
)
def test_settings_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=text):
        granet_tf.PruneLowMagnitude(L.Dense(2), granet_tf.ConstantSparsity(0.5, 0), **options)


@pytest.mark.parametrize(("pattern", "expands"), [("litert", False), ("element", True)])
def test_litert_runs_the_pattern_of_its_name_without_expanding_it(tmp_path, pattern, expands):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    layers = [
        keras.Input((4, 32), batch_size=1),
        L.EinsumDense("abc,cde->abde", (4, 4, 16), name="query"),
        L.EinsumDense("abcd,cde->abe", (4, 32), name="back"),
        L.Flatten(),
        L.Dense(32, name="head"),
    ]
    method = StaticSparse(0.75, distribution="uniform", pattern=pattern)
    model = granet_tf.wrap(keras.Sequential(layers), method)
    granet_tf.export_tflite(model, tmp_path / "model.tflite")
    operations = litert.Interpreter(str(tmp_path / "model.tflite"))._get_ops_details()
    names = [operation["op_name"] for operation in operations]
    assert names.count("FULLY_CONNECTED") == 3 and ("DENSIFY" in names) is expands


# Patterns by kind, ranked together by pattern.


@pytest.mark.parametrize(("initial", "update"), [(0.75, True), (0.5, False)])
def test_each_pattern_starts_and_stays_at_its_sparsity(initial, update):
    """Of all weights together, erk would make the large dense layer sparser than the convolution,
    whose weights it then could not get back: what is pruned only ever gets less."""
    kinds = {"conv": "convolution", "small": "dense", "large": "dense"}
    shapes = {"conv": (3, 3, 4, 8), "small": (16, 8), "large": (64, 64)}
    layouts = {path: Layout(kind) for path, kind in kinds.items()}
    method = GraNet(0.75, initial_sparsity=initial, pattern="litert", end_step=4, frequency=1,
                    total_steps=8, drop_fraction=0.3)  # fmt: skip
    masks = [mask.numpy() for mask in method.initial_masks(shapes, layouts).values()]

    def active(masks):
        conv, *dense = (np.asarray(mask) for mask in masks)
        return conv.sum(), sum(m.reshape(-1, 4, m.shape[1]).any(axis=1).sum() for m in dense)

    assert active(masks) == ((1 - initial) * 288, (1 - initial) * (4224 // 4))
    if update:
        rng = np.random.default_rng(0)
        weights = [
            tf.constant(rng.normal(size=s) * m) for s, m in zip(shapes.values(), masks, strict=True)
        ]
        gradients = [tf.constant(rng.normal(size=s)) for s in shapes.values()]
        new, _ = method.update_masks(
            tf.constant(4), list(shapes), weights, masks, gradients, layouts=layouts
        )
        assert active(new) == (72, 264)
