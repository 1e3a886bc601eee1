"""Files that version 0.1 wrote load, say what they said, and go on (tests/fixtures/v0_1)."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.wrapping.stripping import pruned_weights
from granet_train import files
from tests.support import models, short_runs
from tests.support.keras_versions import LOADS_FILES_OF_3_15

OLD = pathlib.Path(__file__).parent / "fixtures" / "v0_1"
EXPECTED = json.loads((OLD / "expected.json").read_text())
STATES = json.loads((OLD / "states.json").read_text())
X, Y = models.data(models.sequential, 16)


def nonzeros(model):
    return [int(np.count_nonzero(p.mask.numpy())) for p in pruned_weights(model)]


def assert_as_it_was(model, expected):
    np.testing.assert_allclose(model.predict(X[:2], verbose=0), expected["outputs"], rtol=1e-5)
    assert nonzeros(model) == expected["nonzeros"]
    assert int(model.optimizer.iterations) == expected["iterations"] == 4


# Keras 3.15 saved them.
loads = pytest.mark.skipif(not LOADS_FILES_OF_3_15, reason="made by a newer Keras")


@loads
@pytest.mark.parametrize("name", EXPECTED)
def test_keras_files_load_and_train_on(name):
    model = keras.models.load_model(OLD / f"{name}.keras")
    assert_as_it_was(model, EXPECTED[name])
    model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    assert int(model.optimizer.iterations) == 6
    assert sum(nonzeros(model)) <= sum(EXPECTED[name]["nonzeros"])


@keras.saving.register_keras_serializable("tests")
class Scaled(keras.Model):
    """Trains in its own way, which version 0.1 passed over, and has its layers under two names."""

    def __init__(self, scale=2.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.hidden = keras.layers.Dense(16, name="hidden")
        self.head = keras.layers.Dense(4, name="head")

    @property
    def blocks(self):
        return [self.hidden, self.head]

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def train_step(self, data):
        return {**super().train_step(data), "scale": self.scale}

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def test_a_model_of_a_users_class_trains_as_the_class_says_from_now_on():
    model = keras.models.load_model(OLD / "own_train_step.keras")
    assert_as_it_was(model, STATES["own_train_step"])
    history = model.fit(X, Y, batch_size=8, shuffle=False, verbose=0).history
    assert history["scale"] == [3.0]
    assert isinstance(model, Scaled) and isinstance(model.model, Scaled)


@loads
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_wrapped_layers_that_were_frozen_load():
    """Version 0.1 saved these and could not load them."""
    model = keras.models.load_model(OLD / "prune_low_magnitude_frozen.keras")
    expected = STATES["prune_low_magnitude_frozen"]
    np.testing.assert_allclose(model.predict(X[:2], verbose=0), expected["outputs"], rtol=1e-5)
    assert nonzeros(model) == expected["nonzeros"] and model.trainable_variables == []


def made(name):
    """The model of a file, with nothing of its weights in it."""
    if name == "granet":
        method = granet_tf.GraNet(0.75, end_step=8, frequency=1, total_steps=12)
        model = granet_tf.wrap(models.sequential(), method)
    else:
        schedule = granet_tf.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=8, frequency=1)
        model = granet_tf.sparsity.keras.prune_low_magnitude(models.sequential(), schedule)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("name", ["granet", "prune_low_magnitude"])
def test_checkpoints_and_weights_load(name):
    model = made(name)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    checkpoint.read(str(OLD / f"{name}.ckpt")).assert_existing_objects_matched()
    assert_as_it_was(model, EXPECTED[name])
    other = made(name)
    other.load_weights(OLD / f"{name}.weights.h5")
    assert nonzeros(other) == EXPECTED[name]["nonzeros"]


def going_on_with(directory, tmp_path):
    """A copy of it, and the flags: killed at step 12 of 20, with checkpoints every 4."""
    workdir = tmp_path / "workdir"
    shutil.copytree(OLD / directory, workdir)
    flags = (
        *("--dataset=digits", "--model=small_cnn", "--width=0.125", "--method=granet"),
        *("--frequency=2", "--epochs=4", "--batch_size=256", "--learning_rate=0.05"),
        *("--momentum=0.9", "--checkpoint_every=4", "--keep_checkpoints=1"),
        *(*short_runs.QUIET, f"--workdir={workdir}"),
    )
    return workdir, flags


def test_a_work_directory_goes_on(tmp_path):
    workdir, flags = going_on_with("workdir", tmp_path)
    assert "going on after step 8 of 20" in short_runs.run(*flags, "--final_sparsity=0.75")
    result = short_runs.summary(workdir)["runs"]["granet"]
    assert result["sparsity"] == pytest.approx(0.75, abs=1e-3)


def test_a_work_directory_whose_outputs_are_pruned_goes_on(tmp_path):
    """Version 0.1 pruned whole filters of the last layer, too."""
    workdir, flags = going_on_with("workdir_filter", tmp_path)
    said = short_runs.run(*flags, "--final_sparsity=0.5", "--pattern=filter")
    assert "going on after step 8 of 20" in said
    model = keras.models.load_model(workdir / "sparse.keras")
    assert model.pruned[-1].path.endswith("head/kernel")
    run = json.loads((workdir / "run.json").read_text())
    assert run["prune_outputs"] is True
    assert "This run is finished" in short_runs.run(
        *flags, "--final_sparsity=0.5", "--pattern=filter"
    )


def test_a_work_directory_keeps_the_defaults_of_its_time(tmp_path):
    """Version 0.1 spread the sparsities of Top-KAST evenly where nothing was said."""
    saved = json.loads((OLD / "workdir" / "run.json").read_text()) | {"method": "top_kast"}
    now = {"method": "top_kast", "distribution": None, "shrink_at": []}
    for _ in range(2):  # The second session reads what the first has noted.
        (tmp_path / "run.json").write_text(json.dumps(saved))
        earlier = files.earlier(tmp_path, overwrite=False)
        unsaid = files.left_unsaid(now, earlier)
        assert unsaid == {"distribution": "uniform"}
        assert files.different(now | unsaid, {k: earlier[k] for k in now}, free=()) == []
        saved = now | unsaid
    assert files.left_unsaid(now | {"distribution": "erk"}, earlier) == {}
    (tmp_path / "run.json").write_text(json.dumps(now))
    assert files.left_unsaid(now, files.earlier(tmp_path, overwrite=False)) == {}


@pytest.mark.parametrize("method", ["gmp", "dpf"])
def test_a_work_directory_of_gmp_keeps_all_layers_as_sparse(tmp_path, method):
    """Before runs noted which defaults were in force, GMP's was "uniform"."""
    now = {"method": method, "distribution": None, "shrink_at": []}
    (tmp_path / "run.json").write_text(json.dumps(now))
    earlier = files.earlier(tmp_path, overwrite=False)
    assert files.left_unsaid(now, earlier) == {"distribution": "uniform"}
    files.begin(tmp_path, now, overwrite=False)  # It goes on, and is still an old one.
    assert files.earlier(tmp_path, overwrite=False)["distribution"] == "uniform"
    files.begin(tmp_path, now, overwrite=True)
    earlier = files.earlier(tmp_path, overwrite=False)
    assert files.left_unsaid(now, earlier) == {}
    assert earlier["distribution"] is None
    assert files.different(now, earlier, free=()) == []
