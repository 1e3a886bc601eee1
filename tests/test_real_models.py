"""Real networks through all of it: pruned, trained, saved, loaded, stripped, exported.

The sparsity is checked at each stage. What takes long is marked slow: `make test-all`.
"""

import collections
import dataclasses
import math

import keras
import numpy as np
import pytest
from tensorflow.lite.tools import flatbuffer_utils

import granet_tf
from granet_tf.wrapping.stripping import pruned_weights
from tests.support import real_models
from tests.support.cases import uniform_gmp

api = granet_tf.sparsity.keras
SPARSITY = 0.75


def kept(size):
    """How many of `size` weights are active; a half goes to the even number."""
    return max(1, round(size * (1 - SPARSITY)))


def sizes(model):
    return [math.prod(p.variable.shape) for p in pruned_weights(model)]


def active(model):
    """The active weights of each tensor, none but which is nonzero."""
    for pruned in pruned_weights(model):
        assert not np.any(pruned.variable.numpy()[~pruned.mask.numpy()])
    return [int(np.count_nonzero(p.mask)) for p in pruned_weights(model)]


def nonzeros(variables):
    """An active weight that was grown at the last step is still 0."""
    return [int(np.count_nonzero(v)) for v in variables]


# No layer may go, as the embedding would in a training as short as these.
METHOD = granet_tf.GraNet(SPARSITY, capped={"*": 0.9})


def wrapped(model):
    """Ranked all together; what must be left of all weights."""
    sparse = granet_tf.wrap(model, METHOD)
    return sparse, kept(sum(sizes(sparse)))


def pruned_by_layer(model):
    """As with tfmot: each tensor for itself."""
    schedule = api.PolynomialDecay(0.0, SPARSITY, begin_step=0, end_step=2, frequency=1)
    # KerasHub's embedding of positions does not say what of it to prune.
    sparse = api.prune_low_magnitude(model, schedule, prunable=granet_tf.default_prunable)
    return sparse, sum(map(kept, sizes(sparse)))


def forward(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def check(task, prune, tmp_path, tolerance=1e-4, *, loads_optimizer=True):
    """The whole way of a model, from the first line to the file."""
    # Four steps.
    sparse, expected = prune(task.model)
    # Unclipped, EfficientNetV2 with random weights diverges to infinite moving variances.
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9, global_clipnorm=1.0)
    sparse.compile(optimizer, task.loss)
    batch_size = len(task.y) // 2
    sparse.fit(task.x, task.y, batch_size=batch_size, epochs=2, verbose=0)
    counts = active(sparse)
    assert sum(counts) == expected

    outputs = forward(sparse, task.x)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(forward(loaded, task.x), outputs)
    assert active(loaded) == counts and hasattr(loaded, "optimizer") == loads_optimizer
    assert not loads_optimizer or int(loaded.optimizer.iterations) == 4

    kernels = [p.variable for p in pruned_weights(sparse)]
    counts = nonzeros(kernels)
    stripped = granet_tf.strip(sparse)
    assert {id(v) for v in kernels} <= {id(v) for v in stripped.weights}
    assert nonzeros(kernels) == counts
    np.testing.assert_array_equal(forward(stripped, task.x), outputs)

    path = tmp_path / "model.tflite"
    samples = keras.tree.map_structure(lambda a: a[:1], task.x)
    granet_tf.export_tflite(stripped, path, sample_inputs=samples, tolerance=tolerance)
    # Each kernel is in the file with all of its nonzeros and no other.
    assert collections.Counter(counts) <= collections.Counter(in_file(path))


def in_file(path):
    """Number of nonzero values of each constant in a .tflite file."""
    model = flatbuffer_utils.read_model(str(path))
    buffers = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    data = (model.buffers[i].data for i in sorted(buffers))
    return [
        int(np.count_nonzero(np.frombuffer(bytes(d), "float32")))
        for d in data
        if d is not None and len(d) and len(d) % 4 == 0
    ]


@pytest.mark.parametrize("name", real_models.SMALL)
@pytest.mark.parametrize("prune", [wrapped, pytest.param(pruned_by_layer, marks=pytest.mark.slow)])
def test_small_models(name, prune, tmp_path):
    check(real_models.SMALL[name](), prune, tmp_path)


def test_every_family_of_applications_is_listed():
    families = {
        vars(module)[name].__module__.rsplit(".", 1)[-1]
        for module in (keras.applications,)
        for name in dir(module)
        if callable(getattr(module, name))
    }
    assert families == set(real_models.APPLICATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("family", real_models.APPLICATIONS)
def test_applications(family, tmp_path):
    check(real_models.application(family), wrapped, tmp_path, tolerance=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("prune", [wrapped, pruned_by_layer])
def test_a_text_model_of_keras_hub(prune, tmp_path):
    pytest.importorskip("keras_hub")
    # Keras does not compile a model with a compile() of its own when it loads it; ours does.
    check(real_models.bert(), prune, tmp_path, loads_optimizer=prune is wrapped)


def test_a_gan_with_its_own_train_step(tmp_path):
    method = dataclasses.replace(METHOD, total_steps=8)
    parts = real_models.generator(), real_models.discriminator()
    sparse = [granet_tf.wrap(part, method) for part in parts]
    gan = real_models.GAN(*sparse)
    optimizers = [granet_tf.SparseOptimizer(keras.optimizers.Adam(1e-3), each) for each in sparse]
    gan.compile(*optimizers)
    gan(np.zeros((1, gan.latent), "float32"))
    real = np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1)).astype("float32")
    gan.fit(real, batch_size=4, epochs=2, verbose=0)
    for each in sparse:
        assert sum(active(each)) == kept(sum(sizes(each)))

    noise = np.random.default_rng(0).normal(size=(3, gan.latent)).astype("float32")
    images = forward(sparse[0], noise)
    sparse[0].save(tmp_path / "generator.keras")
    loaded = keras.models.load_model(tmp_path / "generator.keras")
    np.testing.assert_array_equal(forward(loaded, noise), images)
    assert active(loaded) == active(sparse[0])
    gan.save_weights(tmp_path / "gan.weights.h5")
    other = real_models.GAN(
        *(granet_tf.wrap(p, method) for p in (real_models.generator(), real_models.discriminator()))
    )
    other(noise)
    other.load_weights(tmp_path / "gan.weights.h5")
    np.testing.assert_array_equal(forward(other.generator, noise), images)

    counts = nonzeros(p.variable for p in sparse[0].pruned)
    granet_tf.export_tflite(granet_tf.strip(sparse[0]), tmp_path / "generator.tflite")
    assert collections.Counter(counts) <= collections.Counter(
        in_file(tmp_path / "generator.tflite")
    )


def test_mixed_float16(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        task = real_models.small_resnet()
    finally:
        keras.config.set_dtype_policy("float32")
    sparse, expected = wrapped(task.model)
    sparse.compile("adam", task.loss)
    assert isinstance(sparse.optimizer, keras.optimizers.LossScaleOptimizer)
    sparse.fit(task.x, task.y, batch_size=4, epochs=2, verbose=0)
    assert sum(active(sparse)) == expected
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(forward(loaded, task.x), forward(sparse, task.x))
    assert active(loaded) == active(sparse)
    for ours, theirs in zip(loaded.optimizer.variables, sparse.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)
    counts = nonzeros(p.variable for p in sparse.pruned)
    # LiteRT computes in float32.
    plain = real_models.small_resnet().model
    plain.set_weights(granet_tf.strip(sparse).get_weights())
    granet_tf.export_tflite(plain, tmp_path / "model.tflite")
    assert collections.Counter(counts) <= collections.Counter(in_file(tmp_path / "model.tflite"))


def test_transfer_learning_with_a_frozen_backbone(tmp_path):
    task = real_models.transfer()
    stem = task.model.get_layer("backbone").get_layer("stem").kernel
    before = stem.numpy()
    sparse, _ = wrapped(task.model)
    # The head is 8 × 16 and 16 × 10; the stem 3 × 3 × 3 × 8.
    assert sorted(sizes(sparse)) == [128, 160]
    check(task, wrapped, tmp_path)
    np.testing.assert_array_equal(stem, before)

    asked = granet_tf.wrap(task.model, uniform_gmp(SPARSITY, total_steps=4), prunable=["*/kernel"])
    assert sorted(sizes(asked)) == [128, 160, 216]
    asked.compile("sgd", task.loss)
    asked.fit(task.x, task.y, batch_size=4, epochs=2, verbose=0)
    assert active(asked) == [kept(size) for size in sizes(asked)]
    assert set(stem.numpy().ravel()) <= {0.0, *before.ravel()}
