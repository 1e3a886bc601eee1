"""The training binary: what it writes is true, and what it refuses is said in one line."""

import contextlib
import csv
import dataclasses
import doctest
import io
import json
import os
import pathlib
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf import methods, scopes
from granet_tf.training import (
    checkpoints,
    durations,
    files,
    flags,
    main,
    models,
    optimizers,
    plot,
    progress,
)
from granet_tf.training.data import DATASETS, load_digits
from granet_tf.training.errors import TrainingStopped, UsageError

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.flags"))
FAST = ("--epochs=3", "--batch_size=256", "--learning_rate=0.05", "--frequency=2")


def run(*argv):
    """What one run prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        main.main(*flags.parse(argv))
    return output.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a run with twins, and what it printed."""
    workdir = tmp_path_factory.mktemp("work") / "made" / "by_the_run"
    return workdir, run(*FAST, "--compare=dense,gmp", f"--workdir={workdir}")


def evaluated(model):
    """Accuracy of a model on the test set, computed without the binary."""
    images, labels = zip(*load_digits(64, 0).test.as_numpy_iterator(), strict=True)
    predicted = model.predict(np.concatenate(images), verbose=0).argmax(-1)
    return np.mean(predicted == np.concatenate(labels))


# What a run writes


def test_writes_every_file_and_says_where(finished):
    workdir, printed = finished
    assert {path.name for path in workdir.iterdir()} == set(files.ALL)
    assert {path.name for path in (workdir / files.CHECKPOINTS).iterdir()} == {
        "granet.keras",
        "dense.keras",
        "gmp.keras",
    }
    assert f"{workdir}/" in printed
    for name in files.ALL:
        assert f"  {name}" in printed
    assert (workdir / files.PLOT).read_bytes().startswith(b"\x89PNG")


def test_summary_matches_the_saved_models(finished):
    workdir, _ = finished
    summary = json.loads((workdir / files.SUMMARY).read_text())
    sparse = keras.models.load_model(workdir / files.SPARSE)
    stripped = keras.models.load_model(workdir / files.STRIPPED)

    figures = summary["runs"]["granet"]
    kernels = [w for w in stripped.trainable_weights if len(w.shape) > 1]
    assert figures["weights"] == sum(w.numpy().size for w in kernels) == 93_728
    assert figures["nonzeros"] == sparse.nonzeros == 9_373
    assert sum(np.count_nonzero(w) for w in kernels) <= 9_373
    assert figures["sparsity"] == sparse.sparsity
    assert figures["flops_sparse"] == granet_tf.count_flops(sparse).sparse
    for model in (sparse, stripped):
        assert evaluated(model) == pytest.approx(figures["test_accuracy"], abs=1e-6)
    dense = keras.models.load_model(workdir / files.CHECKPOINTS / "dense.keras")
    dense_accuracy = summary["runs"]["dense"]["test_accuracy"]
    assert evaluated(dense) == pytest.approx(dense_accuracy, abs=1e-6)

    assert list(summary["runs"]) == ["granet", "dense", "gmp"]
    assert summary["runs"]["gmp"]["nonzeros"] == 9_373
    assert summary["runs"]["dense"]["nonzeros"] == 93_728
    assert summary["flags"]["epochs"] == 3
    assert summary["flags"]["compare"] == ["dense", "gmp"]
    assert summary["versions"]["keras"] == keras.__version__
    assert summary["wall_seconds"] > 0
    sizes = {name: (workdir / name).stat().st_size for name in summary["files"]}
    assert summary["files"] == sizes


def test_sparse_model_can_be_trained_on(finished):
    workdir, _ = finished
    model = keras.models.load_model(workdir / files.SPARSE)
    assert int(model.optimizer.iterations) == 15
    model.fit(load_digits(256, 0).train().take(1), shuffle=False, verbose=0)
    assert model.nonzeros == 9_373


def test_tables_show_the_same_numbers_as_the_files(finished):
    workdir, printed = finished
    runs = json.loads((workdir / files.SUMMARY).read_text())["runs"]
    lines = [line.split() for line in printed.splitlines()]
    for name, figures in runs.items():
        [line] = [line for line in lines if line[:2] == [name, f"{figures['test_accuracy']:.2%}"]]
        assert f"{figures['nonzeros']:,}" in line
        assert f"{figures['flops_sparse'] / figures['flops_dense']:.1%}" in line
    [total] = [line for line in lines if line[:1] == ["total"]]
    sparse = f"{runs['granet']['flops_sparse']:,}"
    assert total[1:6] == ["93,728", "9,373", "0.9000", "2,992,640", sparse]
    assert "not pruned: 458 (bias or scale), 448 (not trainable)" in printed


def test_metrics_has_a_line_for_each_epoch(finished):
    workdir, _ = finished
    with open(workdir / files.METRICS, newline="") as file:
        lines = list(csv.DictReader(file))
    expected = [(name, str(n)) for name in ("granet", "dense", "gmp") for n in (1, 2, 3)]
    assert [(line["run"], line["epoch"]) for line in lines] == expected
    assert [line["step"] for line in lines[:3]] == ["5", "10", "15"]
    assert [float(line["sparsity"]) for line in lines[3:6]] == [0.0] * 3
    assert float(lines[2]["sparsity"]) == pytest.approx(0.9, abs=1e-4)


def test_dense_alone(tmp_path):
    printed = run(
        "--method=dense", "--epochs=1", "--batch_size=512", "--noplot", "--noexport_tflite",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {files.STRIPPED, files.METRICS, files.SUMMARY, files.CHECKPOINTS}
    assert "93,728" in printed


# Flags


def test_flagfile_is_overridden_by_what_follows(tmp_path):
    flagfile = tmp_path / "a.flags"
    flagfile.write_text("# why\n\n--method=gmp\n--final_sparsity=0.5\n--nesterov\n")
    values, given = flags.parse([f"--flagfile={flagfile}", "--final_sparsity=0.7"])
    assert (values.method, values.final_sparsity, values.nesterov) == ("gmp", 0.7, True)
    assert {"method", "final_sparsity", "nesterov"} <= given


@pytest.mark.parametrize("flagfile", CONFIGS, ids=lambda path: path.name)
def test_configs_are_valid(flagfile):
    values, given = flags.parse([f"--flagfile={flagfile}"])
    main._check_use(values, given)
    assert "Expected:" in flagfile.read_text()


def test_another_method_leaves_out_what_the_flagfile_says_for_the_first(tmp_path):
    flagfile = tmp_path / "a.flags"
    flagfile.write_text("--method=granet\n--drop_fraction=0.4\n")
    main._check_use(*flags.parse([f"--flagfile={flagfile}", "--method=gmp"]))
    with pytest.raises(UsageError, match="--method=gmp has no use for --drop_fraction"):
        main._check_use(
            *flags.parse(["--flagfile", str(flagfile), "--method=gmp", "--drop_fraction=0.3"])
        )


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--metod=gmp", "Unknown command line flag 'metod'. Did you mean: method? See --help."),
        ("--method=gm", "should be one of <granet|gmp|rigl|set|static|dense>"),
        ("--dataset=imagenet", "should be one of <digits"),
        ("--compare=dense,foo", "any of granet, gmp, rigl, set, static, dense"),
        ("--final_sparsity=1", "must be a fraction of zeros in [0, 1)"),
        ("--final_sparsity=90", "must be a fraction of zeros in [0, 1)"),
        ("--initial_sparsity=-0.1", "must be a fraction of zeros in [0, 1)"),
        ("--begin=soon", 'must be optimizer steps ("500"), a fraction of training ("0.5")'),
        ("--frequency=0", "must be longer than nothing"),
        ("--epochs=0", "0 is not a positive integer"),
        ("--learning_rate=nan", "must be above 0"),
        ("--drop_fraction=1.5", "not a number in the range [0.0, 1.0]"),
        ("--begin=0.6 --end=0.5", "Received: --begin=0.6 --end=0.5"),
        ("--initial_sparsity=0.6 --final_sparsity=0.5", "pruning only removes. Received: --init"),
        ("--nesterov --momentum=0", "needs a momentum above 0"),
        ("granet", "Everything is a flag here, such as --method=granet. Received: granet"),
        ("--flagfile=/nowhere.flags", "No such file or directory: '/nowhere.flags'"),
    ],
)
def test_mistakes_on_the_command_line(argv, text, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.cli(argv.split())
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert text in printed.err
    assert not printed.out


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--method=static --drop_fraction=0.5 --scope=layer --end=0.5", "--drop_fraction, --end"),
        ("--method=dense --mask_only", "--method=dense has no use for --mask_only"),
        ("--method=rigl --initial_sparsity=0.5", "--method=rigl has no use for --initial_sparsity"),
        ("--optimizer=adam --momentum=0.9", "--optimizer=adam has no use for --momentum"),
        ("--batch_size=2000", "A batch cannot hold more than the 1,437 training samples"),
        ("--initial_sparsity=0.95", "initial_sparsity=0.95, final_sparsity=0.9"),
        ("--begin=10e --end=5 --epochs=20", "begin_step=220, end_step=5"),
    ],
)
def test_flags_that_contradict_each_other(argv, text, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.cli([*argv.split(), f"--workdir={tmp_path}"])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert text in printed.err
    assert not os.listdir(tmp_path)


def test_help_shows_every_flag(capsys):
    main.cli(["--helpfull"])
    printed = capsys.readouterr().out
    for name in flags.as_dict(flags.define()):
        assert f"{name}:" in printed
    for section in flags.SECTIONS:
        assert printed.count(f"\n{section}:\n") == 1


def test_choices_are_those_of_the_library():
    def choices(name):
        return set(flags.define()[name].parser.enum_values)

    assert choices("scope") == set(scopes.SCOPES)
    assert choices("distribution") == set(methods.DISTRIBUTIONS)
    parameters = set()
    for name in flags.METHODS.values():
        parameters |= {field.name for field in dataclasses.fields(getattr(granet_tf, name))}
    assert set(flags.METHOD_FLAGS.values()) <= parameters


def test_durations_and_parameters_reach_the_methods():
    values, _ = flags.parse(
        ["--begin=10", "--end=0.5", "--frequency=2e", "--compare=rigl,dense", "--scope=layer"]
    )
    length = durations.TrainingLength(epochs=40, steps_per_epoch=22)
    granet = main._method("granet", values, length)
    assert (granet.begin_step, granet.end_step, granet.frequency) == (10, 440, 44)
    assert (granet.final_sparsity, granet.scope) == (0.9, "layer")
    assert main._method("rigl", values, length).end_step == 440
    assert main._method("dense", values, length) is None


def test_twins_are_named_once():
    values, _ = flags.parse(["--method=gmp", "--compare=dense,gmp,dense"])
    assert flags.runs(values) == ("gmp", "dense")


# Durations


@pytest.mark.parametrize(
    ("text", "parsed", "steps"),
    [
        ("0", (0, "steps"), 0),
        ("500", (500, "steps"), 500),
        ("0.0", (0, "training"), 0),
        ("0.5", (Fraction(1, 2), "training"), 50),
        (".25", (Fraction(1, 4), "training"), 25),
        ("1.0", (1, "training"), 100),
        ("0.333", (Fraction(333, 1000), "training"), 33),
        ("3e", (3, "epochs"), 30),
        ("1epoch", (1, "epochs"), 10),
        ("30epochs", (30, "epochs"), 300),
        ("0.5e", (Fraction(1, 2), "epochs"), 5),
    ],
)
def test_durations(text, parsed, steps):
    assert durations.parse(text) == parsed
    assert durations.to_steps(text, durations.TrainingLength(10, 10)) == steps


@pytest.mark.parametrize("text", ["", "-1", "1.5", "50%", "1e3", "e", "five", "0.5.5", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=f"Received: '{text}'"):
        durations.parse(text)


# The work directory


def test_unwritable_workdir(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit) as stopped:
        main.cli([f"--workdir={tmp_path}/file/below"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error == (
        "error: Cannot write in the work directory: Not a directory. "
        f"Received: --workdir={tmp_path}/file/below\n"
    )


def test_used_workdir(tmp_path):
    for name in ("a", "b", "c", "metrics.csv"):
        (tmp_path / name).write_text("old")
    (tmp_path / files.CHECKPOINTS).mkdir()
    with pytest.raises(UsageError, match=r"holds a, b, c and 2 more\. .*--overwrite"):
        files.prepare(str(tmp_path), overwrite=False)
    assert len(os.listdir(tmp_path)) == 5

    files.clear(files.prepare(str(tmp_path), overwrite=True))
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]


def test_a_mistake_does_not_cost_the_earlier_run(tmp_path):
    (tmp_path / files.SUMMARY).write_text("old")
    with pytest.raises(UsageError, match="has no use"):
        run("--method=dense", "--end=0.5", "--overwrite", f"--workdir={tmp_path}")
    assert (tmp_path / files.SUMMARY).read_text() == "old"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as beside:
        assert (beside.parent, beside.suffix) == (tmp_path, ".txt")
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


# Training that goes wrong


def test_nan_in_the_first_epoch(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.cli([*FAST, "--learning_rate=1e30", f"--workdir={tmp_path}"])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: The loss became ")
    assert "at step 2." in error or "at step 3." in error
    assert "There is no checkpoint yet" in error
    assert error.count("\n") == 1


class Spoil(keras.callbacks.Callback):
    """Makes the weights NaN at the beginning or at the end of an epoch (counted from 0)."""

    def __init__(self, epoch, at):
        super().__init__()
        self.epoch, self.at = epoch, at

    def on_epoch_begin(self, epoch, logs=None):
        self._spoil(epoch, "begin")

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.params["steps"] - 1:
            self._spoil(self.current, "end")

    def _spoil(self, epoch, at):
        self.current = epoch
        if (epoch, at) == (self.epoch, self.at):
            kernel = self.model.trainable_variables[0]
            kernel.assign(kernel * np.nan)


@pytest.mark.parametrize(
    ("at", "text"), [("begin", "The loss became nan at step 5."), ("end", "loss on the test set")]
)
def test_nan_later_names_the_last_good_checkpoint(at, text, tmp_path):
    model = granet_tf.wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    model.compile("sgd", "mse")
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    path = tmp_path / files.CHECKPOINTS / "granet.keras"
    with pytest.raises(TrainingStopped, match=text) as stopped:
        model.fit(
            x, y, batch_size=2, epochs=3, validation_data=(x, y), verbose=0,
            callbacks=[Spoil(1, at), checkpoints.Checkpoints(path)],
        )  # fmt: skip
    assert f"The last good checkpoint, after epoch 1, is {path}." in str(stopped.value)
    saved = keras.models.load_model(path)
    assert int(saved.optimizer.iterations) == 4
    assert np.isfinite(saved.predict(x, verbose=0)).all()


def test_ctrl_c_names_the_checkpoint(tmp_path, capsys, monkeypatch):
    def press(self, epoch, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.Progress, "on_epoch_end", press)
    with pytest.raises(SystemExit) as stopped:
        main.cli([*FAST, f"--workdir={tmp_path}"])
    assert stopped.value.code == 130
    error = capsys.readouterr().err
    assert "error: Interrupted. The last good checkpoint, after epoch 1, is" in error
    assert (tmp_path / files.METRICS).read_text().count("\n") == 2


def test_a_run_too_short_warns_with_the_numbers(tmp_path):
    with pytest.warns(UserWarning, match=r"Training has 2 steps.* is reached at step 50"):
        run(
            "--epochs=1", "--batch_size=600", "--end=50", "--frequency=10", "--noplot",
            "--noexport_tflite", f"--workdir={tmp_path}",
        )  # fmt: skip


# Data, model, optimizer


@pytest.mark.parametrize("name", DATASETS)
def test_batches_depend_on_the_seed_alone(name):
    def labels(seed):
        keras.utils.set_random_seed(seed)
        batches = DATASETS[name](64, seed).train()
        epochs = [[y for _, y in batches.as_numpy_iterator()] for _ in range(2)]
        return np.array(epochs)

    first = labels(0)
    np.testing.assert_array_equal(first, labels(0))
    assert (first[0] != first[1]).any()
    assert (first != labels(1)).any()


def test_digits():
    data = load_digits(64, seed=0)
    assert (data.steps_per_epoch, data.input_shape, data.classes) == (22, (8, 8, 1), 10)
    x, y = map(np.concatenate, zip(*data.test.as_numpy_iterator(), strict=True))
    assert x.shape == (360, 8, 8, 1) and (x.min(), x.max()) == (0.0, 1.0)
    assert np.bincount(y).min() >= 34
    train = np.concatenate([x for x, _ in data.train().as_numpy_iterator()])
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in x}


def test_weight_decay_is_that_of_pytorch():
    model = models.small_cnn((8, 8, 1), 10, weight_decay=0.1)
    kernel = model.get_layer("conv1").kernel
    with tf.GradientTape() as tape:
        loss = tf.add_n(model.losses)
    np.testing.assert_allclose(tape.gradient(loss, kernel.value), 0.1 * kernel, rtol=1e-6)
    assert not models.small_cnn((8, 8, 1), 10, weight_decay=0.0).losses


@pytest.mark.parametrize(
    ("name", "rates"),
    [("constant", [1, 1, 1, 1]), ("step", [1, 1, 0.1, 0.01]), ("cosine", [1, 0.5, 0.146447, 0])],
)
def test_learning_rate_schedules(name, rates):
    schedule = optimizers.LEARNING_RATE_SCHEDULES[name](1.0, 100)
    found = [float(schedule(step)) if callable(schedule) else schedule for step in (0, 50, 75, 100)]
    if name == "step":
        found = [float(schedule(step)) for step in (0, 50, 51, 76)]
    np.testing.assert_allclose(found, rates, atol=1e-6)


def test_every_optimizer_can_be_made():
    for name in optimizers.OPTIMIZERS:
        optimizer = optimizers.make(name, 0.1, {"momentum": 0.5, "nesterov": None})
        assert getattr(optimizer, "momentum", 0.5) == 0.5


# What is shown


def test_progress_away_from_a_terminal_is_ten_lines():
    stream = io.StringIO()
    shown = progress.Progress("granet", stream)
    shown.set_params({"epochs": 40, "steps": 2})
    shown.on_train_begin()
    for epoch in range(40):
        shown.on_train_batch_end(0, {"loss": 1.0})
        shown.on_epoch_end(epoch, {"loss": 1.0, "val_accuracy": 0.5, "sparsity": 0.25})
    shown.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert "epoch  4/40  loss 1.0000  accuracy 0.5000  sparsity 0.2500" in lines[0]
    assert "epoch 40/40" in lines[-1]


def test_progress_on_a_terminal_is_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    stream.isatty = lambda: True
    shown = progress.Progress("granet", stream)
    shown.set_params({"epochs": 2, "steps": 2})
    shown.on_train_begin()
    for epoch in range(2):
        shown.on_train_batch_end(0, {"loss": 1.0})
        shown.on_epoch_end(epoch, {"loss": 1.0, "val_accuracy": 0.5, "sparsity": 0.25})
    shown.finish()
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("\n")
    assert {len(part) for part in text.rstrip("\n").split("\r")[1:]} == {59}


@pytest.mark.parametrize("module", [durations, plot, progress])
def test_docstrings(module):
    assert doctest.testmod(module).failed == 0
