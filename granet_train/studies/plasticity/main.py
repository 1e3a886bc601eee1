"""granet-plasticity: flags in, a table and the figures of the paper's Section 3 out."""

from __future__ import annotations

from collections.abc import Sequence

from granet_train import command_line, csv_log, files
from granet_train.figures import SUFFIXES
from granet_train.studies.grid import Grid
from granet_train.studies.plasticity import figure, flags, run, table
from granet_train.studies.study import carry_out

TABLE = "plasticity.csv"
_SCOPES = {"global": "global", "layer": "layer-wise"}
_UNITS = {"element": "weights", "filter": "filters"}
FIGURES = {"plasticity": "plasticity", "final": "final_gap"}
_NAMES = (
    TABLE,
    *(name + suffix for name in FIGURES.values() for suffix in SUFFIXES),
)


def main(settings: flags.Settings) -> None:
    """The cells that are not done yet, then table and figures of all that are.

    Raises:
        UsageError: If what was asked for cannot be done.
        TrainingStopped: If cells are left.
    """
    axes = settings.axes
    carry_out(
        settings,
        axes.cells(),
        f"{len(axes.pretrainings()):,} trainings, {len(axes.prunings()):,} prunings",
        run.open_run,
        lambda grid: _write(grid, settings),
        _NAMES,
    )


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
    command_line.run(files.full_disk_as_error()(main), flags.read, argv)
