"""granet-compare: flags in, a table like the paper's Table 2 out."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence

from granet_tf.studies import jobs
from granet_tf.studies.compare import figure, flags, run, table
from granet_tf.studies.figures import SUFFIXES
from granet_tf.studies.grid import CELLS, Grid
from granet_tf.studies.jobs import tell_failed
from granet_tf.training import command_line, csv_log, files

TRAININGS = "trainings.csv"
TABLE = "comparison.csv"
PAGE = "comparison.md"
FIGURE = "comparison"
_NAMES = (
    *(files.RUN, CELLS, TRAININGS, TABLE, PAGE),
    *(FIGURE + suffix for suffix in SUFFIXES),
)


def main(settings: flags.Settings) -> None:
    """The trainings that are not done yet, then the table of all that are.

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If cells are left.
    """
    started = time.monotonic()
    identity = settings.identity()
    workdir = files.prepare(settings.workdir, identity, (), overwrite=settings.overwrite)
    files.begin(workdir, identity, overwrite=settings.overwrite, names=_NAMES)
    grid, cells = Grid(workdir), settings.cells()
    print(
        f"{settings.model} on {settings.dataset}: {len(cells):,} trainings\n{workdir}/", flush=True
    )
    try:
        failed = jobs.run(
            cells, grid, run.open_run, settings, jobs=settings.jobs, devices=settings.devices
        )
    finally:
        # Of a comparison that was stopped, too: what there is may be enough.
        _write(grid, settings)
    print(f"took {time.monotonic() - started:,.0f} s")
    tell_failed(failed)


def _write(grid: Grid, settings: flags.Settings) -> None:
    """Writes tables and figure, and prints the table."""
    rows = table.rows(grid, settings.cells())
    if not rows:
        return
    means = table.means(rows)
    csv_log.write(grid.directory / TRAININGS, table.Row, rows)
    csv_log.write(grid.directory / TABLE, table.Mean, means)
    with files.replacing(grid.directory / PAGE) as beside:
        beside.write_text(table.markdown(means), encoding="utf-8")
    figure.draw(grid.directory / FIGURE, means, f"{settings.model} on {settings.dataset}")
    print(f"\n{table.text(means)}\n")
    written = {
        TABLE: "means over seeds",
        PAGE: "the same as a page",
        TRAININGS: "a line for each training",
        **{f"{FIGURE}{suffix}": "accuracy by sparsity and cost" for suffix in SUFFIXES},
    }
    for name, text in written.items():
        print(f"  {name}  {text}")


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    with command_line.errors_in_one_line(), files.full_disk_as_error():
        main(flags.read(sys.argv[1:] if argv is None else argv))
