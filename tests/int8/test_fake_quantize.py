"""What `fake_quantize` makes of a model: rounding, ranges, masks that hold, files, errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.int8 import FakeQuantize, FakeQuantized
from granet_tf.int8.simulation import RULES
from granet_tf.wrapping.stripping import pruned_weights
from tests.support import models

L = keras.layers
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 6, 6, 2)).astype("float32")
X, Y = models.data(models.sequential, 32)

pytestmark = pytest.mark.filterwarnings("ignore:Nothing in the file is sparse")


def sparse_network(make=models.functional, sparsity=0.75):
    """A plain model, three quarters of its kernels 0."""
    model = make()
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            layer.kernel.assign(kernel * (RNG.random(kernel.shape) >= sparsity))
    return model


def kernels(model):
    return [x.kernel.numpy() for x in model._flatten_layers() if isinstance(x, FakeQuantized)]


def ranges(model):
    return {x.name: x for x in model._flatten_layers() if isinstance(x, FakeQuantize)}


def fit(model, x=IMAGES, epochs=1, optimizer=None, **options):
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), "mse", **options)
    model.fit(x, np.ones((len(x), 4)), batch_size=8, epochs=epochs, verbose=0)
    return model


# Rounding.


def test_kernels_have_a_scale_for_each_channel():
    """By hand: 127 steps to the largest magnitude of a channel; one of only zeros stays."""
    layer = FakeQuantized(L.Dense(3, use_bias=False))
    layer.build((None, 3))
    layer.kernel.assign([[1.27, 0.0, -25.4], [0.0149, 0.0, 0.11], [0.0151, 0.0, 0.0]])
    expected = [[1.27, 0.0, -25.4], [0.01, 0.0, 0.2], [0.02, 0.0, 0.0]]
    np.testing.assert_allclose(layer(np.eye(3)), expected, rtol=1e-5)


def test_gradients_pass_kernels_and_are_clipped_out_of_range():
    layer, rounding = FakeQuantized(L.Dense(1, use_bias=False)), FakeQuantize()
    layer.build((None, 2))
    layer.kernel.assign([[0.3], [0.7]])
    rounding.build((None, 2))
    rounding.range.assign([0.0, 1.0])
    x = tf.constant([[0.401, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(rounding(x))
    to_kernel, to_x = tape.gradient(y, [layer.kernel.value, x])
    # The kernel's is its input as rounded: a multiple of 1/255.
    np.testing.assert_allclose(to_kernel, [[102 / 255], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(to_x, [[round(0.3 / 0.7 * 127) * 0.7 / 127, 0.0]], rtol=1e-6)


def test_ranges_follow_batches():
    """By hand: the first batch, then 0.75 of what was and 0.25 of the batch; 0 always in it."""
    layer = FakeQuantize(momentum=0.75)
    x = np.array([[1.0, 2.0]], "float32")
    np.testing.assert_array_equal(layer(x), x)  # Not known, not rounded.
    layer(x, training=True)
    assert layer.limits == (0.0, 2.0)
    layer(np.array([[-4.0, 6.0]], "float32"), training=True)
    assert layer.limits == (-1.0, 3.0)
    layer(np.array([[-8.0, 8.0]], "float32"), training=False)
    layer(np.array([[-8.0, 8.0]], "float32"), training=True, follow=False)
    assert layer.limits == (-1.0, 3.0)
    # Steps of 4/255, 0 the 64th; what is out of range is at its ends.
    step = 4 / 255
    out = layer(np.array([[-9.0, 0.6 * step, 9.0]], "float32"))
    np.testing.assert_allclose(out, [[-64 * step, step, 191 * step]], rtol=1e-5)


def test_ranges_are_measured_on_data():
    model = granet_tf.fake_quantize(sparse_network(), representative_data=IMAGES)
    assert ranges(model)["range_image"].limits == (IMAGES.min(), IMAGES.max())
    # Statistics of normalization are left alone.
    norm = next(x for x in model._flatten_layers() if x.name == "norm")
    np.testing.assert_array_equal(norm.moving_mean, np.zeros(8))


# Masks.


def test_what_is_zero_stays_so_while_the_rest_is_trained():
    plain = sparse_network()
    before = [plain.get_layer(name).kernel.numpy() for name in ("conv", "head")]
    model = fit(granet_tf.fake_quantize(plain), epochs=3)
    after = [plain.get_layer(name).kernel.numpy() for name in ("conv", "head")]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new == 0, old == 0)
        assert np.any(new[old != 0] != old[old != 0])
    # Its weights are the plain model's own.
    shared = {id(v) for v in model.variables}
    assert all(id(v) in shared for v in plain.weights)
    assert np.any(plain.get_layer("norm").moving_mean.numpy() != 0)


@pytest.mark.parametrize("mask_only", [False, True], ids=["zero", "mask_only"])
def test_masks_of_a_wrapped_model_are_taken_over(mask_only):
    wrapped = granet_tf.wrap(models.sequential(), granet_tf.StaticSparse(0.75), mask_only=mask_only)
    # An active weight that happens to be 0 goes on being trained.
    active = np.argwhere(wrapped.pruned[0].mask.numpy())[0]
    values = wrapped.pruned[0].variable.numpy()
    values[tuple(active)] = 0
    wrapped.pruned[0].variable.assign(values)
    masks = [p.mask.numpy() for p in wrapped.pruned]
    model = granet_tf.fake_quantize(wrapped)
    fit(model, X, epochs=2)
    for pruned, mask in zip(model.pruned, masks, strict=True):
        np.testing.assert_array_equal(pruned.mask, mask)
        assert np.all(pruned.variable.numpy()[~mask] == 0)
    assert model.pruned[0].variable.numpy()[tuple(active)] != 0


def test_wrapped_layers_are_stripped():
    schedule = granet_tf.ConstantSparsity(0.5, 0, frequency=1)
    pruned = granet_tf.sparsity.keras.prune_low_magnitude(models.sequential(), schedule)
    pruned.compile("sgd", "mse")
    pruned.fit(X, Y, batch_size=16, verbose=0)
    masks = [p.mask.numpy() for p in pruned_weights(pruned)]
    model = granet_tf.fake_quantize(pruned)
    for ours, theirs in zip(model.pruned, masks, strict=True):
        np.testing.assert_array_equal(ours.mask, theirs)


def test_a_dense_model_may_be_trained_so_too():
    model = granet_tf.fake_quantize(models.sequential())
    assert model.sparsity == 0.0
    fit(model, X)
    assert np.all(np.concatenate([k.ravel() for k in kernels(model)]) != 0)


# Where it runs.


@pytest.mark.optimized
def test_with_xla(with_xla):
    model = fit(granet_tf.fake_quantize(sparse_network()), jit_compile=True, epochs=2)
    eager = fit(granet_tf.fake_quantize(sparse_network()), run_eagerly=True)
    for each in (model, eager):
        assert each.sparsity > 0.7
        assert all(x.limits[1] > 0 for x in ranges(each).values())


@pytest.mark.optimized
def test_replicas_have_one_range_and_one_mask(mirrored):
    with mirrored.scope():
        plain = sparse_network(models.sequential)
        model = granet_tf.fake_quantize(plain, momentum=0.5)
        optimizer = keras.optimizers.SGD(0.05)
    fit(model, np.concatenate([X, 3 * X]), optimizer=optimizer)
    found = ranges(model)
    for variable in [*(x.range for x in found.values()), *(p.mask for p in model.pruned)]:
        first, second = mirrored.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second)
    assert all(x.limits[1] > x.limits[0] for x in found.values())
    for pruned in model.pruned:
        for copy in mirrored.experimental_local_results(pruned.variable.value):
            assert np.all(copy.numpy()[~pruned.mask.numpy()] == 0)


def test_the_range_of_replicas_is_the_mean_of_theirs(mirrored):
    with mirrored.scope():
        layers = [keras.Input((8,), name="x"), L.Dense(4)]
        model = granet_tf.fake_quantize(keras.Sequential(layers))
        model.compile("sgd", "mse")
    x = np.zeros((8, 8), "float32")
    x[:4, 0], x[4:, 0] = 2.0, 4.0  # The first half goes to the first replica.
    model.fit(x, np.zeros((8, 4)), batch_size=8, shuffle=False, verbose=0)
    assert ranges(model)["range_x"].limits == (0.0, 3.0)


# Files.


def test_it_is_saved_and_trained_on(tmp_path):
    model = fit(granet_tf.fake_quantize(sparse_network()))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    for each in (model, loaded):
        each.fit(IMAGES, np.ones((16, 4)), batch_size=8, shuffle=False, verbose=0)
    # Dropout's random state is in the file, too.
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), atol=1e-6)
    masks = [p.mask.numpy() for p in model.pruned]
    assert sum(m.sum() for m in masks) < 0.4 * sum(m.size for m in masks)
    for pruned, mask in zip(loaded.pruned, masks, strict=True):
        np.testing.assert_array_equal(pruned.mask, mask)
        assert np.all(pruned.variable.numpy()[~mask] == 0)

    # A stripped one is a plain functional model, and its file the same.
    stripped = granet_tf.strip(loaded)
    assert not pruned_weights(stripped)
    report = granet_tf.export_tflite(stripped, tmp_path / "model.tflite", format="int8")
    assert report.relative_error < 0.02
    stripped.save(tmp_path / "stripped.keras")
    again = keras.models.load_model(tmp_path / "stripped.keras")
    np.testing.assert_array_equal(again(IMAGES), stripped(IMAGES))


def test_it_is_exported_in_int8_only(tmp_path):
    model = granet_tf.fake_quantize(models.sequential(), representative_data=X)
    for format in ("float32", "dynamic_range"):
        with pytest.raises(ValueError, match=r'exported with format="int8".*Received: format'):
            granet_tf.export_tflite(model, tmp_path / "model.tflite", format=format)
    assert not list(tmp_path.iterdir())


def test_ranges_must_be_known_for_a_file(tmp_path):
    model = granet_tf.fake_quantize(models.sequential())
    with pytest.raises(ValueError, match=r"ranges of activations must be known: fit the model"):
        granet_tf.export_tflite(model, tmp_path / "model.tflite", format="int8")


def test_samples_and_labels_are_for_the_comparison_only(tmp_path):
    model = granet_tf.fake_quantize(models.sequential(), representative_data=X)
    before = [w.numpy() for w in model.weights]
    report = granet_tf.export_tflite(
        model,
        tmp_path / "model.tflite",
        format="int8",
        representative_data=10 * X,
        sample_inputs=X,
        labels=np.arange(32) % 4,
    )
    assert (report.samples, report.accuracy_file) == (32, report.accuracy_keras)
    for a, b in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(a, b)


# Models.


def test_models_inside_are_laid_open():
    def inner():
        return keras.Sequential(
            [keras.Input((8,)), L.Dense(8, "relu", name="dense"), L.Dropout(0.1, name="drop")]
        )

    inputs = keras.Input((8,), name="x")
    plain = keras.Model(inputs, L.Dense(4, name="dense")(inner()(inner()(inputs))))
    model = granet_tf.fake_quantize(plain)
    names = [x.name for x in model.model.layers if isinstance(x, FakeQuantized)]
    assert names == [
        "fake_quantized_dense",
        "fake_quantized_dense__2",
        "fake_quantized_dense__3",
    ]
    # Nothing is rounded before ranges are known, but kernels, here to themselves.
    for weight in plain.weights:
        weight.assign(tf.round(weight * 2) * 127)
    np.testing.assert_allclose(model(X), plain(X), rtol=1e-5)
    fit(model, X)


def test_inputs_and_outputs_by_name():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    x = L.Concatenate()([inputs["a"], inputs["b"]])
    plain = keras.Model(inputs, {"one": L.Dense(2)(x), "two": L.Dense(1)(inputs["a"])})
    model = granet_tf.fake_quantize(plain)
    data = {"a": np.ones((2, 4)), "b": np.ones((2, 4))}
    assert {k: v.shape[-1] for k, v in model(data).items()} == {"one": 2, "two": 1}


def test_flops_are_those_of_the_layers_inside():
    plain = sparse_network()
    expected = granet_tf.count_flops(plain)
    found = granet_tf.count_flops(granet_tf.fake_quantize(plain))
    assert (found.dense, found.sparse) == (expected.dense, expected.sparse)


# Errors.


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(4)

    def call(self, x):
        return self.dense(x)


def test_models_that_are_not_for_it():
    own = Own()
    own(X)
    with pytest.raises(ValueError, match=r"must be a sequential or functional model.*Received: "):
        granet_tf.fake_quantize(own)
    with pytest.raises(ValueError, match=r"must be built: start it with keras\.Input"):
        granet_tf.fake_quantize(keras.Sequential([L.Dense(2)]))
    with pytest.raises(TypeError, match="must be a Keras model"):
        granet_tf.fake_quantize("model.keras")
    model = granet_tf.fake_quantize(models.sequential())
    for again in (model, granet_tf.strip(model)):
        with pytest.raises(ValueError, match=r"fake-quantized already. Received: model="):
            granet_tf.fake_quantize(again)
    flat = keras.Sequential([keras.Input((4, 2)), L.Flatten()])
    with pytest.raises(ValueError, match=r"a layer with a kernel.*Received: model="):
        granet_tf.fake_quantize(flat)
    with pytest.raises(ValueError, match=r"`momentum` must be at least 0.*Received: momentum=1.0"):
        granet_tf.fake_quantize(models.sequential(), momentum=1.0)


def of(*parts, shape=(8, 8, 2), dtype="float32"):
    return lambda: keras.Sequential([keras.Input(shape, dtype=dtype, name="x"), *parts])


def shared():
    layer, inputs = L.Dense(8, name="both"), keras.Input((8,))
    return keras.Model(inputs, layer(layer(inputs)))


def quantized_by_keras():
    model = models.sequential()
    model.quantize("int8")
    return model


def in_half_precision():
    return of(L.Dense(2, dtype="mixed_bfloat16", name="dense"), shape=(4,))()


def forced():
    inputs = keras.Input((8,))
    return keras.Model(inputs, L.Dropout(0.5, name="drop")(L.Dense(2)(inputs), training=True))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (of(L.LayerNormalization(name="a"), L.Dense(2, name="b")), r"'a' \(LayerNormalization\)"),
        (of(L.Dense(2, name="b")), r"'b' \(Dense\): on inputs of 4 axes"),
        (of(L.Conv2D(2, 3, dilation_rate=2, name="c")), r"'c' \(Conv2D\): dilated"),
        (
            of(L.Conv2D(2, 3, activation="elu", name="c")),
            r"'c' \(Conv2D\): activation <function el",
        ),
        (of(L.Conv2D(2, 3), L.ReLU(3.0, name="r")), r"'r' \(ReLU\): an activation that is not kno"),
        (of(L.Conv1D(2, 3, padding="causal", name="c"), shape=(8, 2)), r"padding='causal'"),
        (of(L.Conv2D(2, 3), L.BatchNormalization(1, name="n")), r"'n' \(BatchNorm.*axis=1"),
        (of(L.Flatten(), L.Dense(2), dtype="uint8"), r"input 'x' of uint8"),
        (shared, r"'both' \(Dense\): called 2 times"),
        (
            quantized_by_keras,
            r"'hidden' \(Dense\): quantized already, by `quantize\('int8'\)`; 'he",
        ),
        (in_half_precision, r"'dense' \(Dense\): computes in bfloat16"),
        (forced, r"'drop' \(Dropout\): called with training=True"),
    ],
)
def test_layers_that_are_not_known_are_named(make, named):
    model = make()
    with pytest.raises(ValueError, match=rf"(?s)Each layer must be one .*Received: .*{named}"):
        granet_tf.fake_quantize(model)


def test_all_are_named_and_a_wrapped_model_is_left_as_it_was():
    inputs = keras.Input((4, 8))
    x = L.LayerNormalization(name="norm")(L.GRU(4, name="gru")(inputs))
    wrapped = granet_tf.wrap(
        keras.Model(inputs, L.Dense(2)(x)), granet_tf.StaticSparse(0.5), mask_only=True
    )
    before = [p.variable.numpy() for p in wrapped.pruned]
    with pytest.raises(ValueError, match=r"'gru' \(GRU\): not known; 'norm' \(LayerNorm"):
        granet_tf.fake_quantize(wrapped)
    for pruned, value in zip(wrapped.pruned, before, strict=True):
        np.testing.assert_array_equal(pruned.variable, value)


def test_each_class_that_keras_exports_is_in_one_rule_and_subclasses_are_not():
    class Mine(L.Dense):
        pass

    assert Mine not in RULES
    with pytest.raises(ValueError, match=r"\(Mine\): not known"):
        granet_tf.fake_quantize(keras.Sequential([keras.Input((2,)), Mine(2)]))
