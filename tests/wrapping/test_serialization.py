"""Every way to save a sparse model, or to copy it: the same outputs and masks, and it goes on."""

import copy
import itertools
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.wrapping.stripping import masked_weights, pruned_weights
from tests.support import models
from tests.support.cases import HALF, MODES
from tests.support.processes import run_python

api = granet_tf.sparsity.keras
RISING = granet_tf.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=8, frequency=1)
GRANET = granet_tf.GraNet(0.75, end_step=8, frequency=1, total_steps=12)


def network(*more):
    layers = keras.layers
    first = [layers.Conv2D(8, 3, name="conv"), layers.BatchNormalization(), layers.ReLU(), *more]
    last = [layers.GlobalAveragePooling2D(), layers.Dense(4, name="head")]
    return keras.Sequential([keras.Input((6, 6, 2)), *first, *last])


def wrapped(mask_only):
    """Also goes on with dropout where it was."""
    dropout = keras.layers.Dropout(0.5, seed=3)
    return granet_tf.wrap(network(dropout), GRANET, mask_only=mask_only)


def pruned(mask_only):
    return api.prune_low_magnitude(network(), RISING, mask_only=mask_only)


KINDS = pytest.mark.parametrize("make", [wrapped, pruned])
X, Y = models.data(models.functional, 16)


def trained(make, mask_only):
    """After four steps, half of those that prune, with Adam's slots."""
    model = make(mask_only)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    return fit(model, epochs=2)


def fit(model, x=X, y=Y, epochs=1, **options):
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)
    return model


def state(model):
    """All that a model has, by position."""
    variables = [*model.variables, *model.optimizer.variables] if model.compiled else model.weights
    return [np.asarray(v) for v in variables]


def assert_same(one, other):
    for a, b in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_same_masks_and_outputs(one, other):
    assert len(pruned_weights(one)) == 2
    for a, b in zip(pruned_weights(one), pruned_weights(other), strict=True):
        assert 0 < np.count_nonzero(a.mask) < np.size(a.mask)
        np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(one(X), other(X))


def checkpoint(model):
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


@MODES
@KINDS
def test_copies_go_on_as_the_original_does(tmp_path, make, mask_only):
    model = trained(make, mask_only)
    before = [np.count_nonzero(p.mask) for p in pruned_weights(model)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with api.prune_scope():
        scoped = keras.models.load_model(tmp_path / "model.keras")
    restored = make(mask_only)
    restored.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    restored.optimizer.build(restored.trainable_variables)
    path = checkpoint(model).save(tmp_path / "checkpoint")
    checkpoint(restored).restore(path).assert_existing_objects_matched()
    copies = [loaded, scoped, restored, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]
    for other in copies:
        assert_same_masks_and_outputs(model, other)
        assert int(other.optimizer.iterations) == 4

    fit(model)
    after = [np.count_nonzero(p.mask) for p in pruned_weights(model)]
    assert sum(after) < sum(before)
    for other in copies:
        other.run_eagerly = True  # Not in the file.
        assert_same(model, fit(other))


@MODES
@KINDS
def test_weights_clones_and_exports(tmp_path, make, mask_only):
    model = trained(make, mask_only)
    model.save_weights(tmp_path / "model.weights.h5")
    other = make(mask_only)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_masks_and_outputs(model, other)

    clone = keras.models.clone_model(model)
    # Keras makes a plain sequential model of any: the callback updates the masks of that.
    assert isinstance(clone, (granet_tf.SparseModel, keras.Sequential))
    clone.set_weights(model.get_weights())
    assert_same_masks_and_outputs(model, clone)
    assert {id(v) for v in clone.variables}.isdisjoint({id(v) for v in model.variables})

    kept = state(model)
    model.export(tmp_path / "exported", verbose=False)
    for a, b in zip(kept, state(model), strict=True):
        np.testing.assert_array_equal(a, b)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(X), model(X), rtol=1e-5, atol=1e-6)

    outputs = model(X)
    tf.saved_model.save(granet_tf.strip(model), tmp_path / "saved")
    saved = tf.saved_model.load(tmp_path / "saved")
    [values] = saved.signatures["serving_default"](tf.constant(X)).values()
    np.testing.assert_allclose(values, outputs, rtol=1e-5, atol=1e-6)


def test_hdf5(tmp_path):
    model = api.prune_low_magnitude(models.sequential(), RISING)
    model.compile("adam", "mse", run_eagerly=True)
    x, y = models.data(models.sequential, 16)
    fit(model, x, y)
    model.save(tmp_path / "model.h5")
    with api.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.h5", compile=False)
    np.testing.assert_array_equal(loaded(x), model(x))
    for a, b in zip(pruned_weights(loaded), pruned_weights(model), strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
    assert loaded.layers[0].pruning_schedule == RISING
    with pytest.raises(ValueError, match=r"must end in '\.keras'.*Received: filepath=.*model\.h5"):
        granet_tf.wrap(models.sequential()).save(tmp_path / "model.h5")


@keras.saving.register_keras_serializable("test_serialization")
class Own(keras.Model):
    """A user's model with a wrapped layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = api.prune_low_magnitude(keras.layers.Dense(16, activation="relu"), RISING)
        self.head = keras.layers.Dense(4)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def with_callback(model):
    model.compile("adam", "mse", run_eagerly=True)


def with_optimizer(model):
    model.compile(granet_tf.SparseOptimizer("adam", model), "mse", run_eagerly=True)


@pytest.mark.parametrize("compiled", [with_callback, with_optimizer])
def test_a_users_model_with_a_wrapped_layer_goes_on(tmp_path, compiled):
    x, y = models.data(models.sequential, 16)
    model = Own()
    model(x)
    compiled(model)
    fit(model, x, y, epochs=2, callbacks=[api.UpdatePruningStep()])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    # 128 · (1 − 0.75 · (1 − 0.5 ** 3)) after half of the steps.
    assert np.count_nonzero(loaded.hidden.pruned[0].mask) == 44
    loaded.run_eagerly = True
    for each in (model, loaded):
        fit(each, x, y, epochs=2, callbacks=[api.UpdatePruningStep()])
    assert np.count_nonzero(loaded.hidden.pruned[0].mask) == 32
    assert_same(model, loaded)


# States that a model may be in when it is saved


def wrapped_half(model, mask_only):
    method = granet_tf.GMP(schedule=HALF)
    return granet_tf.wrap(model, method, mask_only=mask_only)


def pruned_half(model, mask_only):
    return api.prune_low_magnitude(model, HALF, mask_only=mask_only)


def layer_of(model, name):
    return next(layer for layer in model._flatten_layers() if layer.name == name)


def freeze(model):
    model.trainable = False


def freeze_a_layer(model):
    layer_of(model, "hidden").trainable = False


def add_adapters(model):
    """Trained ones: the file has them merged."""
    layer = layer_of(model, "hidden")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))


def quantize(model):
    model.quantize("int8")


def quantize_a_layer(model):
    layer_of(model, "hidden").quantize("int8")


def quantize_to_float8(model):
    model.quantize("float8")


def quantize_and_add_adapters(model):
    quantize(model)
    add_adapters(model)


CHANGES = [
    *(freeze, freeze_a_layer, add_adapters, quantize, quantize_a_layer, quantize_to_float8),
    quantize_and_add_adapters,
]


def as_plain(model):
    """A plain model of the same layers and masked weights, of a kind that Keras always loads."""
    plain = models.sequential()
    with masked_weights(model) as stripped:
        plain.set_weights(stripped.get_weights())
    return plain


def ways_to_make_one():
    """How it is pruned, of which class and which semantics; each pair of these is quick."""
    quick = {
        *((wrapped_half, models.sequential, False), (wrapped_half, models.subclassed, True)),
        *((pruned_half, models.sequential, True), (pruned_half, models.subclassed, False)),
    }
    every = itertools.product(
        [wrapped_half, pruned_half], [models.sequential, models.subclassed], [False, True]
    )
    for way in every:
        marks = () if way in quick else pytest.mark.slow
        names = way[0].__name__, way[1].__name__, "mask_only" if way[2] else "zero"
        yield pytest.param(*way, id="-".join(names), marks=marks)


@pytest.mark.parametrize(("prune", "build", "mask_only"), ways_to_make_one())
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:Skipping variable loading", "ignore:.*`quantize` method")
def test_a_model_in_any_state_loads_and_computes_as_the_plain_one(
    tmp_path, change, prune, build, mask_only
):
    x, y = models.data(models.sequential, 16)
    model = prune(build(), mask_only)
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, x, y)
    plain = as_plain(model)
    for each in (plain, model):
        keras.utils.set_random_seed(1)  # Adapters begin with random numbers.
        change(each)
    np.testing.assert_array_equal(model(x), plain(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Keras merges adapters into integers when it saves them, and rounds these again.
    saved = model(x) if change is not quantize_and_add_adapters else copy.deepcopy(plain)(x)
    for other in (loaded, copy.deepcopy(model)):
        np.testing.assert_allclose(other(x), saved, rtol=1e-5, atol=1e-5)
        masks = [p.mask.numpy() for p in pruned_weights(model)]
        for ours, mask in zip(pruned_weights(other), masks, strict=True):
            np.testing.assert_array_equal(ours.mask, mask)
    in_plain = len(plain.trainable_variables)
    # As in plain Keras, the class of a model does not know of adapters, or of what was frozen.
    lost = build is models.subclassed and change not in (freeze, quantize, quantize_a_layer)
    if not lost:
        assert len(loaded.trainable_variables) == len(model.trainable_variables) == in_plain
    outputs = model(x)
    np.testing.assert_allclose(granet_tf.strip(loaded)(x), saved, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(granet_tf.strip(model)(x), outputs, rtol=1e-5, atol=1e-5)


def test_frozen_models_load_in_another_process(tmp_path):
    frozen = [prune(models.sequential(), True) for prune in (wrapped_half, pruned_half)]
    for i, model in enumerate(frozen):
        set_masks(model)
        freeze(model)
        model.save(tmp_path / f"{i}.keras")
    x, _ = models.data(models.sequential, 2)
    np.save(tmp_path / "x.npy", x)
    out = run_python(
        "import os, keras, granet_tf, numpy as np\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "for i in range(2):\n"
        "    model = keras.models.load_model(f'{i}.keras')\n"
        "    np.save(f'{i}.npy', model(np.load('x.npy')))\n"
        "    print(len(model.trainable_variables))\n"
    )
    assert out.split() == ["0", "0"]
    for i, model in enumerate(frozen):
        np.testing.assert_allclose(np.load(tmp_path / f"{i}.npy"), model(x), rtol=1e-5)


def set_masks(model):
    for i, pruned in enumerate(pruned_weights(model)):
        pruned.mask.assign(np.random.default_rng(i).random(pruned.mask.shape) < 0.5)


def frozen_copies(model):
    config = keras.saving.serialize_keras_object(model)
    return [
        keras.saving.deserialize_keras_object(config),
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
        type(model).from_config(model.get_config()),
    ]


@pytest.mark.parametrize("prune", [wrapped_half, pruned_half])
def test_every_way_to_copy_a_frozen_model_gives_it_the_same_masks(prune):
    model = prune(models.sequential(), False)
    freeze(model)
    for other in frozen_copies(model):
        assert [tuple(p.variable.shape) for p in pruned_weights(other)] == [(8, 16), (16, 4)]
        assert other.trainable_variables == []
        # Keras does not save that of a sequential model itself, and sets nothing that it has.
        for value in (False, True):
            for layer in other._flatten_layers():
                layer.trainable = value
        assert len(other.trainable_variables) == 4


def bidirectional():
    return keras.layers.Bidirectional(keras.layers.LSTM(3), name="both")


def test_recurrent_layers_that_are_frozen_in_part():
    inputs = keras.Input((5, 4))
    wrapper = pruned_half(bidirectional(), True)
    model = keras.Model(inputs, keras.layers.Dense(2)(wrapper(inputs)))
    set_masks(model)
    wrapper.layer.forward_layer.trainable = False
    [other] = frozen_copies(model)[:1]
    other.set_weights(model.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
    np.testing.assert_array_equal(other(x), model(x))
    copied = other.layers[1]
    assert len(copied.pruned) == 4
    assert (copied.layer.forward_layer.trainable, copied.layer.trainable) == (False, True)
    assert len(other.trainable_variables) == 3 + 2


def test_a_wrapper_that_is_not_built_decides_when_it_is():
    wrapper = pruned_half(keras.layers.Dense(3), True)
    twice = copy.deepcopy(copy.deepcopy(wrapper))
    frozen = pruned_half(keras.layers.Dense(3), True)
    frozen.build((None, 4))
    frozen.trainable = False
    config = frozen.get_config()
    again = type(frozen).from_config(type(frozen).from_config(config).get_config())
    assert twice.pruned == ()
    for each in (twice, again):
        each.build((None, 4))
        assert [tuple(p.mask.shape) for p in each.pruned] == [(4, 3)]
    assert (twice.trainable, again.trainable) == (True, False)


def test_what_is_named_by_path_is_not_looked_for_again(tmp_path):
    inputs = keras.Input((4,))
    layer = api.prune_low_magnitude(
        keras.layers.Dense(3, name="q"), HALF, prunable=["prune_low_magnitude_q/q/kernel"]
    )
    layer(np.ones((1, 4)))  # In a model it would have the path of that before its own.
    model = keras.Sequential([inputs, layer], name="one")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(pruned_weights(loaded)) == 1


@MODES
def test_a_head_that_was_replaced_loads_without_masks(tmp_path, mask_only):
    inner = models.sequential()
    model = wrapped_half(inner, mask_only)
    set_masks(model)
    inner.pop()
    inner.add(keras.layers.Dense(3, name="new"))
    x, _ = models.data(models.sequential, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    for each in (model, loaded):
        assert [tuple(p.mask.shape) for p in each.pruned] == [(8, 16)]
        reasons = {r.path.split("/", 1)[1]: r.reason for r in granet_tf.summarize(each).rows}
        assert reasons["hidden/kernel"] == "pruned" and reasons["new/kernel"] == "added later"


@pytest.mark.parametrize(
    "record",
    [
        RISING,
        granet_tf.ConstantSparsity(0.5, 2, frequency=3),
        granet_tf.GraNetSchedule(0.1, 0.9, 2, 10, total_steps=20, frequency=2),
        granet_tf.Shifted(RISING, 3),
        GRANET,
        granet_tf.GMP(0.8, pattern=granet_tf.Block((2, 1), "max"), pinned={0: 0.0}),
        granet_tf.GMP(schedule=RISING, pattern=granet_tf.NM(2, 4)),
        granet_tf.RigL(0.5, capped={"*/kernel": 0.8}),
        granet_tf.SET(0.5, pattern=granet_tf.Filter()),
        granet_tf.StaticSparse(0.5, distribution="uniform", seed=3),
    ],
    ids=lambda record: type(record).__name__,
)
def test_schedules_and_methods_are_copied(record):
    config = keras.saving.serialize_keras_object(record)
    copies = [
        pickle.loads(pickle.dumps(record)),
        copy.deepcopy(record),
        keras.saving.deserialize_keras_object(config),
    ]
    for other in copies:
        assert other == record and type(other) is type(record)
        assert repr(other) == repr(record)


def test_a_schedule_that_was_begun_earlier():
    late = granet_tf.Shifted(RISING, 6)
    assert [float(late(t)[1]) for t in (0, 2, 3)] == [float(RISING(t)[1]) for t in (6, 8, 9)]
    assert [bool(late(t)[0]) for t in (0, 2, 3)] == [True, True, False]
    assert (late.final_update, granet_tf.Shifted(RISING, 20).final_update) == (2, 0)
    assert not late.regenerates
    with pytest.raises(ValueError, match=r"`steps` must be >= 0\. Received: steps=-1"):
        granet_tf.Shifted(RISING, -1)
