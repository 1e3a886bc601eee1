"""granet-compare: flags in, a table like the paper's Table 2 out."""

from __future__ import annotations

from collections.abc import Sequence

from granet_train import command_line, csv_log, files
from granet_train.figures import SUFFIXES
from granet_train.studies.compare import figure, flags, run, table
from granet_train.studies.grid import Grid
from granet_train.studies.study import carry_out

TRAININGS = "trainings.csv"
TABLE = "comparison.csv"
PAGE = "comparison.md"
FIGURE = "comparison"
_NAMES = (
    *(TRAININGS, TABLE, PAGE),
    *(FIGURE + suffix for suffix in SUFFIXES),
)


def main(settings: flags.Settings) -> None:
    """The trainings that are not done yet, then the table of all that are.

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If cells are left.
    """
    cells = settings.cells()
    carry_out(
        settings,
        cells,
        f"{len(cells):,} trainings",
        run.open_run,
        lambda grid: _write(grid, settings),
        _NAMES,
    )


def _write(grid: Grid, settings: flags.Settings) -> dict[str, str]:
    """Writes tables and figure, and prints the table; {file name: what it holds}."""
    rows = table.rows(grid, settings.cells())
    if not rows:
        return {}
    means = table.means(rows)
    csv_log.write(grid.directory / TRAININGS, table.Row, rows)
    csv_log.write(grid.directory / TABLE, table.Mean, means)
    with files.replacing(grid.directory / PAGE) as beside:
        beside.write_text(table.markdown(means), encoding="utf-8")
    figure.draw(grid.directory / FIGURE, means, f"{settings.model} on {settings.dataset}")
    print(f"\n{table.text(means)}\n")
    for warning in table.warnings(grid, settings.cells()):
        print(warning)
    return {
        TABLE: "means over seeds",
        PAGE: "the same as a page",
        TRAININGS: "a line for each training",
        **{f"{FIGURE}{suffix}": "accuracy by sparsity and cost" for suffix in SUFFIXES},
    }


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    command_line.run(files.full_disk_as_error()(main), flags.read, argv)
