"""granet-train with a teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_train import distillation, files, flags
from granet_train.distillation import Distillation
from granet_train.errors import UsageError
from tests.support.short_runs import QUIET, SHORT, run, summary

NETWORK = ("--width=0.25", *SHORT, *QUIET)


def network(*last, shape=(8, 8, 1)):
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), *last])


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("teacher") / "run"
    run(*NETWORK, "--method=dense", f"--workdir={workdir}")
    return workdir


def weights(workdir):
    return keras.models.load_model(workdir / files.SPARSE, compile=False).model.get_weights()


def test_the_loss_by_hand():
    model = network(keras.layers.Dense(3))
    images, rng = np.random.rand(4, 8, 8, 1).astype("float32"), np.random.default_rng(0)
    logits, of_labels = rng.normal(size=(4, 3)).astype("float32"), rng.random(4).astype("float32")

    def softmax(x):
        powers = np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    theirs, ours = softmax(model(images).numpy() / 5.0), softmax(logits / 5.0)
    divergence = np.sum(theirs * np.log(theirs / ours), -1)
    found = Distillation(model, 0.3, 5.0).losses(images, tf.constant(logits), of_labels)
    np.testing.assert_allclose(found, 0.7 * of_labels + 0.3 * 25 * divergence, rtol=1e-4)


def test_a_teacher_of_no_weight_changes_nothing_and_one_of_weight_does(teacher, tmp_path):
    argv = (*NETWORK, "--frequency=3")
    run(*argv, f"--workdir={tmp_path / 'alone'}")
    taught = (*argv, f"--teacher={teacher}")
    run(*taught, "--distillation_weight=0", f"--workdir={tmp_path / 'none'}")
    run(*taught, "--distillation_weight=0.9", f"--workdir={tmp_path / 'much'}")
    alone, none, much = (weights(tmp_path / name) for name in ("alone", "none", "much"))
    for a, b in zip(alone, none, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(alone, much, strict=True))
    # It is the student's masks that are there, and its weights alone.
    assert summary(tmp_path / "much")["runs"]["granet"]["sparsity"] == pytest.approx(0.9, abs=1e-3)
    assert [w.shape for w in much] == [w.shape for w in alone]


def test_a_run_goes_on_with_its_teacher_and_with_no_other(teacher, tmp_path):
    argv = (*NETWORK, "--frequency=3", f"--workdir={tmp_path / 'run'}")
    run(*argv, f"--teacher={teacher}")
    assert "This run is finished" in run(*argv, f"--teacher={teacher}")
    with pytest.raises(UsageError, match=r"teacher"):
        run(*argv)
    run(*argv, f"--teacher={teacher}", "--epochs=6", "--extend")
    assert summary(tmp_path / "run")["flags"]["epochs"] == 6


def test_a_teacher_may_be_a_file_wrapped_or_not(tmp_path):
    wrapped = granet_tf.wrap(network(keras.layers.Dense(10)), granet_tf.StaticSparse(0.5))
    wrapped.save(tmp_path / "teacher.keras")
    values, _ = flags.parse([f"--teacher={tmp_path / 'teacher.keras'}"])
    distillation.check(values, (8, 8, 1), 10)
    found = distillation.made(values)
    assert (found.weight, found.temperature) == (0.5, 4.0)
    assert not found.teacher.trainable_variables
    images = np.ones((1, 8, 8, 1), "float32")
    np.testing.assert_allclose(found.teacher(images), wrapped(images), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: network(keras.layers.Dense(7)), r"return 10 logits.*\(7,\)"),
        (lambda: network(keras.layers.Dense(10), shape=(4, 4, 1)), r"shape \(8, 8, 1\).*\(4, 4"),
        (lambda: network(keras.layers.Dense(10, "softmax", name="last")), r"logits.*'last'"),
        (
            lambda: network(keras.layers.Dense(10), keras.layers.Softmax(name="soft")),
            r"logits.*'soft'",
        ),
    ],
)
def test_teachers_that_do_not_fit(make, text, tmp_path):
    make().save(tmp_path / "teacher.keras")
    values, _ = flags.parse([f"--teacher={tmp_path / 'teacher.keras'}"])
    with pytest.raises(UsageError, match=rf"{text}|Received: --teacher=.*{text}"):
        distillation.check(values, (8, 8, 1), 10)


def test_what_is_not_there_or_needs_a_teacher(tmp_path):
    for path in (tmp_path, tmp_path / "none.keras", __file__):
        values, _ = flags.parse([f"--teacher={path}"])
        with pytest.raises(UsageError, match=r"must be the work directory of a finished run, or a"):
            distillation.check(values, (8, 8, 1), 10)
    (tmp_path / "broken.keras").write_text("no model")
    values, _ = flags.parse([f"--teacher={tmp_path / 'broken.keras'}"])
    with pytest.raises(UsageError, match=r"The teacher cannot be read"):
        distillation.check(values, (8, 8, 1), 10)
    for flag in ("--distillation_weight=0.5", "--distillation_temperature=2"):
        with pytest.raises(UsageError, match=rf"{flag.split('=')[0]} needs --teacher"):
            flags.parse([flag])
    with pytest.raises(UsageError, match=r"--techer"):
        flags.parse(["--techer=x"])
