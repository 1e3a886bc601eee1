"""Quantizing a model with masks: what is dormant is 0 first, as in the plain model."""

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf.wrapping.stripping import masked_weights, pruned_weights
from tests.support import models
from tests.support.cases import HALF, MODES

L = keras.layers
api = granet_tf.sparsity.keras
X, Y = models.data(models.sequential)

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")


def network():
    """Layers of each kind that Keras quantizes, and a convolution, which it does not."""
    inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(10, 8, name="embed")(inputs)
    x = L.EinsumDense("abc,cd->abd", (None, 8), name="einsum")(x)
    x = L.Conv1D(8, 3, name="conv")(x)
    outputs = L.Dense(4, name="head")(L.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, outputs, name="net")


TOKENS = np.random.default_rng(0).integers(0, 10, (8, 6))


def wrapped(model, mask_only):
    return granet_tf.wrap(
        model, granet_tf.GMP(schedule=HALF, distribution="uniform"), mask_only=mask_only
    )


def pruned(model, mask_only):
    return api.prune_low_magnitude(model, HALF, mask_only=mask_only)


PRUNE = pytest.mark.parametrize("prune", [wrapped, pruned])
# Each way to prune and each semantics once, and all pairs of them where there is time.
WAYS = pytest.mark.parametrize(
    ("prune", "mask_only"),
    [
        pytest.param(wrapped, True, id="wrapped-mask_only"),
        pytest.param(pruned, False, id="pruned-zero"),
        pytest.param(wrapped, False, id="wrapped-zero", marks=pytest.mark.slow),
        pytest.param(pruned, True, id="pruned-mask_only", marks=pytest.mark.slow),
    ],
)


def set_masks(model):
    """A tenth of each weight stays."""
    for i, each in enumerate(pruned_weights(model)):
        each.mask.assign(np.random.default_rng(i).random(each.mask.shape) < 0.1)
    return model


def made(prune, mask_only):
    """A model with random masks, and the plain model that `strip` makes of one like it."""
    keras.utils.set_random_seed(1)
    stripped = granet_tf.strip(set_masks(prune(network(), mask_only)))
    keras.utils.set_random_seed(1)
    model = set_masks(prune(network(), mask_only))
    if not mask_only:
        for each in pruned_weights(model):
            each.variable.assign(each.variable * each.mask.numpy())
    return model, stripped


def layers_of(model):
    return {layer.name: layer for layer in model._flatten_layers()}


def kernels(model):
    names = ("embed", "einsum", "conv", "head")
    layers = [layers_of(model)[name] for name in names]
    return [np.asarray(x.embeddings if hasattr(x, "embeddings") else x.kernel) for x in layers]


@WAYS
def test_a_quantized_model_is_the_stripped_one_quantized(tmp_path, prune, mask_only):
    model, plain = made(prune, mask_only)
    outputs = model(TOKENS)
    np.testing.assert_allclose(plain(TOKENS), outputs, rtol=1e-5, atol=1e-6)
    for each in (plain, model):
        each.quantize("int8")
    assert [k.dtype.name for k in kernels(model)] == ["int8", "int8", "float32", "int8"]
    np.testing.assert_array_equal(model(TOKENS), plain(TOKENS))

    # What is said of it is what is in the kernels.
    zeros = sum(np.count_nonzero(k == 0) for k in kernels(plain))
    size = sum(k.size for k in kernels(plain))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        summary = granet_tf.summarize(each)
        assert (summary.size, summary.size - summary.nonzeros) == (size, zeros)
        rows = {r.path.split("/")[-2]: r.nonzeros for r in summary.rows if r.pruned}
        assert rows["head"] == np.count_nonzero(kernels(plain)[3])
        np.testing.assert_array_equal(each(TOKENS), plain(TOKENS))
    if prune is wrapped:
        assert model.sparsity == loaded.sparsity == pytest.approx(zeros / size)
    for each in (model, loaded):
        stripped = granet_tf.strip(each)
        assert not pruned_weights(stripped)
        np.testing.assert_array_equal(stripped(TOKENS), plain(TOKENS))
        for ours, theirs in zip(kernels(stripped), kernels(plain), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "method",
    [
        granet_tf.TopKAST(0.5),
        granet_tf.SNFS(0.5, frequency=2),
        granet_tf.ST3(0.5),
        granet_tf.STR(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_quantized_model_of_a_method_with_state_loads(tmp_path, method):
    model = granet_tf.wrap(network(), method)
    model.compile("sgd", "mse")
    model.fit(TOKENS, Y[:8], batch_size=4, epochs=2, verbose=0)
    with masked_weights(model) as stripped:
        plain = keras.models.clone_model(stripped)
        plain.set_weights(stripped.get_weights())
    for each in (plain, model):
        each.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(TOKENS), plain(TOKENS))


@WAYS
def test_one_layer_is_quantized_however_it_is_reached(prune, mask_only):
    def head(model):
        layer = layers_of(model)["head"]
        return [layer.kernel.numpy(), layer.kernel_scale.numpy()]

    ways = [
        lambda model: layers_of(model)["head"].quantize("int8"),
        lambda model: setattr(layers_of(model)["head"], "dtype_policy", "int8_from_float32"),
        lambda model: model.quantize("int8", filters="head"),
    ]
    if prune is wrapped:
        ways += [
            lambda model: model.get_layer("head").quantize("int8"),
            lambda model: model.model.quantize("int8", filters="head"),
        ]
    else:
        ways += [lambda model: model.get_layer("prune_low_magnitude_head").quantize("int8")]
    for quantize in ways:
        model, plain = made(prune, mask_only)
        layers_of(plain)["head"].quantize("int8")
        quantize(model)
        for ours, theirs in zip(head(model), head(plain), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(model(TOKENS), plain(TOKENS))


def test_predict_after_quantizing_is_not_what_was_compiled_before():
    model, plain = made(wrapped, True)
    model.predict(TOKENS, verbose=0)
    for each in (plain, model):
        each.quantize("int8")
    np.testing.assert_allclose(model.predict(TOKENS, verbose=0), plain(TOKENS), atol=1e-5)


@MODES
@PRUNE
def test_a_quantized_model_is_not_trained_on(prune, mask_only):
    model = prune(models.sequential(), mask_only)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=16, verbose=0)
    model.quantize("int8")
    text = r"can't be trained any more once they are quantized.*take granet_tf\.strip\(model\)"
    with pytest.raises(ValueError, match=rf"(?s){text}"):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match=rf"(?s){text}"):
        model.train_on_batch(X, Y)
    model.evaluate(X, Y, verbose=0)
    plain = granet_tf.strip(model)
    plain.compile("sgd", "mse", run_eagerly=True)
    before = [k.numpy() for k in plain.weights if k.dtype == "int8"]
    plain.fit(X, Y, verbose=0)  # As Keras does: what is left, the biases.
    after = [k.numpy() for k in plain.weights if k.dtype == "int8"]
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)


@MODES
@PRUNE
@pytest.mark.parametrize("mode", ["int4", "gptq"])
def test_modes_that_do_not_leave_zeros_alone_are_refused(prune, mask_only, mode):
    model, _ = made(prune, mask_only)
    before = model.get_weights()
    config = {"int4": None, "gptq": keras.quantizers.GPTQConfig(dataset=["a"], tokenizer=len)}[mode]
    with pytest.raises(
        ValueError,
        match=rf"`mode` must be one of \('int8', 'float8'\).*Quantize granet_tf\.strip\(model\) "
        rf"instead\. Received: mode='{mode}'",
    ):
        model.quantize(mode, config=config)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    granet_tf.strip(model).quantize("int4")


def test_a_layer_that_keras_cannot_quantize_keeps_its_values_and_masks():
    model, _ = made(wrapped, True)
    kept = [p.variable.numpy() for p in model.pruned]
    conv = layers_of(model)["conv"]
    with pytest.raises(NotImplementedError, match="Conv1D"):
        conv.quantize("int8")
    for each, value in zip(model.pruned, kept, strict=True):
        np.testing.assert_array_equal(each.variable, value)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(TOKENS, np.zeros((8, 4)), verbose=0)
    assert model.sparsity == 0.5


def test_a_stripped_model_is_the_users_own_again():
    """What it is trained to since must not be masked when it is quantized."""
    model, plain = made(wrapped, True)
    stripped = granet_tf.strip(model)
    for each in (stripped, plain):
        each.get_layer("head").kernel.assign(np.ones((8, 4)))
        each.quantize("int8")
    np.testing.assert_array_equal(stripped.get_layer("head").kernel, np.full((8, 4), 127))
    np.testing.assert_array_equal(stripped(TOKENS), plain(TOKENS))
    assert "Observed" not in {
        type(value).__name__
        for layer in stripped._flatten_layers()
        for value in vars(layer).values()
    }


@MODES
def test_float8_trains_on_with_masks(mask_only):
    model = wrapped(models.sequential(), mask_only)
    model.quantize("float8")
    model.compile("sgd", "mse")  # Keras trains it compiled only.
    model.fit(X, Y, batch_size=16, verbose=0)
    assert model.sparsity == 0.5
    outputs = model(X)
    stripped = granet_tf.strip(model)
    assert list(models.counts(stripped).values()) == [64, 32]
    np.testing.assert_array_equal(stripped(X), outputs)


@MODES
def test_adapters_are_trained_beside_a_sparse_kernel(mask_only):
    model = wrapped(models.sequential(), mask_only)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=16, verbose=0)
    layer = model.get_layer("hidden")
    layer.enable_lora(2)
    before = layer._kernel.numpy()
    assert np.count_nonzero(before) == 64
    model.compile(keras.optimizers.SGD(0.5), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=16, verbose=0)
    np.testing.assert_array_equal(layer._kernel, before)
    assert np.any(layer.lora_kernel_b.numpy())


def test_a_kernel_of_a_layer_with_adapters_is_not_unfrozen_without_a_word():
    model = wrapped(models.sequential(), True)
    model.get_layer("hidden").enable_lora(2)
    model.get_layer("hidden")._kernel.trainable = True
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match=r"or unfrozen in a layer that had adapters.*hidden/kern"):
        model.fit(X, Y, verbose=0)
