"""Patterns against slow NumPy, pooling against TensorFlow's, axes of all kinds of layers, names."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import GMP, NM, Block, ByKind, Element, Filter, GraNet, RigL
from granet_tf.masks.counts import units_to_keep
from granet_tf.masks.joined import Parts
from granet_tf.masks.patterns.names import PATTERNS
from granet_tf.masks.units import best, ranked
from keras_layers.known_layers import ROWS, layout_of
from keras_layers.layouts import KINDS, Layout
from tests.support import slow_patterns

L = keras.layers
SHAPES = [(5, 7), (8, 4), (3, 3, 6, 5), (1, 1, 4, 4), (3, 5, 2)]
SIZES = [(1, 1), (4, 1), (1, 4), (2, 3), (16, 16)]


@pytest.mark.parametrize("pooling", ["sum", "avg", "max"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_against_numpy(shape, size, pooling):
    score = np.random.default_rng(0).random(shape, np.float32)
    pattern = Block(size, pooling)
    reduce = {"sum": np.sum, "avg": np.mean, "max": np.max}[pooling]
    expected = [reduce(score.ravel()[block]) for block in slow_patterns.blocks(shape, size).members]
    pooled = pattern.pool(tf.constant(score))
    np.testing.assert_allclose(pooled.numpy().ravel(), expected, rtol=1e-6)

    chosen = np.random.default_rng(1).random(pooled.shape) < 0.5
    mask = pattern.expand(tf.constant(chosen), shape).numpy()
    wanted = np.zeros(np.prod(shape), bool)
    for block, active in zip(
        slow_patterns.blocks(shape, size).members, chosen.ravel(), strict=True
    ):
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
    filters = slow_patterns.filters(shape, (axis,)).members
    pooled = pattern.pool(tf.constant(score))
    expected = [score.ravel()[part].sum() for part in filters]
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)
    chosen = np.arange(shape[axis]) % 2 == 0
    mask = pattern.expand(tf.constant(chosen), shape).numpy()
    for part, active in zip(filters, chosen, strict=True):
        assert np.all(mask.ravel()[part] == active)
    np.testing.assert_array_equal(pattern.units(tf.constant(mask)), chosen)


@pytest.mark.parametrize("axis", [-1, -2, (0, 1)])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
@pytest.mark.parametrize("shape", [(5, 7), (8, 4), (3, 3, 3, 5), (1, 1, 1, 4), (3, 5, 2)])
def test_n_of_m_against_numpy(shape, n, m, axis):
    # Few values, so that many are equal: the first of them stay.
    rng = np.random.default_rng(0)
    score = rng.integers(0, 4, shape).astype(np.float32)
    eligible, taken = rng.random(shape) < 0.8, rng.random(shape) < 0.2
    pattern = NM(n, m, axis)
    slow = slow_patterns.n_of_m(shape, n, m, axis if isinstance(axis, tuple) else (axis,))

    def expected(eligible, kept):
        tiers = slow.order(score.ravel(), eligible.ravel(), kept.ravel())
        return [slow.mask(np.isin(np.arange(score.size), tier), shape) for tier in tiers]

    tiers = pattern.tiers(score, tf.constant(eligible))
    np.testing.assert_array_equal(tiers, expected(eligible, np.zeros(shape, bool)))
    tiers = pattern.tiers(score, tf.constant(eligible & ~taken), tf.constant(taken))
    np.testing.assert_array_equal(tiers, expected(eligible & ~taken, taken))
    capacity = pattern.capacity(shape)
    for sparsity in (0.0, 0.1, 1.0 - n / m, 0.9):
        kept = int(units_to_keep([capacity], sparsity))
        assert min(kept, score.size) == min(slow.to_keep(sparsity), score.size)


def test_what_fits_no_group_comes_last_across_weights():
    # One full group of four, and one weight without groups, ranked together.
    score, free = tf.constant([[9.0], [8.0], [7.0], [6.0]]), tf.constant([[5.0], [1.0]])
    everything = tf.ones((4, 1), tf.bool), tf.ones((2, 1), tf.bool)
    fits, rest = NM(2, 4).tiers(score, everything[0])
    [all_fit] = Element().tiers(free, everything[1])
    parts = Parts.of([(4, 1), (2, 1)])
    tiers = [parts.join([fits, all_fit]), parts.join([rest, ~all_fit])]
    rankings = ranked(parts.join([score, free]), tiers)
    counts = [[int(np.sum(mask)) for mask in best(rankings, k).split()] for k in range(7)]
    assert counts == [[0, 0], [1, 0], [2, 0], [2, 1], [2, 2], [3, 2], [4, 2]]


@pytest.mark.parametrize(("n", "m"), [(4, 4), (0, 4), (2.0, 4), (5, 4)])
def test_an_n_of_m_that_is_none(n, m):
    with pytest.raises(ValueError, match=r"integers with 0 < n < m.* Received: n="):
        NM(n, m)


@pytest.mark.parametrize(
    "pattern",
    [
        Element(),
        Block((4, 2), "max"),
        Block((4, 2), axes=((-3,), (-2, -1))),
        Filter(-2),
        NM(2, 4, (-3, -2)),
        ByKind({"dense": Block((4, 1)), "convolution": NM(2, 4)}, Filter()),
        PATTERNS["litert"],
    ],
    ids=str,
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


def test_n_of_m_of_a_vector():
    with pytest.raises(ValueError, match=r"two axes or more\. Received: a weight of shape \(3,\)"):
        NM(2, 4).capacity((3,))


# Axes follow from the layer.


def built(layer, *shapes):
    layer.build(*shapes)
    return layer


def attention():
    return built(L.MultiHeadAttention(2, 4), (None, 5, 6), (None, 5, 6))


# A layer, a weight of it, its kind, and its axes of inputs and outputs, written down by hand.
LAYOUTS = {
    "dense": (lambda: built(L.Dense(4), (None, 6)), "kernel", "dense", (-2,), (-1,)),
    "conv1d": (lambda: built(L.Conv1D(4, 3), (None, 9, 6)), "kernel", "convolution", (-2,), (-1,)),
    "conv3d": (
        lambda: built(L.Conv3D(4, 3), (None, 9, 9, 9, 6)), "kernel", "convolution", (-2,), (-1,),
    ),
    "transposed": (
        lambda: built(L.Conv2DTranspose(4, 3), (None, 9, 9, 6)),
        "kernel", "transposed_convolution", (-1,), (-2,),
    ),
    "depthwise": (
        lambda: built(L.DepthwiseConv2D(3, depth_multiplier=2), (None, 9, 9, 6)),
        "kernel", "depthwise", (), (-2, -1),
    ),
    "pointwise": (
        lambda: built(L.SeparableConv2D(4, 3), (None, 9, 9, 6)),
        "pointwise_kernel", "convolution", (-2,), (-1,),
    ),
    "lstm": (
        lambda: built(L.LSTMCell(4), (None, 6)), "recurrent_kernel", "recurrent", (-2,), (-1,),
    ),
    "embedding": (lambda: built(L.Embedding(9, 4), None), "embeddings", "embedding", (-2,), (-1,)),
    "query": (lambda: attention().query_dense, "kernel", "einsum", (-3,), (-2, -1)),
    "attention output": (lambda: attention().output_dense, "kernel", "einsum", (-3, -2), (-1,)),
    "ellipsis": (
        lambda: built(L.EinsumDense("...x,xy->...y", 4), (None, 5, 6)),
        "kernel", "einsum", (-2,), (-1,),
    ),
    "a dense layer for each position": (
        lambda: built(L.EinsumDense("abc,bcd->abd", (5, 4)), (None, 5, 6)),
        "kernel", "einsum", (-2,), (-1,),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name):
    make, weight, *expected = LAYOUTS[name]
    layer = make()
    [variable] = [w for w in layer.weights if w.name == weight]
    assert layout_of(layer, variable) == Layout(*expected)


def test_a_layout_is_of_the_outputs_that_it_leads_to():
    """Each unit of `Filter` is what one channel of the output depends on, in gradients."""
    for layer, x in (
        (L.Conv2DTranspose(4, 3), np.ones((1, 5, 5, 3))),
        (L.EinsumDense("abc,cde->abde", (None, 2, 4)), np.ones((1, 5, 6))),
        (L.EinsumDense("abcd,cde->abe", (None, 4)), np.ones((1, 5, 2, 3))),
        (L.Dense(4), np.ones((1, 6))),
    ):
        layer(x)
        pattern = Filter().bound(layout_of(layer, layer.kernel))
        with tf.GradientTape() as tape:
            channel = layer(x)[..., 1]
            value = tf.reduce_sum(channel[..., 0, :] if channel.shape.rank == 4 else channel)
            if isinstance(layer, L.EinsumDense) and layer.kernel.shape[0] == 6:
                value = tf.reduce_sum(layer(x)[..., 0, 1])
        touched = tape.gradient(value, layer.kernel.value).numpy() != 0.0
        units = pattern.units(tf.constant(touched)).numpy()
        assert np.sum(units) == 1
        np.testing.assert_array_equal(pattern.expand(units, touched.shape), touched)


@pytest.mark.parametrize("shape", [(3, 3, 6, 5), (4, 6, 5)])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [((-1,), (-2,)), ((-3,), (-2, -1)), ((-3, -2), (-1,)), ((), (-2, -1))]
)
def test_bound_patterns_against_numpy(shape, inputs, outputs):
    layout = Layout("einsum", inputs, outputs)
    rng = np.random.default_rng(0)
    score = rng.random(shape, np.float32)
    for pattern, slow in (
        (Block((4, 2)), slow_patterns.blocks(shape, (4, 2), inputs, outputs)),
        (Filter(), slow_patterns.filters(shape, outputs)),
    ):
        pattern = pattern.bound(layout)
        pooled = pattern.pool(tf.constant(score)).numpy()
        np.testing.assert_allclose(pooled.ravel(), slow.sums(score), rtol=1e-5)
        assert pattern.capacity(shape).slots == len(slow.members)
        chosen = rng.random(pooled.shape) < 0.5
        mask = pattern.expand(tf.constant(chosen), shape).numpy()
        np.testing.assert_array_equal(mask, slow.mask(chosen.ravel(), shape))
        np.testing.assert_array_equal(pattern.units(tf.constant(mask)), chosen)
    groups = NM(2, 4).bound(layout)
    slow = slow_patterns.n_of_m(shape, 2, 4, inputs)
    first, _ = groups.tiers(tf.constant(score), tf.ones(shape, tf.bool))
    expected = slow.order(score.ravel(), np.ones(score.size, bool), np.zeros(score.size, bool))
    np.testing.assert_array_equal(np.flatnonzero(first), np.sort(expected[0]))


def test_an_axis_that_is_given_wins():
    layout = Layout("transposed_convolution", (-1,), (-2,))
    assert Filter().bound(layout).axis == (-2,) and Filter(-1).bound(layout).axis == -1
    assert NM(2, 4).bound(layout).axis == (-1,) and NM(2, 4, -2).bound(layout).axis == -2
    assert Block((2, 1)).bound(layout).axes == ((-1,), (-2,))
    assert Block((2, 1), axes=(-2, -1)).bound(layout).axes == (-2, -1)


def test_a_wrapped_model_has_the_axes_of_its_layers():
    model = keras.Sequential(
        [
            keras.Input((4, 4, 8)),
            L.Conv2DTranspose(4, 3, name="up"),
            L.Conv2D(6, 3, name="conv"),
            L.Flatten(),
            L.Dense(5, name="head"),
        ]
    )
    sparse = granet_tf.wrap(model, granet_tf.StaticSparse(0.5, pattern=NM(2, 4)))
    up, conv, head = (p.mask.numpy() for p in sparse.pruned)
    assert np.all(up.reshape(3, 3, 4, 2, 4).sum(axis=-1) == 2)  # (h, w, outputs, inputs)
    assert np.all(conv.sum(axis=2) == 2)  # 4 inputs
    assert np.all(head.reshape(-1, 4, 5).sum(axis=1) == 2)
    sparse = granet_tf.wrap(
        model,
        granet_tf.StaticSparse(0.5, distribution="uniform", pattern=Filter()),
        prunable=granet_tf.default_prunable,  # Else outputs are spared.
    )
    up, conv, head = (p.mask.numpy() for p in sparse.pruned)
    assert [np.any(up, axis=(0, 1, 3)).sum(), np.any(conv, axis=(0, 1, 2)).sum()] == [2, 3]
    assert [up.sum(), conv.sum(), head.sum()] == [up.size // 2, conv.size // 2, head.size // 5 * 2]


def test_n_of_m_of_a_first_convolution_with_three_channels():
    """Filled up with a zero, 2 of 3 stay; written out for one position and two outputs."""
    weight = np.array([[[[5.0, -1.0], [-3.0, 2.0], [4.0, 3.0]]]], np.float32)
    method = GMP(0.5, pattern=NM(2, 4), end_step=1, frequency=1)
    [mask], _ = method.update_masks(
        tf.constant(1), ["w"], [weight], [np.ones(weight.shape, bool)], [None]
    )
    assert mask.numpy().astype(int).tolist() == [[[[1, 0], [0, 1], [1, 1]]]]


# By name, and by kind of layer.


def test_names():
    assert granet_tf.GraNet(0.9, pattern="2:4").pattern == NM(2, 4)
    litert = RigL(0.9, pattern="litert").pattern
    assert {kind: litert.chosen(kind) for kind in KINDS} == {
        **dict.fromkeys(KINDS, Element()),
        "dense": Block((4, 1)),
        "einsum": Block((4, 1)),
    }
    assert PATTERNS["litert_int8"].chosen("dense") == Block((16, 1))
    assert granet_tf.GraNet(0.9, pattern="filter").pattern == Filter()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: GraNet(0.9, pattern="lightrt"),
            ValueError,
            r"`pattern` must be one of element, filter, 2:4, litert, litert_int8, .*'lightrt'$",
        ),
        (lambda: GraNet(0.9, pattern=(4, 1)), TypeError, r"litert.* Received: pattern=\(4, 1\)$"),
        (lambda: ByKind({"conv": NM(2, 4)}), ValueError, r"convolution, .*with the kind 'conv'$"),
        (lambda: ByKind({"dense": "2:4"}), TypeError, r"such as Block.* Received: '2:4'$"),
        (lambda: Filter("last"), ValueError, r"`axis` must be an axis.*Received: axis='last'$"),
        (lambda: NM(2, 4, (0, 0)), ValueError, r"`axis` .*Received: axis=\(0, 0\)$"),
        (lambda: Block((4, 1), axes=-1), ValueError, r"`axes` must be a pair.*axes=-1$"),
        (lambda: Filter(4).pool(tf.ones((2, 2))), ValueError, r"axes 4 for a weight with 2 axes$"),
        (
            lambda: GMP(0.4, pattern=NM(2, 4)).check_fits({"w": (8, 4)}),
            ValueError,
            r"`final_sparsity` must be at least 0\.5, .*Received: final_sparsity=0\.4, pattern=NM",
        ),
        (
            lambda: GraNet(0.5, pattern=NM(2, 4), pinned={0: 0.9}).check_fits(
                {"v": (8, 4), "w": (8, 4)}
            ),
            ValueError,
            r"`pinned` must leave room for the 32 weights .* room for 19: .*Received: pinned",
        ),
    ],
)  # fmt: skip
def test_bad_patterns_are_told(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_wrap_takes_a_pattern_by_name():
    model = keras.Sequential(
        [keras.Input((6, 6, 4)), L.Conv2D(8, 3), L.Flatten(), L.Dense(16, name="head")]
    )
    sparse = granet_tf.wrap(model, granet_tf.StaticSparse(0.75), pattern="litert")
    conv, head = (p.mask.numpy() for p in sparse.pruned)
    blocks = head.reshape(32, 4, 16)
    assert np.all(blocks.any(axis=1) == blocks.all(axis=1))
    assert not np.all(conv.any(axis=2) == conv.all(axis=2))
    summary = granet_tf.summarize(sparse)
    rows = {row.path.split("/")[-2]: row for row in summary.rows if row.pruned}
    assert (rows["head"].units, rows["head"].active_units) == (512, blocks.any(axis=1).sum())
    assert rows["head"].nonzeros == 4 * rows["head"].active_units
    assert "blocks 4×1" in str(summary) and f"{rows['head'].active_units} of 512" in str(summary)


def test_every_kind_that_is_pruned_has_a_layout():
    pruned = {kind for row in ROWS if row.prunable for kind in row.classes}
    assert pruned <= {kind for row in ROWS if row.layout for kind in row.classes}
