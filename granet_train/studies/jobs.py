"""Runs the cells of a study, in this process or side by side in others."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from typing import Any

from granet_train.errors import Interrupted, TrainingStopped, UsageError
from granet_train.stopping import Stop, on_signal
from granet_train.studies import pools, session, worker
from granet_train.studies.bar import Bar
from granet_train.studies.grid import Cell, Grid
from granet_train.studies.pools import Pool
from granet_train.studies.session import Session

Run = Callable[[Cell, Callable[[float], None], Stop], None]
"""Runs a cell to its end and notes its result in the grid; tells the share of it that is done.

Raises Interrupted when asked to stop, TrainingStopped where this one cell cannot be done.
"""

Open = Callable[[Grid, Any], Run]
"""Makes a `Run` in the process that is to run cells; a function of a module, so that it travels."""


def run(
    cells: Sequence[Cell],
    grid: Grid,
    open_run: Open,
    argument: Any,
    *,
    jobs: int = 1,
    devices: Sequence[str] = (),
    scheduler: str | None = None,
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
        scheduler: Address of a Dask scheduler, whose workers run the cells instead.

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
        with (
            on_signal() as stop,
            session.begun(grid.directory, on_many_hosts=scheduler is not None) as at_work,
        ):
            if scheduler is None and jobs == 1:
                _here(queue, grid, open_run, argument, stop, at_work)
            else:
                study = pickle.dumps((grid, open_run, argument))
                with (
                    pools.processes(grid.directory, jobs, devices)
                    if scheduler is None
                    else pools.cluster(grid.directory, scheduler)
                ) as pool:
                    _elsewhere(queue, pool, study, stop, at_work)
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

    def tell(self, cell: Cell, share: float) -> None:
        if self.bar.shares[cell.name] != (cell, share):
            self.bar.progress(cell, share)

    def finish(self, cell: Cell) -> None:
        self.missing.discard(cell.name)
        self.bar.finished(cell)

    def fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell] = reason
        self.bar.failed(cell, reason)
        for other in [c for c in self.waiting if c.needs is not None and c.needs == cell]:
            self.waiting.remove(other)
            self.fail(other, f"it needs {cell.label}")


def _here(queue, grid, open_run, argument, stop, at_work: Session):
    run_cell = None
    while cell := queue.next():
        if stop:
            raise Interrupted("Stopped.", stop.signal)
        run_cell = run_cell or worker.opened(open_run, grid, argument)
        try:
            with at_work.claimed(cell.name, stop):
                if grid.result(cell) is None:
                    run_cell(cell, lambda share, cell=cell: queue.tell(cell, share), stop)
                at_work.release(cell.name)
        except Interrupted:
            raise
        except TrainingStopped as error:
            queue.fail(cell, str(error))
        else:
            queue.finish(cell)


def _elsewhere(queue, pool: Pool, study: bytes, stop, at_work: Session):
    running: dict[Future, Cell] = {}
    try:
        while True:
            while len(running) < pool.size() and not stop and (cell := queue.next()):
                future = pool.submit(worker.answer, at_work, study, pickle.dumps(cell))
                running[future] = cell
            if stop:
                raise Interrupted("Stopped.", stop.signal)
            if not running:
                return
            for future in wait(running, session.PATIENCE, FIRST_COMPLETED).done:
                _take(queue, running.pop(future), future, pool)
            for cell in running.values():
                queue.tell(cell, at_work.share(cell.name) or 0.0)
    finally:
        if running:
            at_work.ask(stop.signal or signal.SIGTERM)
            for future, cell in running.items():
                if at_work.share(cell.name) is None:
                    future.cancel()
            wait(running)


def _take(queue, cell: Cell, future: Future, pool: Pool) -> None:
    """What a worker answered; one that has died did not."""
    if error := CancelledError() if future.cancelled() else future.exception():
        queue.fail(cell, pool.why_lost(future, error))
        return
    kind, content = future.result()
    _TAKE[kind](queue, cell, content)


def _refused(queue, cell, reason):
    raise UsageError(reason)


def _interrupted(queue, cell, number):
    raise Interrupted("Stopped.", number)


_TAKE = {
    worker.DONE: lambda queue, cell, content: queue.finish(cell),
    worker.FAILED: _Queue.fail,
    worker.REFUSED: _refused,
    worker.INTERRUPTED: _interrupted,
}
