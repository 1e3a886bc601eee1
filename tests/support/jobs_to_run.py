"""Cells that train nothing, for processes that are started by a test."""

import dataclasses
import fcntl
import os
import random
import signal
import time

from granet_train.errors import TrainingStopped, UsageError

STUDY = "study.pid"
JOURNAL = "{}.journal"


@dataclasses.dataclass(frozen=True)
class Task:
    """A cell that does what its `kind` says."""

    name: str
    kind: str = "write"
    needs: "Task | None" = None
    effort: float = 1.0

    @property
    def label(self):
        return f"task {self.name}"


def _write(grid, task, tell, stop):
    needed = grid.result(task.needs)["pid"] if task.needs else None
    device = os.environ.get("CUDA_VISIBLE_DEVICES")
    tell(0.5)
    grid.finish(task, {"pid": os.getpid(), "needed": needed, "device": device})


def _diverge(grid, task, tell, stop):
    raise TrainingStopped("The loss became nan.")


def _refuse(grid, task, tell, stop):
    raise UsageError("There is no such data set.")


def _die(grid, task, tell, stop):
    os.kill(os.getpid(), signal.SIGKILL)


def _break(grid, task, tell, stop):
    raise MemoryError("no room")


def _wait(grid, task, tell, stop):
    """Until it is asked to stop, which the process that started it is told to do."""
    from granet_train.errors import Interrupted

    grid.folder(task).mkdir(parents=True)
    study = grid.directory / STUDY  # Of a study elsewhere this process is no child.
    os.kill(int(study.read_text()) if study.exists() else os.getppid(), signal.SIGTERM)
    while not stop:
        time.sleep(0.01)
    (grid.folder(task) / "saved").touch()
    raise Interrupted("Stopped.", stop.signal)


def _lose_worker(grid, task, tell, stop):
    """The first time, kills the worker that this process belongs to, and would go on."""
    again = JOURNAL.format(task.name) in os.listdir(grid.directory)
    _note(grid, task, "begun")
    if not again:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    _write(grid, task, tell, stop)
    _note(grid, task, "done")


def _kill_workers(grid, task, tell, stop):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _journal(grid, task, tell, stop):
    _note(grid, task, "begun")
    _write(grid, task, tell, stop)
    _note(grid, task, "done")


def _draw(grid, task, tell, stop):
    """The state of Python's random numbers after a second in which only it should have drawn."""
    random.seed(0)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        time.sleep(0.01)
    grid.finish(task, {"drawn": random.random()})


def _note(grid, task, what):
    with open(grid.directory / JOURNAL.format(task.name), "a") as journal:
        journal.write(f"{what} {os.getpid()} {os.getppid()}\n")


def _orphan(grid, task, tell, stop):
    """Kills the study, and would go on for a minute."""
    with open(grid.directory / "held", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


KINDS = {
    "write": _write,
    "diverge": _diverge,
    "refuse": _refuse,
    "die": _die,
    "break": _break,
    "wait": _wait,
    "orphan": _orphan,
    "journal": _journal,
    "lose worker": _lose_worker,
    "kill workers": _kill_workers,
    "draw": _draw,
}


def open_run(grid, argument):
    """Takes the place of what opens data and models."""
    return lambda task, tell, stop: KINDS[task.kind](grid, task, tell, stop)
