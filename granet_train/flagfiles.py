"""Flagfiles: flags one a line, # for comments, and other flagfiles, relative to where they stand.

absl reads flagfiles too, but relative to the current directory and without saying which line of
which file is wrong. --row stands for the flagfiles and flags of a row of the paper's tables.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from granet_train import rows
from granet_train.errors import UsageError

NAMES = ("flagfile", "row")
_FLAG = re.compile(r"--?[A-Za-z_]\w*(=.*)?")
_COMMENT = re.compile(r"(^|\s)#.*")
_OPTIONS = ("--flagfile", "-flagfile")
_ROW = ("--row", "-row")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Arguments to be parsed together.

    Attributes:
        tokens: The arguments.
        place: Where they stand, such as "configs/a.flags, line 3"; "" for the command line.
    """

    tokens: tuple[str, ...]
    place: str = ""


def expand(argv: Sequence[str]) -> list[Arguments]:
    """The command line with each flagfile replaced by what it holds, in order.

    A row comes first, wherever --row stands, so that all that is said besides wins. Of several
    rows the last one counts.

    Args:
        argv: The command line without the program's name. A flagfile on it is relative to the
            current directory, one in a flagfile to the directory of that file.

    Raises:
        UsageError: If a flagfile cannot be read, holds a line that is no flag, or includes itself;
            or if there is no such row.

    Example:

    >>> expand(["--seed=1", "--epochs", "5"])
    [Arguments(tokens=('--seed=1', '--epochs', '5'), place='')]
    >>> [arguments.tokens for arguments in expand(["--seed=1", "--row=table5/95/rigl"])][-3:]
    [('--final_sparsity=0.95',), ('--workdir=work/table5/95_rigl',), ('--seed=1',)]
    """
    asked_for, others = _split(argv)
    return [*(_named(asked_for[-1]) if asked_for else ()), *others]


def row_of(argv: Sequence[str]) -> str | None:
    """What is given as --row, on the command line or in a flagfile; None if nothing is.

    Raises:
        UsageError: As `expand`, but for the row.

    Example:

    >>> row_of(["--row=table2/cifar10/vgg19/dense", "--row", "list"])
    'list'
    """
    asked_for, _ = _split(argv)
    return asked_for[-1].tokens[1] if asked_for else None


def of_row(row: rows.Row) -> list[Arguments]:
    """What a row stands for: its recipes, its overrides, and a work directory of its own.

    Example:

    >>> [arguments.tokens for arguments in of_row(rows.named("table5/95/rigl"))][-2:]
    [('--final_sparsity=0.95',), ('--workdir=work/table5/95_rigl',)]
    """
    place = f"{rows.folder() / 'paper.csv'}, row {row.name}"
    recipes = (
        _read(rows.folder() / "base", f"{name}.flags", f"{name} ({place})", ())
        for name in row.recipes
    )
    own = (*row.overrides, f"--workdir={row.workdir}")
    return [*itertools.chain.from_iterable(recipes), *(Arguments((flag,), place) for flag in own)]


def _split(argv: Sequence[str]) -> tuple[list[Arguments], list[Arguments]]:
    """Each --row, as two tokens, and all the rest."""
    everything = list(_in_order(argv))
    asked_for = [each for each in everything if _is_row(each)]
    return asked_for, [each for each in everything if not _is_row(each)]


def _in_order(argv: Sequence[str]) -> Iterator[Arguments]:
    """As `expand`, with --row as two tokens where it stands."""
    plain, tokens = [], iter(argv)
    for token in tokens:
        name, given, value = token.partition("=")
        if name not in (*_OPTIONS, *_ROW):
            plain.append(token)
            continue
        if plain:
            yield Arguments(tuple(plain))
        plain = []
        value = value if given else next(tokens, "")
        yield from _included(name, value, f"{name}={value}", "", Path(), ())
    if plain:
        yield Arguments(tuple(plain))


def _included(name, value, received, place, folder, including) -> Iterator[Arguments]:
    if name in _ROW:
        yield Arguments((_ROW[0], value), place)
    else:
        yield from _read(folder, value, received, including)


def _is_row(arguments: Arguments) -> bool:
    return arguments.tokens[0] == _ROW[0]


def _named(arguments: Arguments) -> list[Arguments]:
    name, place = arguments.tokens[1], f" ({arguments.place})" if arguments.place else ""
    if name == rows.LIST:  # As --help, it asks for no run.
        return []
    return of_row(rows.named(name, f"--row={name}{place}"))


def _read(
    folder: Path, written: str, received: str, including: tuple[Path, ...]
) -> Iterator[Arguments]:
    """What a flagfile holds.

    Args:
        folder: What a relative path starts from.
        written: The path as it was written.
        received: What an error says was received.
        including: The files that are being read, outermost first.
    """
    if not written:
        raise UsageError(f"--flagfile needs the path of a file. Received: {received}")
    path = Path(os.path.normpath(folder / os.path.expanduser(written)))
    if path.resolve() in (file.resolve() for file in including):
        circle = " -> ".join(map(str, (*including, path)))
        raise UsageError(
            f"Flagfiles must not include one another in a circle: {circle}. Received: {received}"
        )
    for number, line in enumerate(_lines(path, received), start=1):
        flag = _COMMENT.sub("", line).strip()
        if not flag:
            continue
        place = f"{path}, line {number}"
        if not _FLAG.fullmatch(flag):
            raise UsageError(
                "A flagfile holds one flag a line, written --name=value, and comments that begin "
                f"with #. Received: {flag!r} ({place})"
            )
        name, _, value = flag.partition("=")
        if name in (*_OPTIONS, *_ROW):
            received = f"{flag} ({place})"
            yield from _included(name, value, received, place, path.parent, (*including, path))
        else:
            yield Arguments((flag,), place)


def _lines(path: Path, received: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "not a text file in UTF-8"
    raise UsageError(
        f"Cannot read the flagfile {path.absolute()}: {reason}. {rows.in_place_of(path)}"
        f"Received: {received}"
    )
