"""What tfmot's own tests ask of its wrapper, its models and its policy, and is not asked elsewhere.

The cases are tfmot's, the code is not. Where it does otherwise on purpose, the test says so.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf as tfmot
from tests.support import models
from tests.support.cases import HALF, MODES
from tests.support.models import wrapped

L = keras.layers
api = tfmot.sparsity.keras
Wrapped = api.PruneLowMagnitude


def fit(model, build=models.sequential, **options):
    x, y = models.data(build, 16)
    return model.fit(x, y, batch_size=8, shuffle=False, verbose=0, **options)


def trained(build=models.sequential, schedule=HALF, **options):
    model = api.prune_low_magnitude(build(), schedule, **options)
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, build)
    return model


# The schedule.


@keras.saving.register_keras_serializable("test_tfmot_behaviours")
class Linear(api.PruningSchedule):
    """As users of tfmot write them, after the ones that it has."""

    def __init__(self, final_sparsity, begin_step, end_step, frequency=100):
        self.final_sparsity = final_sparsity
        self.begin_step, self.end_step, self.frequency = begin_step, end_step, frequency
        self._validate_step(begin_step, end_step, frequency, False)
        self._validate_sparsity(final_sparsity, "final_sparsity")

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        due = self._should_prune_in_step(step, self.begin_step, self.end_step, self.frequency)
        return due, self.final_sparsity * (step - self.begin_step) / (
            self.end_step - self.begin_step
        )

    def get_config(self):
        return {"class_name": "Linear", "config": dict(vars(self))}


def test_a_schedule_that_was_made_for_tfmot(tmp_path):
    model = trained(schedule=Linear(0.5, 0, 2, frequency=1))
    assert [np.count_nonzero(p.mask) for x in wrapped(model) for p in x.pruned] == [64, 32]
    model.save(tmp_path / "model.keras")
    loaded = wrapped(keras.models.load_model(tmp_path / "model.keras"))[0].pruning_schedule
    assert vars(loaded) == vars(Linear(0.5, 0, 2, frequency=1))
    assert [bool(loaded(step)[0]) for step in (0, 2, 3)] == [True, True, False]
    for arguments in ((1.0, 0, 2), (0.5, -1, 2), (0.5, 0, -1), (0.5, 2, 1), (0.5, 0, 2, 0)):
        with pytest.raises(ValueError, match=r"Received: "):
            Linear(*arguments)


# The wrapper.


def test_without_a_schedule_it_is_half_every_hundred_steps():
    for layer in (Wrapped(L.Dense(2)), api.prune_low_magnitude(L.Dense(2))):
        assert layer.pruning_schedule == api.ConstantSparsity(0.5, 0, end_step=-1, frequency=100)
        assert layer.name == f"prune_low_magnitude_{layer.layer.name}"
    model = keras.Sequential([keras.Input((8,)), Wrapped(L.Dense(4))])
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, callbacks=[api.UpdatePruningStep()])
    assert np.count_nonzero(model.layers[0].layer.kernel) == 16  # From step 0 on.


def test_layers_of_keras_with_nothing_to_prune_may_be_wrapped():
    layers = [L.Conv2D(4, 3), L.MaxPooling2D(), L.BatchNormalization(), L.Flatten(), L.Dense(4)]
    model = keras.Sequential([keras.Input((6, 6, 2)), *map(Wrapped, layers)])
    assert [len(layer.pruned) for layer in wrapped(model)] == [1, 0, 0, 0, 1]
    assert [len(layer.prunable_weights) for layer in wrapped(model)] == [1, 0, 0, 0, 1]
    again = keras.Sequential.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, models.functional, callbacks=[api.UpdatePruningStep()])
    rows = {row.path.split("/")[-1]: row.reason for row in tfmot.summarize(model).rows}
    assert rows["gamma"] == "bias or scale"
    assert [type(x) for x in api.strip_pruning(model).layers] == [type(x) for x in layers]


class Unnamed(L.Layer):
    def build(self, input_shape):
        self.matrix = self.add_weight((input_shape[-1], 4), name="matrix")

    def call(self, inputs):
        return inputs @ self.matrix


class UnnamedFromTheStart(L.Layer):
    def __init__(self):
        super().__init__()
        self.matrix = self.add_weight((8, 4), name="matrix")

    def call(self, inputs):
        return inputs @ self.matrix


class Named(Unnamed):
    def get_prunable_weights(self):
        return [self.matrix]


def test_a_layer_of_ones_own_must_name_its_weights():
    layer = Unnamed()
    layer(np.ones((1, 8)))
    with pytest.raises(ValueError, match=r"get_prunable_weights\(\).*Received: layer=<Unnamed"):
        Wrapped(layer)
    for layer in (UnnamedFromTheStart(), keras.Sequential([UnnamedFromTheStart()])):
        with pytest.raises(ValueError, match=r"get_prunable_weights\(\).*Received: layer=<Unnamed"):
            api.prune_low_magnitude(layer)
    frozen = L.Dense(4, trainable=False)
    with pytest.raises(ValueError, match=r"Name frozen ones with `prunable`.*'frozen'"):
        Wrapped(frozen)(np.ones((1, 8)))
    layer = Named()
    layer(np.ones((1, 8)))
    assert Wrapped(layer).name == "prune_low_magnitude_named"


@MODES
def test_weights_are_those_of_the_layer(mask_only):
    layer = Wrapped(L.Dense(4), HALF, mask_only=mask_only)
    model = keras.Sequential([keras.Input((8,)), layer])
    inner = layer.layer
    assert [v is w for v, w in zip(layer.trainable_weights, inner.weights, strict=True)] == [
        True
    ] * 2
    assert [v.dtype for v in layer.non_trainable_weights] == ["bool"]
    assert [w.shape for w in layer.get_weights()] == [(8, 4), (4,)]
    layer.set_weights([np.full((8, 4), 2.0), np.full((4,), 3.0)])
    np.testing.assert_array_equal(model(np.ones((1, 8))), np.full((1, 4), 19.0))
    assert len(model.get_weights()) == 3  # With the mask, in the order of `model.weights`.
    model.set_weights(model.get_weights())


def test_freezing_goes_through_the_wrapper_both_ways():
    layer = Wrapped(L.Dense(4), HALF)
    model = keras.Sequential([keras.Input((8,)), layer])
    layer.trainable = False
    assert not layer.layer.trainable and not model.trainable_weights
    layer.layer.trainable = True
    assert layer.trainable and len(model.trainable_weights) == 2
    layer.layer.trainable = False
    assert not layer.trainable
    again = Wrapped.from_config({**layer.get_config(), "prunable": ["*kernel"]})
    assert not again.trainable
    rows = {row.path.split("/")[-1]: row.reason for row in tfmot.summarize(model).rows}
    assert rows == {"kernel": "pruned", "bias": "not trainable"}


def test_what_the_wrapper_lacks_is_read_from_the_layer():
    layer = Wrapped(L.Dense(4, activation="relu", name="inner"), HALF, block_size=(2, 1))
    keras.Sequential([keras.Input((8,)), layer])
    assert (layer.units, layer.kernel is layer.layer.kernel) == (4, True)
    assert layer.activation is keras.activations.relu
    assert (layer.block_size, layer.name) == ((2, 1), "prune_low_magnitude_inner")
    with pytest.raises(AttributeError, match="nowhere"):
        _ = layer.nowhere
    with pytest.raises(AttributeError, match="_private"):
        _ = layer._private


@MODES
def test_losses_of_the_layer_count_once(mask_only):
    def network(wrap):
        keras.utils.set_random_seed(2)
        dense = L.Dense(4, kernel_regularizer="l2", activity_regularizer="l2")
        return keras.Sequential([keras.Input((8,)), wrap(dense)])

    x = np.ones((4, 8), "float32")
    plain, pruned = network(lambda x: x), network(lambda x: Wrapped(x, HALF, mask_only=mask_only))
    totals = []
    for model in (plain, pruned):
        model(x, training=False)
        totals.append(float(sum(model.losses)))
    assert totals[0] > 0 and totals[1] == pytest.approx(totals[0], rel=1e-6)


# Models.


def test_a_sparsity_of_zero_changes_nothing():
    plain = models.sequential()
    start = plain.get_weights()
    plain.compile("sgd", "mse", run_eagerly=True)
    fit(plain)
    other = models.sequential()
    other.set_weights(start)
    pruned = api.prune_low_magnitude(other, api.ConstantSparsity(0.0, 0, frequency=1))
    pruned.compile("sgd", "mse", run_eagerly=True)
    fit(pruned)
    ours = api.strip_pruning(pruned).get_weights()
    for a, b in zip(plain.get_weights(), ours, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_pretrained_model_keeps_its_weights_and_loses_its_optimizer():
    model = models.sequential()
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    x, _ = models.data(models.sequential, 4)
    pruned = api.prune_low_magnitude(model, HALF)
    assert getattr(pruned, "optimizer", None) is None
    assert {id(v) for v in model.weights} == {id(v) for v in pruned.trainable_weights}
    np.testing.assert_array_equal(pruned.predict(x, verbose=0), model.predict(x, verbose=0))


def test_weights_are_loaded_before_pruning_and_not_after(tmp_path):
    model = models.sequential()
    model.save_weights(tmp_path / "dense.weights.h5")
    other = models.sequential()
    other.load_weights(tmp_path / "dense.weights.h5")
    x, _ = models.data(models.sequential, 4)
    pruned = api.prune_low_magnitude(other, HALF)
    np.testing.assert_array_equal(pruned(x), model(x))
    with pytest.raises(ValueError):
        pruned.load_weights(tmp_path / "dense.weights.h5")


@pytest.mark.parametrize("with_input", [False, True])
def test_whether_it_is_built_stays_and_is_saved(with_input):
    layers = [L.Dense(10, name="a"), L.Dense(10, name="b")]
    model = keras.Sequential([keras.Input((10,)), *layers] if with_input else layers)
    pruned = api.prune_low_magnitude(model, HALF)
    assert model.built == pruned.built == with_input
    loaded = keras.models.model_from_json(pruned.to_json())
    assert loaded.built == with_input
    stripped = api.strip_pruning(pruned)
    assert json.dumps(stripped.get_config()) == json.dumps(model.get_config())


def test_two_inputs_come_back_with_the_same_config():
    inputs = [keras.Input((10,), name="left"), keras.Input((10,), name="right")]
    outputs = L.Add(name="sum")([L.Dense(10, name=f"d{i}")(x) for i, x in enumerate(inputs)])
    model = keras.Model(inputs, outputs, name="net")
    pruned = api.prune_low_magnitude(model, HALF)
    assert len(wrapped(pruned)) == 2  # tfmot wraps the addition, too.
    stripped = api.strip_pruning(pruned)
    assert json.dumps(stripped.get_config()) == json.dumps(model.get_config())


def test_a_model_with_nothing_to_prune_says_so_and_trains():
    model = keras.Sequential([keras.Input((8,)), L.BatchNormalization(), L.ReLU()])
    with pytest.warns(UserWarning, match=r"Nothing in .* will be pruned\. granet_tf\.summarize"):
        pruned = api.prune_low_magnitude(model, HALF)
    pruned.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((8, 8))
    pruned.fit(x, x, verbose=0, callbacks=[api.UpdatePruningStep()])
    assert type(pruned.optimizer) is keras.optimizers.SGD
    assert api.strip_pruning(pruned) is pruned


def test_training_goes_on_where_it_stopped(tmp_path):
    schedule = api.PolynomialDecay(0.2, 0.6, 1, 4, power=3, frequency=1)
    straight = trained(schedule=schedule)
    expected = []
    for _ in range(2):
        fit(straight)
        expected.append([np.count_nonzero(p.mask) for x in wrapped(straight) for p in x.pruned])
    # Step 2 of 4 is saved; the final sparsity is there at the end of the next two.
    assert expected[0] == [51, 26] == expected[1]

    first = trained(schedule=schedule)
    first.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    checkpoint = tf.train.Checkpoint(model=first, optimizer=first.optimizer.inner_optimizer)
    path = checkpoint.save(str(tmp_path / "checkpoint"))
    restored = trained(schedule=schedule)
    tf.train.Checkpoint(model=restored, optimizer=restored.optimizer.inner_optimizer).restore(path)
    for model in (loaded, restored):
        model.run_eagerly = True
        fit(model)
        assert [np.count_nonzero(p.mask) for x in wrapped(model) for p in x.pruned] == expected[0]
        assert int(model.optimizer.iterations) == 4


def test_checkpoints_are_sparse_at_every_step(tmp_path):
    # tfmot tests that its own are not (tensorflow/model-optimization#206).
    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            path = tmp_path / f"{batch}.weights.h5"
            self.model.save_weights(path)
            other = api.prune_low_magnitude(models.sequential(), HALF)
            other.load_weights(path)
            kernels = [p.variable.numpy() for x in wrapped(other) for p in x.pruned]
            seen.append([int(np.count_nonzero(kernel)) for kernel in kernels])

    seen = []
    model = api.prune_low_magnitude(models.sequential(), HALF)
    model.compile(keras.optimizers.Adam(), "mse", run_eagerly=True)
    fit(model, callbacks=[Look()])
    assert seen == [[64, 32]] * 2


def test_masks_take_one_byte_a_weight():
    model = api.prune_low_magnitude(models.sequential(), HALF)
    added = [v for layer in wrapped(model) for v in layer.non_trainable_variables]
    assert sum(v.numpy().nbytes for v in added) == 128 + 64  # tfmot: four, and a step a layer.


def test_counts_are_exact_where_float32_is_not():
    size = 2**24 + 3
    layer = Wrapped(L.Dense(1, use_bias=False), api.ConstantSparsity(0.1, 0, frequency=1))
    model = keras.Sequential([keras.Input((size,)), layer])
    optimizer = tfmot.SparseOptimizer(keras.optimizers.SGD(0.0), model)
    optimizer.apply([tf.zeros((size, 1))], model.trainable_variables)
    # 0.9 · 16777219 is 15099497.1; in float32, as tfmot has it, 15099498.
    assert np.count_nonzero(layer.pruned[0].mask) == 15_099_497
    assert np.count_nonzero(layer.layer.kernel) <= 15_099_497


def test_a_shared_layer_counts_a_step_once():
    schedule = api.PolynomialDecay(0.0, 0.5, 1, 3, power=1, frequency=1)
    model = trained(models.shared, schedule)
    assert int(model.optimizer.iterations) == 2  # tfmot counts every call of the layer.
    twice = next(layer for layer in wrapped(model) if layer.layer.name == "twice")
    assert np.count_nonzero(twice.pruned[0].mask) == 48  # A quarter of 64 is gone, not a half.


@MODES
@pytest.mark.parametrize("begin_step", [0, 1])
def test_no_unmasked_step_competes_before_a_mask_is_chosen(begin_step, mask_only):
    # The first update changes nothing. In tfmot the second moves the pruned weight to 3, so that it
    # takes the other one's place: the mask is [1, 0] from then on, and the kernel [3, 0].
    model = keras.Sequential([keras.Input((2,)), L.Dense(1, use_bias=False)])
    model.set_weights([np.array([[0.1], [1.0]])])
    schedule = api.ConstantSparsity(0.5, begin_step, frequency=1)
    model = api.prune_low_magnitude(model, schedule, mask_only=mask_only)
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    x, y = np.array([[1.0, 0.0]] * 4), np.array([[0.1], [3.0], [3.0], [3.0]])
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0)
    [pruned] = wrapped(model)[0].pruned
    assert pruned.mask.numpy().ravel().tolist() == [False, True]
    assert api.strip_pruning(model).get_weights()[0].ravel().tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("inputs", "kept"), [(3, 2), (5, 2), (7, 4), (9, 4)])
def test_exact_halves_round_to_even(inputs, kept):
    model = keras.Sequential([keras.Input((inputs,)), L.Dense(1, use_bias=False)])
    model = api.prune_low_magnitude(model, HALF)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(np.ones((1, inputs)), np.ones((1, 1)), verbose=0)
    assert np.count_nonzero(api.strip_pruning(model).get_weights()[0]) == kept


def test_configs_of_schedules_are_flat_and_nested_ones_are_read():
    flat = {"initial_sparsity": 0.0, "final_sparsity": 0.9, "power": 3}
    flat |= {"begin_step": 0, "end_step": 100, "frequency": 10}
    ours = api.PolynomialDecay(0.0, 0.9, 0, 100, frequency=10)
    assert ours.get_config() == flat
    nested = {"class_name": "PolynomialDecay", "config": flat}
    assert api.PolynomialDecay.from_config(nested) == ours == api.PolynomialDecay.from_config(flat)


def test_there_is_no_quantization_and_quantize_of_keras_keeps_zeros():
    assert not hasattr(tfmot, "quantization")
    stripped = api.strip_pruning(trained())
    stripped.quantize("int8")
    kernels = [v for v in stripped.variables if str(v.dtype) == "int8"]
    assert [np.count_nonzero(v) for v in kernels] == [64, 32]


def test_an_h5_file_trains_on_when_it_is_compiled_again(tmp_path):
    model = trained(schedule=api.PolynomialDecay(0.0, 0.5, 0, 2, frequency=1))
    model.save(tmp_path / "model.h5")
    with api.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.h5", compile=False)
    masks = [[p.mask.numpy() for x in wrapped(m) for p in x.pruned] for m in (model, loaded)]
    assert [np.count_nonzero(mask) for mask in masks[0]] == [64, 32]
    np.testing.assert_array_equal(np.concatenate(masks[0], None), np.concatenate(masks[1], None))
    loaded.compile("sgd", "mse", run_eagerly=True)
    fit(loaded)
    assert int(loaded.optimizer.iterations) == 2  # Counted from 0.
    for x, mask in zip(wrapped(loaded), masks[0], strict=True):
        np.testing.assert_array_equal(x.layer.kernel.numpy() != 0.0, mask)


# The policy.


def stem(x):
    return L.Conv2D(4, 3, strides=2, padding="valid")(L.ZeroPadding2D(1)(x))


def latency(model):
    policy = api.PruneForLatencyOnXNNPack()
    pruned = api.prune_low_magnitude(model, HALF, pruning_policy=policy)
    # Once more, and nothing is wrapped twice.
    again = api.prune_low_magnitude(pruned, HALF, pruning_policy=policy)
    assert len(wrapped(again)) == len(wrapped(pruned))
    return len(wrapped(pruned))


def test_the_policy_looks_into_models_in_the_model():
    inner = keras.Sequential([L.Conv2D(8, 1), L.Conv2D(4, 1)])
    parts = [L.ZeroPadding2D(1), L.Conv2D(4, 3, strides=2), inner, L.GlobalAveragePooling2D()]
    assert latency(keras.Sequential([keras.Input((8, 8, 3)), *parts])) == 2

    # The stem, the end and a skip connection in models of their own, one of them called twice.
    outer = keras.Input((8, 8, 3))
    image = keras.Input((8, 8, 3))
    first = keras.Model(image, stem(image))
    features = keras.Input((4, 4, 4))
    block = keras.Model(features, L.Add()([features, L.Conv2D(4, 1)(features)]))
    last = keras.Sequential([keras.Input((4, 4, 4)), L.ReLU(), L.GlobalAveragePooling2D()])
    model = keras.Model(outer, last(block(block(first(outer)))))
    assert latency(model) == 1

    bad = keras.Model(features, L.Conv2D(4, 3, padding="same", name="wide")(features))
    model = keras.Model(outer, last(bad(first(outer))))
    with pytest.raises(ValueError, match=r"<Conv2D name=wide.* it does not run sparse"):
        latency(model)
    with pytest.raises(ValueError, match="needs a GlobalAveragePooling2D on each way"):
        latency(keras.Model(outer, block(first(outer))))


def test_the_policy_on_several_inputs_and_outputs():
    first, second = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    x = stem(first)
    x = L.Add()([L.DepthwiseConv2D(3, padding="same")(x), L.Conv2D(4, 1)(x)])
    y = L.DepthwiseConv2D(3, strides=2)(L.ZeroPadding2D(1)(stem(second)))
    gate = L.Conv2D(4, 1)(L.GlobalAveragePooling2D(keepdims=True)(y))
    y = L.UpSampling2D(interpolation="bilinear")(L.Conv2D(4, 1)(y))
    y = L.Conv2D(4, 1)(L.Multiply()([L.Activation("sigmoid")(gate), y]))
    pooled = L.GlobalAveragePooling2D(keepdims=True)(L.Add()([x, y]))
    outputs = [L.Conv2D(n, 1)(pooled) for n in (7, 3)]
    assert latency(keras.Model([first, second], outputs)) == 6


@pytest.mark.filterwarnings("ignore:Nothing in")
def test_the_policy_on_arithmetic_clones_and_nothing_to_prune():
    inputs = keras.Input((8, 8, 3))
    x = stem(inputs)
    shared = L.Conv2D(4, 1)
    y = shared(shared(x))
    end = L.GlobalAveragePooling2D()
    model = keras.Model(inputs, end((x + y - y) * y))
    assert latency(model) == 1
    assert latency(keras.models.clone_model(model)) == 1
    none = L.Activation("relu")(L.DepthwiseConv2D(3, padding="same")(x))
    assert latency(keras.Model(inputs, end(none))) == 0
