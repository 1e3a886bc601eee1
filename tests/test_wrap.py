"""A wrapped model is the user's model: same object, same outputs, same losses, same states."""

import dataclasses
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from tests.support import models
from tests.support.cases import MODES, NEVER
from tests.support.keras_versions import DIVIDES_ACTIVITY_REGULARIZATION

L = keras.layers
BUILDS = pytest.mark.parametrize("build", models.ALL, ids=lambda build: build.__name__)


def ids(variables):
    return [id(v) for v in variables]


def mask_of(shape, seed=0):
    return np.random.default_rng(seed).random(shape) < 0.5


def set_masks(sparse):
    for i, pruned in enumerate(sparse.pruned):
        pruned.mask.assign(mask_of(pruned.variable.shape, seed=i))


class Record(keras.callbacks.Callback):
    """What `read(model)` gives after each step."""

    def __init__(self, read):
        super().__init__()
        self.read, self.values = read, {}

    def on_train_batch_end(self, batch, logs=None):
        self.values[int(self.model.optimizer.iterations)] = self.read(self.model)


# Wrapping and stripping.


@MODES
@BUILDS
def test_wrap_changes_nothing_and_strip_returns_the_very_model(build, mask_only):
    model = build()
    x, _ = models.data(build)
    before, weights = model(x), ids(model.weights)
    trainable = ids(model.trainable_variables)

    sparse = granet_tf.wrap(model, mask_only=mask_only)
    np.testing.assert_array_equal(sparse(x), before)
    assert sparse.model is model
    assert ids(sparse.trainable_variables) == trainable
    assert [id(p.variable) in trainable for p in sparse.pruned] == [True] * len(sparse.pruned)
    assert sparse.sparsity == 0.0

    assert granet_tf.strip(sparse) is model
    assert ids(model.weights) == weights
    np.testing.assert_array_equal(model(x), before)


@MODES
@BUILDS
def test_every_kind_of_model_trains_to_the_exact_count(build, mask_only):
    model = build()
    x, y = models.data(build)
    sparse = granet_tf.wrap(
        model, granet_tf.GMP(0.8, distribution="uniform", frequency=1), mask_only=mask_only
    )
    sparse.compile("adam", "mse", run_eagerly=True)
    sparse.fit(x, y, batch_size=16, verbose=0)
    outputs = sparse(x)
    assert granet_tf.strip(sparse) is model
    # A fifth of the sizes, 144 · 0.2 = 28.8 and so on.
    assert (
        models.counts(model)
        == {
            models.sequential: {"net/hidden/kernel": 26, "net/head/kernel": 13},
            models.functional: {"conv/kernel": 29, "head/kernel": 6},
            models.subclassed: {"subclassed/hidden/kernel": 26, "subclassed/head/kernel": 13},
            models.nested: {"conv/kernel": 29, "head/kernel": 6, "top/last/kernel": 3},
            models.shared: {"twice/kernel": 13, "head/kernel": 6},
            models.multi_input: {"from_left/kernel": 8, "from_right/kernel": 3, "head/kernel": 8},
        }[build]
    )
    np.testing.assert_array_equal(model(x), outputs)


@MODES
def test_masks_are_one_byte_a_weight_and_not_trained(mask_only):
    model = models.functional()
    sparse = granet_tf.wrap(model, mask_only=mask_only)
    assert [p.path for p in sparse.pruned] == ["conv/kernel", "head/kernel"]
    for pruned in sparse.pruned:
        assert (pruned.mask.dtype, pruned.mask.trainable) == ("bool", False)
        assert pruned.mask.numpy().dtype.itemsize == 1
        assert tuple(pruned.mask.shape) == tuple(pruned.variable.shape)
        assert id(pruned.mask) in ids(sparse.non_trainable_variables)
        assert id(pruned.mask) not in ids(model.weights)
    masks = [id(p.mask) for p in sparse.pruned]
    assert sorted(ids(sparse.variables)) == sorted(ids(model.variables) + masks)


def test_strip_of_a_mask_only_model_masks_the_kept_values():
    model = models.sequential()
    x, y = models.data(models.sequential)
    sparse = granet_tf.wrap(model, NEVER, mask_only=True)
    sparse.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    sparse.fit(x, y, batch_size=8, verbose=0)
    set_masks(sparse)
    kept = [p.variable.numpy() for p in sparse.pruned]
    state = [v.numpy() for v in sparse.optimizer.variables]
    outputs = sparse(x)

    assert granet_tf.strip(sparse) is model
    for i, (layer, value) in enumerate(zip(model.layers, kept, strict=True)):
        assert np.count_nonzero(value) == value.size
        np.testing.assert_array_equal(layer.kernel, value * mask_of(value.shape, seed=i))
    np.testing.assert_array_equal(model(x), outputs)
    for variable, value in zip(sparse.optimizer.variables, state, strict=True):
        np.testing.assert_array_equal(variable, value)


@MODES
def test_strip_takes_prune_low_magnitude_layers_out(mask_only):
    def pruned(layer):
        schedule = granet_tf.ConstantSparsity(0.5, begin_step=0)
        return granet_tf.PruneLowMagnitude(layer, schedule, mask_only=mask_only)

    first, second, third = (L.Dense(8, name=f"dense{i}") for i in range(3))
    inner = keras.Sequential([keras.Input((8,)), pruned(second)], name="inner")
    inputs = keras.Input((8,))
    functional = keras.Model(inputs, third(inner(pruned(first)(inputs))))
    sequential = keras.Sequential([keras.Input((8,)), pruned(first), inner, third])
    wrappers = [sequential.layers[0], inner.layers[0]]
    for wrapper in wrappers:
        wrapper.pruned[0].mask.assign(mask_of((8, 8)))
        wrapper.layer.kernel.assign(np.ones((8, 8)))

    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    stripped = granet_tf.strip(sequential)
    outputs = sequential(x)
    assert isinstance(stripped, keras.Sequential)
    assert [layer.name for layer in stripped.layers] == ["dense0", "inner", "dense2"]
    assert stripped.layers[0] is first and stripped.layers[2] is third
    assert stripped.layers[1].layers[0] is second
    for layer in (first, second):
        np.testing.assert_array_equal(layer.kernel, mask_of((8, 8)).astype("float32"))
    np.testing.assert_array_equal(stripped(x), outputs)

    # The functional model has masks of its own for the first layer, which are all True.
    stripped = granet_tf.strip(functional)
    assert [layer.name for layer in stripped.layers[1:]] == ["dense0", "inner", "dense2"]
    assert stripped.layers[1] is first
    np.testing.assert_array_equal(stripped(x), outputs)


def test_strip_takes_wrappers_out_of_the_attributes_of_a_model_of_ones_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            schedule = granet_tf.ConstantSparsity(0.5, begin_step=0)
            dense = L.Dense(4)
            self.dense = granet_tf.PruneLowMagnitude(dense, schedule, mask_only=True)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(np.ones((1, 4)))
    model.dense.pruned[0].mask.assign(np.zeros((4, 4), bool))
    inner = model.dense.layer
    assert granet_tf.strip(model) is model and model.dense is inner
    assert np.count_nonzero(inner.kernel) == 0
    assert {id(v) for v in model.weights} == {id(v) for v in inner.weights}


# What is known of a model's graph.

GRAPH = ("inputs", "outputs", "output_names", "input_shape", "output_shape", "input", "output")


@BUILDS
def test_a_wrapped_model_has_what_its_model_says_of_its_graph(build):
    model = build()
    sparse = granet_tf.wrap(model)
    known = [name for name in (*GRAPH, "input_names") if hasattr(model, name)]
    of_graph = set(GRAPH) - {models.sequential: {"output_names", "input", "output"}}.get(
        build, set()
    )
    assert set(known) == (set() if build is models.subclassed else of_graph)
    for name in known:
        ours, theirs = (keras.tree.flatten(getattr(each, name)) for each in (sparse, model))
        assert all(a is b or a == b for a, b in zip(ours, theirs, strict=True)), name
    for name in {*GRAPH, "input_names"} - set(known):
        with pytest.raises(AttributeError, match=r"has no attribute|never been called and thus"):
            getattr(sparse, name)
    assert sparse.count_params() == model.count_params()
    for layer in model.layers:
        assert sparse.get_layer(layer.name) is layer
    assert sparse.get_layer(model.name) is model and sparse.get_layer(index=0) is model
    shown = {name: [] for name in ("ours", "theirs")}
    sparse.summary(print_fn=lambda text, **options: shown["ours"].append(text))
    model.summary(print_fn=lambda text, **options: shown["theirs"].append(text))
    assert shown["ours"] == shown["theirs"] != []


def two_outputs(kind):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="in")
    hidden = L.Dense(6, name="hidden")(inputs)
    a, b = L.Dense(4, name="a")(hidden), L.Dense(4, name="b")(hidden)
    outputs = {"list": [a, b], "dict": {"a": a, "b": b}, "renamed": {"x": a, "y": b}, "one": a}
    return keras.Model(inputs, outputs[kind])


_X, _Y = models.data(models.sequential)
A_AND_B = {"a": _Y, "b": -_Y}


@pytest.mark.parametrize(
    ("kind", "options", "y"),
    [
        ("list", {"loss": {"a": "mse", "b": "mae"}}, A_AND_B),
        ("list", {"loss": {"a": "mse", "b": "mae"}}, [_Y, -_Y]),
        (
            "list",
            {
                "loss": {"a": "mse", "b": "mae"},
                "loss_weights": {"a": 1.0, "b": 0.25},
                "metrics": {"a": ["mae"], "b": "mse"},
                "weighted_metrics": {"b": "mae"},
            },
            A_AND_B,
        ),
        ("list", {"loss": ["mse", "mae"], "loss_weights": [1.0, 0.5], "metrics": [["mae"], []]},
         [_Y, -_Y]),
        ("list", {"loss": "mse"}, A_AND_B),
        ("dict", {"loss": {"a": "mse", "b": "mae"}, "metrics": {"b": "mse"}}, A_AND_B),
        ("renamed", {"loss": {"x": "mse", "y": "mae"}}, {"x": _Y, "y": -_Y}),
        ("one", {"loss": {"a": "mse"}}, _Y),
    ],
    ids=["dict", "list_targets", "all", "lists", "one_loss", "dict_model", "renamed", "one_output"],
)  # fmt: skip
def test_losses_by_the_name_of_an_output(kind, options, y):
    def trained(**wrapped):
        model = two_outputs(kind)
        model = granet_tf.wrap(model, NEVER, **wrapped) if wrapped else model
        model.compile(keras.optimizers.SGD(0.1), run_eagerly=True, **options)
        history = model.fit(_X, y, batch_size=16, shuffle=False, verbose=0).history
        return history, model.evaluate(_X, y, verbose=0, return_dict=True)

    expected = trained()
    for mask_only in (False, True):
        ours = trained(mask_only=mask_only)
        for a, b in zip(ours, expected, strict=True):
            assert a.keys() == b.keys()
            np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)


def test_a_method_that_needs_a_loss_takes_one_by_the_name_of_an_output():
    batches = [(_X, A_AND_B)]
    sparse = granet_tf.wrap(two_outputs("list"), granet_tf.SNIP(0.5))
    sparse.start(batches, loss={"a": "mse", "b": "mae"})
    other = granet_tf.wrap(two_outputs("list"), granet_tf.SNIP(0.5))
    other.start([(_X, [_Y, -_Y])], loss=["mse", "mae"])
    assert sparse.sparsity == 0.5
    for a, b in zip(sparse.pruned, other.pruned, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)


# What the forward pass does.


@BUILDS
def test_mask_only_computes_with_w_times_mask(build):
    model = build()
    x, _ = models.data(build)
    sparse = granet_tf.wrap(model, mask_only=True)
    set_masks(sparse)
    kept = [p.variable.numpy() for p in sparse.pruned]
    outputs = sparse(x)
    unmasked = model(x)
    for pruned, value in zip(sparse.pruned, kept, strict=True):
        np.testing.assert_array_equal(pruned.variable, value)
        pruned.variable.assign(value * pruned.mask.numpy())
    np.testing.assert_array_equal(model(x), outputs)
    assert np.abs(unmasked - outputs).max() > 0.01


@pytest.mark.parametrize(
    ("mask_only", "regenerates"), [(False, False), (True, False), (True, True)]
)
def test_moving_statistics_and_random_states_advance_as_in_the_plain_model(mask_only, regenerates):
    def trained(wrap):
        keras.utils.set_random_seed(4)
        model = models.functional()
        fitted = wrap(model)
        fitted.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", run_eagerly=True)
        fitted.fit(*models.data(models.functional), batch_size=8, shuffle=False, verbose=0)
        fitted.evaluate(*models.data(models.functional), verbose=0)
        return model

    method = granet_tf.GraNet(**dataclasses.asdict(NEVER) | {"pattern": NEVER.pattern})
    method = method if regenerates else NEVER
    plain = trained(lambda model: model)
    inner = trained(lambda model: granet_tf.wrap(model, method, mask_only=mask_only))
    for ours, theirs in zip(inner.variables, plain.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=ours.path)
    # They have advanced, and once a step: four steps, and none in evaluate().
    state = inner.get_layer("dropout").seed_generator.state
    assert state.numpy().tolist() == [3, 4]
    assert np.abs(inner.get_layer("norm").moving_mean).min() > 0.0


@MODES
@pytest.mark.parametrize("build", [models.functional, models.subclassed, models.nested])
def test_the_training_flag_reaches_the_inner_model(build, mask_only):
    keras.utils.set_random_seed(1)
    model = build()
    x, _ = models.data(build)
    sparse = granet_tf.wrap(model, mask_only=mask_only)
    [seed] = [v for v in model.variables if v.name == "seed_generator_state"]

    def rewound(call):
        seed.assign([3, 0])
        return call().numpy()

    ours = rewound(lambda: sparse(x, training=True))
    assert seed.numpy().tolist() == [3, 1]
    np.testing.assert_allclose(ours, rewound(lambda: model(x, training=True)), atol=1e-6)
    off = rewound(lambda: sparse(x, training=False))
    assert seed.numpy().tolist() == [3, 0]
    assert np.abs(ours - off).max() > 0.01


class AddsLoss(L.Layer):
    def call(self, inputs):
        self.add_loss(0.5 * keras.ops.mean(inputs**2))
        return inputs


def activity_regularization(size, samples):
    return 0.01 * size / (samples if DIVIDES_ACTIVITY_REGULARIZATION else 1)


@pytest.mark.parametrize(
    "kind", ["plain", "zero", "mask_only", "mask_only_regenerating", "layer", "layer_mask_only"]
)
def test_every_loss_counts_once(kind):
    hidden = L.Dense(
        6, name="hidden", kernel_regularizer=keras.regularizers.L2(0.1), activity_regularizer="l1"
    )
    head = L.Dense(4, name="head", bias_regularizer=keras.regularizers.L1(0.2))
    first = hidden
    if kind.startswith("layer"):
        schedule = granet_tf.ConstantSparsity(0.5, begin_step=1000)
        first = granet_tf.PruneLowMagnitude(
            hidden, schedule, mask_only=kind == "layer_mask_only", name="pruned"
        )
    inputs = keras.Input((8,))
    model = keras.Model(inputs, head(AddsLoss()(first(inputs))))
    head.bias.assign([1.0, -2.0, 0.5, 0.0])
    mask = mask_of((8, 6))
    kept = hidden.kernel.numpy()

    tested = model
    if kind == "plain":
        mask = np.ones((8, 6))
    elif kind.startswith("layer"):
        first.pruned[0].mask.assign(mask)
    else:
        method = NEVER if kind != "mask_only_regenerating" else granet_tf.GraNet(total_steps=9999)
        tested = granet_tf.wrap(
            model, method, mask_only=kind.startswith("mask_only"), prunable=["hidden/kernel"]
        )
        tested.pruned[0].mask.assign(mask)
    if kind in ("zero", "layer"):
        hidden.kernel.assign(kept * mask)

    x, y = models.data(models.sequential)
    used = kept * mask
    h = x @ used
    outputs = h @ head.kernel.numpy() + head.bias.numpy()
    # Plain gradual magnitude pruning regularises the kept values, as the original does.
    regularised = kept if kind in ("mask_only", "layer_mask_only") else used
    extra = [
        0.1 * np.sum(regularised**2),
        0.2 * 3.5,
        activity_regularization(np.abs(h).sum(), len(x)),
        0.5 * np.mean(h**2),
    ]
    expected = np.mean((outputs - y) ** 2) + sum(extra)

    tested.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    tested(x)
    np.testing.assert_allclose(sorted(map(float, tested.losses)), sorted(extra), rtol=1e-5)
    loss = tested.evaluate(x, y, batch_size=32, verbose=0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    history = tested.fit(x, y, batch_size=32, verbose=0).history
    np.testing.assert_allclose(history["loss"], [expected], rtol=1e-5)


# Files.


@MODES
@pytest.mark.parametrize(
    "build", [models.sequential, models.functional, models.subclassed], ids=lambda f: f.__name__
)
def test_a_keras_file_holds_masks_method_slots_and_step(tmp_path, build, mask_only):
    method = granet_tf.GraNet(
        0.8, end_step=6, frequency=2, total_steps=8, pinned={-1: 0.5}, seed=3, scope="layer"
    )
    x, y = models.data(build)
    sparse = granet_tf.wrap(build(), method, mask_only=mask_only)
    sparse.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"], run_eagerly=True)
    sparse.fit(x, y, batch_size=8, verbose=0)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert type(loaded) is granet_tf.SparseModel
    assert type(loaded.model) is type(sparse.model)
    assert loaded.mask_only is mask_only
    assert loaded.method == method
    assert int(loaded.optimizer.iterations) == 4
    assert type(loaded.optimizer) is granet_tf.SparseOptimizer
    assert [p.path for p in loaded.pruned] == [p.path for p in sparse.pruned]
    for ours, theirs in zip(loaded.pruned, sparse.pruned, strict=True):
        assert ours.mask.dtype == "bool"
        assert 0 < np.count_nonzero(ours.mask) < np.size(ours.mask)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
    slots = [v.numpy() for v in loaded.optimizer.variables]
    assert sum(np.any(slot) for slot in slots if slot.ndim) == 2 * len(sparse.trainable_variables)
    for slot, other in zip(slots, sparse.optimizer.variables, strict=True):
        np.testing.assert_array_equal(slot, other)
    np.testing.assert_array_equal(loaded(x), sparse(x))
    assert str(granet_tf.summarize(loaded)) == str(granet_tf.summarize(sparse))
    metrics = loaded.evaluate(x, y, verbose=0, return_dict=True)
    assert metrics.keys() == {"loss", "mae"}


def test_a_loaded_file_goes_on_with_the_paths_that_pins_and_random_growth_go_by(tmp_path):
    # Keras gives the layers of a loaded sequential model other paths.
    x, y = models.data(models.sequential)
    method = granet_tf.SET(0.5, frequency=2, total_steps=16, pinned={"net/head/kernel": 0.25})
    sparse = granet_tf.wrap(models.sequential(), method)
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before = [p.mask.numpy() for p in sparse.pruned]
    for model in (sparse, loaded):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for ours, theirs, old in zip(loaded.pruned, sparse.pruned, before, strict=True):
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        assert np.any(old != theirs.mask.numpy())
    # A quarter of 64 is pinned; half of 192 are kept in all.
    assert [np.count_nonzero(p.mask) for p in loaded.pruned] == [48, 48]


def test_a_file_of_an_uncompiled_model_loads(tmp_path):
    sparse = granet_tf.wrap(models.sequential(), granet_tf.StaticSparse(0.75))
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.nonzeros == 48 and not loaded.compiled
    x, _ = models.data(models.sequential)
    np.testing.assert_array_equal(loaded(x), sparse(x))


# fit().


def test_the_default_is_granet_to_90_percent_by_half_of_training():
    model = models.sequential()
    x, y = models.data(models.sequential)
    sparse = granet_tf.wrap(model)
    sparse.compile("sgd", "mse", run_eagerly=True)
    record = Record(lambda m: (m.nonzeros, m.pruned[0].mask.numpy()))
    sparse.fit(x, y, batch_size=8, epochs=5, verbose=0, callbacks=[record])
    assert sparse.method == granet_tf.GraNet(0.9, total_steps=20)
    nonzeros = {step: count for step, (count, _) in record.values.items()}
    # 192 · (1 − s_t), with s_t = 0.9 · (1 − (1 − t / 10)³).
    assert {t: nonzeros[t] for t in (1, 5, 8)} == {1: 145, 5: 41, 8: 21}
    assert {nonzeros[t] for t in range(10, 21)} == {19}
    # Regeneration goes on to the end.
    masks = {step: mask for step, (_, mask) in record.values.items()}
    assert any(np.any(masks[t] != masks[t + 1]) for t in range(15, 20))


def test_the_default_at_another_size_is_exact_to_one_weight():
    model = keras.Sequential([keras.Input((31,)), L.Dense(37), L.Dense(3)])
    sparse = granet_tf.wrap(model)
    sparse.compile("adam", "mse", run_eagerly=True)
    sparse.fit(np.ones((40, 31)), np.ones((40, 3)), batch_size=10, verbose=0)
    # 31 · 37 + 37 · 3 = 1258.
    assert sparse.nonzeros == 126


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def of_unknown_length(x, y):
    return dataset(x, y).filter(lambda x, y: True)


X, Y = models.data(models.sequential)
FITS = {
    "arrays": ({"batch_size": 12, "epochs": 2}, 6),
    "sample_weight": ({"sample_weight": np.arange(32.0), "batch_size": 16, "epochs": 2}, 4),
    "validation_split": ({"validation_split": 0.25, "batch_size": 8, "epochs": 2}, 6),
    "validation_data": ({"validation_data": (X[:8], Y[:8]), "batch_size": 16}, 2),
    "dataset": ({"x": dataset(X, Y), "y": None}, 4),
    "steps_per_epoch": (
        {"x": of_unknown_length(X, Y).repeat(), "y": None, "steps_per_epoch": 3, "epochs": 2},
        6,
    ),
}


@pytest.mark.parametrize("name", FITS)
def test_fit_takes_what_keras_takes_and_knows_its_length(name):
    given, steps = FITS[name]

    def history(wrap):
        keras.utils.set_random_seed(2)
        model = wrap(models.sequential())
        options = {"weighted_metrics": ["mae"], "run_eagerly": True}
        model.compile(keras.optimizers.SGD(0.1), "mse", **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*shuffle=True.*")
            return model, model.fit(**{"x": X, "y": Y, **given}, verbose=0).history

    _, expected = history(lambda model: model)
    # Nothing is pruned before the last step, so that the losses are those of the plain model.
    method = granet_tf.GMP(0.5, begin_step=1.0, end_step=1.0)
    sparse, ours = history(lambda model: granet_tf.wrap(model, method))
    assert sparse.method.total_steps == steps
    assert sparse.nonzeros == 96
    assert ours.keys() == expected.keys()
    for key in ours:
        # Validation after the last step sees the pruned model.
        seen = -1 if key.startswith("val_") else None
        np.testing.assert_allclose(ours[key][:seen], expected[key][:seen], rtol=1e-5)


def test_fit_and_predict_take_dicts():
    x, y = models.data(models.multi_input)
    sparse = granet_tf.wrap(models.multi_input())
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(x, y, batch_size=16, epochs=2, verbose=0)
    # 40 + 15 + 40 = 95, of which 9.5 would be a tenth.
    assert sparse.nonzeros in (9, 10)
    np.testing.assert_allclose(sparse.predict(x, verbose=0), sparse(x), atol=1e-6)
    by_keyword = sparse({"right": x["right"], "left": x["left"]})
    np.testing.assert_array_equal(by_keyword, sparse(x))


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_of_unknown_length_needs_steps_per_epoch_or_total_steps():
    sparse = granet_tf.wrap(models.sequential())
    sparse.compile("sgd", "mse")
    unknown = of_unknown_length(X, Y)
    with pytest.raises(
        ValueError,
        match=r"Pass `steps_per_epoch` to fit\(\), or `total_steps` to the method\. Received: ",
    ):
        sparse.fit(unknown, epochs=2, shuffle=False, verbose=0)

    sparse = granet_tf.wrap(models.sequential(), granet_tf.GraNet(total_steps=8))
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(unknown, epochs=2, shuffle=False, verbose=0)
    assert sparse.nonzeros == 19


def test_train_on_batch_needs_a_length():
    sparse = granet_tf.wrap(models.sequential())
    sparse.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"length of training is not known.*give the method `tot"):
        sparse.train_on_batch(X, Y)

    for sparse in (
        granet_tf.wrap(models.sequential(), granet_tf.GraNet(total_steps=4)),
        granet_tf.wrap(models.sequential()),
    ):
        sparse.resolve(4)
        sparse.compile("sgd", "mse", run_eagerly=True)
        for _ in range(4):
            sparse.train_on_batch(X, Y)
        assert sparse.nonzeros == 19


def test_the_first_of_two_fits_sets_the_length():
    sparse = granet_tf.wrap(models.sequential())
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    assert (sparse.nonzeros, sparse.method.total_steps) == (19, 4)
    sparse.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    assert (sparse.nonzeros, sparse.method.total_steps) == (19, 4)
    assert int(sparse.optimizer.iterations) == 4 + 8


@pytest.mark.parametrize("kind", [None, list, tuple, "one", "list_object"])
def test_callbacks_come_in_every_form_that_keras_takes(kind):
    model = granet_tf.wrap(models.sequential())
    model.compile("sgd", "mse", run_eagerly=True)
    if kind is None:
        callbacks = None
    elif kind == "one":
        callbacks = keras.callbacks.TerminateOnNaN()
    elif kind == "list_object":
        callbacks = keras.callbacks.CallbackList(add_history=True, model=model, epochs=2, steps=2)
    else:
        callbacks = kind()
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=callbacks)
    assert model.nonzeros == 19 and model.method.total_steps == 4


def test_early_stopping_restores_weights_with_their_masks():
    model = models.sequential()
    sparse = granet_tf.wrap(model)
    sparse.compile("sgd", "mse", run_eagerly=True)
    stop = keras.callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True)
    record = Record(lambda m: m.nonzeros)
    sparse.fit(X, Y, batch_size=8, epochs=10, verbose=0, callbacks=[stop, record])
    # The loss falls, so that its "best" is the first epoch: 4 of 40 steps.
    assert list(record.values) == [*range(1, 9)] and record.values[4] == 108
    assert sparse.nonzeros == 108
    for pruned in sparse.pruned:
        assert not np.any(pruned.variable.numpy()[~pruned.mask.numpy()])
    assert model.count_params() == 212 and sum(models.counts(model).values()) <= 108


class Steps(models.Subclassed):
    steps = 0

    def train_step(self, data):
        self.steps += 1
        return super().train_step(data)


def test_a_custom_train_step_is_called():
    model = Steps()
    model(X[:1])
    sparse = granet_tf.wrap(
        model, granet_tf.GMP(0.5, distribution="uniform", total_steps=4, frequency=1)
    )
    sparse.compile("sgd", "mse", run_eagerly=True)
    sparse.fit(X, Y, batch_size=8, verbose=0)
    assert model.steps == 4
    assert list(models.counts(model).values()) == [64, 32]


def test_a_users_model_can_be_fitted_itself_with_a_sparse_optimizer():
    model = Steps()
    model(X[:1])
    sparse = granet_tf.wrap(
        model, granet_tf.GMP(0.5, distribution="uniform", total_steps=4, frequency=1)
    )
    model.compile(granet_tf.SparseOptimizer("sgd", sparse), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert model.steps == 4
    assert list(models.counts(model).values()) == [64, 32]


def test_no_warning_without_a_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sparse = granet_tf.wrap(models.subclassed())
        sparse.compile("sgd", "mse")
        sparse.fit(X, Y, batch_size=16, epochs=2, verbose=0)


def test_an_emptied_layer_gets_a_warning_that_says_how_to_cap_it():
    model = models.sequential()
    model.layers[1].kernel.assign(model.layers[1].kernel * 1e-6)
    sparse = granet_tf.wrap(model, granet_tf.GMP(0.5, scope="global", frequency=1))
    sparse.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    with pytest.warns(UserWarning, match=r"All of net/head/kernel has been pruned") as caught:
        sparse.fit(X, Y, batch_size=8, epochs=3, verbose=0)
    [message] = [str(w.message) for w in caught if w.category is UserWarning]
    assert "capped={'net/head/kernel': 0.99}" in message


@MODES
def test_masks_of_ones_own(mask_only):
    layers = [keras.Input((4,)), L.Dense(6), L.Dense(3)]
    plain = keras.Sequential(layers)
    sparse = granet_tf.wrap(plain, NEVER, mask_only=mask_only, track_explored=True)
    first, second = sparse.pruned
    before, mask = first.variable.numpy(), mask_of((4, 6))
    sparse.set_masks({first.path: mask.tolist()})
    np.testing.assert_array_equal(first.mask, mask)
    np.testing.assert_array_equal(first.explored, mask)
    assert np.all(second.mask.numpy()) and sparse.nonzeros == mask.sum() + 18
    np.testing.assert_array_equal(first.variable, before if mask_only else before * mask)
    x = np.ones((2, 4), "float32")
    hidden = x @ (before * mask) + plain.layers[0].bias.numpy()
    outputs = hidden @ second.variable.numpy() + plain.layers[1].bias.numpy()
    np.testing.assert_allclose(sparse(x), outputs, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda path: {"nowhere": np.ones((6, 3), bool)}, r"Each key of.*Received: 'nowhere'$"),
        (lambda path: {path: np.ones((3, 6), bool)}, r"Received: bool of shape \(3, 6\)$"),
        (lambda path: {path: np.ones((6, 3))}, r"bool array.*Received: float64 of shape \(6, 3\)$"),
    ],
)
def test_masks_that_do_not_fit_change_nothing(wrong, message):
    sparse = granet_tf.wrap(keras.Sequential([keras.Input((4,)), L.Dense(6), L.Dense(3)]), NEVER)
    first, second = (pruned.path for pruned in sparse.pruned)
    with pytest.raises(ValueError, match=message):
        sparse.set_masks({first: np.zeros((4, 6), bool), **wrong(second)})
    assert sparse.nonzeros == 24 + 18
