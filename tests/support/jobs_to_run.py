"""Cells that train nothing, for processes that are started by a test."""

import dataclasses
import fcntl
import os
import signal
import time

from granet_train.errors import TrainingStopped, UsageError


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
    os.kill(os.getppid(), signal.SIGTERM)
    while not stop:
        time.sleep(0.01)
    (grid.folder(task) / "saved").touch()
    raise Interrupted("Stopped.", stop.signal)


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
}


def open_run(grid, argument):
    """Takes the place of what opens data and models."""
    return lambda task, tell, stop: KINDS[task.kind](grid, task, tell, stop)
