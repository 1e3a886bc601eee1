"""Models that tfmot has pruned, converted: the same outputs, masks, schedules and settings."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf.compat_tfmot import from_tfmot
from granet_tf.compat_tfmot.layer_configs import NoCounterpart, converted
from tests.support import ROOT
from tests.support.processes import run_python

# Not imported here, which takes long and changes global state.
NEEDED = ("tensorflow_model_optimization", "tf_keras")
pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, NEEDED)), reason=f"needs {' and '.join(NEEDED)}"
)

SCRIPT = str(ROOT / "tests" / "support" / "tfmot_models.py")
SINGLE = [[1, 1], "AVG", None]


# One file is read at every run of the tests.
FORMATS = ["model.h5", *(pytest.param(n, marks=pytest.mark.slow) for n in ("model.keras", "saved"))]


def run_script(*arguments):
    """Runs `tfmot_models.py` in a process of its own, as tfmot turns the legacy Keras on."""
    script = f"import runpy, sys; sys.argv = {[SCRIPT, *map(str, arguments)]!r}; "
    return run_python(f"{script} runpy.run_path(sys.argv[0], run_name='__main__')")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return json.loads(run_script(tmp_path_factory.mktemp("tfmot")).splitlines().pop())


@pytest.mark.parametrize("model", ["images", "series", "by name", "fresh"])
def test_the_same_outputs_masks_and_schedules(report, model):
    found = report[model]
    assert found["difference"] < 1e-5
    assert found["class"] == "PrunedFunctional"
    assert found["names"] and found["masks"] and found["zeros"] and found["schedule"]


def test_each_wrapper_is_there_with_its_settings(report):
    names = ["conv", "separable_conv2d", "conv2d_transpose", "shared", "in_top", "other"]
    assert report["images"]["settings"] == {f"prune_low_magnitude_{n}": SINGLE for n in names}
    names = ["embedding", "multi_head_attention", "conv1d", "gru", "rnn"]
    assert report["series"]["settings"] == {f"prune_low_magnitude_{n}": SINGLE for n in names}
    assert report["by name"]["settings"] == {
        "prune_low_magnitude_blocks": [[4, 1], "MAX", None],
        "prune_low_magnitude_groups": [[1, 1], "AVG", [2, 4]],
    }


def test_the_schedule_goes_on_where_it_was(report):
    # Four steps of training; to tfmot, a layer that is used twice makes two steps at a time.
    assert report["images"]["steps"] == [4, 8]
    assert report["fresh"]["steps"] == [0]
    assert report["images"]["sparsity"] == pytest.approx(0.52, abs=0.01)
    # 75 % of 3 · 3 · 3 · 4, 8 · 4, 3 · 3 · 4 · 4, 8 · 8, 8 · 4 and 8 · 2, after six steps more.
    assert list(report["goes on"].values()) == [[27], [8], [36], [16], [8], [4]]


def test_a_stripped_model_becomes_a_plain_one(report):
    found = report["stripped"]
    assert found["class"] == "Functional" and found["settings"] == {}
    assert found["difference"] < 1e-5


def test_all_that_cannot_be_converted_is_named(report):
    text = report["refused"]["layers"]
    for part in (
        "'mine' (Mine): it is a class of your own",
        "'tf.math.multiply' (TFOpLambda): it is a TensorFlow operation",
        "'function' (Lambda): its function can't be carried over",
        "'old' (ThresholdedReLU): Keras 3 has no such layer",
        "'renorm' (BatchNormalization): renorm=True: Keras 3 has only False",
        "'prune_low_magnitude_stairs' (PruneLowMagnitude): its schedule Staircase is none of",
    ):
        assert part in text
    assert report["refused"]["keras 3"].startswith("TypeError: `model` must be a model made with")
    assert "must be built" in report["refused"]["not built"]
    assert report["refused"]["no path"].endswith("Received: model='nowhere.h5'")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_read_without_tf_keras_in_this_process(tmp_path, name):
    run_script(tmp_path, name)
    loaded = "tf_keras" in sys.modules
    model = from_tfmot(tmp_path / name, sparsity_m_by_n=(2, 4))
    assert ("tf_keras" in sys.modules) is loaded
    with np.load(tmp_path / "expected.npz") as expected:
        np.testing.assert_allclose(model(expected["x"]), expected["y"], rtol=1e-5, atol=1e-6)
        wrapped = [layer for layer in model.layers if hasattr(layer, "pruned")]
        for i, layer in enumerate(wrapped):
            np.testing.assert_array_equal(layer.pruned[0].mask, expected[f"arr_{i}"])
            assert layer.sparsity_m_by_n == (2, 4)
            # Four steps of training.
            assert layer.pruning_schedule == granet_tf.Shifted(
                granet_tf.PolynomialDecay(0.1, 0.75, 2, 10, frequency=2), 4
            )
        assert len(wrapped) == 2
        model.save(tmp_path / "ours.keras")
        again = keras.models.load_model(tmp_path / "ours.keras")
        np.testing.assert_array_equal(again(expected["x"]), model(expected["x"]))
    assert again.layers[0].pruning_schedule == wrapped[0].pruning_schedule


def test_a_keras_3_file_and_what_is_no_file(tmp_path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]).save(tmp_path / "new.keras")
    with pytest.raises(ValueError, match=r"is a Keras 3 file already: .*Received: model="):
        from_tfmot(tmp_path / "new.keras")
    with pytest.raises(TypeError, match=r"made with tf_keras, or the path.*Received: model=3"):
        from_tfmot(3)


def test_a_reader_that_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "model.h5").write_bytes(b"none")

    def fails(text):
        done = subprocess.CompletedProcess([], 1, "", f"Traceback\n{text}\n\n")
        monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: done)

    fails("ModuleNotFoundError: No module named 'tf_keras'")
    with pytest.raises(ImportError, match=r"pip install tf_keras .*Received: .*'tf_keras'"):
        from_tfmot(tmp_path / "model.h5")
    fails("ValueError: Unknown layer: 'Mine'")
    with pytest.raises(ValueError, match=r"pass the model itself.*Received: .*Unknown layer: 'Mi"):
        from_tfmot(tmp_path / "model.h5")


@pytest.mark.parametrize(
    ("name", "config", "text"),
    [
        ("LSTM", {"units": 2, "time_major": True}, "time_major=True: Keras 3 has only False"),
        ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "groups": 2}, "groups=2"),
        ("BatchNormalization", {"axis": [1, 2]}, "Keras 3 has a single one"),
        ("Dense", {"units": 2, "sharpness": 1}, "does not take its settings.*sharpness"),
        ("TextVectorization", {}, "its vocabulary is no weight"),
        ("keras", {}, "no such layer"),
    ],
)
def test_settings_without_counterpart(name, config, text):
    with pytest.raises(NoCounterpart, match=text):
        converted(name, config)
