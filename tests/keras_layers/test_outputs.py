"""Units that are outputs of the model: found, spared by patterns that remove whole units, told."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import GMP, Block, ByKind, Filter, GraNet, StaticSparse
from keras_layers.outputs import output_layers
from tests.support import models, short_runs
from tests.support.cases import HALF

L, ops = keras.layers, keras.ops
SPARED = "output of the model"
FLOPS = ("dense_flops", "sparse_flops")


def chain(*layers, shape=(8,)):
    return keras.Sequential([keras.Input(shape), *layers], name="net")


def dense(name, units=4, **options):
    return L.Dense(units, name=name, **options)


def graph(function, shape=(8,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, function(inputs), name="net")


def frozen(layer):
    layer.trainable = False
    return layer


class Own(keras.Model):
    """Its graph is unknown to Keras; it also ends with what has no kernel."""

    def __init__(self):
        super().__init__()
        self.first = dense("first")
        self.rest = [dense("middle"), dense("last")]
        self.norm, self.softmax = L.BatchNormalization(), L.Softmax()

    def call(self, inputs):
        x = self.first(inputs)
        for layer in self.rest:
            x = layer(x)
        return self.softmax(self.norm(x))


def own():
    model = Own()
    model(np.zeros((1, 8), "float32"))
    return model


class OwnFunctional(keras.Model):
    """A graph that its own call() does not follow."""

    def call(self, inputs):
        return super().call(inputs) * 2.0


def own_functional():
    inputs = keras.Input((8,))
    hidden, last = dense("hidden"), dense("last")
    return OwnFunctional(inputs=inputs, outputs=last(hidden(inputs)))


def two_towers(joined):
    user, item = dense("user"), dense("item")
    return graph(lambda x: joined(user(x), item(x)))


def twice(x):
    layer = dense("twice", 8)
    return layer(layer(x))


FOUND = {
    "sequential": (lambda: chain(dense("a"), dense("b")), ["b"]),
    "through what has no kernel": (
        lambda: chain(
            dense("a"), dense("b"), L.Dropout(0.1), L.Activation("softmax"), L.Reshape((2, 2)),
            L.Flatten(), L.Identity(), L.BatchNormalization(),
        ),
        ["b"],
    ),
    "pooled": (
        lambda: chain(
            L.Conv2D(4, 3, name="a"), L.Conv2D(10, 1, name="b"), L.GlobalAveragePooling2D(),
            L.Softmax(), shape=(8, 8, 3),
        ),
        ["b"],
    ),
    "depthwise": (
        lambda: chain(L.Conv2D(4, 3, name="a"), L.DepthwiseConv2D(3), shape=(8, 8, 3)), ["a"]
    ),
    "separable": (
        lambda: chain(L.Conv2D(4, 3, name="a"), L.SeparableConv2D(5, 3, name="b"), shape=(8, 8, 3)),
        ["b"],
    ),
    "several outputs": (
        lambda: graph(lambda x: {"class": dense("a")(x), "value": dense("c", 1)(dense("b")(x))}),
        ["a", "c"],
    ),
    "an output within": (lambda: graph(lambda x: [h := dense("a")(x), dense("b")(h)]), ["a", "b"]),
    "residual": (lambda: graph(lambda x: x + dense("b", 8)(dense("a")(x))), ["b"]),
    "sum of two": (lambda: two_towers(lambda u, v: u + v), ["user", "item"]),
    "product of two": (lambda: two_towers(lambda u, v: L.Dot(1)([u, v])), []),
    "summed product": (lambda: two_towers(lambda u, v: ops.sum(u * v, axis=-1)), []),
    "einsum": (lambda: two_towers(lambda u, v: ops.einsum("bi,bi->b", u, v)), []),
    "shared": (lambda: graph(twice), ["twice"]),
    "nested": (lambda: chain(dense("a", 8), chain(dense("b", 5), dense("c"))), ["c"]),
    "nested, without a kernel": (lambda: chain(dense("a", 8), chain(L.ReLU(), L.Softmax())), ["a"]),
    "nested in a graph": (lambda: graph(chain(dense("a"), dense("b"), L.ReLU())), ["b"]),
    "frozen": (lambda: chain(dense("a"), frozen(dense("b"))), ["b"]),
    "recurrent": (
        lambda: chain(
            L.LSTM(4, return_sequences=True, name="a"), L.LSTM(4, name="b"), shape=(5, 3)
        ),
        ["lstm_cell"],
    ),
    "bidirectional": (
        lambda: chain(L.Bidirectional(L.GRU(4), name="a"), shape=(5, 3)), ["gru_cell"] * 2
    ),
    "time distributed": (lambda: chain(L.TimeDistributed(dense("a")), shape=(5, 3)), ["a"]),
    "attention": (
        lambda: graph(lambda x: L.MultiHeadAttention(2, 4)(x, x), (5, 8)), ["attention_output"]
    ),
    "embedding": (lambda: chain(L.Embedding(10, 4, name="a"), shape=(3,)), ["a"]),
    "subclassed": (own, ["last"]),
    "subclassed in a graph": (lambda: graph(own()), ["last"]),
    "own call": (own_functional, ["last"]),
    "nothing": (lambda: graph(lambda x: x * 2.0), []),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_the_layers_that_the_outputs_come_from(name):
    make, expected = FOUND[name]
    assert [layer.name for layer in output_layers(make())] == expected


# wrap


def small():
    """A convolution of 16 filters, and classes."""
    layers = (L.Conv2D(16, 3, name="conv"), L.GlobalAveragePooling2D(), dense("classes"))
    return chain(*layers, shape=(6, 6, 2))


X = np.random.default_rng(0).normal(size=(32, 6, 6, 2)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")


def trained(model, **options):
    model.compile(keras.optimizers.SGD(0.05), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0, **options)
    return model


def verdicts(model):
    rows = granet_tf.summarize(model).rows
    return {row.path.split("/")[-2]: row.reason for row in rows if "kernel" in row.path}


@pytest.mark.parametrize("mask_only", [False, True])
@pytest.mark.parametrize(
    "method",
    [
        GMP(0.75, frequency=1),
        GraNet(0.75, frequency=1),
        StaticSparse(0.75),
        granet_tf.MagnitudeAtInit(0.75),
    ],
    ids=lambda m: type(m).__name__,
)
def test_no_class_loses_its_weights(method, mask_only):
    model = granet_tf.wrap(small(), method, pattern="filter", mask_only=mask_only)
    trained(model, epochs=2)
    assert np.all(model.model.get_layer("classes").kernel.numpy())
    [conv] = model.pruned
    assert conv.mask.numpy().reshape(-1, 16).any(axis=0).sum() == 4
    assert model.sparsity == 0.75
    assert verdicts(model) == {"conv": "pruned", "classes": SPARED}
    rows = {row.path: row for row in granet_tf.summarize(model).rows}
    row = rows["net/classes/kernel"]
    assert (row.pruned, row.sparsity, row.units) == (False, 0.0, 0)
    assert SPARED in str(granet_tf.summarize(model))


def test_several_outputs_of_a_nested_model_are_spared():
    body = chain(dense("hidden", 8), L.ReLU())
    model = graph(lambda x: [L.Softmax()(dense("a")(h := body(x))), dense("b", 1)(h)])
    sparse = granet_tf.wrap(model, StaticSparse(0.5), pattern="filter")
    assert verdicts(sparse) == {"hidden": "pruned", "a": SPARED, "b": SPARED}


def test_of_a_subclassed_model_the_last_layer_is_spared():
    sparse = granet_tf.wrap(models.subclassed(), StaticSparse(0.5), pattern="filter")
    assert verdicts(sparse) == {"hidden": "pruned", "head": SPARED}


@pytest.mark.parametrize(
    "options",
    [
        {"prunable": granet_tf.default_prunable},
        {"prunable": ["*/kernel"]},
        {"method": StaticSparse(0.5, distribution="uniform", pinned={-1: 0.5})},
        {"method": StaticSparse(0.5, distribution="uniform", pinned={"*classes*": 0.5})},
    ],
)
def test_whoever_names_them_has_them_pruned(options):
    method = options.pop("method", StaticSparse(0.5, distribution="uniform"))
    sparse = granet_tf.wrap(small(), method, pattern="filter", **options)
    assert verdicts(sparse) == {"conv": "pruned", "classes": "pruned"}
    assert [p.mask.numpy().mean() for p in sparse.pruned] == [0.5, 0.5]


def test_positions_count_what_is_spared():
    model = chain(*(dense(name, 8) for name in "abc"), dense("classes"))
    options = {"pattern": "filter", "distribution": "uniform"}
    method = StaticSparse(0.5, pinned={-2: 0.25, 0: 0.0}, capped={-1: 0.8}, **options)
    sparse = granet_tf.wrap(model, method)
    assert [p.mask.numpy().mean() for p in sparse.pruned] == [1.0, 0.5, 0.75]
    assert verdicts(sparse)["classes"] == SPARED
    # Any other pattern leaves the method as it is.
    plain = dataclasses.replace(method, pattern=granet_tf.Element())
    assert granet_tf.wrap(model, plain).method == plain


@pytest.mark.parametrize(
    ("pattern", "spared"),
    [
        ("filter", True),
        (Filter(-1), True),
        (Filter(-2), False),  # Units are inputs.
        (Block((16, 1)), True),  # All inputs of a class.
        (Block((8, 1)), False),
        (ByKind({"dense": Filter()}), True),
        (ByKind({"convolution": Filter()}), False),
        ("element", False),
        ("2:4", False),
        ("litert", False),
    ],
    ids=str,
)
def test_patterns_that_remove_whole_units(pattern, spared):
    sparse = granet_tf.wrap(small(), StaticSparse(0.5, pattern=pattern))
    assert verdicts(sparse)["classes"] == (SPARED if spared else "pruned")


@keras.saving.register_keras_serializable("tests")
@dataclasses.dataclass(frozen=True)
class Everything(Filter):
    """A pattern of one's own, whose filters are no outputs."""

    def removes_outputs(self, layout, shape=None):
        return False


def test_a_pattern_of_ones_own_says_so_itself():
    sparse = granet_tf.wrap(small(), StaticSparse(0.5, pattern=Everything()))
    assert verdicts(sparse)["classes"] == "pruned"


def test_nothing_but_outputs_is_an_error():
    with pytest.raises(ValueError, match=rf"Name some with `prunable`.*kernel: {SPARED}"):
        granet_tf.wrap(chain(dense("classes")), pattern="filter")


@pytest.mark.parametrize("prunable", [None, granet_tf.default_prunable])
def test_a_file_says_what_is_spared(tmp_path, prunable):
    method = GMP(0.5, frequency=1, pattern="filter", pinned={0: 0.5})
    sparse = trained(granet_tf.wrap(small(), method, prunable=prunable))
    sparse.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert verdicts(loaded) == verdicts(sparse)
    assert verdicts(loaded)["classes"] == ("pruned" if prunable else SPARED)
    for a, b in zip(trained(sparse).pruned, trained(loaded).pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)


# prune_low_magnitude

prune_low_magnitude = granet_tf.sparsity.keras.prune_low_magnitude


@pytest.mark.parametrize("make", [small, lambda: graph(small(), (6, 6, 2))])
def test_prune_low_magnitude_leaves_outputs(make):
    pruned = prune_low_magnitude(make(), HALF, pattern="filter")
    assert verdicts(pruned) == {"conv": "pruned", "classes": SPARED}
    trained(pruned)
    stripped = granet_tf.sparsity.keras.strip_pruning(pruned)
    kernels = {v.path.split("/")[-2]: v.numpy() for v in stripped.weights if "kernel" in v.path}
    assert np.all(kernels["classes"])
    assert kernels["conv"].reshape(-1, 16).any(axis=0).sum() == 8


def test_prune_low_magnitude_of_a_subclassed_model():
    pruned = prune_low_magnitude(models.subclassed(), HALF, pattern="filter")
    assert verdicts(pruned) == {"hidden": "pruned", "head": SPARED}


@pytest.mark.parametrize("pattern", ["filter", "litert"])
def test_prune_low_magnitude_of_what_is_named(pattern):
    named = prune_low_magnitude(small(), HALF, pattern=pattern, prunable=granet_tf.default_prunable)
    assert verdicts(named) == {"conv": "pruned", "classes": "pruned"}
    layer = prune_low_magnitude(dense("classes"), HALF, pattern=pattern)
    [other] = prune_low_magnitude([dense("classes")], HALF, pattern=pattern)
    for each in (layer, other):
        assert verdicts(chain(each)) == {"classes": "pruned"}


def test_outputs_of_a_model_that_is_not_built_are_not_known():
    layers = [dense("hidden"), dense("classes")]
    with pytest.raises(ValueError, match=r"`to_prune` must be built .*keras\.Input.*Received: to_"):
        prune_low_magnitude(keras.Sequential(layers), HALF, pattern="filter")
    pruned = prune_low_magnitude(keras.Sequential(layers), HALF, pattern="litert")
    assert [type(layer).__name__ for layer in pruned.layers] == ["PruneLowMagnitude"] * 2


def test_a_wrapped_layer_in_a_wrapped_model_keeps_its_pattern():
    head = granet_tf.PruneLowMagnitude(dense("classes"), HALF, pattern="filter")
    model = chain(dense("hidden"), head)
    sparse = granet_tf.wrap(model, StaticSparse(0.5, pattern="filter"))
    assert verdicts(sparse) == {"hidden": "pruned", "classes": "pruned"}


# The training binary


def test_the_binary_spares_outputs_and_goes_on_with_what_it_found(tmp_path):
    filters, again = tmp_path / "filters", tmp_path / "again"
    command = (*short_runs.SHORT, *short_runs.QUIET, "--width=0.25")
    method = ("--method=gmp", "--pattern=filter", "--final_sparsity=0.5", "--frequency=2")
    method += ("--distribution=uniform",)
    printed = short_runs.run(*command, *method, f"--workdir={filters}")
    assert "320 (output of the model)" in printed  # 32 × 10
    rows = {row["layer"]: row for row in short_runs.table(filters / "layers.csv")}
    assert list(rows)[:4] == ["conv1/kernel", "conv2/kernel", "conv3/kernel", "(not pruned)"]
    assert {rows[f"conv{i}/kernel"]["sparsity"] for i in (1, 2, 3)} == {"0.5"}
    weights = 9 * (8 + 8 * 16 + 16 * 32)
    for name in ("(backbone)", "(overall)"):
        assert (rows[name]["weights"], rows[name]["sparsity"]) == (str(weights), "0.5")
    head = [int(rows["(overall)"][n]) - int(rows["(backbone)"][n]) for n in FLOPS]
    assert head == [2 * 320, 2 * 320]

    # Another run has the same masks, of which that of the classes is dense.
    short_runs.run(
        *command, "--method=static", f"--masks_from={filters}", "--seed=4", f"--workdir={again}"
    )
    first, second = (
        keras.saving.load_model(each / "sparse.keras", compile=False) for each in (filters, again)
    )
    *convolutions, classes = second.pruned
    for a, b in zip(first.pruned, convolutions, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
    assert classes.mask.shape == (32, 10) and np.all(classes.mask)


# Filters of different layers, ranked together.


def slow_lamp(sums):
    """Lee et al. (2021), equation 2, of filters instead of weights."""
    return [s**2 / sum(t**2 for t in sums if t > s or t is s) for s in sums]


def test_the_normalization_is_that_of_lamp():
    sums = np.random.default_rng(0).random(50).astype("float32").tolist()
    found = Filter().comparable(tf.constant(sums), tf.ones(50, tf.bool)).numpy()
    np.testing.assert_allclose(found, slow_lamp(sums), rtol=1e-5)
    # Others do not count; no scale does, in float32 either; scores below 0 come last, in order.
    eligible = tf.constant([True, False, True])
    for scale in (1.0, 1e-30, 1e30):
        found = Filter().comparable(tf.constant([3.0, 9.0, 4.0]) * scale, eligible).numpy()
        np.testing.assert_allclose(found, [9 / 25, 0.0, 1.0], rtol=1e-6)
    signed = tf.constant([-3.0, 2.0, -4.0, 0.0])
    found = Filter().comparable(signed, tf.ones(4, tf.bool)).numpy()
    np.testing.assert_allclose(found, [-9 / 25, 1.0, -1.0, 0.0], rtol=1e-6)
    assert not np.any(Filter().comparable(tf.zeros(3), tf.ones(3, tf.bool)))


@pytest.mark.optimized
@pytest.mark.usefixtures("with_xla")
def test_xla_ranks_filters_as_eager_execution_does():
    weights = kernels(*SHAPES)
    compiled = tf.function(lambda *w: _update(Filter(), 0.9, w), jit_compile=True)
    for a, b in zip(compiled(*weights), _update(Filter(), 0.9, weights), strict=True):
        np.testing.assert_array_equal(a, b)


def kept_filters(pattern, sparsity, weights, **options):
    """How many filters of each kernel a single global update leaves, and which."""
    new = _update(pattern, sparsity, weights, **options)
    return [np.flatnonzero(mask.numpy().reshape(-1, mask.shape[-1]).any(axis=0)) for mask in new]


def _update(pattern, sparsity, weights, **options):
    method = GMP(sparsity, scope="global", pattern=pattern, end_step=1, frequency=1, **options)
    paths = [f"w{i}" for i in range(len(weights))]
    masks = [tf.ones(w.shape, tf.bool) for w in weights]
    return method.update_masks(tf.constant(1), paths, weights, masks, [None] * len(weights))[0]


def kernels(*shapes):
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=shape) / np.prod(shape[:-1]) ** 0.5 for shape in shapes]
    return [tf.constant(draw, tf.float32) for draw in draws]


SHAPES = [(3, 3, 3, 16), (3, 3, 16, 32), (3, 3, 32, 64), (64, 48)]


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.97])
def test_no_layer_vanishes_in_a_global_ranking(sparsity):
    weights = kernels(*SHAPES)
    kept = kept_filters(Filter(), sparsity, weights)
    sums = [np.abs(w.numpy()).reshape(-1, w.shape[-1]).sum(axis=0) for w in weights]
    assert sum(map(len, kept)) == round(160 * (1 - sparsity))
    # By hand: the best of all LAMP scores; in each layer the largest sums.
    scores = sorted((s for each in sums for s in slow_lamp(each.tolist())), reverse=True)
    least = scores[round(160 * (1 - sparsity)) - 1]
    for left, each in zip(kept, sums, strict=True):
        expected = sum(s >= least for s in slow_lamp(each.tolist()))
        assert len(left) == expected >= 1
        np.testing.assert_array_equal(left, np.sort(np.argsort(-each)[:expected]))
    # Bare sums, as before, leave the large filters.
    assert min(map(len, kept_filters(Filter(normalization=None), sparsity, weights))) == 0


def test_no_scale_of_a_layer_counts():
    weights = kernels(*SHAPES)
    scaled = [w * scale for w, scale in zip(weights, (1e3, 1.0, 1e-3, 7.0), strict=True)]
    for a, b in zip(kept_filters(Filter(), 0.75, weights), kept_filters(Filter(), 0.75, scaled),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_what_a_cap_keeps_does_not_make_the_rest_look_better():
    """Of 4 filters of equal sums, LAMP has 1, 1/2, 1/3 and 1/4; of 2 of them 1 and 1/2."""
    weights = [tf.ones((2, 4)), tf.ones((2, 4))]
    assert [len(k) for k in kept_filters(Filter(), 0.5, weights, capped={0: 0.75})] == [2, 2]
    assert [len(k) for k in kept_filters(Filter(), 0.5, weights, pinned={0: 0.75})] == [1, 3]


def test_files_of_before_rank_bare_sums():
    assert Filter.from_config({"axis": None}) == Filter(normalization=None)
    for pattern in (Filter(), Filter(-2, None)):
        assert Filter.from_config(pattern.get_config()) == pattern


def test_a_normalization_that_is_none():
    with pytest.raises(ValueError, match=r'`normalization` must be "lamp", or None.*Received: .*z'):
        Filter(normalization="zscore")
