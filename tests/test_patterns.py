"""Patterns against slow NumPy, pooling against TensorFlow's, methods on whole units."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import GMP, NM, SET, Block, Element, Filter, GraNet, RigL, StaticSparse
from granet_tf.selection import select

SHAPES = [(5, 7), (8, 4), (3, 3, 6, 5), (1, 1, 4, 4), (3, 5, 2)]
SIZES = [(1, 1), (4, 1), (1, 4), (2, 3), (16, 16)]


def blocks_of(shape, size):
    """Index arrays of all blocks, in order: positions, then rows, then columns of blocks."""
    index = np.arange(np.prod(shape)).reshape(-1, *shape[-2:])
    for position in index:
        rows, columns = (range(0, n, s) for n, s in zip(shape[-2:], size, strict=True))
        for i, j in itertools.product(rows, columns):
            yield position[i : i + size[0], j : j + size[1]].ravel()


def filters_of(shape, axis):
    index = np.moveaxis(np.arange(np.prod(shape)).reshape(shape), axis, 0)
    return [part.ravel() for part in index]


@pytest.mark.parametrize("pooling", ["sum", "avg", "max"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_against_numpy(shape, size, pooling):
    score = np.random.default_rng(0).random(shape, np.float32)
    pattern = Block(size, pooling)
    reduce = {"sum": np.sum, "avg": np.mean, "max": np.max}[pooling]
    expected = [reduce(score.ravel()[block]) for block in blocks_of(shape, size)]
    pooled = pattern.pool(tf.constant(score))
    np.testing.assert_allclose(pooled.numpy().ravel(), expected, rtol=1e-6)

    chosen = np.random.default_rng(1).random(pooled.shape) < 0.5
    mask = pattern.expand(tf.constant(chosen), shape).numpy()
    wanted = np.zeros(np.prod(shape), bool)
    for block, active in zip(blocks_of(shape, size), chosen.ravel(), strict=True):
        wanted[block] = active
    np.testing.assert_array_equal(mask, wanted.reshape(shape))
    np.testing.assert_array_equal(pattern.units(tf.constant(mask)), chosen)


@pytest.mark.parametrize(("pooling", "name"), [("avg", "AVG"), ("max", "MAX")])
@pytest.mark.parametrize("size", SIZES)
def test_pooling_is_that_of_tfmot(size, pooling, name):
    # Where blocks fit. Elsewhere tfmot pads before as well, and so pools other weights
    # than those of the block that it prunes.
    score = np.random.default_rng(0).random((48, 48), np.float32)
    theirs = tf.nn.pool(
        score[None, :, :, None], size, name, strides=size, padding="SAME", data_format="NHWC"
    )
    pooled = Block(size, pooling).pool(tf.constant(score))
    np.testing.assert_allclose(pooled[0], theirs[0, :, :, 0], rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, -2, 0])
@pytest.mark.parametrize("shape", SHAPES)
def test_filters_against_numpy(shape, axis):
    score = np.random.default_rng(0).random(shape, np.float32)
    pattern = Filter(axis)
    filters = filters_of(shape, axis)
    pooled = pattern.pool(tf.constant(score))
    expected = [score.ravel()[part].sum() for part in filters]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)
    chosen = np.arange(shape[axis]) % 2 == 0
    mask = pattern.expand(tf.constant(chosen), shape).numpy()
    for part, active in zip(filters, chosen, strict=True):
        assert np.all(mask.ravel()[part] == active)
    np.testing.assert_array_equal(pattern.units(tf.constant(mask)), chosen)


def nm_mask(weight, n, m, axis):
    """The n largest of every m along `axis`, one group after the other."""
    moved = np.moveaxis(np.abs(weight), axis, -1)
    mask = np.zeros(moved.shape, bool)
    for index in np.ndindex(moved.shape[:-1]):
        for start in range(0, moved.shape[-1], m):
            group = moved[index][start : start + m]
            mask[index][start + np.argsort(-group, kind="stable")[:n]] = True
    return np.moveaxis(mask, -1, axis)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
@pytest.mark.parametrize("shape", [(5, 7), (8, 4), (3, 3, 3, 5), (1, 1, 1, 4), (3, 5, 2)])
def test_n_of_m_against_numpy(shape, n, m, axis):
    # Few values, so that many are equal: the first of them stay.
    weight = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)
    pattern = NM(n, m, axis)
    pooled = pattern.pool(tf.abs(tf.constant(weight)))
    everything = pattern.units(tf.ones(shape, tf.bool))
    assert pooled.shape == everything.shape and np.all(everything)
    [chosen] = select([pooled], [everything], pooled.shape.num_elements() * n // m)
    mask = pattern.expand(chosen, shape)
    np.testing.assert_array_equal(mask, nm_mask(weight, n, m, axis))
    np.testing.assert_array_equal(pattern.expand(pattern.units(mask), shape), mask)


@pytest.mark.parametrize("mask_only", [False, True])
def test_gradual_pruning_ends_in_n_of_m(mask_only):
    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(8, 3, name="conv"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(6, name="head"),
    ]
    method = GMP(0.5, pattern=NM(2, 4), frequency=3)
    model = granet_tf.wrap(keras.Sequential(layers), method, mask_only=mask_only)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = keras.random.normal((24, 8, 8, 3))
    model.fit(x, keras.random.normal((24, 6)), batch_size=2, verbose=0)
    conv, head = (p.mask.numpy() for p in model.pruned)
    assert np.all(conv.sum(axis=2) == 2)
    assert np.all(head.reshape(2, 4, 6).sum(axis=1) == 2)


@pytest.mark.parametrize(
    "method",
    [
        GraNet(0.5, pattern=NM(2, 4)),
        RigL(0.5, pattern=NM(2, 4)),
        StaticSparse(0.5, pattern=NM(2, 4)),
        GMP(0.5, initial_sparsity=0.2, pattern=NM(2, 4)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_n_of_m_is_not_grown_or_drawn(method):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"can only be pruned to, from dense: use GMP.*Received: "):
        granet_tf.wrap(model, method)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (0, 4), (2.0, 4), (5, 4)])
def test_an_n_of_m_that_is_none(n, m):
    with pytest.raises(ValueError, match=r"integers with 0 < n < m.* Received: n="):
        NM(n, m)


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


@pytest.mark.parametrize(
    "pattern", [Element(), Block((4, 2), "max"), Filter(-2), NM(2, 4)], ids=str
)
def test_saved_and_loaded(pattern):
    text = json.dumps(keras.saving.serialize_keras_object(GraNet(0.8, pattern=pattern)))
    assert keras.saving.deserialize_keras_object(json.loads(text)).pattern == pattern


@pytest.mark.parametrize("size", [(0, 1), (4,), 4, (2.0, 1), (1, 2, 3)])
def test_a_size_that_is_none(size):
    with pytest.raises(ValueError, match=r"`size` must be two integers > 0, .* Received: size="):
        Block(size)


def test_a_pooling_that_is_none():
    with pytest.raises(ValueError, match=r"`pooling` must be one of sum, avg, max\. Received: "):
        Block((4, 1), "AVG")


def test_blocks_of_a_vector():
    with pytest.raises(ValueError, match=r"two axes or more\. Received: a weight of shape \(3,\)"):
        Block((2, 1)).pool(tf.ones(3))


@pytest.mark.parametrize("pattern", [Block((4, 1)), Filter()], ids=str)
def test_under_xla(pattern):
    weight = tf.constant(np.random.default_rng(0).standard_normal((3, 3, 8, 8), np.float32))
    method = GraNet(0.5, pattern=pattern, end_step=1, frequency=1, total_steps=4)

    def update():
        return method.update_masks(
            tf.constant(1, tf.int64), ["w"], [weight], [tf.ones_like(weight, tf.bool)], [-weight]
        )[0][0]

    np.testing.assert_array_equal(tf.function(update, jit_compile=True)(), update())


def test_n_of_m_under_xla():
    weight = tf.constant(np.random.default_rng(0).standard_normal((3, 3, 6, 8), np.float32))
    pool = NM(2, 4).pool
    np.testing.assert_allclose(tf.function(pool, jit_compile=True)(weight), pool(weight), atol=1e-6)
