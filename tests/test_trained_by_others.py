"""What trains only a part of a sparse model, or has a sparse model as a part."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import granet_tf
from tests.support import models
from tests.support.cases import MODES, uniform_gmp
from tests.support.keras_versions import HAS_MULTI_OPTIMIZER

api = granet_tf.sparsity.keras
GMP = uniform_gmp(0.75, end_step=4, frequency=1)
X, Y = models.data(models.sequential, 32)


def fit(model, epochs=1, **options):
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)
    return model


def zeros(weight):
    return int(np.sum(weight.numpy() == 0.0))


# A sparse model that another model trains.


def around(sparse):
    inputs = keras.Input((8,))
    return keras.Model(inputs, L.Dense(4, name="after")(sparse(inputs)), name="big")


def distiller(student, teacher=None):
    return keras.distillation.Distiller(
        teacher=teacher or models.sequential(),
        student=student,
        distillation_losses=keras.distillation.LogitsDistillation(),
    )


class Loop(keras.Model):
    """A subclassed model with a step of its own."""

    def __init__(self, part):
        super().__init__()
        self.part = part
        self.tail = L.Dense(4)

    def call(self, x, training=None):
        return self.tail(self.part(x, training=training))

    def train_step(self, data):
        return super().train_step(data)


@MODES
@pytest.mark.parametrize("make", [around, distiller, Loop])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}], ids=["graph", "eager"])
def test_its_masks_are_updated_by_the_optimizer_of_that_one(make, options, mask_only):
    sparse = granet_tf.wrap(models.sequential(), granet_tf.GraNet(0.75), mask_only=mask_only)
    model = make(sparse)
    model.compile("sgd", loss="mse", **options)
    fit(model, epochs=4)
    # 16 steps, pruned by half of them.
    assert (sparse.nonzeros, sparse.method.total_steps) == (48, 16)
    for pruned in sparse.pruned:
        zero = pruned.variable.numpy() == 0.0
        assert mask_only or np.all(zero | pruned.mask.numpy())
    assert int(model.optimizer.iterations) == 16


@MODES
def test_what_is_said_of_the_whole_is_true(mask_only):
    sparse = granet_tf.wrap(models.sequential(), GMP, mask_only=mask_only)
    big = around(sparse)
    big.compile("sgd", "mse", run_eagerly=True)
    fit(big, epochs=2)
    rows = {row.path: row.nonzeros for row in granet_tf.summarize(big).rows if row.pruned}
    assert list(rows.values()) == [32, 16]
    outputs = big.predict(X, verbose=0)
    network = sparse.model
    plain = api.strip_pruning(big)
    kinds = {type(layer) for layer in plain._flatten_layers()}
    assert granet_tf.SparseModel not in kinds
    assert [zeros(layer.kernel) for layer in network.layers] == [96, 48]
    np.testing.assert_allclose(plain.predict(X, verbose=0), outputs, rtol=1e-6, atol=1e-6)
    # A dense layer costs two operations a weight that is not zero.
    assert granet_tf.count_flops(big).sparse == granet_tf.count_flops(plain).sparse == 2 * 64


def test_a_loop_that_knows_no_masks_is_told_and_reports_are_true():
    sparse = granet_tf.wrap(models.sequential(), granet_tf.StaticSparse(0.75))
    optimizer = keras.optimizers.SGD(0.1)
    with tf.GradientTape() as tape:
        with pytest.warns(UserWarning, match=r"knows nothing of its masks.*SparseOptimizer\("):
            outputs = sparse(X, training=True)
        loss = tf.reduce_mean((outputs - Y) ** 2)
    gradients = tape.gradient(loss, sparse.trainable_variables)
    optimizer.apply(gradients, sparse.trainable_variables)
    left = sum(w.shape.num_elements() - zeros(w) for w in sparse.trainable_variables if w.ndim == 2)
    assert left > 100  # Of 192, and 48 in the masks.
    assert sparse.nonzeros == granet_tf.summarize(sparse).nonzeros == left
    assert sparse.sparsity == pytest.approx(1 - left / 192)
    assert granet_tf.count_flops(sparse).sparse == 2 * left


def test_with_the_callback_under_a_strategy(mirrored):
    with mirrored.scope():
        sparse = granet_tf.wrap(models.sequential(), granet_tf.GraNet(0.75))
        model = around(sparse)
        model.compile("sgd", "mse")
    fit(model, epochs=4, callbacks=[api.UpdatePruningStep()])
    assert sparse.nonzeros == 48
    for pruned in sparse.pruned:
        first, second = mirrored.experimental_local_results(pruned.mask.value)
        np.testing.assert_array_equal(first, second)


def test_data_of_unknown_length_are_named_inside_another_model():
    model = around(granet_tf.wrap(models.sequential()))
    model.compile("sgd", "mse", run_eagerly=True)

    def batches():
        for _ in range(2):
            yield X[:8], Y[:8]

    with pytest.raises(ValueError, match=r"Pass `steps_per_epoch` to fit\(\), or `total_steps`"):
        model.fit(batches(), verbose=0)


# Frozen weights.

METHODS = [
    granet_tf.RigL(0.5, frequency=1),
    granet_tf.SET(0.5, frequency=1),
    granet_tf.GraNet(0.75, initial_sparsity=0.5, frequency=1),
    uniform_gmp(0.75, frequency=1),
    granet_tf.ACDC(0.75),
    granet_tf.DSR(0.5, frequency=1, prune_threshold=0.1),
    granet_tf.SNFS(0.5, frequency=1),
    granet_tf.DeepR(0.5, noise_temperature=0.1),
    granet_tf.DPF(0.75, frequency=1),
    granet_tf.TopKAST(0.5, frequency=1, distribution="uniform"),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_what_is_frozen_after_it_was_wrapped_stays_as_it_is(method):
    network = models.sequential()
    model = granet_tf.wrap(network, method)
    network.get_layer("hidden").trainable = False
    kernel = network.get_layer("hidden").kernel.numpy()
    masks = [p.mask.numpy() for p in model.pruned]
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model, epochs=2)
    np.testing.assert_array_equal(network.get_layer("hidden").kernel.numpy(), kernel)
    np.testing.assert_array_equal(model.pruned[0].mask.numpy(), masks[0])
    changed = np.any(model.pruned[1].mask.numpy() != masks[1])
    assert changed
    # A quarter of 64 where it prunes, as many as before where it only exchanges.
    prunes = method.initial_sparsity < method.final_sparsity
    assert int(model.pruned[1].mask.numpy().sum()) == (16 if prunes else int(masks[1].sum()))


def test_what_is_trained_beside_a_frozen_weight_is_frozen_too():
    network = models.sequential()
    model = granet_tf.wrap(network, granet_tf.STR(threshold_init=-2.0, threshold_decay=0.1))
    first, second = (p.state["threshold"] for p in model.pruned)
    network.get_layer("hidden").trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    assert float(first) == -2.0 != float(second)
    network.get_layer("hidden").trainable = True
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    assert float(first) != -2.0


@MODES
def test_the_same_with_wrapped_layers(mask_only):
    schedule = granet_tf.ConstantSparsity(0.5, 1, frequency=1)
    model = api.prune_low_magnitude(models.sequential(), schedule, mask_only=mask_only)
    model.layers[0].trainable = False
    kernel = model.layers[0].layer.kernel.numpy()
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    np.testing.assert_array_equal(model.layers[0].layer.kernel.numpy(), kernel)
    assert [int(p.mask.numpy().sum()) for x in model.layers for p in x.pruned] == [128, 32]


def test_what_is_frozen_is_named_as_such():
    network = models.sequential()
    model = granet_tf.wrap(network, granet_tf.StaticSparse(0.75))
    network.get_layer("hidden").trainable = False
    rows = {row.path: (row.pruned, row.frozen) for row in granet_tf.summarize(model).rows}
    assert rows["net/hidden/kernel"] == (True, True)
    assert rows["net/head/kernel"] == (True, False)
    lines = str(granet_tf.summarize(model)).splitlines()
    assert [line.split("  ")[1:2] for line in lines if "hidden/kernel" in line] == [
        ["pruned, frozen"]
    ]


@pytest.mark.parametrize("make", ["wrap", "prune"])
@pytest.mark.parametrize("first", [True, False], ids=["frozen first", "frozen later"])
def test_files_know_when_a_weight_was_frozen(tmp_path, make, first):
    """Frozen before, and named: to be pruned. Frozen later: to be left alone."""
    schedule = granet_tf.ConstantSparsity(0.5, 1, frequency=1)
    network = models.sequential()
    network.get_layer("hidden").trainable = not first
    if make == "wrap":
        method = uniform_gmp(0.5, schedule=schedule, total_steps=8)
        model = granet_tf.wrap(network, method, prunable=["*/kernel"])
    else:
        model = api.prune_low_magnitude(network, schedule, prunable=kernels)
    inside = network.get_layer("hidden")
    inside.trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    for each in (model, loaded):
        fit(each)
        counts = [
            int(p.mask.numpy().sum()) for p in granet_tf.wrapping.stripping.pruned_weights(each)
        ]
        assert counts == [64 if first else 128, 32]


@keras.saving.register_keras_serializable("test_trained_by_others")
def kernels(layer, weight):
    return weight.name == "kernel"


def test_pins_mean_the_same_weights_when_some_are_frozen():
    network = models.sequential()
    network = keras.Sequential([*network.layers, L.Dense(4, name="last")])
    network.build((None, 8))
    pins = {0: 0.25, 1: 0.5, -1: 0.0}
    model = granet_tf.wrap(network, uniform_gmp(0.75, frequency=1, pinned=pins))
    network.get_layer("hidden").trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    assert [int(p.mask.numpy().sum()) for p in model.pruned] == [128, 32, 16]


def test_what_is_unfrozen_later_is_pruned_then():
    network = models.sequential()
    model = granet_tf.wrap(network, uniform_gmp(0.75, end_step=2, frequency=1, total_steps=4))
    network.get_layer("hidden").trainable = False
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    assert [int(p.mask.numpy().sum()) for p in model.pruned] == [128, 16]
    network.get_layer("hidden").trainable = True
    again = granet_tf.wrap(granet_tf.strip(model), uniform_gmp(0.75, frequency=1))
    again.compile("sgd", "mse", run_eagerly=True)
    fit(again)
    assert [int(p.mask.numpy().sum()) for p in again.pruned] == [32, 16]


def test_a_model_of_which_everything_is_frozen_but_biases():
    network = models.sequential()
    model = granet_tf.wrap(network, granet_tf.RigL(0.5, frequency=1))
    for layer in network.layers:
        layer.kernel.trainable = False
    masks = [p.mask.numpy() for p in model.pruned]
    model.compile("sgd", "mse", run_eagerly=True)
    fit(model)
    for mask, pruned in zip(masks, model.pruned, strict=True):
        np.testing.assert_array_equal(mask, pruned.mask.numpy())


# Optimizers that hold others.

holds_others = pytest.mark.skipif(
    not HAS_MULTI_OPTIMIZER, reason="this Keras has no MultiOptimizer"
)


def several():
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.01), {".*hidden/.*": keras.optimizers.SGD(0.1, momentum=0.9)}
        )
    )


def by_function():
    adam, sgd = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9)
    return keras.optimizers.MultiOptimizer(lambda v: sgd if "hidden" in v.path else adam)


@holds_others
@pytest.mark.parametrize("make", [several, by_function])
@pytest.mark.parametrize("method", [granet_tf.GraNet(0.75), granet_tf.SNFS(0.75, frequency=2)])
def test_several_optimizers_in_one(make, method):
    model = granet_tf.wrap(models.sequential(), method)
    model.compile(make(), "mse", run_eagerly=True)
    fit(model, epochs=3)
    assert model.nonzeros == 48
    slots = {v.path.split("/")[-1]: v for v in model.optimizer.variables if v.ndim == 2}
    # The momentum of SGD, and the first and second moments of Adam: 0 where a weight is dormant.
    assert sorted(tuple(v.shape) for v in slots.values()) == [(8, 16), (16, 4), (16, 4)]
    for name, slot in slots.items():
        pruned = model.pruned[0 if "hidden" in name else 1]
        assert np.all(slot.numpy()[~pruned.mask.numpy()] == 0.0)
        assert np.any(slot.numpy() != 0.0)


@holds_others
def test_each_with_its_own_learning_rate():
    """Deep-R pulls each weight to zero by learning rate times l1."""
    model = granet_tf.wrap(
        models.sequential(), granet_tf.DeepR(0.5, l1=1e-3, noise_temperature=0.0)
    )
    optimizer = granet_tf.SparseOptimizer(several(), model)
    optimizer.build(model.trainable_variables)
    before = [p.variable.numpy() for p in model.pruned]
    optimizer.apply([tf.zeros(v.shape) for v in model.trainable_variables])
    for pruned, weight, rate in zip(model.pruned, before, (0.1, 0.01), strict=True):
        far = pruned.mask.numpy() & (abs(weight) > 1e-3)
        moved = abs(weight - pruned.variable.numpy())[far]
        np.testing.assert_allclose(moved, rate * 1e-3, rtol=1e-2)


@holds_others
def test_several_optimizers_in_one_are_saved(tmp_path):
    model = granet_tf.wrap(models.sequential(), uniform_gmp(0.75, end_step=6, total_steps=8))
    model.compile(several(), "mse", run_eagerly=True)
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    for each in (model, loaded):
        fit(each)
    assert model.nonzeros == loaded.nonzeros == 48
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_loss_scaling_inside():
    model = granet_tf.wrap(models.sequential(), uniform_gmp(0.75, end_step=0, total_steps=2))
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    optimizer = granet_tf.SparseOptimizer(scaled, model)
    optimizer.apply(
        [tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables
    )
    assert model.nonzeros == 48
    [slot] = [v for v in optimizer.variables if v.path.endswith("hidden_kernel_momentum")]
    assert np.all(slot.numpy()[~model.pruned[0].mask.numpy()] == 0.0)
