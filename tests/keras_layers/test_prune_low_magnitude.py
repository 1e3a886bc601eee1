"""`PruneLowMagnitude`: counts, semantics, schedules of both libraries, files, kinds of layers."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from tests.support import models
from tests.support.cases import MODES
from tests.support.processes import run_python

L = keras.layers
Wrapped = granet_tf.PruneLowMagnitude
HALF = granet_tf.ConstantSparsity(0.5, begin_step=2, frequency=2)


@keras.saving.register_keras_serializable("tests")
class Listed(granet_tf.PruningSchedule):
    """A schedule of one's own: the sparsity of each step, from step 1 on."""

    def __init__(self, sparsities):
        self.sparsities = tuple(sparsities)

    def __call__(self, step):
        place = tf.maximum(tf.cast(step, tf.int32) - 1, 0)
        return step > 0, tf.gather(tf.constant(self.sparsities), place)

    def get_config(self):
        return {"sparsities": list(self.sparsities)}


@keras.saving.register_keras_serializable("tests")
class Block(L.Layer):
    """A layer that leaves building to its sublayers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = L.Dense(8, name="first"), L.Dense(4, name="second")

    def call(self, inputs):
        return self.second(self.first(inputs))


@keras.saving.register_keras_serializable("tests")
def kernels_only(layer, weight):
    return weight.name == "kernel"


def active(layer):
    return [int(np.count_nonzero(p.mask)) for p in layer.pruned]


def compiled(model, optimizer="sgd", **options):
    optimizer = granet_tf.SparseOptimizer(optimizer, model)
    model.compile(optimizer, "mse", **{"run_eagerly": True, **options})
    return model


def fit(model, x, y, steps=2):
    compiled(model)
    model.fit(x, y, batch_size=len(x) // steps, shuffle=False, verbose=0)


def hundred(schedule, mask_only, rate=0.0):
    """A hundred weights 1, 2 … 100 under `schedule`."""
    layer = Wrapped(L.Dense(1, use_bias=False), schedule, mask_only=mask_only)
    model = keras.Sequential([keras.Input((100,)), layer])
    layer.layer.kernel.assign(np.arange(1.0, 101.0)[:, None])
    return compiled(model, keras.optimizers.SGD(rate)), layer


def step(model):
    model.train_on_batch(np.ones((1, 100)), np.ones((1, 1)))


# Counts and semantics.


@MODES
def test_counts_follow_the_schedule_at_every_step(mask_only):
    model, layer = hundred(Listed([0.0, 0.1, 0.1, 0.3, 0.3, 0.5]), mask_only)
    counts = []
    for _ in range(6):
        step(model)
        counts += active(layer)
    assert counts == [100, 90, 90, 70, 70, 50]
    # The largest stay, 51 … 100.
    mask = layer.pruned[0].mask.numpy().ravel()
    assert np.flatnonzero(mask).tolist() == list(range(50, 100))
    weights = layer.layer.kernel.numpy().ravel()
    kept = np.arange(1.0, 101.0)
    np.testing.assert_array_equal(weights, kept if mask_only else kept * (kept > 50))


@MODES
def test_at_least_one_weight_stays(mask_only):
    model, layer = hundred(granet_tf.ConstantSparsity(0.9999, begin_step=0, frequency=1), mask_only)
    step(model)
    assert active(layer) == [1]
    assert np.argmax(layer.pruned[0].mask) == 99


@MODES
def test_nothing_changes_before_the_schedule_begins_or_between_updates(mask_only):
    schedule = granet_tf.PolynomialDecay(0.2, 0.8, begin_step=2, end_step=6, power=1, frequency=2)
    model, layer = hundred(schedule, mask_only)
    counts = []
    for _ in range(8):
        step(model)
        counts += active(layer)
    assert counts == [100, 80, 80, 50, 50, 20, 20, 20]


def test_dormant_weights_are_zero_and_stay_so_in_zero_mode():
    model, layer = hundred(granet_tf.ConstantSparsity(0.5, 1, frequency=1), False, rate=1e-4)
    for _ in range(3):
        step(model)
        weights = layer.layer.kernel.numpy().ravel()
        assert not np.any(weights[:50])
        assert np.all(weights[50:] != np.arange(51, 101))


def test_dormant_weights_keep_their_value_and_can_come_back_in_mask_only():
    model, layer = hundred(granet_tf.ConstantSparsity(0.5, 1, frequency=1), True)
    step(model)
    weights = layer.layer.kernel.numpy()
    weights[0] = 1000.0
    layer.layer.kernel.assign(weights)
    np.testing.assert_array_equal(model(np.ones((1, 100))), [[np.arange(51, 101).sum()]])
    step(model)
    # The 1 that became 1000 has taken the place of the 51.
    mask = layer.pruned[0].mask.numpy().ravel()
    assert np.flatnonzero(mask).tolist() == [0, *range(51, 100)]
    np.testing.assert_array_equal(model(np.ones((1, 100))), [[1000 + np.arange(52, 101).sum()]])


@MODES
def test_two_layers_with_settings_of_their_own(mask_only):
    first = Wrapped(L.Dense(8), HALF, mask_only=mask_only)
    second = Wrapped(L.Dense(4), granet_tf.ConstantSparsity(0.75, 1), mask_only=not mask_only)
    model = keras.Sequential([keras.Input((8,)), first, second])
    x, y = models.data(models.sequential, 16)
    fit(model, x, y)
    assert (active(first), active(second)) == ([32], [8])
    dense = [np.count_nonzero(layer.layer.kernel) for layer in (first, second)]
    assert dense == ([32, 32] if not mask_only else [64, 8])


@pytest.mark.optimized
@pytest.mark.usefixtures("with_xla")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_functional_model_in_a_graph(jit_compile):
    inputs = keras.Input((8,))
    layer = Wrapped(L.Dense(16, name="dense"), HALF)
    every_step = Wrapped(L.Dense(4, name="head"), lambda step: (True, 0.75))
    model = keras.Model(inputs, every_step(layer(inputs)))
    compiled(model, "adam", run_eagerly=False, jit_compile=jit_compile)
    x, y = models.data(models.sequential, 16)
    model.fit(x, y, batch_size=4, verbose=0)
    assert (active(layer), active(every_step)) == ([64], [16])
    assert np.count_nonzero(layer.layer.kernel) == 64


@MODES
def test_a_granet_schedule_regenerates_in_the_layer(mask_only):
    schedule = granet_tf.GraNetSchedule(
        0.5, 0.5, 0, 0, total_steps=100, frequency=1, drop_fraction=0.2, final_drop_fraction=0.2
    )
    # Both weights of the first input get no gradient, both of the second do.
    layer = Wrapped(L.Dense(10, use_bias=False), schedule, mask_only=mask_only)
    model = keras.Sequential([keras.Input((2,)), layer])
    kernel = np.linspace(1.0, 2.0, 20).reshape(2, 10)[::-1]
    layer.layer.kernel.assign(kernel)
    layer.pruned[0].mask.assign(np.array([[True] * 10, [False] * 10]))
    if not mask_only:
        layer.layer.kernel.assign(kernel * [[1], [0]])
    compiled(model, keras.optimizers.SGD(0.0))
    model.train_on_batch(np.array([[0.0, 1.0]]), np.arange(1, 11)[None] * 100.0)
    mask = layer.pruned[0].mask.numpy()
    # Of ten active weights the two smallest are dropped, and two with the largest gradient grown.
    assert mask.sum() == 10
    assert mask[0].tolist() == [False] * 2 + [True] * 8
    assert mask[1].tolist() == [False] * 8 + [True] * 2


# Schedules of tfmot.

TFMOT = """
import json
import granet_tf
import keras
import numpy as np
import tf_keras
import tensorflow_model_optimization as tfmot

sparsity = tfmot.sparsity.keras
x = np.random.default_rng(0).normal(size=(20, 10)).astype("float32")


def in_tfmot(schedule):
    model = tf_keras.Sequential([tf_keras.layers.Dense(10, input_shape=(10,))])
    model = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=4, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    return int(np.count_nonzero(sparsity.strip_pruning(model).get_weights()[0]))


def in_ours(schedule):
    layer = granet_tf.PruneLowMagnitude(keras.layers.Dense(10), schedule)
    model = keras.Sequential([keras.Input((10,)), layer])
    model.compile(granet_tf.SparseOptimizer("sgd", model), "mse", run_eagerly=True)
    model.fit(x, x, batch_size=4, verbose=0)
    return int(np.count_nonzero(layer.layer.kernel))


steps = dict(begin_step=1, end_step=3, frequency=1)
report = {
    "ours in tfmot": [
        in_tfmot(granet_tf.PolynomialDecay(0.0, 0.75, **steps)),
        in_tfmot(granet_tf.ConstantSparsity(0.5, 0, frequency=1)),
        in_tfmot(granet_tf.GraNetSchedule(0.0, 0.6, total_steps=5, **steps)),
    ],
    "theirs in ours": [
        in_ours(sparsity.PolynomialDecay(0.0, 0.75, **steps)),
        in_ours(sparsity.ConstantSparsity(0.5, 1, frequency=1)),
    ],
    "their configs": [
        repr(cls.from_config(theirs.get_config()))
        for cls, theirs in [
            (granet_tf.PolynomialDecay, sparsity.PolynomialDecay(0.0, 0.75, **steps)),
            (granet_tf.ConstantSparsity, sparsity.ConstantSparsity(0.5, 1, frequency=7)),
        ]
    ],
    "values": [
        [[bool(a), round(float(b), 5)] for a, b in (schedule(step) for step in range(99, 112))]
        for schedule in (
            granet_tf.PolynomialDecay(0.2, 0.8, 100, 110, frequency=5),
            sparsity.PolynomialDecay(0.2, 0.8, 100, 110, frequency=5),
        )
    ],
}
print(json.dumps(report))
"""


def test_schedules_of_tfmot_work_here_and_ours_there():
    # In a process of its own, as tfmot turns the legacy Keras on.
    report = json.loads(run_python(TFMOT).splitlines()[-1])
    assert report["ours in tfmot"] == [25, 50, 40]
    assert report["theirs in ours"] == [25, 50]
    assert report["their configs"] == [
        "PolynomialDecay(initial_sparsity=0.0, final_sparsity=0.75, begin_step=1, end_step=3, "
        "power=3, frequency=1)",
        "ConstantSparsity(target_sparsity=0.5, begin_step=1, end_step=-1, frequency=7)",
    ]
    ours, theirs = report["values"]
    assert [due for due, _ in ours] == [due for due, _ in theirs]
    assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], abs=1e-5)
    assert ours[1] == [True, 0.2] and ours[6] == [True, 0.725] and ours[11] == [True, 0.8]


# Inside granet_tf.wrap.


@MODES
def test_a_wrapped_layer_keeps_its_own_settings_inside_wrap(tmp_path, mask_only):
    own = Wrapped(L.Dense(8, name="own"), HALF, mask_only=not mask_only)
    model = keras.Sequential([keras.Input((8,)), own, L.Dense(4, name="rest")], name="net")
    sparse = granet_tf.wrap(model, granet_tf.GMP(0.75), mask_only=mask_only)
    assert [p.path for p in sparse.pruned] == ["net/rest/kernel"]
    sparse.compile("adam", "mse", run_eagerly=True)
    x, y = models.data(models.sequential, 16)
    sparse.fit(x, y, batch_size=4, verbose=0)
    assert active(own) == [32]
    # A quarter of 32 and half of 64.
    assert sparse.nonzeros == 8 + 32
    assert sparse.sparsity == 1 - 40 / 96

    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.nonzeros == 40 and loaded.model.layers[0].mask_only is (not mask_only)
    np.testing.assert_array_equal(loaded(x), sparse(x))
    loaded.fit(x, y, batch_size=4, verbose=0)
    assert loaded.nonzeros == 40

    outputs = sparse(x)
    stripped = granet_tf.strip(sparse)
    assert [layer.name for layer in stripped.layers] == ["own", "rest"]
    assert stripped.layers[1] is model.layers[1]
    np.testing.assert_array_equal(stripped(x), outputs)
    assert [np.count_nonzero(layer.kernel) for layer in stripped.layers] == [32, 8]


# Files.


@MODES
def test_a_keras_file_holds_masks_and_settings(tmp_path, mask_only):
    schedule = granet_tf.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=4, frequency=1)
    options = {"mask_only": mask_only, "name": "sparse"}
    inputs = keras.Input((8,))
    layer = Wrapped(L.Dense(8, name="dense"), schedule, prunable=["*kernel"], **options)
    model = keras.Model(inputs, L.Dense(4, name="head")(layer(inputs)))
    x, y = models.data(models.sequential, 16)
    compiled(model, "adam")
    model.fit(x, y, batch_size=8, verbose=0)
    # Two of four steps: 64 · (1 − 0.75 · 7 / 8).
    assert active(layer) == [22]
    model.save(tmp_path / "model.keras")

    loaded = keras.models.load_model(tmp_path / "model.keras")
    other = loaded.get_layer("sparse")
    assert type(other) is Wrapped
    assert (other.pruning_schedule, other.mask_only) == (schedule, mask_only)
    assert other.prunable == ["*kernel"]
    assert type(other.layer) is L.Dense and other.layer.units == 8
    assert other.pruned[0].mask.dtype == "bool" and active(other) == [22]
    np.testing.assert_array_equal(other.pruned[0].mask, layer.pruned[0].mask)
    np.testing.assert_array_equal(other.layer.kernel, layer.layer.kernel)
    np.testing.assert_array_equal(loaded(x), model(x))
    assert int(loaded.optimizer.iterations) == 2
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    # Bound anew to the loaded model, the optimizer goes on as if nothing had happened.
    inner = loaded.optimizer.inner_optimizer
    for each, optimizer in ((model, model.optimizer.inner_optimizer), (loaded, inner)):
        compiled(each, optimizer)
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert (active(layer), active(other)) == ([16], [16])
    np.testing.assert_array_equal(loaded(x), model(x))


def test_a_loaded_model_does_not_silently_train_dense(tmp_path):
    layer = Wrapped(L.Dense(8), granet_tf.ConstantSparsity(0.5, 0, frequency=1), name="sparse")
    model = keras.Sequential([keras.Input((8,)), layer])
    x, _ = models.data(models.sequential, 16)
    fit(model, x, x)
    assert np.count_nonzero(layer.layer.kernel) == 32
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"loaded from a file, where it has no model\. To go on"):
        loaded.fit(x, x, verbose=0)


@pytest.mark.parametrize("schedule", [Listed([0.0, 0.5]), granet_tf.ConstantSparsity(0.5, 1)])
def test_schedule_and_callable_rule_are_in_the_config(schedule):
    layer = Wrapped(L.Dense(8), schedule, prunable=kernels_only)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.pruning_schedule.get_config() == schedule.get_config()
    assert type(again.pruning_schedule) is type(schedule)
    assert again.prunable is kernels_only


# Every kind of layer.


def attention(inputs, wrap):
    layer = wrap(L.MultiHeadAttention(2, 4))
    return layer(query=inputs, value=inputs, use_causal_mask=True)


TOKENS = np.array([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 0, 0], [7, 8, 9, 1]])
SERIES = np.random.default_rng(0).normal(size=(4, 6, 8)).astype("float32")
IMAGES = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
# How to call it, on what data, and the sizes of its prunable weights.
KINDS = {
    "conv": (lambda x, wrap: wrap(L.Conv2D(4, 3))(x), IMAGES, [72]),
    "lstm": (lambda x, wrap: wrap(L.LSTM(5))(x), SERIES, [160, 100]),
    "bidirectional": (lambda x, wrap: wrap(L.Bidirectional(L.GRU(2)))(x), SERIES, [48, 12] * 2),
    "attention": (attention, SERIES, [64, 64, 64, 64]),
    "embedding": (lambda x, wrap: wrap(L.Embedding(10, 4))(x), TOKENS, [40]),
    "time_distributed": (lambda x, wrap: wrap(L.TimeDistributed(L.Dense(4)))(x), SERIES, [32]),
    "in_time_distributed": (lambda x, wrap: L.TimeDistributed(wrap(L.Dense(4)))(x), SERIES, [32]),
    "model": (
        lambda x, wrap: wrap(keras.Sequential([L.Dense(8), L.Dense(4)]))(x),
        SERIES,
        [64, 32],
    ),
    "block": (lambda x, wrap: wrap(Block())(x), SERIES, [64, 32]),
    "twice": (lambda x, wrap: (lambda d: d(d(x)))(wrap(L.Dense(8))), SERIES, [64]),
}


@MODES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:`build:UserWarning")
def test_every_kind_of_layer(tmp_path, kind, mask_only):
    call, x, sizes = KINDS[kind]
    made = []

    def wrap(layer):
        made.append(Wrapped(layer, HALF, mask_only=mask_only))
        return made[0]

    def plain(wrap):
        keras.utils.set_random_seed(6)
        inputs = keras.Input(x.shape[1:])
        outputs = call(inputs, wrap)
        return keras.Model(inputs, L.Dense(4)(L.Flatten()(outputs)))

    expected = plain(lambda layer: layer)(x)
    model = plain(wrap)
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    assert model.output_shape == (None, 4)
    [layer] = made
    assert [p.variable.shape.num_elements() for p in layer.pruned] == sizes
    fit(model, x, np.ones((4, 4)))
    assert active(layer) == [size // 2 for size in sizes]

    outputs = model(x)
    for pruned in layer.pruned:
        pruned.variable.assign(pruned.variable * keras.ops.cast(pruned.mask, "float32"))
    np.testing.assert_allclose(model(x), outputs, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@MODES
def test_keras_masks_pass_through(mask_only):
    def network(wrap):
        keras.utils.set_random_seed(6)
        inputs = keras.Input((4,), dtype="int32")
        x = wrap(L.Embedding(10, 4, mask_zero=True))(inputs)
        x = wrap(L.LSTM(5, return_sequences=True))(x)
        x = wrap(L.LSTM(5))(x)
        return keras.Model(inputs, L.Dense(2)(x))

    ours = network(lambda layer: Wrapped(layer, HALF, mask_only=mask_only))
    theirs = network(lambda layer: layer)
    np.testing.assert_allclose(ours(TOKENS), theirs(TOKENS), atol=1e-6)
    # The embedding makes one, the first LSTM hands it on, the second ends it.
    embedding, first, second = ours.layers[1:4]
    mask = embedding.compute_mask(TOKENS, None)
    assert mask.numpy().sum(axis=1).tolist() == [3, 1, 2, 4]
    assert first.compute_mask(SERIES, mask) is mask
    assert second.compute_mask(SERIES, mask) is None
    for model in (ours, theirs):
        model.compile("sgd", "mse")
    loss = [model.evaluate(TOKENS, np.ones((4, 2)), verbose=0) for model in (ours, theirs)]
    assert loss[0] == pytest.approx(loss[1], rel=1e-5)


@MODES
def test_states_inside_the_layer_advance(mask_only):
    inner = keras.Sequential([L.Dense(8), L.BatchNormalization(), L.Dropout(0.5, seed=3)])
    layer = Wrapped(inner, HALF, mask_only=mask_only)
    model = keras.Sequential([keras.Input((8,)), layer])
    x, _ = models.data(models.sequential, 16)
    fit(model, x, x)
    assert inner.layers[2].seed_generator.state.numpy().tolist() == [3, 2]
    assert np.abs(inner.layers[1].moving_mean).min() > 0
    model.evaluate(x, x, verbose=0)
    assert inner.layers[2].seed_generator.state.numpy().tolist() == [3, 2]


def test_layers_of_the_same_name_in_two_submodels_get_their_own_counts():
    def submodel(name, inputs, units):
        tensor = keras.Input((inputs,))
        layer = Wrapped(L.Dense(units, name="dense"), HALF, name="sparse")
        return keras.Model(tensor, layer(tensor), name=name)

    inputs = keras.Input((8,))
    model = keras.Model(inputs, submodel("second", 16, 4)(submodel("first", 8, 16)(inputs)))
    x, y = models.data(models.sequential, 16)
    fit(model, x, y)
    assert [active(sub.layers[1]) for sub in model.layers[1:]] == [[64], [32]]


def test_wrap_takes_a_model_whose_layers_all_have_settings_of_their_own():
    layer = Wrapped(L.Dense(4), HALF)
    model = keras.Sequential([keras.Input((8,)), layer])
    sparse = granet_tf.wrap(model)
    sparse.compile("sgd", "mse", run_eagerly=True)
    x, y = models.data(models.sequential, 16)
    sparse.fit(x, y, batch_size=8, verbose=0)
    assert sparse.nonzeros == 16


# Bad input.


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: Wrapped("dense", HALF),
            ValueError,
            r"`layer` must be a Keras 3 layer\. Received: ",
        ),
        (
            lambda: Wrapped(Wrapped(L.Dense(2), HALF), HALF),
            ValueError,
            r"`layer` has masks of its own already\. Received: layer=<PruneLowMagnitude",
        ),
        (
            lambda: Wrapped(L.Dense(2), 0.5),
            TypeError,
            r"`pruning_schedule` must be a pruning schedule, a callable step -> .*Received: 0\.5",
        ),
        (
            lambda: Wrapped(L.Dense(2, trainable=False), HALF)(np.ones((2, 2))),
            ValueError,
            r"`layer` must have a weight to prune: .*Received: layer=<Dense.*'frozen'",
        ),
        (
            lambda: Wrapped(L.Dense(2), HALF, prunable=["other/*"])(np.ones((2, 2))),
            ValueError,
            r"Each pattern of `prunable` must match a weight's path.*'other/\*' matches nothing",
        ),
    ],
)
def test_bad_input_is_told(make, error, text):
    with pytest.raises(error, match=text):
        make()
