"""What a comparison writes and prints: tables of what is done, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from granet_tf.reports.table import aligned
from granet_train import csv_log, files
from granet_train.figures import SUFFIXES
from granet_train.studies.compare import beside_paper, figure, table
from granet_train.studies.grid import Grid

TRAININGS = "trainings.csv"
TABLE = "comparison.csv"
PAGE = "comparison.md"
FIGURE = "comparison"
NAMES = (TRAININGS, TABLE, PAGE, *(FIGURE + suffix for suffix in SUFFIXES))

_TABLES = {
    TABLE: "means over seeds",
    PAGE: "the same as a page",
    TRAININGS: "a line for each training",
}


def of_methods(grid: Grid, settings: Any) -> dict[str, str]:
    """Methods against each other, at each sparsity; {file name: what it holds}."""
    rows = table.rows(grid, settings.cells())
    if not rows:
        return {}
    means = table.means(rows)
    _write(grid, rows, table.Mean, means, table.markdown(means), table.text(means))
    figure.draw(grid.directory / FIGURE, means, f"{settings.model} on {settings.dataset}")
    _warn(grid, settings)
    return _TABLES | {f"{FIGURE}{suffix}": "accuracy by sparsity and cost" for suffix in SUFFIXES}


def beside_the_paper(grid: Grid, settings: Any) -> dict[str, str]:
    """Rows of a table of the paper, beside its numbers; {file name: what it holds}."""
    rows = table.rows(grid, settings.cells())
    if not rows:
        return {}
    means = table.means(rows)
    cells = beside_paper.cells(means)
    lines = list(map(beside_paper.line, means))
    _write(grid, rows, beside_paper.Line, lines, table.page(cells), aligned(cells, text_columns=1))
    _warn(grid, settings)
    return dict(_TABLES)


def _write(
    grid: Grid,
    rows: Sequence[table.Row],
    kind: type,
    lines: Sequence[Any],
    page: str,
    text: str,
) -> None:
    csv_log.write(grid.directory / TRAININGS, table.Row, rows)
    csv_log.write(grid.directory / TABLE, kind, lines)
    with files.replacing(grid.directory / PAGE) as beside:
        beside.write_text(page, encoding="utf-8")
    print(f"\n{text}\n")


def _warn(grid, settings):
    for warning in table.warnings(grid, settings.cells()):
        print(warning)
