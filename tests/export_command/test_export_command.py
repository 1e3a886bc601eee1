"""granet-export: what goes in, what comes out, and one line for each mistake."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf.export import calibration, encoding, formats, read_weights
from granet_tf.export.report import _WRITERS
from granet_tf.methods.parameters import parameters_of
from granet_train import main as training
from granet_train.errors import UsageError
from granet_train.export_command import flags, main, models
from tests.support import ROOT


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run of granet-train on digits, one epoch, with a dense twin."""
    place = tmp_path_factory.mktemp("work") / "digits"
    training.cli(
        [
            *("--dataset=digits", "--model=small_cnn", "--width=0.25", "--epochs=1"),
            *("--method=static", "--final_sparsity=0.8", "--compare=dense", f"--workdir={place}"),
            *("--notensorboard", "--noplot", "--noexport_tflite"),
        ]
    )
    return place


def run(*arguments):
    main.cli([*arguments, "--nolatency"])


def kernels(path):
    return [weight for weight in read_weights(path) if weight.values.ndim > 1]


def test_a_work_directory(workdir, tmp_path, capsys):
    run(
        f"--model={workdir}",
        *("--format=int8", "--encoding=sparse", "--samples=50"),
        f"--output={tmp_path / 'm.tflite'}",
        f"--report={tmp_path / 'r.html'},{tmp_path / 'r.json'},{tmp_path / 'r.txt'}",
        f"--stripped={tmp_path / 's.keras'}",
        f"--saved_model={tmp_path / 'served'}",
    )
    printed = capsys.readouterr().out
    assert "Checked on 50 test images of digits." in printed
    assert sorted(os.listdir(tmp_path)) == [
        *("m.tflite", "r.html", "r.json", "r.txt", "s.keras", "served")
    ]
    report = json.loads((tmp_path / "r.json").read_text())
    stripped = keras.models.load_model(tmp_path / "s.keras")
    model = keras.models.load_model(workdir / "stripped.keras")
    for ours, theirs in zip(stripped.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    # Ranges come from training images, accuracy from the first 50 test images.
    from granet_train import data
    from granet_train.data.first_images import first_images

    images, labels = first_images(data.load("digits", batch_size=64, seed=0), 50)
    expected = np.mean(model.predict(images, verbose=0).argmax(-1) == labels)
    assert report["file"]["accuracy_keras"] == pytest.approx(expected)
    assert abs(report["file"]["accuracy_file"] - expected) <= 0.04

    import tensorflow as tf

    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.serve(images), model(images), atol=1e-5)


def test_a_checkpoint_is_the_model_that_was_saved(workdir, tmp_path):
    saved = keras.models.load_model(workdir / "sparse.keras", compile=False)
    newest = max((workdir / "checkpoints" / "static").glob("ckpt-*.index"))
    for path in (newest.with_suffix(""), newest, workdir / "checkpoints" / "static"):
        found = models.load(str(path))
        assert found.output == str(workdir / "model.tflite")
        for ours, theirs in zip(found.model.weights, saved.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_twin_of_a_run(workdir):
    found = models.load(str(workdir), "dense")
    assert "checkpoints/dense/ckpt-" in found.source
    assert not isinstance(found.model, granet_tf.SparseModel)
    assert all(np.count_nonzero(w) == w.shape.num_elements() for w in found.model.weights[:1])


def test_a_keras_file_with_masks(tmp_path, capsys):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    wrapped = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    wrapped.save(tmp_path / "m.keras")
    run(f"--model={tmp_path / 'm.keras'}")
    assert "Checked on random numbers." in capsys.readouterr().out
    [weight] = kernels(tmp_path / "m.tflite")
    np.testing.assert_array_equal(weight.values, model.layers[0].kernel.numpy().T)


def test_a_file_for_mnn(workdir, tmp_path, capsys):
    run(f"--model={workdir}", "--format=mnn", f"--output={tmp_path / 'm.mnn'}", "--samples=50")
    printed = capsys.readouterr().out
    assert "Checked on 50 test images of digits." in printed
    assert "without sparse encoding; differs from Keras by at most" in printed
    assert "accuracy" in printed
    assert os.listdir(tmp_path) == ["m.mnn"]


def test_without_mnn(workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "MNN", None)
    with pytest.raises(SystemExit) as stopped:
        run(f"--model={workdir}", "--format=mnn", f"--output={tmp_path / 'm.mnn'}")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "pip install 'granet_tf[mnn]'" in error
    assert os.listdir(tmp_path) == []


def test_images_of_a_directory_are_scaled_as_asked(tmp_path):
    import tensorflow as tf

    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.png").write_bytes(tf.io.encode_png(pixels).numpy())
    expected = {
        "0_255": pixels,
        "0_1": pixels / 255,
        "-1_1": pixels / 127.5 - 1,
        "imagenet": (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225),
    }
    assert (
        set(expected)
        == set(parameters_of(flags.Options)["scaling"].choices)
        == set(calibration.SCALINGS)
    )
    for scaling, images in expected.items():
        found = calibration.images_of(tmp_path, (4, 4), 3, scaling)
        np.testing.assert_allclose(found, images[None], atol=1e-5)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(ValueError, match=r"cannot be read. Received: '.*a.jpg'"):
        calibration.images_of(tmp_path, (4, 4), 3)


def test_compact_removes_dead_units_before_the_export(tmp_path, capsys):
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(8)]
    )
    alive = np.arange(32) < 3
    model.layers[0].kernel.assign(model.layers[0].kernel * alive)
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="Nothing in the file is sparse"):
        run(f"--model={tmp_path / 'm.keras'}", "--compact")
    assert "Compacted: 227 of 2,344 parameters are left." in capsys.readouterr().out
    shapes = [weight.values.shape for weight in kernels(tmp_path / "m.tflite")]
    assert shapes == [(3, 64), (8, 3)]


def test_choices_are_those_of_the_library():
    declared = parameters_of(flags.Options)
    assert (*formats.FORMATS, "mnn") == declared["format"].choices
    assert declared["encoding"].choices == encoding.ENCODINGS
    assert tuple(_WRITERS) == flags.SUFFIXES


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--model is needed. See --help. Received: no --model"),
        (["--modle=m.keras"], "There is no flag --modle. Did you mean --model?"),
        (["m.keras"], "Everything is a flag here.*Received: m.keras"),
        (["--model=m.keras", "--format=int4"], "--format must be one of float32, float16"),
        (["--model=m.keras", "--output=m.tfl"], "--output must end with .tflite. Received: --out"),
        (["--model=m.keras", "--report=a.html,b.pdf"], "must be a list of files.*=a.html,b.pdf"),
        (["--model=m.keras", "--samples=0"], "--samples must be 1 or more. Received: --samples=0"),
        (
            ["--model=m.keras", "--format=mnn", "--output=m.tflite"],
            "--output must end with .mnn for --format=mnn. Received: --output=m.tflite",
        ),
        (
            ["--model=m.keras", "--format=mnn", "--report=r.html"],
            "--report is of .tflite files.*Received: --report=r.html with --format=mnn",
        ),
        (
            ["--model=m.keras", "--format=mnn", "--encoding=sparse"],
            "--encoding is of .tflite files.*Received: --encoding=sparse with --format=mnn",
        ),
        (["--model=m.keras", "--threads=x"], "--threads must be .*Received: --threads=x"),
    ],
)
def test_mistakes_in_flags(arguments, text):
    with pytest.raises(UsageError, match=text):
        flags.parse(arguments)


def damaged(workdir, tmp_path):
    (tmp_path / "bad.keras").write_text("no model")
    return tmp_path / "bad.keras"


def elsewhere(workdir, tmp_path):
    return tmp_path


def missing_checkpoint(workdir, tmp_path):
    return workdir / "checkpoints" / "static" / "ckpt-7"


def cut_off(workdir, tmp_path):
    newest = max((workdir / "checkpoints" / "dense").glob("ckpt-*.index"))
    data = next(newest.parent.glob(f"{newest.stem}.data-*"))
    copied = tmp_path / "checkpoints" / "dense"
    copied.mkdir(parents=True)
    (tmp_path / "run.json").write_bytes((workdir / "run.json").read_bytes())
    (copied / newest.name).write_bytes(newest.read_bytes())
    (copied / data.name).write_bytes(data.read_bytes()[:100])
    return copied / newest.stem


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (damaged, "cannot be read as a Keras 3 model.*Received: --model=.*bad.keras"),
        (elsewhere, "this is another directory. Received: --model="),
        (missing_checkpoint, "There is no checkpoint. Received: .*ckpt-7, looked in"),
        (cut_off, "The checkpoint cannot be read.*Received: --model=.*ckpt-"),
    ],
)
def test_models_that_cannot_be_read(workdir, tmp_path, place, text):
    with pytest.raises(UsageError, match=text):
        models.load(str(place(workdir, tmp_path)))


def test_a_failed_export_leaves_nothing(workdir, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(f"--model={workdir}", f"--output={tmp_path / 'm.tflite'}", "--data=no_such_set")
    assert stopped.value.code == 2 and os.listdir(tmp_path) == []
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "no_such_set" in error


def test_a_report_that_cannot_be_made_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        run("--model=no_such.keras", f"--report={tmp_path}/r.html")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.startswith("error: --report: The report as a page is")


def test_flags_are_answered_before_data_and_models_are_looked_for():
    program = (
        "import sys\n"
        "from granet_train.commands import export\n"
        "try:\n"
        "    export()\n"
        "finally:\n"
        "    print({'sklearn.datasets', 'tensorflow_datasets'}.isdisjoint(sys.modules))"
    )
    for argument, code in [("--help", 0), ("--modle=1", 2)]:
        done = subprocess.run(
            [sys.executable, "-c", program, argument],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code and done.stdout.splitlines()[-1] == "True"
        assert done.stderr.count("\n") == (code == 2)
