"""granet-plasticity: flags in, a table and the figures of the paper's Section 3 out."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence

from granet_tf.studies import jobs
from granet_tf.studies.figures import SUFFIXES
from granet_tf.studies.grid import CELLS, Grid
from granet_tf.studies.jobs import tell_failed
from granet_tf.studies.plasticity import figure, flags, run, table
from granet_tf.training import command_line, csv_log, files

TABLE = "plasticity.csv"
_SCOPES = {"global": "global", "layer": "layer-wise"}
_UNITS = {"element": "weights", "filter": "filters"}
FIGURES = {"plasticity": "plasticity", "final": "final_gap"}
_NAMES = (
    *(files.RUN, CELLS, TABLE),
    *(name + suffix for name in FIGURES.values() for suffix in SUFFIXES),
)


def main(settings: flags.Settings) -> None:
    """The cells that are not done yet, then table and figures of all that are.

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If cells are left.
    """
    started = time.monotonic()
    identity = settings.identity()
    workdir = files.prepare(settings.workdir, identity, (), overwrite=settings.overwrite)
    files.begin(workdir, identity, overwrite=settings.overwrite, names=_NAMES)
    grid, cells = Grid(workdir), settings.axes.cells()
    print(
        f"{settings.model} on {settings.dataset}: {len(settings.axes.pretrainings()):,} trainings, "
        f"{len(settings.axes.prunings()):,} prunings\n{workdir}/",
        flush=True,
    )
    try:
        failed = jobs.run(
            cells, grid, run.open_run, settings, jobs=settings.jobs, devices=settings.devices
        )
    finally:
        # Of a study that was stopped, too: what there is may be enough.
        written = _write(grid, settings)
    for name, text in written.items():
        print(f"  {name}  {text}")
    print(f"took {time.monotonic() - started:,.0f} s")
    tell_failed(failed)


def _write(grid: Grid, settings: flags.Settings) -> dict[str, str]:
    """Writes table and figures; {file name: what it holds}."""
    prunings = settings.axes.prunings()
    rows = table.rows(grid, prunings)
    if not rows:
        return {}
    csv_log.write(grid.directory / TABLE, table.Row, rows)
    written = {TABLE: "a line for each pruning"}
    drops = table.drops(grid, prunings)
    pruned = f"{_SCOPES[settings.scope]} pruning of {_UNITS[settings.pattern]}"
    title = f"{settings.model} on {settings.dataset}, {pruned}"
    for measure, name in FIGURES.items():
        if any(row.measure == measure for row in rows):
            figure.draw(grid.directory / name, rows, drops, measure, title)
            written |= {f"{name}{suffix}": figure.NAMES[measure] for suffix in SUFFIXES}
    return written


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    with command_line.errors_in_one_line(), files.full_disk_as_error():
        main(flags.read(sys.argv[1:] if argv is None else argv))
