"""Grids of cells: each is done once, alone or side by side, whatever becomes of the others."""

import fcntl
import io
import os
import signal
import subprocess
import sys

import pytest

from granet_train.errors import Interrupted, UsageError
from granet_train.studies import jobs
from granet_train.studies.bar import Bar
from granet_train.studies.grid import Grid
from tests.support.jobs_to_run import Task, open_run
from tests.support.terminal import Terminal, screen

FIRST = Task("first")
FAILS = Task("fails", "diverge")
TASKS = [
    FIRST,
    Task("second", needs=FIRST),
    FAILS,
    Task("third", needs=FAILS),
    Task("fourth"),
]


def test_in_this_process(tmp_path, capsys):
    grid = Grid(tmp_path)
    failed = jobs.run(TASKS, grid, open_run, None)
    assert {task.name: why for task, why in failed.items()} == {
        "fails": "The loss became nan.",
        "third": "it needs task fails",
    }
    assert grid.result(FIRST)["pid"] == grid.result(TASKS[1])["needed"] == os.getpid()
    assert [task.name for task in grid.to_do(TASKS)] == ["fails", "third"]
    assert "failed: task fails: The loss became nan." in capsys.readouterr().out
    # What is done is not done again, what failed is tried again.
    first = (grid.folder(FIRST) / "result.json").stat().st_mtime_ns
    assert list(jobs.run(TASKS, grid, open_run, None)) == [FAILS, TASKS[3]]
    assert (grid.folder(FIRST) / "result.json").stat().st_mtime_ns == first
    assert "3 of 5 cells are done already" in capsys.readouterr().out


def test_side_by_side(tmp_path):
    grid = Grid(tmp_path)
    tasks = [*TASKS, Task("dies", "die"), Task("breaks", "break"), Task("last")]
    failed = jobs.run(tasks, grid, open_run, None, jobs=2, devices=["4", "5"])
    assert {task.name: why.partition(";")[0] for task, why in failed.items()} == {
        "fails": "The loss became nan.",
        "third": "it needs task fails",
        "dies": "its process ended with code -9",
        "breaks": "MemoryError: no room",
    }
    done = [grid.result(task) for task in tasks if task not in failed]
    assert os.getpid() not in {result["pid"] for result in done}
    assert {result["device"] for result in done} <= {"4", "5"}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") not in ("4", "5")
    assert grid.result(tasks[1])["needed"] == grid.result(FIRST)["pid"]
    assert "MemoryError" in "".join(log.read_text() for log in tmp_path.glob("worker*.log"))


def test_what_holds_for_all_cells_ends_the_study(tmp_path):
    for count in (1, 2):
        with pytest.raises(UsageError, match="There is no such data set"):
            jobs.run([Task("bad", "refuse")], Grid(tmp_path), open_run, None, jobs=count)


@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_saves_what_was_begun(tmp_path, monkeypatch, count):
    if count == 1:
        monkeypatch.setattr(os, "getppid", os.getpid)
    grid, task = Grid(tmp_path), Task("waits", "wait")
    grid.finish(FIRST, {})
    with pytest.raises(Interrupted, match=r"Stopped with 1 of 3 cells done\. The same") as error:
        jobs.run([FIRST, task, Task("never", needs=task)], grid, open_run, None, jobs=count)
    assert error.value.exit_code == 128 + signal.SIGTERM
    assert (grid.folder(task) / "saved").exists()
    assert grid.result(task) is None


KILLED = """
import sys
from pathlib import Path
from tests.support.jobs_to_run import Task, open_run
from granet_train.studies import jobs
from granet_train.studies.grid import Grid

jobs.run([Task("orphan", "orphan")], Grid(Path(sys.argv[1])), open_run, None, jobs=2)
"""


def test_a_worker_does_not_outlive_a_study_that_is_killed(tmp_path):
    def too_long(number, frame):
        raise AssertionError("the worker still runs")

    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    study = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env=paths, check=False)
    assert study.returncode == -signal.SIGKILL
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    try:
        with open(tmp_path / "held") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # The worker's, until its end.
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    grid = Grid(tmp_path)
    grid.finish(FIRST, {})
    path = grid.folder(FIRST) / "result.json"
    path.write_text('{"accuracy"')
    with pytest.raises(UsageError, match=r"cannot be read: .* Remove it.*Received: .*result.json"):
        grid.result(FIRST)


def test_finishing_removes_what_was_for_going_on(tmp_path):
    grid = Grid(tmp_path)
    (grid.folder(FIRST) / "checkpoints").mkdir(parents=True)
    grid.finish(FIRST, {"accuracy": 1.0}, remove=["checkpoints", "no_such"])
    assert [path.name for path in grid.folder(FIRST).iterdir()] == ["result.json"]


def test_time_left_goes_by_effort():
    """12 epochs in 60 seconds, a half of a cell of 8 among them: 20 are left."""
    now = [0.0]
    cells = [Task("long", effort=8.0), Task("short", effort=8.0), Task("rest", effort=16.0)]
    stream = io.StringIO()
    bar = Bar([*cells, Task("done")], cells, stream, lambda: now[0])
    bar.progress(cells[1], 0.5)
    now[0] = 60.0
    bar.finished(cells[0])
    assert stream.getvalue() == "██████████░░░░░░░░░░  2/4 cells  1:40 left  task long\n"


def test_a_terminal_has_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream, cells = Terminal(), [Task("a"), Task("b")]
    bar = Bar(cells, cells, stream, lambda: 0.0)
    bar.finished(cells[0])
    bar.failed(cells[1], "no room")
    bar.close()
    note, line, nothing = screen(stream.getvalue())
    assert note == "failed: task b: no room" and nothing == ""
    assert line.startswith("━" * 10) and line.endswith("  1/2 cells  0:00 left  task a")


def test_few_lines_elsewhere():
    stream, cells = io.StringIO(), [Task(str(i)) for i in range(500)]
    bar = Bar(cells, cells, stream, lambda: 1.0)
    for cell in cells:
        bar.finished(cell)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 20 and lines[-1].startswith("█" * 20 + "  500/500 cells  0:00 left")
