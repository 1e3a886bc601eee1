"""Runs the cells of a study, in this process or side by side in several."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from granet_tf.reasons import reason_of
from granet_train.errors import Interrupted, TrainingStopped, UsageError
from granet_train.stopping import Stop, on_signal
from granet_train.studies.bar import Bar
from granet_train.studies.grid import Cell, Grid

Run = Callable[[Cell, Callable[[float], None], Stop], None]
"""Runs a cell to its end and notes its result in the grid; tells the share of it that is done.

Raises Interrupted when asked to stop, TrainingStopped where this one cell cannot be done.
"""

Open = Callable[[Grid, Any], Run]
"""Makes a `Run` in the process that is to run cells; a function of a module, so that it travels."""

LOG = "worker{}.log"
_PATIENCE = 0.5  # seconds between two looks at whether to stop


def run(
    cells: Sequence[Cell],
    grid: Grid,
    open_run: Open,
    argument: Any,
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
) -> dict[Cell, str]:
    """Runs those of the cells that are not done yet.

    Args:
        cells: All cells of the study, each after the one that it needs.
        grid: Where their results are.
        open_run: Makes what runs them.
        argument: For `open_run`; can be pickled.
        jobs: How many processes run cells side by side. With 1 it is this one.
        devices: GPUs, as in CUDA_VISIBLE_DEVICES, that the processes take turns on. With none,
            each of them sees all.

    Returns:
        {cell that could not be done: why}; cells that need it are among them.

    Raises:
        Interrupted: If asked to stop; what was begun is saved.
        UsageError: If a cell says that nothing of this kind can be done.
    """
    to_do = grid.to_do(cells)
    bar = Bar(cells, to_do)
    if len(to_do) < len(cells):
        bar.note(f"{len(cells) - len(to_do):,} of {len(cells):,} cells are done already")
    queue = _Queue(to_do, bar)
    try:
        with on_signal() as stop:
            if jobs == 1:
                _here(queue, grid, open_run, argument, stop)
            else:
                _side_by_side(queue, grid, open_run, argument, jobs, devices, stop)
    except Interrupted as error:
        raise Interrupted(
            f"Stopped with {bar.done:,} of {bar.cells:,} cells done. The same command, without "
            "--overwrite, goes on from there.",
            error.exit_code - 128,
        ) from error
    finally:
        bar.close()
    return queue.failed


def tell_failed(failed: Mapping[Cell, str]) -> None:
    """Raises TrainingStopped if there are any."""
    if failed:
        [cell, reason], *more = failed.items()
        others = f" and {len(more):,} more" if more else ""
        raise TrainingStopped(
            f"{len(failed):,} of the cells could not be done. The same command, without "
            f"--overwrite, tries them again. Received: {cell.label}: {reason}{others}"
        )


class _Queue:
    """What is to be done next, and what came of it."""

    def __init__(self, to_do: Sequence[Cell], bar: Bar):
        self.waiting = list(to_do)
        self.missing = {cell.name for cell in to_do}
        self.failed: dict[Cell, str] = {}
        self.bar = bar

    def next(self) -> Cell | None:
        """A cell that can begin now, or None."""
        for cell in self.waiting:
            if cell.needs is None or cell.needs.name not in self.missing:
                self.waiting.remove(cell)
                self.bar.progress(cell, 0.0)
                return cell
        return None

    def finish(self, cell: Cell) -> None:
        self.missing.discard(cell.name)
        self.bar.finished(cell)

    def fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell] = reason
        self.bar.failed(cell, reason)
        for other in [c for c in self.waiting if c.needs is not None and c.needs == cell]:
            self.waiting.remove(other)
            self.fail(other, f"it needs {cell.label}")


def _here(queue, grid, open_run, argument, stop):
    run_cell = None
    while cell := queue.next():
        if stop:
            raise Interrupted("Stopped.", stop.signal)
        run_cell = run_cell or _opened(open_run, grid, argument)
        try:
            run_cell(cell, lambda share, cell=cell: queue.bar.progress(cell, share), stop)
        except Interrupted:
            raise
        except TrainingStopped as error:
            queue.fail(cell, str(error))
        else:
            queue.finish(cell)


def _opened(open_run, grid, argument):
    # Each cell has a network of its own, which TensorFlow takes for one that is traced again.
    logging.getLogger("tensorflow").addFilter(
        lambda record: "triggered tf.function retracing" not in record.getMessage()
    )
    return open_run(grid, argument)


class _Worker:
    """A process that runs the cells it is given, one after the other."""

    def __init__(self, number: int, grid: Grid, open_run: Open, argument: Any, device: str | None):
        self.number, self.cell = number, None
        self.log = grid.directory / LOG.format(number)
        # A fresh interpreter: TensorFlow does not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=_work, args=(other, grid, open_run, argument), daemon=True
        )
        changes = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        # In place before TensorFlow is imported there, which is before `_work` is called.
        with _environment(changes), _output_to(self.log):
            self.process.start()
        other.close()  # So that its end is seen here.

    def give(self, cell: Cell) -> None:
        self.cell = cell
        self.connection.send(cell)

    def end(self) -> None:
        """Lets it save what it has begun, then waits for its end."""
        with contextlib.suppress(ProcessLookupError):
            if self.cell is not None and self.process.is_alive():
                os.kill(self.process.pid, signal.SIGTERM)
        self.connection.close()
        self.process.join()


def _side_by_side(queue, grid, open_run, argument, jobs, devices, stop):
    numbers = itertools.count(1)

    def start() -> _Worker:
        number = next(numbers)
        device = devices[(number - 1) % len(devices)] if devices else None
        return _Worker(number, grid, open_run, argument, device)

    workers: list[_Worker] = []
    try:
        while True:
            while len(busy := [w for w in workers if w.cell is not None]) < jobs:
                if (cell := queue.next()) is None:
                    break
                idle = [w for w in workers if w not in busy and w.process.is_alive()]
                if not idle:
                    idle = [start()]
                    workers += idle
                idle[0].give(cell)
            if not busy:
                return
            if stop:
                raise Interrupted("Stopped.", stop.signal)
            heard = wait([worker.connection for worker in busy], _PATIENCE)
            for worker in [worker for worker in busy if worker.connection in heard]:
                if not _listen(worker, queue, stop):
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.end()


def _listen(worker: _Worker, queue: _Queue, stop: Stop) -> bool:
    """Takes one message; returns whether the worker lives."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        if not stop:
            reason = f"its process ended with code {worker.process.exitcode}; see {worker.log}"
            queue.fail(worker.cell, reason)
        worker.cell = None
        return False
    _MESSAGES[kind](worker, queue, content)
    return True


def _told(worker, queue, share):
    queue.bar.progress(worker.cell, share)


def _done(worker, queue, _):
    queue.finish(worker.cell)
    worker.cell = None


def _failed(worker, queue, reason):
    queue.fail(worker.cell, reason)
    worker.cell = None


def _refused(worker, queue, reason):
    worker.cell = None
    raise UsageError(reason)


def _interrupted(worker, queue, number):
    worker.cell = None
    raise Interrupted("Stopped.", number)


_MESSAGES = {
    "told": _told,
    "done": _done,
    "failed": _failed,
    "refused": _refused,
    "interrupted": _interrupted,
}


def _work(connection: Connection, grid: Grid, open_run: Open, argument: Any) -> None:
    """The life of a worker: until its connection is closed, it runs the cells that come."""
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    # Nobody listens any more once the study is ended.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError), on_signal() as stop:
        try:
            run_cell = _opened(open_run, grid, argument)
        except UsageError as error:
            connection.recv()
            connection.send(("refused", str(error)))
            return
        while True:
            connection.send(_answer(run_cell, connection.recv(), connection, stop))


def _end_with_the_study() -> None:
    """Where the study is killed, its worker must not write beside those of the next session."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _answer(run_cell: Run, cell: Cell, connection: Connection, stop: Stop) -> tuple[str, Any]:
    print(f"\n--- {cell.label}", flush=True)
    try:
        run_cell(cell, lambda share: connection.send(("told", share)), stop)
    except Interrupted as error:
        return "interrupted", error.exit_code - 128
    except TrainingStopped as error:
        return "failed", str(error)
    except UsageError as error:
        return "refused", str(error)
    except OSError:
        raise
    except Exception as error:
        # Whatever it is, such as a lack of memory, other cells may do better.
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {reason_of(error)}"
    return "done", None


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Within it, processes that are started see these changes."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Within it, processes that are started write to the end of this file."""
    streams = {1: sys.stdout, 2: sys.stderr}
    for stream in streams.values():
        stream.flush()
    before = {number: os.dup(number) for number in streams}
    with open(log, "a", encoding="utf-8") as file:
        for number in streams:
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for number, copy in before.items():
            os.dup2(copy, number)
            os.close(copy)
