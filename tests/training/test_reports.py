"""What a person sees of a run, and what it leaves for programs to read."""

import csv
import dataclasses
import importlib.metadata
import io
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import granet_tf
from granet_train import csv_log, layers_csv, progress, report, results, tensorboard
from granet_train.cost import Cost
from granet_train.errors import UsageError
from granet_train.listeners import Listener
from granet_train.results import Epoch, Update
from granet_train.terminal import Screen, plain
from tests.support.terminal import Terminal, screen

STEPS = 22


def epoch(run="granet", number=1, **figures):
    line = Epoch(
        run=run, epoch=number, step=number * STEPS, seconds=12.5 * number,
        images_per_second=1234.5, learning_rate=0.05, loss=0.25, accuracy=0.875,
        validation_loss=None, validation_accuracy=None, test_loss=0.5, test_accuracy=0.75,
        sparsity=0.8125, nonzeros=25, inference_flops=0.3, training_flops=0.4,
    )  # fmt: skip
    return dataclasses.replace(line, **figures)


def update(run="granet", step=STEPS, **figures):
    line = Update(
        run=run, step=step, epoch=step / STEPS, pruned=1234, regenerated=567, changed=0.125,
        nonzeros=8766, sparsity=0.8312, inference_flops=0.25, layers={"a/kernel": 0.5},
    )  # fmt: skip
    return dataclasses.replace(line, **figures)


# Listeners


def test_a_listener_may_hear_of_everything_and_do_nothing():
    listener = Listener()
    listener.begin("granet", 1, STEPS, 0)
    listener.progress(1, {"loss": 1.0})
    listener.update(update())
    listener.emptied("a/kernel")
    listener.epoch(epoch())
    listener.close()


# Progress


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


def train(shown, clock, epochs, first=0, loop=11):
    """Calls `shown` as the loop does, one step a second, a mask update each epoch."""
    shown.begin("granet", epochs, STEPS, first)
    for step in range(first + loop, epochs * STEPS + 1, loop):
        clock.now += loop
        figures = {"loss": 1.0, "accuracy": 0.5, "sparsity": 0.25, "images/s": 64.0}
        shown.progress(step, figures)
        if step % STEPS == 0:
            shown.update(update(step=step))
            shown.epoch(epoch(number=step // STEPS, seconds=float(step)))
    shown.close()


@pytest.mark.parametrize(("epochs", "count"), [(40, 10), (100, 10), (25, 10), (10, 10), (7, 7)])
def test_away_from_a_terminal_there_are_about_ten_lines(epochs, count):
    stream, clock = io.StringIO(), Clock()
    train(progress.Progress(stream, clock), clock, epochs, loop=STEPS)
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue()
    bars = [line for line in lines if "█" in line]
    assert len(bars) == count
    assert len(lines) == count + epochs
    assert f"epoch {epochs}/{epochs}  took " in bars[-1]


def test_few_long_epochs_show_lines_in_between():
    stream, clock = io.StringIO(), Clock()
    train(progress.Progress(stream, clock), clock, epochs=2, loop=1)
    shown = re.findall(r"epoch \d/2  \S+ (?:left)?", stream.getvalue())
    assert len(shown) == 10
    assert shown[0] == "epoch 1/2  0:39 left"


def test_the_lines_say_how_it_goes():
    stream, clock = io.StringIO(), Clock()
    train(progress.Progress(stream, clock), clock, epochs=40, loop=STEPS)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step  22  pruned 1,234   regenerated 567     sparsity 0.8312"
    assert lines[4] == (
        "granet  ██░░░░░░░░░░░░░░░░░░  epoch  4/40  13:12 left  loss 0.2500  accuracy 0.8750  "
        "sparsity 0.8125  1,234 images/s  test 0.7500"
    )
    assert "epoch 40/40  took 14:40  loss" in lines[-1]


def test_time_left_after_a_resume_is_by_the_speed_of_this_session():
    stream, clock = io.StringIO(), Clock()
    clock.now = 5000.0
    train(progress.Progress(stream, clock), clock, epochs=40, first=20 * STEPS, loop=STEPS)
    bars = [line for line in stream.getvalue().splitlines() if "█" in line]
    assert len(bars) == 5
    # 16 of 40 epochs to go, at 22 seconds each.
    assert "epoch 24/40  5:52 left" in bars[0]
    # Of the whole run
    assert "epoch 40/40  took 14:40" in bars[-1]


UPDATES = [
    "step 22  pruned 1,234   regenerated 567     sparsity 0.8312",
    "step 44  pruned 1,234   regenerated 567     sparsity 0.8312",
    "step 66  pruned 1,234   regenerated 567     sparsity 0.8312",
]
EPOCH = "test 0.7500  sparsity 0.8125  loss 0.2500  accuracy 0.8750  1,234 images/s"
EPOCHS = [
    f"granet  epoch 1/3  {EPOCH}  0:22",
    f"granet  epoch 2/3  {EPOCH}  0:44",
    f"granet  epoch 3/3  {EPOCH}  1:06",
]


def test_on_a_terminal_each_epoch_leaves_a_line(terminal):
    clock = Clock()
    train(progress.Progress(terminal, clock), clock, epochs=3)
    assert screen(terminal.getvalue()) == [*EPOCHS, ""]


def test_on_a_terminal_one_line_is_rewritten_below_the_updates(terminal):
    clock = Clock()
    train(progress.Progress(terminal, clock, verbose=True), clock, epochs=3)
    both = [line for pair in zip(UPDATES, EPOCHS, strict=True) for line in pair]
    assert screen(terminal.getvalue()) == [*both, ""]


@pytest.mark.parametrize(
    ("seconds", "verbose", "count"), [(0.1, False, 10), (10.0, False, 40), (0.1, True, 80)]
)
def test_short_epochs_leave_about_ten_lines(terminal, seconds, verbose, count):
    clock = Clock()
    shown = progress.Progress(terminal, clock, verbose=verbose)
    shown.begin("granet", 40, STEPS, 0)
    for number in range(1, 41):
        clock.now += seconds
        shown.update(update(step=number * STEPS))
        shown.epoch(epoch(number=number))
    shown.close()
    assert len(screen(terminal.getvalue())) == count + 1


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_what_a_terminal_cannot_or_must_not_show(terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    clock = Clock()
    train(progress.Progress(terminal, clock), clock, epochs=3)
    codes = re.findall(r"\x1b\[([0-9;?]*[A-Za-z])", terminal.getvalue())
    if name == "TERM":
        assert not codes and "\r" not in terminal.getvalue()
        assert terminal.getvalue().splitlines()[-1].startswith("granet  ████")
    else:
        assert codes and not [code for code in codes if code.startswith(("3", "38", "9"))]


@pytest.mark.parametrize("columns", [20, 60, 80, 100])
def test_the_line_fits_the_terminal(terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = progress.Progress(terminal, Clock())
    shown.begin("granet", 3, STEPS, 0)
    shown.epoch(epoch(number=1))
    above, line = screen(terminal.getvalue())
    for each in (above, line):
        assert each.startswith("granet  ") and len(each) < columns
    if columns == 80:
        assert line.endswith("loss 0.2500  accuracy 0.8750  sparsity 0.8125")


def test_what_is_pruned_away_is_told_above_the_line(terminal):
    told = []
    shown = progress.Progress(
        terminal, Clock(), advice=lambda run, path: told.append((run, path)) or "Do this."
    )
    shown.begin("gmp", 2, STEPS, 0)
    shown.progress(1, {"loss": 0.5})
    shown.emptied("net/a/kernel")
    shown.close()
    warning, line, _ = screen(terminal.getvalue())
    assert warning == (
        "warning: gmp: all of net/a/kernel has been pruned: nothing passes through it any more. "
        "Do this."
    )
    assert line.startswith("gmp ") and told == [("gmp", "net/a/kernel")]


def test_an_interrupted_line_stays(terminal):
    shown = progress.Progress(terminal, Clock())
    shown.begin("granet", 3, STEPS, 0)
    shown.progress(5, {"loss": 1.0})
    shown.close()
    shown.close()
    line, end = screen(terminal.getvalue())
    assert line.startswith("granet  ") and end == ""


def test_the_terminal_is_not_rewritten_all_the_time(terminal):
    clock = Clock()
    shown = progress.Progress(terminal, clock)
    shown.begin("granet", 3, STEPS, 0)
    for step in range(1, 21):
        clock.now = step / 64
        shown.progress(step, {"loss": 1.0})
    # At steps 1, 8 and 15: 7 / 64 s is the first time above a tenth of a second.
    assert terminal.getvalue().count("epoch 1/3") == 3


def test_the_masks_at_the_start_are_no_news():
    stream = io.StringIO()
    shown = progress.Progress(stream, Clock())
    shown.begin("granet", 3, STEPS, 0)
    shown.update(update(step=0, pruned=0, regenerated=0))
    assert stream.getvalue() == ""


# metrics.csv and updates.csv


@pytest.fixture
def paths(tmp_path):
    return tmp_path / "metrics.csv", tmp_path / "updates.csv"


def heard(paths, run="granet", epochs=(1, 2, 3), step=0):
    """What a session leaves that resumes at `step`: two updates an epoch."""
    log = csv_log.CsvLog(*paths)
    log.begin(run, 3, STEPS, step)
    for number in epochs:
        log.update(update(run, STEPS * number - 11))
        log.update(update(run, STEPS * number))
        log.epoch(epoch(run, number))
    return log


def steps(path):
    with open(path, newline="") as file:
        return [(line["run"], int(line["step"])) for line in csv.DictReader(file)]


def test_csv_columns_and_cells(paths):
    heard(paths, epochs=[1])
    assert paths[0].read_text().splitlines() == [
        "run,epoch,step,seconds,images_per_second,learning_rate,loss,accuracy,validation_loss,"
        "validation_accuracy,test_loss,test_accuracy,sparsity,nonzeros,inference_flops,"
        "training_flops,itop_rate",
        "granet,1,22,12.5,1234.5,0.05,0.25,0.875,,,0.5,0.75,0.8125,25,0.3,0.4,",
    ]
    assert paths[1].read_text().splitlines() == [
        "run,step,epoch,pruned,regenerated,changed,nonzeros,sparsity,inference_flops",
        "granet,11,0.5,1234,567,0.125,8766,0.8312,0.25",
        "granet,22,1.0,1234,567,0.125,8766,0.8312,0.25",
    ]


def test_what_is_read_back_is_what_was_written(paths):
    lines = [epoch(validation_loss=1 / 3, validation_accuracy=0.1 + 0.2), epoch(number=2)]
    csv_log.write(paths[0], Epoch, lines)
    assert csv_log.read(paths[0], Epoch) == lines
    csv_log.write(paths[1], Update, [update()])
    assert csv_log.read(paths[1], Update) == [update(layers={})]
    assert csv_log.read(paths[0].with_name("none.csv"), Epoch) == []


def test_a_resumed_run_replaces_only_what_it_does_again(paths):
    heard(paths, "dense")
    heard(paths, "granet")
    log = heard(paths, "granet", epochs=[2], step=STEPS)
    granet = [("granet", STEPS), ("granet", 2 * STEPS)]
    dense = [("dense", STEPS * number) for number in (1, 2, 3)]
    assert steps(paths[0]) == [*dense, *granet]
    assert [step for run, step in steps(paths[1]) if run == "granet"] == [11, 22, 33, 44]
    assert len([run for run, _ in steps(paths[1]) if run == "dense"]) == 6
    assert [line.step for line in log.epochs] == [22, 44, 66, 22, 44]


def test_a_run_that_begins_anew_has_nothing_from_before(paths):
    log = csv_log.CsvLog(*paths)
    log.begin("granet", 3, STEPS, 0)
    log.update(update(step=0))
    log.close()
    log = heard(paths, epochs=[1])
    assert steps(paths[1]) == [("granet", 11), ("granet", 22)]


def test_updates_of_an_epoch_that_was_interrupted_are_kept(paths):
    log = heard(paths, epochs=[1])
    log.update(update(step=30))
    log.close()
    assert steps(paths[1])[-1] == ("granet", 30)
    assert steps(paths[0]) == [("granet", 22)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,epoch\n", "the columns must be run, step, epoch, pruned,"),
        ("", "not enough values to unpack"),
        (None, "could not convert string to float: 'many'"),
    ],
)
def test_a_file_of_something_else_is_refused(paths, text, message):
    heard(paths, epochs=[1])
    whole = paths[1].read_text()
    paths[1].write_text(whole.replace("0.5,", "many,") if text is None else text)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        csv_log.CsvLog(*paths)
    assert str(error.value).endswith(f"Received: {paths[1]}")


# TensorBoard


def events(directory):
    """All of a run in the order in which TensorBoard reads it."""

    def order(path):
        _, _, _, seconds, *_, number, _ = path.name.split(".")
        return int(seconds), int(number)

    for path in sorted(directory.iterdir(), key=order):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record)


def scalars(directory):
    """`{tag: {step: value}}`; a restart forgets what came from its step on."""
    found = {}
    for event in events(directory):
        if event.session_log.status == tf.compat.v1.SessionLog.START:
            found = {
                tag: {step: value for step, value in values.items() if step < event.step}
                for tag, values in found.items()
            }
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name in ("scalars", "")
            number = float(tf.make_ndarray(value.tensor))
            found.setdefault(value.tag, {})[event.step] = number
    return found


def test_tensorboard_gets_every_figure(tmp_path):
    board = tensorboard.TensorBoard(tmp_path)
    board.begin("granet", 3, STEPS, 0)
    board.update(update(step=11, layers={"a/kernel": 0.5, "b/kernel": 0.75}))
    board.epoch(epoch(validation_loss=2.0, validation_accuracy=0.625))
    board.close()
    board.close()
    expected = {
        "loss/train": {22: 0.25},
        "loss/validation": {22: 2.0},
        "loss/test": {22: 0.5},
        "accuracy/train": {22: 0.875},
        "accuracy/validation": {22: 0.625},
        "accuracy/test": {22: 0.75},
        "learning_rate": {22: 0.05},
        "images_per_second": {22: 1234.5},
        "sparsity": {11: 0.8312, 22: 0.8125},
        "sparsity_by_layer/a/kernel": {11: 0.5},
        "sparsity_by_layer/b/kernel": {11: 0.75},
        "flops/inference": {11: 0.25, 22: 0.3},
        "flops/training": {22: 0.4},
        "masks/changed": {11: 0.125},
        "masks/pruned": {11: 1234.0},
        "masks/regenerated": {11: 567.0},
    }
    found = scalars(tmp_path / "granet")
    assert found.keys() == expected.keys()
    for tag, values in expected.items():
        assert found[tag] == pytest.approx(values), tag


def test_tensorboard_needs_no_validation(tmp_path):
    board = tensorboard.TensorBoard(tmp_path)
    board.begin("dense", 3, STEPS, 0)
    board.epoch(epoch("dense"))
    board.close()
    assert not [tag for tag in scalars(tmp_path / "dense") if "validation" in tag]


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path):
    board = tensorboard.TensorBoard(tmp_path)
    board.begin("granet", 3, STEPS, 0)
    for number in (1, 2, 3):
        board.epoch(epoch(number=number, loss=float(number)))
    board.close()
    board.begin("granet", 3, STEPS, STEPS)
    board.epoch(epoch(number=2, loss=5.0))
    board.close()
    assert scalars(tmp_path / "granet")["loss/train"] == {22: 1.0, 44: 5.0}


# The end of a run


@pytest.fixture
def trained():
    """A small model with 10 of 108 and 3 of 20 weights active, and what it costs."""
    stack = [layers.Conv2D(4, 3, name="conv"), layers.AveragePooling2D(6, name="pool")]
    head = layers.Dense(5, name="head")
    model = keras.Sequential([keras.Input((8, 8, 3)), *stack, head], name="net")
    sparse = granet_tf.wrap(model)
    for pruned, count in zip(sparse.pruned, (10, 3), strict=True):
        pruned.mask.assign((np.arange(pruned.mask.shape.num_elements()) < count).reshape(
            pruned.mask.shape))  # fmt: skip
    return sparse, Cost.of(sparse)


def test_layers_csv(tmp_path, trained):
    layers_csv.write(tmp_path / "layers.csv", [("granet", layers_csv.rows(*trained))])
    # conv 2·108 at 6·6, pooling 2·4·36, head 2·20; the backbone is all but the head.
    assert (tmp_path / "layers.csv").read_text(encoding="utf-8").splitlines() == [
        "run,layer,shape,weights,nonzeros,sparsity,dense_flops,sparse_flops",
        f"granet,net/conv/kernel,3×3×3×4,108,10,{98 / 108},7776,720",
        "granet,net/head/kernel,4×5,20,3,0.85,40,6",
        "granet,(not pruned),,0,0,,288,288",
        f"granet,(backbone),,108,10,{98 / 108},8064,1008",
        f"granet,(overall),,128,13,{115 / 128},8104,1014",
    ]


def test_layer_table(trained):
    assert plain(report.layer_table(*trained)).splitlines() == [
        "layer     weights  nonzeros  sparsity  dense FLOPs  sparse FLOPs   ratio",
        "net/conv      108        10    0.9074        7,776           720    9.3%",
        "pool                                           288           288  100.0%",
        "net/head       20         3    0.8500           40             6   15.0%",
        "total         128        13    0.8984        8,104         1,014   12.5%",
        "not pruned: 9 (bias or scale)",
    ]


def test_layer_table_of_a_dense_model(trained):
    model = trained[0].model
    [total] = [line for line in plain(report.layer_table(model, trained[1])).splitlines()
               if line.startswith("total")]  # fmt: skip
    assert total.split() == ["total", "128", "128", "0.0000", "8,104", "8,104", "100.0%"]


def finished(trained, **figures):
    """Three epochs, of which the first was too dense to count as the best."""
    epochs = [
        epoch(number=1, nonzeros=64, test_accuracy=0.99, validation_accuracy=0.98),
        epoch(number=2, nonzeros=13, test_accuracy=0.95, validation_accuracy=0.91),
        epoch(number=3, nonzeros=13, test_accuracy=0.95, validation_accuracy=0.93),
        epoch(number=4, nonzeros=13, test_accuracy=0.94, validation_accuracy=0.92),
    ]
    figures = {"inference_flops": 1014 / 8104, **figures}
    epochs = [dataclasses.replace(line, **figures) for line in epochs]
    return results.finished(epochs, *trained, batch_size=64)


def test_a_finished_run(trained):
    assert finished(trained, images_per_second=100.0) == results.Run(
        name="granet", epochs=4, test_accuracy=0.94, test_loss=0.5,
        best_test_accuracy=0.95, best_test_epoch=2, validation_accuracy=0.92,
        best_validation_accuracy=0.93, best_validation_epoch=3,
        sparsity=0.8125, weights=128, nonzeros=13, flops_dense=8104, flops_sparse=1014,
        inference_flops=1014 / 8104, training_flops=0.4,
        training_flops_absolute=pytest.approx(0.4 * 3 * 8104 * 88 * 64),
        seconds=50.0, images_per_second=pytest.approx(100.0),
    )  # fmt: skip


def test_a_finished_run_without_validation(trained):
    run = finished(trained, validation_accuracy=None)
    assert run.best_validation_accuracy is run.best_validation_epoch is None
    assert run.validation_accuracy is None


def test_speed_is_images_over_time(trained):
    epochs = [epoch(number=1, images_per_second=50.0), epoch(number=2, images_per_second=150.0)]
    # Two times 150 images: 3 s and 1 s.
    assert results.finished(epochs, *trained, batch_size=1).images_per_second == pytest.approx(75.0)


def test_comparison_table(trained):
    run = finished(trained, validation_accuracy=None)
    dense = dataclasses.replace(
        run, name="dense", test_accuracy=0.9512, nonzeros=128, sparsity=0.0, inference_flops=1.0,
        training_flops=1.0, seconds=7200.0,
    )  # fmt: skip
    table = plain(report.comparison_table([run, dense])).splitlines()
    assert [re.split(r"\s{2,}", line) for line in table] == [
        ["run", "test accuracy", "against dense", "best", "in epoch", "sparsity", "nonzeros",
         "test FLOPs", "train FLOPs", "time"],
        ["dense", "95.12%", "95.00%", "2", "0.0000", "128", "100.0%", "100.0%", "2.0 h"],
        ["granet", "94.00%", "-1.12 points", "95.00%", "2", "0.8125", "13", "12.5%", "40.0%",
         "50 s"],
    ]  # fmt: skip
    with_validation = plain(report.comparison_table([finished(trained)]))
    assert "validation" in with_validation and "92.00%" in with_validation


@pytest.mark.parametrize(
    ("columns", "heads", "count"), [(120, 1, 9), (90, 2, 9), (60, 2, 6), (40, 2, 5)]
)
def test_a_narrow_terminal_gets_fewer_columns(
    terminal, monkeypatch, trained, columns, heads, count
):
    monkeypatch.setenv("COLUMNS", str(columns))
    run = finished(trained, validation_accuracy=None)
    Screen(terminal).print(report.comparison_table([run, run]))
    *head, first, second, end = screen(terminal.getvalue())
    assert len(head) == heads and second == first and end == ""
    assert max(map(len, (*head, first))) <= columns
    assert first.startswith("granet") and "94.00%" in first and "0.8125" in first
    # The cell "against dense" is empty.
    assert len(re.split(r"\s{2,}", first)) == count


def test_file_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x" * 1500)
    (tmp_path / "events" / "granet").mkdir(parents=True)
    (tmp_path / "events" / "granet" / "b").write_bytes(b"x" * 20)
    (tmp_path / "events" / "c").write_bytes(b"x" * 3)
    assert plain(
        report.file_table(tmp_path, {"a.csv": "figures", "events": "for TensorBoard"})
    ) == (f"{tmp_path}/\n  a.csv   1,500 bytes  figures\n  events     23 bytes  for TensorBoard")


def test_summary(tmp_path, trained):
    run = finished(trained)
    results.write_summary(
        tmp_path / "summary.json", [run], flags={"epochs": 3}, wall_seconds=1.26, files={"a": 1}
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == ["runs", "flags", "versions", "wall_seconds", "files"]
    assert summary["runs"] == {"granet": dataclasses.asdict(run)}
    assert (summary["flags"], summary["files"]) == ({"epochs": 3}, {"a": 1})
    assert summary["wall_seconds"] == 1.3
    for name in ("keras", "tensorflow", "numpy"):
        assert summary["versions"][name] == importlib.metadata.version(name)
