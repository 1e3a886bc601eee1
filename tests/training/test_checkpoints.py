"""A run that is ended in any way goes on as if nothing had happened."""

import ctypes
import dataclasses
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from granet_train import device, files, loop, main
from granet_train.checkpoints import Checkpoints, Position
from granet_train.errors import TrainingStopped, UsageError
from granet_train.progress import Progress
from granet_train.run import Run
from tests.support import ROOT
from tests.support.short_runs import (
    QUIET,
    SHORT,
    accuracy,
    checkpoint_steps,
    run,
    state,
    summary,
    table,
)

pytestmark = pytest.mark.optimized  # As in the processes whose runs are compared.

FLAGS = (
    *SHORT, *QUIET, "--weight_decay=5e-4", "--frequency=3", "--checkpoint_every=4",
    "--keep_checkpoints=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    run(*FLAGS, f"--workdir={workdir}")
    return workdir


def assert_same_run(one, other):
    """Weights, masks, optimizer slots, position, and all figures but times."""
    assert checkpoint_steps(one / "checkpoints/granet") == [16, 20]
    assert checkpoint_steps(other / "checkpoints/granet") == [16, 20]
    for step in (16, 20):
        position, values = state(one / "checkpoints/granet", step)
        assert (position, values) == state(other / "checkpoints/granet", step)
        assert position["batches"] == step
    # Trainable variables, moving statistics, masks, velocities, the step.
    assert sum(dtype == np.bool_ for dtype, _, _ in values.values()) == 4
    assert len(values) == 11 + 6 + 4 + 11 + 1
    assert len(table(one / files.METRICS)) == 4
    assert table(one / files.METRICS) == table(other / files.METRICS)
    assert [int(u["step"]) for u in table(one / files.UPDATES)] == [0, 3, 6, 9, 12, 15]
    assert table(one / files.UPDATES) == table(other / files.UPDATES)
    kernels = [keras.models.load_model(w / files.STRIPPED).get_weights() for w in (one, other)]
    for a, b in zip(*kernels, strict=True):
        np.testing.assert_array_equal(a, b)


def draw():
    """Three moments: in training, while a checkpoint is written, and either."""
    rng = random.Random(3)
    return [
        ("in training", rng.randrange(4, 8)),
        ("in writing", rng.randrange(8, 13)),
        (rng.choice(["in training", "before naming"]), rng.randrange(13, 20)),
    ]


# One is enough for a run of all tests: processes take long.
@pytest.mark.parametrize(
    "moments", [draw()[1:2], pytest.param(draw(), marks=pytest.mark.slow)], ids=["one", "three"]
)
def test_killed_at_three_moments(tmp_path, uninterrupted, moments):
    for moment, step in moments:
        command = (sys.executable, "tests/support/killed_run.py", moment, str(step), *FLAGS)
        killed = subprocess.run(
            [*command, f"--workdir={tmp_path}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert "warning: checkpoint" not in killed.stdout
        assert not (tmp_path / files.SUMMARY).exists()
    printed = run(*FLAGS, f"--workdir={tmp_path}")
    assert "granet: going on after step " in printed and "warning: checkpoint" not in printed
    assert_same_run(tmp_path, uninterrupted)


def at(step, monkeypatch, act):
    """Calls `act` once, when the loop has reported this step."""
    progress = Progress.progress

    def hear(self, now, figures):
        if now >= step:
            monkeypatch.setattr(Progress, "progress", progress)
            act()
        progress(self, now, figures)

    monkeypatch.setattr(Progress, "progress", hear)


def limit_file_size(size):
    """What a full disk does: files cannot grow beyond this."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


@pytest.fixture
def small_disk():
    yield limit_file_size
    limit_file_size(None)


def test_sigterm_and_a_full_disk(tmp_path, uninterrupted, monkeypatch, small_disk, capfd):
    command = [*FLAGS, f"--workdir={tmp_path}"]
    directory = tmp_path / "checkpoints/granet"
    at(6, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        main.cli(command)
    assert stopped.value.code == 143
    printed = capfd.readouterr().err.splitlines()
    assert "Saving, then ending. Ctrl-C again ends at once." in printed
    assert printed[-1] == (
        f"error: Stopped by SIGTERM at step 6. The last good checkpoint is {directory}/ckpt-6. "
        "The same command, without --overwrite, goes on from it."
    )
    assert checkpoint_steps(directory) == [4, 6]

    at(11, monkeypatch, lambda: small_disk(100_000))
    with pytest.raises(SystemExit) as stopped:
        main.cli(command)
    small_disk(None)
    assert stopped.value.code == 1
    printed = capfd.readouterr().err.splitlines()[-1]
    assert printed.startswith("error: The checkpoint of step 12 could not be written: ")
    assert "; File too large. The last good checkpoint is " in printed
    assert f" {directory}/ckpt-8. Make room, and" in printed
    assert printed.endswith(f"Received: {directory}")
    assert checkpoint_steps(directory) == [6, 8]

    printed = run(*command)
    assert "granet: going on after step 8 of 20\n" in printed
    assert_same_run(tmp_path, uninterrupted)


LOCKED = """
import ctypes
import dataclasses
import stopping
with stopping.on_signal():
    print("ready", flush=True)
    # Locking it twice takes for ever, in C, and no signal ends that.
    mutex = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "pthread_mutex_lock"), reason="needs pthreads")
def test_a_second_ctrl_c_ends_a_device_loop():
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED],
        cwd=ROOT / "granet_train",  # To import it alone takes no TensorFlow.
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            said = process.stderr.readline() + process.stderr.readline()
            assert said == "\nSaving, then ending. Ctrl-C again ends at once.\n"
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 130
        finally:
            process.kill()


def test_a_signal_before_the_first_step_ends_at_once(monkeypatch, tmp_path, capfd):
    def solve(self, model):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10**9):  # What SIS solves before training takes minutes.
            pass

    monkeypatch.setattr(Run, "_draw", solve)
    command = [*SHORT, *QUIET, "--method=sis", f"--workdir={tmp_path}"]
    with pytest.raises(SystemExit) as stopped:
        main.cli(command)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert capfd.readouterr().err.splitlines()[-1] == (
        "error: Stopped by SIGTERM before the first step. There is nothing to save yet: the same "
        "command begins anew."
    )
    assert not (tmp_path / "checkpoints" / "sis").exists()


# What is written and read


class Saved:
    """Two variables and their checkpoints, saved at steps 10, 20, ..."""

    def __init__(self, directory, keep=3, size=50_000):
        self.directory = directory
        self.variables = [tf.Variable(tf.zeros(size)), tf.Variable(0)]
        self.position = Position()
        self.checkpoints = Checkpoints(directory, self.variables, self.position, keep)

    def save(self, *steps, best=()):
        for step in steps:
            self.position.batches = step
            if step in best:
                self.position.best, self.position.best_epoch = step / 100, step // 10
            self.variables[0].assign(tf.fill(self.variables[0].shape, float(step)))
            self.variables[1].assign(step)
            self.checkpoints.save(best=step in best)
        return self

    @property
    def step(self):
        """The step that all variables are of."""
        [value] = {*self.variables[0].numpy(), float(self.variables[1])}
        return int(value)

    def again(self):
        """As the next session finds it."""
        return Saved(self.directory, size=self.variables[0].shape[0])


def flip_bytes(path):
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


DAMAGE = {
    "altered": (".data-00000-of-00001", flip_bytes),
    "data cut off": (".data-00000-of-00001", cut_off),
    "index cut off": (".index", cut_off),
    "index empty": (".index", lambda path: os.truncate(path, 0)),
    "data missing": (".data-00000-of-00001", pathlib.Path.unlink),
    "index missing": (".index", pathlib.Path.unlink),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_left_out(tmp_path, kind, capsys):
    ending, damage = DAMAGE[kind]
    Saved(tmp_path).save(10, 20, 30)
    damage(tmp_path / f"ckpt-30{ending}")
    saved = Saved(tmp_path)
    assert saved.checkpoints.restore()
    assert saved.step == saved.position.batches == 20
    printed = capsys.readouterr().out
    assert printed.startswith(f"warning: checkpoint {tmp_path}/ckpt-30 is damaged and left out: ")
    assert printed.count("\n") == 1
    assert saved.checkpoints.last() == f"The last good checkpoint is {tmp_path}/ckpt-20."

    saved.save(30, 40)
    assert saved.again().checkpoints.restore()
    assert not capsys.readouterr().out

    for step in (20, 30, 40):
        damage(tmp_path / f"ckpt-{step}{ending}")
    with pytest.raises(UsageError, match=r"No checkpoint can be read.*--overwrite.*/ckpt-40$"):
        saved.again().checkpoints.restore()


@pytest.mark.parametrize("more", [0, 1])
def test_a_checkpoint_of_another_model_is_no_damage(tmp_path, more, capsys):
    Saved(tmp_path, size=3).save(10)
    variables = [tf.Variable(tf.zeros(3 if more else 4)), tf.Variable(0), *[tf.Variable(0)] * more]
    with pytest.raises(UsageError, match=r"No checkpoint can be read.*/ckpt-10$"):
        Checkpoints(tmp_path, variables, Position(), 3).restore()
    difference = "3 variables here, and 2 there" if more else "has shape (4,) here, and (3,) there"
    printed = capsys.readouterr().out
    assert printed.startswith(f"warning: checkpoint {tmp_path}/ckpt-10 is of another model and")
    assert printed.endswith(f"{difference}\n") and printed.count("\n") == 1


@pytest.mark.parametrize("text", [b"", b"\x00\x00", b"model_check"])
def test_the_list_of_checkpoints_is_damaged(tmp_path, text, capsys):
    Saved(tmp_path).save(8, 9, 10)
    (tmp_path / "checkpoint").write_bytes(text)
    saved = Saved(tmp_path)
    assert saved.checkpoints.restore()
    assert saved.step == 10
    printed = capsys.readouterr().out
    warning = f"warning: the list of checkpoints {tmp_path}/checkpoint is damaged and made anew\n"
    assert printed == warning
    saved.save(11)
    assert checkpoint_steps(tmp_path) == [9, 10, 11]
    assert tf.train.latest_checkpoint(str(tmp_path)) == f"{tmp_path}/ckpt-11"


def test_the_list_is_damaged_and_nothing_else_there(tmp_path):
    (tmp_path / "checkpoint").touch()
    saved = Saved(tmp_path)
    assert not saved.checkpoints.restore()
    saved.save(1)
    assert saved.again().checkpoints.restore()


def test_nothing_is_no_checkpoint(tmp_path):
    saved = Saved(tmp_path / "none")
    assert not saved.checkpoints.restore()
    assert saved.checkpoints.last() == "There is no checkpoint yet."


def test_the_newest_and_the_best_are_kept(tmp_path):
    saved = Saved(tmp_path, keep=2).save(10, 20, 30, 40, 50, 60, best=(10, 30))
    assert checkpoint_steps(tmp_path) == [50, 60]
    assert checkpoint_steps(tmp_path / "best") == [30]
    assert saved.checkpoints.restore_best()
    assert saved.step == 30
    assert (saved.position.batches, saved.position.best_epoch) == (60, 3)


def test_a_best_checkpoint_of_a_session_that_was_killed_says_what_it_is(tmp_path):
    Saved(tmp_path).save(10, 20, best=(10,))
    ahead = Saved(tmp_path)
    ahead.checkpoints.restore()
    ahead.checkpoints._newest.save = lambda **options: None
    ahead.save(30, best=(30,))

    saved = Saved(tmp_path)
    saved.checkpoints.restore()
    assert (saved.step, saved.position.best_epoch) == (20, 1)
    saved.save(30)
    saved.checkpoints.restore_best()
    assert (saved.step, saved.position.best_epoch) == (30, 3)


def test_a_damaged_best_checkpoint_does_not_cost_the_run(tmp_path, capsys):
    saved = Saved(tmp_path).save(10, 20, best=(10,))
    cut_off(tmp_path / "best" / "ckpt-10.index")
    assert not saved.checkpoints.restore_best()
    assert f"checkpoint {tmp_path}/best/ckpt-10 is damaged" in capsys.readouterr().out
    assert (saved.step, saved.position.batches, saved.position.best_epoch) == (20, 20, None)


@pytest.mark.parametrize("best", [False, True])
def test_a_full_disk(tmp_path, small_disk, best):
    saved = Saved(tmp_path).save(1, 2, 10)
    small_disk(100_000)
    saved.position.batches = 1  # Begins like 10.
    with pytest.raises(TrainingStopped) as stopped:
        saved.save(11, best=(11,) if best else ())
    small_disk(None)
    assert f"The last good checkpoint is {tmp_path}/ckpt-10. Make room" in str(stopped.value)
    assert checkpoint_steps(tmp_path) == [1, 2, 10]
    assert not list((tmp_path / "best").glob("ckpt*"))
    again = saved.again()
    assert again.checkpoints.restore() and again.step == 10


def test_what_begins_alike_is_not_removed(tmp_path, small_disk):
    saved = Saved(tmp_path).save(10, 100)
    small_disk(100_000)
    with pytest.raises(TrainingStopped):
        saved.save(1)
    assert checkpoint_steps(tmp_path) == [10, 100]


# Which model is the result


@pytest.mark.parametrize(
    ("select_on", "scores", "best"),
    [
        # Pruning ends at step 12, in epoch 3; of equal ones the first is taken.
        ("test", {"test_accuracy": [0.99, 0.98, 0.5, 0.8, 0.8, 0.7]}, 4),
        ("validation", {"validation_accuracy": [0.9, 0.9, 0.8, 0.1, 0.2, 0.3]}, 3),
    ],
)
def test_the_best_epoch_is_the_result(tmp_path, monkeypatch, select_on, scores, best):
    """Accuracies are made up, to be sure that the last epoch is not the best."""
    figures = iter(zip(*scores.values(), strict=True))
    truly, weights = [], []
    make, evaluate = Run.compiled, loop.Training._evaluated

    def model(*args):
        models.append(make(*args))
        return models[-1]

    def evaluated(*args):
        record = evaluate(*args)
        truly.append(record.test_accuracy)
        weights.append([w.numpy() for w in models[-1].model.weights])
        return dataclasses.replace(record, **dict(zip(scores, next(figures), strict=True)))

    models = []
    monkeypatch.setattr(Run, "compiled", model)
    monkeypatch.setattr(loop.Training, "_evaluated", evaluated)
    run(
        *SHORT, *QUIET, "--epochs=6", "--validation_fraction=0.1", f"--select_on={select_on}",
        "--frequency=4", "--end=12", "--keep_checkpoints=2", f"--workdir={tmp_path}",
    )  # fmt: skip

    directory = tmp_path / "checkpoints/granet"
    assert checkpoint_steps(directory) == [25, 30]
    assert checkpoint_steps(directory / "best") == [5 * best]
    assert summary(tmp_path)["selected"] == {"epoch": best, "by": select_on}
    if select_on == "test":
        assert summary(tmp_path)["runs"]["granet"]["best_test_epoch"] == best
    result = keras.models.load_model(tmp_path / files.STRIPPED)
    for a, b in zip(result.get_weights(), weights[best - 1], strict=True):
        np.testing.assert_array_equal(a, b)
    assert accuracy(result) == pytest.approx(truly[best - 1], abs=1e-6)


def test_the_last_epoch_is_the_result_unless_asked(uninterrupted):
    figures = summary(uninterrupted)
    assert figures["selected"] == {"epoch": 4, "by": "last"}
    assert not (uninterrupted / "checkpoints/granet/best").exists()
    result = keras.models.load_model(uninterrupted / files.STRIPPED)
    expected = figures["runs"]["granet"]["test_accuracy"]
    assert accuracy(result) == pytest.approx(expected, abs=1e-6)


# Numbers that are none


def spoil(monkeypatch, after):
    """Makes a weight NaN when this many steps are done."""
    make, train = Run.compiled, device.Device.train
    models, done = [], []

    def model(*args):
        models.append(make(*args))
        return models[-1]

    def trained(self, iterator, steps):
        totals = train(self, iterator, steps)
        done.append(steps)
        if sum(done) == after:
            bias = models[-1].model.get_layer("head").bias
            bias.assign(bias * np.nan)
        return totals

    monkeypatch.setattr(Run, "compiled", model)
    monkeypatch.setattr(device.Device, "train", trained)


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (7, "The loss became nan by step 8."),
        # The loss of step 8 is still a number, what is saved must be too.
        (8, "The weight head/bias became nan by step 8."),
        (10, "The loss on the test set became nan by step 10."),
    ],
)
def test_nan_names_the_last_good_checkpoint(after, text, tmp_path, monkeypatch):
    spoil(monkeypatch, after)
    with pytest.raises(TrainingStopped) as stopped:
        run(
            *SHORT, *QUIET, "--method=static", "--checkpoint_every=4", "--steps_per_loop=1",
            f"--workdir={tmp_path}",
        )  # fmt: skip
    directory = tmp_path / "checkpoints/static"
    good = {7: 4, 8: 4, 10: 8}[after]
    assert str(stopped.value).startswith(text)
    assert f"The last good checkpoint is {directory}/ckpt-{good}. Lower the" in str(stopped.value)
    assert checkpoint_steps(directory)[-1] == good


def test_nan_in_the_first_steps(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main.cli([*SHORT, *QUIET, "--learning_rate=1e30", f"--workdir={tmp_path}"])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: The loss became ")
    assert "There is no checkpoint yet." in error
    assert error.count("\n") == 1
