"""granet-compare: flags in, a table like the paper's Table 2 out."""

from __future__ import annotations

from collections.abc import Sequence

from granet_train import command_line, files
from granet_train.studies.compare import flags, run
from granet_train.studies.compare.report import NAMES
from granet_train.studies.compare.report import PAGE as PAGE
from granet_train.studies.compare.report import TABLE as TABLE
from granet_train.studies.compare.report import TRAININGS as TRAININGS
from granet_train.studies.compare.reproduction import TableSettings
from granet_train.studies.study import carry_out


def main(settings: flags.Settings | TableSettings) -> None:
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
        lambda grid: settings.report(grid, settings),
        NAMES,
    )


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code."""
    command_line.run(files.full_disk_as_error()(main), flags.read, argv)
