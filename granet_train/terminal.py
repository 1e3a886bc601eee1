"""Where a command writes for a person: a terminal, a line of which is rewritten, or anything else.

What is no terminal, or one that cannot move its cursor (TERM=dumb), gets plain lines, each once.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Collection, Sequence
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

# Columns of what is no terminal.
_ENDLESS = 100_000


class Screen:
    """Lines, and on a terminal below them one that is rewritten.

    Args:
        stream: Where to write; None is stdout as it is now.

    Attributes:
        rewrites: Whether there is such a line.

    Example:

    >>> screen = Screen()  # no terminal in a test
    >>> screen.show("half done")
    half done
    >>> screen.print("a note")
    a note
    """

    def __init__(self, stream: TextIO | None = None):
        stream = stream or sys.stdout
        is_terminal = stream.isatty()
        self._console = _console(stream, is_terminal)
        self.rewrites = is_terminal and not self._console.is_dumb_terminal
        self._live: Live | None = None

    def print(self, *what: RenderableType) -> None:
        """Texts and tables, above the line that is rewritten."""
        for each in what:
            if isinstance(each, str):
                self._console.print(each, soft_wrap=True)
            elif self._console.is_terminal:
                self._console.print(each)
            else:
                self._console.print(plain(each), soft_wrap=True)
        self._console.file.flush()

    def show(self, line: RenderableType) -> None:
        """Puts `line` in the place of what stands there; elsewhere it is printed as a string."""
        if not self.rewrites:
            return self.print(str(line))
        if self._live is None:
            # What others print comes above it, if it goes to the same place.
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=sys.stdout is self._console.file,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()
        self._live.update(line, refresh=True)

    def close(self, *, erase: bool = False) -> None:
        """Leaves the line as it is, or erases it."""
        if self._live is not None:
            self._live.transient = erase
            self._live.stop()
            self._live = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table without rules.

    Attributes:
        rows: The head, then a line each.
        texts: Which columns are flush left; numbers are flush right.
        dispensable: Heads of columns to leave out where there is no room, the first of them first.
        indent: Spaces before each line.
        has_head: Whether the first of the rows is a head.

    Example:

    >>> print(plain(Rows([("layer", "weights"), ("dense", "1,000")])))
    layer  weights
    dense    1,000
    """

    rows: Sequence[Sequence[str]]
    texts: Collection[int] = (0,)
    dispensable: Sequence[str] = ()
    indent: int = 0
    has_head: bool = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        endless = options.update(max_width=_ENDLESS)
        for left_out, folded in (
            (0, False),
            *((n, True) for n in range(len(self.dispensable) + 1)),
        ):
            table = self._table(self.dispensable[:left_out], folded)
            if Measurement.get(console, endless, table).maximum <= options.max_width:
                break
        yield table

    def _table(self, left_out: Collection[str], folded: bool) -> RenderableType:
        """Without some columns; heads are folded to a word a line, or not."""
        table = Table(
            box=None,
            padding=(0, 2, 0, 0),
            pad_edge=False,
            show_header=self.has_head,
            header_style="bold",
        )
        head = self.rows[0]
        kept = [i for i, name in enumerate(head) if name not in left_out]
        for i in kept:
            justify = "left" if i in self.texts else "right"
            name = head[i].replace(" ", "\n") if folded else head[i]
            table.add_column(Text(name), justify=justify, overflow="fold")
        for row in self.rows[1:] if self.has_head else self.rows:
            table.add_row(*(Text(row[i]) for i in kept))
        return Padding(table, (0, 0, 0, self.indent), expand=False)


def plain(what: RenderableType) -> str:
    """As it is written where there is no terminal: as wide as it is, without colours."""
    console = _console(io.StringIO(), is_terminal=False)
    console.print(what)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _console(stream: TextIO, is_terminal: bool) -> Console:
    return Console(
        file=stream,
        # Said by us, as rich also goes by variables that may be meant for other programs.
        force_terminal=is_terminal,
        width=None if is_terminal else _ENDLESS,
        highlight=False,
        markup=False,
        emoji=False,
    )
