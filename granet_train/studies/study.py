"""What every study does: begins a directory, runs what cells are left, writes results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from granet_train import files
from granet_train.studies import jobs
from granet_train.studies.grid import CELLS, Cell, Grid


def carry_out(
    settings: Any,
    cells: Sequence[Cell],
    counts: str,
    open_run: Callable,
    write: Callable[[Grid], Mapping[str, str]],
    names: Iterable[str],
) -> None:
    """Runs the cells that are not done yet, then writes tables and figures of all that are.

    Args:
        settings: A study's flags.
        cells: Its cells.
        counts: How many of which there are, for the first line.
        open_run: Prepares a process for its cells: see `jobs.run`.
        write: Writes the results to the grid's directory: {file name: what it holds}.
        names: All files that it may write.

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If cells are left.
    """
    started = time.monotonic()
    identity = settings.identity()
    workdir = files.prepare(settings.workdir, identity, (), overwrite=settings.overwrite)
    own = (files.RUN, CELLS, *names)
    files.begin(workdir, identity, overwrite=settings.overwrite, names=own)
    grid = Grid(workdir)
    print(f"{settings.model} on {settings.dataset}: {counts}\n{workdir}/", flush=True)
    try:
        failed = jobs.run(
            cells,
            grid,
            open_run,
            settings,
            jobs=settings.jobs,
            devices=settings.devices,
            scheduler=settings.scheduler,
        )
    finally:
        # Of a study that was stopped, too: what there is may be enough.
        for name, text in write(grid).items():
            print(f"  {name}  {text}")
    print(f"took {time.monotonic() - started:,.0f} s")
    jobs.tell_failed(failed)
