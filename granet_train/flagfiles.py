"""Flagfiles: flags one a line, # for comments, and other flagfiles, relative to where they stand.

absl reads flagfiles too, but relative to the current directory and without saying which line of
which file is wrong.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from granet_train.errors import UsageError

_FLAG = re.compile(r"--?[A-Za-z_]\w*(=.*)?")
_COMMENT = re.compile(r"(^|\s)#.*")
_OPTIONS = ("--flagfile", "-flagfile")


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

    Args:
        argv: The command line without the program's name. A flagfile on it is relative to the
            current directory, one in a flagfile to the directory of that file.

    Raises:
        UsageError: If a flagfile cannot be read, holds a line that is no flag, or includes itself.

    Example:

    >>> expand(["--seed=1", "--epochs", "5"])
    [Arguments(tokens=('--seed=1', '--epochs', '5'), place='')]
    """
    expanded, plain, tokens = [], [], iter(argv)
    for token in tokens:
        name, given, path = token.partition("=")
        if name not in _OPTIONS:
            plain.append(token)
            continue
        expanded += [Arguments(tuple(plain))] if plain else []
        plain = []
        path = path if given else next(tokens, "")
        expanded += _read(Path(), path, f"--flagfile={path}", ())
    return expanded + ([Arguments(tuple(plain))] if plain else [])


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
        if name in _OPTIONS:
            yield from _read(path.parent, value, f"{flag} ({place})", (*including, path))
        else:
            yield Arguments((flag,), place)


def _lines(path: Path, received: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "not a text file in UTF-8"
    raise UsageError(f"Cannot read the flagfile {path.absolute()}: {reason}. Received: {received}")
