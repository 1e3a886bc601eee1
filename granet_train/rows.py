"""Rows of the paper's tables: recipe, overrides and published numbers of each, from paper.csv."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import functools
import re
from decimal import Decimal
from pathlib import Path

from granet_tf.reports.table import aligned
from granet_train.errors import UsageError
from granet_train.flag_rules import suggestion

LIST = "list"
LISTING = f"--row={LIST} shows all rows."
_PACKAGE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Published:
    """What the paper has, with as many digits.

    Attributes:
        accuracy: On the test set, in percent; None where the note says why there is none.
        deviation: Of three seeds, likewise; None where the paper has none.
        training_flops: Relative to dense training.
        test_flops: Relative to the dense network.
        note: What else is to be said of it.

    Example:

    >>> str(Published(Decimal("93.80"), Decimal("0.10"))), str(Published(note="not in the table"))
    ('93.80 ± 0.10', 'not in the table')
    """

    accuracy: Decimal | None = None
    deviation: Decimal | None = None
    training_flops: Decimal | None = None
    test_flops: Decimal | None = None
    note: str = ""

    def __str__(self):
        if self.accuracy is None:
            return self.note
        return f"{self.accuracy}" + ("" if self.deviation is None else f" ± {self.deviation}")


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of the paper, and the run that is to reproduce it.

    Attributes:
        name: Such as "table2/cifar10/vgg19/95/granet_si0".
        method: What the paper calls it.
        recipes: Names of files in configs/base/, in the order in which they are read.
        overrides: Flags on top of them.
        published: The number.

    Example:

    >>> row = named("table5/96.5/rigl")
    >>> row.table, row.sparsity, row.workdir
    ('table5', 0.965, 'work/table5/96.5_rigl')
    >>> str(row.published)
    '67.2'
    """

    name: str
    method: str
    recipes: tuple[str, ...]
    overrides: tuple[str, ...]
    published: Published

    @property
    def table(self) -> str:
        """Such as "table2"."""
        return self.name.partition("/")[0]

    @property
    def variant(self) -> str:
        """What tells it from others of the same network and sparsity, such as "granet_si0"."""
        return self.name.rpartition("/")[2]

    @property
    def sparsity(self) -> float | None:
        """What the table says of it; None where that is the same for the whole table."""
        percent = [part for part in self.name.split("/") if re.fullmatch(r"[\d.]+", part)]
        return round(float(percent[0]) / 100, 4) if percent else None

    @property
    def workdir(self) -> str:
        """Where it is trained unless another --workdir is given."""
        return f"work/{self.table}/{self.file}"

    @property
    def file(self) -> str:
        """The name of its flagfile in earlier versions, without the suffix."""
        return self.name.partition("/")[2].replace("/", "_")


def folder() -> Path:
    """Where the recipes are: configs/ of a clone, or what is installed of it.

    Example:

    >>> (folder() / "base" / "cifar.flags").exists()
    True
    """
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


@functools.cache
def all_rows() -> dict[str, Row]:
    """{name: row}, in the order of the paper's tables.

    Example:

    >>> len(all_rows())
    232
    """
    with open(folder() / "paper.csv", newline="", encoding="utf-8") as file:
        return {line["row"]: _row(line) for line in csv.DictReader(file)}


def _row(line: dict[str, str]) -> Row:
    numbers = ("accuracy", "deviation", "training_flops", "test_flops")
    return Row(
        name=line["row"],
        method=line["method"],
        recipes=tuple(line["recipe"].split()),
        overrides=tuple(line["overrides"].split()),
        published=Published(
            **{name: Decimal(line[name]) if line[name] else None for name in numbers},
            note=line["note"],
        ),
    )


def tables() -> tuple[str, ...]:
    """Those that have rows.

    Example:

    >>> tables()
    ('table2', 'table3', 'table4', 'table5', 'table6', 'table8', 'table9')
    """
    return tuple(dict.fromkeys(row.table for row in all_rows().values()))


def of_table(table: str) -> list[Row]:
    """The rows of one of `tables()`.

    Example:

    >>> [row.variant for row in of_table("table4")][:2]
    ['granet_si0', 'granet_si05']
    """
    return [row for row in all_rows().values() if row.table == table]


def named(name: str, received: str = "") -> Row:
    """The row of that name.

    Args:
        name: Of the row.
        received: How it was asked for, to be named in an error.

    Raises:
        UsageError: If there is none.
    """
    if name in all_rows():
        return all_rows()[name]
    raise UsageError(
        "--row must be a row of the paper's tables. "
        f"{suggestion(name, all_rows(), otherwise='None is like this.')} {LISTING} "
        f"Received: {received or name}"
    )


def in_place_of(path: Path) -> str:
    """What to say of a flagfile that is missing: until 0.1.0 there was one for each row.

    Example:

    >>> in_place_of(Path("configs/table2/cifar10_vgg19_95_granet_si0.flags"))
    'It is a row now: --row=table2/cifar10/vgg19/95/granet_si0. '
    >>> in_place_of(Path("mine/digits.flags"))
    ''
    """
    rows = {row.file: row.name for row in of_table(path.parent.name)}
    if path.suffix != ".flags" or not rows:
        return ""
    if path.stem in rows:
        return f"It is a row now: --row={rows[path.stem]}. "
    [close] = difflib.get_close_matches(path.stem, rows, n=1, cutoff=0)
    return (
        f"Rows of the paper's tables have names now. Did you mean --row={rows[close]}? {LISTING} "
    )


def listing() -> str:
    """A line for each row: its name, what the paper calls it, and the paper's number.

    Example:

    >>> listing().splitlines()[2].split()
    ['table2/cifar10/vgg19/90/snip', 'SNIP', '93.63']
    """
    lines = [("row", "method", "paper")]
    lines += [(row.name, row.method, str(row.published)) for row in all_rows().values()]
    return aligned(lines, text_columns=2) + "\n"
