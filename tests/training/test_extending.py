"""--extend: a run goes on for more epochs, and nothing of it is lost."""

import json
import math
import os
import signal

import keras
import pytest

from granet_train import extending, files, flags
from granet_train.durations import TrainingLength
from granet_train.errors import Interrupted, UsageError
from granet_train.progress import Progress
from granet_train.run import method_of
from tests.support.reference import cubic, keep_count
from tests.support.short_runs import QUIET, SHORT, checkpoint_steps, run, summary, table

ALL, LEFT = 93_728, 9_373
# Pruning is to end at step 10 of 20.
COMMAND = (*SHORT, *QUIET, "--frequency=3")


def columns(workdir, name, run_name="granet"):
    return [float(row[name]) for row in table(workdir / files.METRICS) if row["run"] == run_name]


def cosine(step, steps):
    return 0.05 * (1 + math.cos(math.pi * step / steps)) / 2


def test_a_finished_run_goes_on(tmp_path):
    command = (*COMMAND, "--compare=dense", "--select_on=test", f"--workdir={tmp_path}")
    run(*command)
    metrics, updates = table(tmp_path / files.METRICS), table(tmp_path / files.UPDATES)
    printed = run(*command, "--epochs=6", "--extend")
    assert "Extended from 4 to 6 epochs. Pruning keeps to the schedule of 4 epochs" in printed
    assert "granet: going on after step 20 of 30" in printed
    assert "dense: going on after step 20 of 30" in printed

    # What there was is there, but for the share of a training that has become longer.
    after = table(tmp_path / files.METRICS)
    shares = [(float(row.pop("training_flops")), row in metrics) for row in after]
    before = {(row["run"], row["epoch"]): float(row.pop("training_flops")) for row in metrics}
    assert [row for row in after if int(row["epoch"]) <= 4] == metrics
    for (share, _), row in zip(shares, after, strict=True):
        if int(row["epoch"]) <= 4:
            assert share == pytest.approx(before[row["run"], row["epoch"]] * 4 / 6)
    assert shares[-1][0] == 1.0  # dense
    for name in ("granet", "dense"):
        assert columns(tmp_path, "epoch", name) == [1, 2, 3, 4, 5, 6]
    assert columns(tmp_path, "learning_rate")[3:] == pytest.approx(
        [0, cosine(25, 30), cosine(30, 30)], abs=1e-8
    )

    more = [row for row in table(tmp_path / files.UPDATES) if row not in updates]
    assert len(updates) + len(more) == len(table(tmp_path / files.UPDATES))
    # One of step 18 would have been too late before, and one after 27 is now.
    assert [int(row["step"]) for row in more] == [21, 24, 27]
    assert {(row["pruned"], row["nonzeros"]) for row in more} == {("0", str(LEFT))}
    assert all(int(row["regenerated"]) > 0 for row in more)

    noted = summary(tmp_path)
    assert [noted["runs"][name]["epochs"] for name in ("granet", "dense")] == [6, 6]
    assert noted["flags"]["epochs"] == 6
    began = json.loads((tmp_path / files.RUN).read_text())[extending.BEGAN]
    assert began == {"epochs": 4, "schedule_multiplier": 1.0}
    # Pruned to the end is the network from epoch 3 on.
    accuracies = columns(tmp_path, "test_accuracy")[2:]
    best = 3 + accuracies.index(max(accuracies))
    assert noted["selected"] == {"epoch": best, "by": "test"}
    assert checkpoint_steps(tmp_path / "checkpoints/granet/best") == [5 * best]
    assert keras.models.load_model(tmp_path / files.SPARSE).nonzeros == LEFT

    assert run(*command, "--epochs=6").startswith("This run is finished")
    with pytest.raises(UsageError, match=r"6 epochs, 6 of them done.* add --extend\. "):
        run(*command, "--schedule_multiplier=2")
    with pytest.raises(UsageError, match=r"not shorter.*6 epochs, 6 .*Received: --epochs=4 inst"):
        run(*command, "--epochs=4", "--extend")


def test_an_interrupted_run_prunes_as_it_was_to(tmp_path, monkeypatch):
    progress = Progress.progress

    def hear(self, step, figures):
        if step >= 6:
            os.kill(os.getpid(), signal.SIGTERM)
        progress(self, step, figures)

    command = (*COMMAND, f"--workdir={tmp_path}")
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Progress, "progress", hear)
        run(*command)
    with pytest.raises(UsageError, match=r"4 epochs, 1 of them done.* add --extend"):
        run(*command, "--epochs=6")
    run(*command, "--schedule_multiplier=1.5", "--extend")
    counts = {int(row["step"]): int(row["nonzeros"]) for row in table(tmp_path / files.UPDATES)}
    assert counts == {
        step: keep_count(ALL, cubic(step, 0.0, 0.9, 0, 10)) for step in range(0, 28, 3)
    }
    assert columns(tmp_path, "learning_rate")[1:] == pytest.approx(
        [cosine(step, 30) for step in (10, 15, 20, 25, 30)], abs=1e-8
    )


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path):
    values, _ = flags.parse([*COMMAND, f"--workdir={tmp_path}"])
    files.begin(tmp_path, flags.as_dict(values), overwrite=False)
    with pytest.raises(UsageError, match=r"--extend needs a checkpoint.*--overwrite\. Received: "):
        run(*COMMAND, "--epochs=6", "--extend", f"--workdir={tmp_path}")


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [
        ("granet", 10, 30),  # As planned: 0.1 and 0.3 of 100 steps.
        ("gmp", 10, 30),
        ("rigl", 20, 60),  # As sparse all along: of 200 steps.
        ("set", 20, 60),
    ],
)
def test_what_prunes_keeps_its_schedule(name, begin, end):
    values, _ = flags.parse([f"--method={name}", "--begin=0.1", "--end=0.3"])
    method = method_of(name, values, TrainingLength(20, 10), TrainingLength(10, 10))
    assert (method.steps("begin_step"), method.steps("end_step")) == (begin, end)
    assert method.total_steps == 200
