"""What differs from what a reader may expect is said where that reader looks, and is so."""

import re

import keras
import numpy as np

import granet_tf
import granet_tf as tfmot
from tests.support import ROOT


def said(page):
    """A page with single spaces, as sentences go on in the next line."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def test_masks_follow_the_seed_of_the_method_only():
    assert "`keras.utils.set_random_seed` does not change them" in said("docs/sparse_training.md")
    assert "not `keras.utils.set_random_seed`" in said("docs/methods.md")

    def masks(seed, of_keras):
        keras.utils.set_random_seed(of_keras)
        net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="h")])
        return granet_tf.wrap(net, granet_tf.SET(0.5, seed=seed)).pruned[0].mask.numpy()

    first = masks(0, of_keras=0)
    np.testing.assert_array_equal(masks(0, of_keras=1), first)
    assert np.any(masks(1, of_keras=0) != first)


def test_exact_halves_are_rounded_to_the_even_number():
    assert "of 5 weights at 0.5, two are kept" in said("docs/sparse_training.md")
    assert "so random masks keep three.)" in said("docs/sparse_training.md")
    assert "exact halves to the even one" in said("docs/methods.md")

    def kept(size, method):
        net = keras.Sequential([keras.Input((size,)), keras.layers.Dense(1)])
        model = granet_tf.wrap(net, method)
        model.compile("sgd", "mse")
        model.fit(np.ones((4, size)), np.ones((4, 1)), batch_size=1, verbose=0)
        return np.count_nonzero(net.layers[0].kernel)

    half = granet_tf.ConstantSparsity(0.5, 1, frequency=1)
    pruning = granet_tf.GMP(schedule=half, distribution="uniform")
    assert [kept(size, pruning) for size in (5, 7)] == [2, 4]
    assert kept(5, granet_tf.StaticSparse(0.5)) == 3
    assert kept(5, granet_tf.StaticSparse(0.5, distribution="uniform")) == 2


def test_get_config_of_schedules_is_flat():
    assert "`get_config()` is flat" in said("docs/migrating_from_tfmot.md")
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.1, 0.9, 2, 8)
    config = schedule.get_config()
    assert config["initial_sparsity"] == 0.1 and config["begin_step"] == 2
    nested = {"class_name": "PolynomialDecay", "config": config}
    assert type(schedule).from_config(nested).get_config() == config


def test_there_is_no_quantization_of_tfmot():
    page = said("docs/migrating_from_tfmot.md")
    assert "`tfmot.quantization` and `tfmot.clustering` do not exist here" in page
    assert not hasattr(tfmot, "quantization") and not hasattr(tfmot, "clustering")


def test_rigl_takes_a_gradient_step_where_its_masks_change():
    assert "weights take a gradient step at these steps, too" in said("docs/methods.md")
    net = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, use_bias=False)])
    model = granet_tf.wrap(net, granet_tf.RigL(0.5, frequency=1, drop_fraction=0.0, total_steps=9))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    kernel, mask = model.pruned[0].variable, model.pruned[0].mask.numpy()
    before = kernel.numpy()
    x = np.eye(8, dtype="float32")
    model.train_on_batch(x, np.zeros((8, 8), "float32"))  # And an update, of a single step.
    # The loss is the mean of 64 squares.
    np.testing.assert_allclose(kernel.numpy(), np.where(mask, before * (1 - 2 / 64), 0), rtol=1e-6)


def test_h5_and_keras_hub_are_told_of():
    page = said("docs/migrating_from_tfmot.md")
    assert "To train on, save `.keras`. An `.h5` file brings weights, masks and schedules" in page
    assert "KerasHub" in said("README.md") and (ROOT / "docs" / "keras_hub.md").exists()


def test_pythons_and_keras_that_readme_names_are_those_of_setup():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    python = re.search(r'python_requires=">=([\d.]+)"', setup)[1]
    for page in ("README.md", "docs/get_started.md"):
        assert f"The library needs Python {python} and TensorFlow" in said(page)
    assert "(Keras 3.13 itself needs Python 3.11.)" in said("docs/get_started.md")


def test_figures_are_told_with_what_they_are_compared_with():
    costs, results = said("docs/performance.md"), said("docs/results.md")
    # Issues of figures that were read for more than they say.
    assert "against the dense float32 file: faster by | 4.98 × (0.336 ms); the dense file" in costs
    assert "they overlap, no difference is shown" in costs
    assert "gzipped, the dense files take 2.3 MB in float32" in said("docs/sparse_training.md")
    assert "from JPEG-coded images" in said("docs/command_line.md")
    assert "JPEG-coded, at quality 75" in results
    for claim in ("the order is that of the paper at both sparsities", "latency falls everywhere"):
        pages = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
        assert all(claim not in said(page) for page in ("README.md", *pages))
