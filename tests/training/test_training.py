"""The training binary: what it writes is true, and what it refuses is said in one line."""

import json
import os
import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_train import device, files, main, mask_updates, weight_decay
from granet_train import optimizers as optimizers_by_name
from granet_train.errors import TrainingStopped, UsageError
from granet_train.run import Run
from tests.support.reference import cubic, keep_count
from tests.support.short_runs import (
    QUIET,
    SHORT,
    accuracy,
    checkpoint_steps,
    digits_test_set,
    run,
    state,
    summary,
    table,
)

ALL = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 128 * 10  # the kernels of small_cnn
LEFT = 9_373  # at 90 %


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a run with a twin, and what it printed."""
    workdir = tmp_path_factory.mktemp("work") / "made" / "by_the_run"
    return workdir, run(*SHORT, "--frequency=3", "--compare=dense", f"--workdir={workdir}")


def refused(argv, capsys):
    """The one line that the command line ends with when nothing is done."""
    with pytest.raises(SystemExit) as stopped:
        main.cli([str(arg) for arg in argv])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert "Received: " in printed.err
    return printed.err


# What a run writes


def test_writes_every_file_and_says_where(finished):
    workdir, printed = finished
    assert {path.name for path in workdir.iterdir()} == set(files.ALL)
    for run_name in ("granet", "dense"):
        assert checkpoint_steps(workdir / files.CHECKPOINTS / run_name) == [10, 15, 20]
        assert f"\n  checkpoints/{run_name}" in printed
        assert list((workdir / files.TENSORBOARD / run_name).glob("events.*"))
    assert f"{workdir}/\n" in printed
    for name in {*files.ALL} - {files.RUN, files.CHECKPOINTS}:
        assert f"\n  {name} " in printed
    for name in (files.PLOT, files.FLOPS_PLOT):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")


def test_summary_matches_the_saved_models(finished):
    workdir, _ = finished
    noted = summary(workdir)
    sparse = keras.models.load_model(workdir / files.SPARSE)
    stripped = keras.models.load_model(workdir / files.STRIPPED)

    figures = noted["runs"]["granet"]
    kernels = [w for w in stripped.trainable_weights if len(w.shape) > 1]
    assert figures["weights"] == sum(w.numpy().size for w in kernels) == ALL
    assert figures["nonzeros"] == sparse.nonzeros == LEFT
    assert sum(np.count_nonzero(w) for w in kernels) <= LEFT
    assert figures["sparsity"] == sparse.sparsity
    for model in (sparse, stripped):
        assert accuracy(model) == pytest.approx(figures["test_accuracy"], abs=1e-6)
    images, labels = digits_test_set()
    logits = stripped.predict(images, verbose=0).astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(labels)), labels]
    assert figures["test_loss"] == pytest.approx(losses.mean(), rel=1e-5)

    assert list(noted["runs"]) == ["granet", "dense"]
    assert noted["runs"]["dense"]["nonzeros"] == ALL
    assert noted["runs"]["dense"]["training_flops"] == 1.0
    assert noted["flags"]["epochs"] == 4
    assert noted["flags"]["compare"] == ["dense"]
    assert noted["versions"]["keras"] == keras.__version__
    assert noted["skipped_samples"] == 0
    assert noted["wall_seconds"] > noted["runs"]["granet"]["seconds"] > 0
    for name in (files.SPARSE, files.STRIPPED, files.TFLITE, files.METRICS):
        assert noted["files"][name] == (workdir / name).stat().st_size


def test_the_sparse_model_can_be_trained_on(finished):
    workdir, _ = finished
    model = keras.models.load_model(workdir / files.SPARSE)
    assert int(model.optimizer.iterations) == 20
    _, slots = state(workdir / files.CHECKPOINTS / "granet", 20)
    saved = {value for _, _, value in slots.values()}
    assert all(v.numpy().tobytes() in saved for v in model.optimizer.variables)
    images, labels = digits_test_set()
    model.fit(images, labels, batch_size=360, verbose=0)
    assert model.nonzeros == LEFT


def test_tables_show_the_same_numbers_as_the_files(finished):
    workdir, printed = finished
    runs = summary(workdir)["runs"]
    lines = [line.split() for line in printed.splitlines()]
    for name, figures in runs.items():
        [line] = [line for line in lines if line[:2] == [name, f"{figures['test_accuracy']:.2%}"]]
        assert f"{figures['nonzeros']:,}" in line
        assert f"{figures['inference_flops']:.1%}" in line
        assert f"{figures['training_flops']:.1%}" in line
    [total] = [line for line in lines if line[:1] == ["total"]]
    sparse = f"{runs['granet']['flops_sparse']:,}"
    assert total[1:6] == ["93,728", "9,373", "0.9000", "2,992,640", sparse]
    assert "not pruned: 458 (bias or scale), 448 (not trainable)" in printed


def test_metrics_has_a_line_for_each_epoch(finished):
    workdir, _ = finished
    lines = table(workdir / files.METRICS)
    expected = [(name, str(n)) for name in ("granet", "dense") for n in (1, 2, 3, 4)]
    assert [(line["run"], line["epoch"]) for line in lines] == expected
    assert [line["step"] for line in lines] == ["5", "10", "15", "20"] * 2
    assert [float(line["sparsity"]) for line in lines[4:]] == [0.0] * 4
    assert [int(line["nonzeros"]) for line in lines[3:]] == [LEFT] + [ALL] * 4
    assert {line["validation_accuracy"] for line in lines} == {""}
    for line, name in ((lines[3], "granet"), (lines[7], "dense")):
        assert float(line["test_accuracy"]) == summary(workdir)["runs"][name]["test_accuracy"]


def updates_of(finished):
    workdir, _ = finished
    return [line for line in table(workdir / files.UPDATES) if line["run"] == "granet"]


def test_updates_follow_equation_1_and_add_up(finished):
    updates = updates_of(finished)
    # Pruning ends at the first update after step 10, others where less than three steps are left.
    assert [int(u["step"]) for u in updates] == [0, 3, 6, 9, 12, 15]
    before = ALL
    for update in updates:
        step, nonzeros = int(update["step"]), int(update["nonzeros"])
        assert nonzeros == keep_count(ALL, cubic(step, 0.0, 0.9, 0, 10))
        assert int(update["pruned"]) == before - nonzeros
        assert float(update["sparsity"]) == 1 - nonzeros / ALL
        assert float(update["epoch"]) == step / 5
        # What grows takes the place of as many that are dropped, beside those pruned.
        flipped = round(float(update["changed"]) * ALL)
        grown = int(update["regenerated"])
        assert flipped == 2 * grown + int(update["pruned"])
        # At first all were active, so that nothing can be new.
        assert (grown > 0) == (step > 3)
        before = nonzeros


def test_training_flops_are_those_of_the_masks(finished):
    """Appendix B.3: three sparse passes a step; with a dense gradient, two and a dense one."""
    workdir, _ = finished
    dense_pass = 2_992_640
    updates = updates_of(finished)
    sparse_pass = {int(u["step"]): round(float(u["inference_flops"]) * dense_pass) for u in updates}
    flops, at_epoch = 0, []
    for step in range(1, 21):
        before = sparse_pass[max(s for s in sparse_pass if s < step)]
        flops += 2 * before + dense_pass if step in sparse_pass else 3 * before
        at_epoch.append(flops / (3 * 20 * dense_pass))
    lines = table(workdir / files.METRICS)[:4]
    assert [float(line["training_flops"]) for line in lines] == pytest.approx(
        at_epoch[4::5], rel=1e-12
    )
    for line, step in zip(lines, (3, 9, 15, 15), strict=True):
        assert round(float(line["inference_flops"]) * dense_pass) == sparse_pass[step]
    figures = summary(workdir)["runs"]["granet"]
    assert figures["flops_sparse"] == sparse_pass[15]
    assert figures["training_flops_absolute"] == pytest.approx(flops * 256, rel=1e-12)


def test_the_first_line_tells_of_random_masks(tmp_path):
    printed = run(
        *QUIET, "--epochs=1", "--batch_size=512", "--method=set", "--final_sparsity=0.8",
        "--frequency=1", "--label_smoothing=0.1", f"--workdir={tmp_path}",
    )  # fmt: skip
    first, *others = table(tmp_path / files.UPDATES)
    # Each of the four counts is rounded.
    assert int(first["nonzeros"]) == pytest.approx(ALL * 0.2, abs=2)
    assert (first["pruned"], first["regenerated"], first["changed"]) == ("0", "0", "0.0")
    assert {u["nonzeros"] for u in others} == {first["nonzeros"]}
    assert [u["step"] for u in others] == ["1"]  # After step 2 nothing would train what is new.
    assert "step 0" not in printed


def test_dense_alone_on_synthetic_images(tmp_path):
    run(
        *QUIET, "--method=dense", "--epochs=1", "--dataset=synthetic", "--image_size=8",
        "--batch_size=6400", f"--workdir={tmp_path}",
    )  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {
        files.STRIPPED, files.METRICS, files.UPDATES, files.LAYERS, files.SUMMARY, files.RUN,
        files.CHECKPOINTS,
    }  # fmt: skip
    # Three channels instead of one, and 1,000 classes instead of 10.
    weights = ALL + 9 * 2 * 32 + 128 * 990
    assert summary(tmp_path)["runs"]["dense"]["nonzeros"] == weights
    assert not table(tmp_path / files.UPDATES)


def test_a_network_of_keras_applications(tmp_path):
    run(
        *QUIET, "--image_size=32", "--model=MobileNet", "--width=0.25", "--epochs=1",
        "--batch_size=512", "--method=static", f"--workdir={tmp_path}",
    )  # fmt: skip
    model = keras.models.load_model(tmp_path / files.STRIPPED)
    assert model.name.startswith("mobilenet_0.25")
    figures = summary(tmp_path)["runs"]["static"]
    # 13 depthwise and 15 other kernels, each rounded, and none left empty.
    assert figures["nonzeros"] == pytest.approx(figures["weights"] * 0.1, rel=1e-3)


def test_a_run_too_short_warns_with_the_numbers(tmp_path):
    with pytest.warns(UserWarning, match=r"Training has 2 steps.* is reached at step 50"):
        run(
            *QUIET, "--epochs=1", "--batch_size=600", "--end=50", "--frequency=10",
            f"--workdir={tmp_path}",
        )  # fmt: skip


# Precision


def observed(monkeypatch, change=lambda model: None):
    """A list that gets the models that are made."""
    make, models = Run.compiled, []

    def model(*args):
        models.append(make(*args))
        change(models[-1])
        return models[-1]

    monkeypatch.setattr(Run, "compiled", model)
    return models


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(precision, tmp_path, monkeypatch):
    def overflow(model):
        if precision == "float16":
            model.optimizer.dynamic_scale.assign(2.0**30)

    models = observed(monkeypatch, overflow)
    printed = run(
        *SHORT, "--width=0.25", "--epochs=6", "--frequency=3", "--end=9", "--noplot",
        "--notensorboard", f"--precision={precision}", "--compare=static", f"--workdir={tmp_path}",
    )  # fmt: skip
    model, twin = models
    optimizer = model.optimizer
    for network in (model.model, twin.model):
        assert {layer.compute_dtype for layer in network.layers} == {precision}
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    skipped = 0
    if precision == "float16":
        assert type(optimizer) is keras.optimizers.LossScaleOptimizer
        assert type(optimizer.inner_optimizer) is granet_tf.SparseOptimizer
        # Each step that is skipped halves the scale.
        skipped = 30 - round(np.log2(float(optimizer.dynamic_scale)))
        assert 5 < skipped < 20
    assert int(optimizer.iterations) == 30 - skipped

    position, _ = state(tmp_path / "checkpoints/granet", 30)
    assert position["batches"] == 30
    assert table(tmp_path / files.METRICS)[5]["step"] == "30"
    updates = [u for u in table(tmp_path / files.UPDATES) if u["run"] == "granet"][1:]
    # They are due by the steps that were not skipped, the last one a period before the end.
    due = range(3, min(31 - skipped, 28), 3)
    figures = summary(tmp_path)["runs"]["granet"]
    assert [int(u["nonzeros"]) for u in updates] == [
        keep_count(figures["weights"], cubic(n, 0.0, 0.9, 0, 9)) for n in due
    ]
    late = [int(u["step"]) - n for u, n in zip(updates, due, strict=True)]
    assert late == sorted(late) and late[0] >= 0 and late[-1] <= skipped
    assert (late[-1] > 5) == (precision == "float16")

    stripped = keras.models.load_model(tmp_path / files.STRIPPED)
    for pruned, kernel in zip(model.pruned, stripped.trainable_weights[::3], strict=False):
        assert kernel.path.endswith("kernel")
        assert not kernel.numpy()[~pruned.mask.numpy()].any()
    assert accuracy(stripped) == pytest.approx(figures["test_accuracy"], abs=0.01)
    # LiteRT cannot compute in these types; the run is not lost for that.
    assert "warning: model.tflite is not written. The model needs operations that LiteRT" in printed
    assert not (tmp_path / files.TFLITE).exists()
    assert files.TFLITE not in summary(tmp_path)["files"]


# The work directory


def test_a_finished_run_says_so(finished, capsys):
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    # These do not make it another run.
    free = ("--checkpoint_every=7", "--keep_checkpoints=1", "--steps_per_loop=3", "--noplot")
    printed = run(*SHORT, "--frequency=3", "--compare=dense", *free, f"--workdir={workdir}")
    [first, granet, dense] = printed.splitlines()
    assert first.startswith("This run is finished; --overwrite begins it anew.")
    shown = summary(workdir)["runs"]["granet"]
    assert granet == f"  granet: test accuracy {shown['test_accuracy']:.2%} at sparsity 0.9000"
    assert dense.startswith("  dense: ")
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_a_finished_run_says_how_to_train_longer(finished, tmp_path):
    workdir, _ = finished
    command = (*SHORT, "--frequency=3", "--compare=dense", f"--workdir={workdir}")
    told = run(*command)
    advised = re.findall(
        r"--(?:weights_from|masks_from|method)=\S+?(?=[,. ])", told.splitlines()[0]
    )
    assert len(advised) == 3
    with pytest.raises(UsageError, match=r"another run.* more --epochs.*--epochs=9 instead of 4"):
        run(*command, "--epochs=9")
    rest = ("--epochs=1", "--batch_size=256", *QUIET, f"--workdir={tmp_path}")
    run(*advised, *rest)
    before, after = (
        keras.models.load_model(place / files.SPARSE, compile=False).pruned
        for place in (workdir, tmp_path)
    )
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)


# Layers that are pruned away


def emptied_layers(workdir):
    """{run: weights of which nothing is left at the end}"""
    gone = {}
    for line in table(workdir / files.LAYERS):
        if line["shape"]:
            names = gone.setdefault(line["run"], set())
            names |= {line["layer"]} if line["nonzeros"] == "0" else set()
    return gone


def test_each_layer_that_is_pruned_away_gets_a_warning(tmp_path):
    """Also of twins, and of masks that are drawn before training; once, however often it is so."""
    argv = (*SHORT, *QUIET, "--method=granet", "--compare=magnitude,snip,gmp", "--frequency=3")
    with warnings.catch_warnings():
        # The library's own, in the words of Python, says the same again.
        warnings.filterwarnings("error", "All of .* has been pruned")
        printed = run(*argv, "--final_sparsity=0.9999", f"--workdir={tmp_path}")
    [chosen] = [line for line in printed.splitlines() if "choosing" in line]
    assert chosen == "snip: choosing masks by 256 training images"
    lines = [line for line in printed.splitlines() if line.startswith("warning: ")]
    told = [
        re.match(r"warning: (\w+): all of (\S+) has been pruned", line).groups() for line in lines
    ]
    gone = emptied_layers(tmp_path)
    assert sorted(told) == sorted((name, layer) for name in gone for layer in gone[name])
    # One weight of each layer is left of those that rank layer by layer.
    assert all(gone[name] for name in ("granet", "magnitude", "snip")) and not gone["gmp"]
    for (_, layer), line in zip(told, lines, strict=True):
        assert line.endswith(f"Cap it with --capped={layer}:0.99, or use --scope=layer.")


def test_what_is_advised_for_an_emptied_layer_helps(tmp_path):
    argv = (*QUIET, "--epochs=1", "--batch_size=256", "--method=magnitude", "--width=0.25")
    for number, advised in enumerate([["--scope=layer"], ["--capped=*/kernel:0.99"]]):
        printed = run(
            *argv, "--final_sparsity=0.98", *advised, f"--workdir={tmp_path / str(number)}"
        )
        assert "warning: " not in printed


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--seed=3"], "--seed=3 instead of 0"),
        (["--model=resnet20"], "--model=resnet20 instead of small_cnn"),
        (["--method=rigl"], "--method=rigl instead of granet"),
        (
            ["--epochs=5", "--final_sparsity=0.8"],
            "--epochs=5 instead of 4, --final_sparsity=0.8 instead of None",
        ),
        (["--compare=gmp,dense"], "--compare=['gmp', 'dense'] instead of ['dense']"),
    ],
)
def test_the_work_directory_of_another_run(finished, argv, text, capsys):
    workdir, _ = finished
    before = sorted(workdir.rglob("*"))
    command = [*SHORT, "--frequency=3", "--compare=dense", *argv, f"--workdir={workdir}"]
    error = refused(command, capsys)
    assert "holds another run" in error and "--overwrite" in error
    assert error.endswith(f"Received: {text}\n")
    assert sorted(workdir.rglob("*")) == before


def test_overwrite_begins_anew(tmp_path):
    argv = (*QUIET, "--method=static", "--epochs=1", "--batch_size=512", f"--workdir={tmp_path}")
    (tmp_path / "mine.txt").write_text("stays")
    run(*argv, "--overwrite")
    run(*argv, "--overwrite", "--seed=1", "--epochs=2")
    assert checkpoint_steps(tmp_path / "checkpoints/static") == [2, 4]
    assert [line["epoch"] for line in table(tmp_path / files.METRICS)] == ["1", "2"]
    assert json.loads((tmp_path / files.RUN).read_text())["seed"] == 1
    assert (tmp_path / "mine.txt").read_text() == "stays"


def test_foreign_files(tmp_path):
    for name in ("a", "b", "c", "metrics.csv"):
        (tmp_path / name).write_text("old")
    (tmp_path / files.CHECKPOINTS).mkdir()
    with pytest.raises(UsageError, match=r"holds a, b, c and 2 more\. .*--overwrite"):
        files.prepare(str(tmp_path), {}, (), overwrite=False)
    assert len(os.listdir(tmp_path)) == 5

    workdir = files.prepare(str(tmp_path), {}, (), overwrite=True)
    files.begin(workdir, {"seed": 1}, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "run.json"]
    assert files.prepare(str(tmp_path), {"seed": 1}, (), overwrite=False) == tmp_path


def test_a_note_that_was_left_unfinished_is_no_foreign_file(tmp_path):
    (tmp_path / ".run.partial.json").write_text("{")
    workdir = files.prepare(str(tmp_path), {}, (), overwrite=False)
    files.begin(workdir, {"seed": 1}, overwrite=False)
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_note_that_cannot_be_read(tmp_path):
    (tmp_path / files.RUN).write_text("{")
    with pytest.raises(UsageError, match=r"whose run this is.*--overwrite\. Received: .*run\.json"):
        files.prepare(str(tmp_path), {}, (), overwrite=False)


def test_unwritable_workdir(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert refused([f"--workdir={tmp_path}/file/below"], capsys) == (
        "error: Cannot write in the work directory: Not a directory. "
        f"Received: --workdir={tmp_path}/file/below\n"
    )


def test_a_mistake_does_not_cost_the_earlier_run(tmp_path, capsys):
    (tmp_path / files.SUMMARY).write_text("old")
    refused(["--batch_size=2000", "--overwrite", f"--workdir={tmp_path}"], capsys)
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


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line():
    with (
        pytest.raises(TrainingStopped, match="disk is full: No space left on device") as stopped,
        files.full_disk_as_error(),
        open("/dev/full", "w") as file,
    ):
        file.write("x")
        file.flush()
    assert "without --overwrite, goes on from its last checkpoint" in str(stopped.value)
    with pytest.raises(FileNotFoundError), files.full_disk_as_error():
        pathlib.Path("/nowhere/at/all").read_text()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--epochs=0"], "--epochs"),
        (["--batch_size=2000"], "--batch_size=2000"),
        (["--dataset=no_such_set"], "no_such_set"),
        (["--dataset=cifar10", "--data_dir=/nowhere"], "/nowhere"),
        (["--model=mobilenet_v1", "--width=0"], "--width=0"),
        (["--initial_sparsity=0.95"], "--initial_sparsity=0.95, --final_sparsity=0.9"),
        (["--pinned=0:0.0,1:0.0,2:0.0"], "pinned={0: 0.0, 1: 0.0, 2: 0.0}"),
        (["--pinned=nothing:0.5"], "nothing"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_written(argv, text, tmp_path, capsys):
    error = refused([*QUIET, *argv, f"--workdir={tmp_path}"], capsys)
    assert text in error
    assert not os.listdir(tmp_path)


# Parts of the loop


def torch_sgd(weights, gradient, decay, *, rate, momentum, steps):
    """torch.optim.SGD with nesterov=True, as its documentation writes it, in float64."""
    weights, buffers = list(weights), [None] * len(weights)
    for _ in range(steps):
        gradients = gradient(weights)
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            g = g + decay[i] * w
            buffers[i] = g if buffers[i] is None else momentum * buffers[i] + g
            weights[i] = w - rate * (g + momentum * buffers[i])
    return weights


@pytest.mark.parametrize(("decays", "of_bias"), [("kernels", 0.0), ("all", 0.1)])
def test_weight_decay_is_that_of_pytorch(decays, of_bias):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(16, 5)), rng.integers(3, size=16)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, bias_initializer="normal")])
    start = [w.numpy().astype(np.float64) for w in model.trainable_variables]
    weight_decay.add(model, 0.1, weight_decay.DECAYS[decays])
    options = {"momentum": 0.9, "nesterov": True}
    model.compile(optimizers_by_name.make("sgd", 0.05, options))
    model.optimizer.build(model.trainable_variables)

    batches = tf.data.Dataset.from_tensors((x.astype("float32"), labels.astype("int32"))).repeat(4)
    on_device = device.Device(tf.distribute.get_strategy(), model, batch_size=16)
    on_device.train(iter(on_device.batches(lambda context: batches)), 4)

    def gradient(weights):
        logits = x @ weights[0] + weights[1]
        probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        error = (probability - np.eye(3)[labels]) / 16
        return [x.T @ error, error.sum(0)]

    expected = torch_sgd(start, gradient, [0.1, of_bias], rate=0.05, momentum=0.9, steps=4)
    for w, e in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(w.numpy(), e, rtol=1e-5, atol=1e-7)


def test_weight_decay_is_saved_with_the_model(tmp_path):
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), keras.layers.DepthwiseConv2D(3), keras.layers.Conv2D(4, 3)]
    )
    weight_decay.add(model, 0.1, weight_decay.DECAYS["kernels"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        kernels = [v.numpy() for v in m.trainable_variables if len(v.shape) > 1]
        assert len(kernels) == 2
        expected = sum(0.05 * np.sum(np.square(kernel)) for kernel in kernels)
        assert float(sum(m.losses)) == pytest.approx(expected, rel=1e-6)


def test_no_weight_decay_adds_nothing_to_the_loss():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    weight_decay.add(model, 0.0, weight_decay.DECAYS["all"])
    assert not model.losses


def test_masks_are_compared():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(5), keras.layers.Dense(3)])
    model = granet_tf.wrap(model, granet_tf.StaticSparse(0.5))
    rng = np.random.default_rng(0)
    moments = []
    for _ in range(2):
        values = [rng.random(p.mask.shape) < 0.4 for p in model.pruned]
        for pruned, value in zip(model.pruned, values, strict=True):
            pruned.mask.assign(value)
        moments.append((mask_updates.Masks.of(model), np.concatenate([v.ravel() for v in values])))
    (before, old), (after, new) = moments
    assert before.flipped(after) == (np.sum(new & ~old), np.sum(old & ~new))
    assert after.flipped(before) == (np.sum(old & ~new), np.sum(new & ~old))
    assert (before.active, before.size) == (np.sum(old), 50)
    assert after.sparsity == 1 - np.mean(new)
    assert list(after.layers().values()) == [1 - np.mean(new[:35]), 1 - np.mean(new[35:])]


def test_masks_of_a_dense_model():
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(5)])
    masks = mask_updates.Masks.of(model)
    assert (masks.active, masks.size, masks.sparsity) == (35, 35, 0.0)
    assert masks.flipped(masks) == (0, 0)


@pytest.mark.parametrize(
    ("method", "due"),
    [
        (granet_tf.GraNet(0.9, begin_step=5, end_step=20, frequency=4), range(5, 57, 4)),
        # The last one prunes to the final sparsity.
        (granet_tf.GMP(0.9, begin_step=5, end_step=20, frequency=4), range(5, 22, 4)),
        (granet_tf.RigL(0.9, begin_step=0, end_step=30, frequency=7), range(7, 31, 7)),
        (granet_tf.SET(0.9, frequency=10), range(10, 51, 10)),
        (granet_tf.StaticSparse(0.9), ()),
        (None, ()),
    ],
)
def test_the_calendar_finds_the_next_update(method, due):
    find = mask_updates.calendar(method and method.resolve(60))
    for first in range(1, 61):
        for last in {first, min(first + 6, 60), 60}:
            expected = next((step for step in range(first, last + 1) if step in due), None)
            assert find(first, last) == expected
