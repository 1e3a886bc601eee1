"""A bar with words beside it: how far a run or a study is, and how long it will still take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_WIDTH = 20


@dataclasses.dataclass(frozen=True)
class BarLine:
    """One line; as a string, for what can't rewrite it, its bar is made of plain blocks.

    On a narrow terminal the bar gets shorter, and then the last texts are left out.

    Attributes:
        done: What is done, from 0 to 1.
        texts: What to say beside the bar, the most important first. Two are shown in any case.
        head: What stands before the bar.

    Example:

    >>> print(BarLine(0.25, ("16/64 cells", "2:30 left", "sparsity 0.5, epoch 10")))
    █████░░░░░░░░░░░░░░░  16/64 cells  2:30 left  sparsity 0.5, epoch 10
    """

    done: float
    texts: Sequence[str]
    head: str = ""

    def __str__(self):
        full = int(self.done * _WIDTH)
        bar = "█" * full + "░" * (_WIDTH - full)
        return "  ".join([*self._heads, bar, *self.texts])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        # A column is left, as some terminals go on to the next line when the last is written.
        width = options.max_width - 1
        room = width - sum(len(head) + 2 for head in self._heads)
        texts = fitting(self.texts, room)
        bar = min(_WIDTH, room - len(texts) - 2)
        cells: list[RenderableType] = [Text(head) for head in self._heads]
        cells += [ProgressBar(1.0, self.done, width=bar)] if bar > 0 else []
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(*cells, Text(texts, no_wrap=True, overflow="crop"))
        yield Constrain(grid, width)

    @property
    def _heads(self) -> list[str]:
        return [self.head] if self.head else []


def fitting(texts: Sequence[str], width: int) -> str:
    """As many of the texts as there is room for, two of them in any case.

    Example:

    >>> fitting(["epoch 1/4", "9:59 left", "loss 0.2500", "sparsity 0.8750"], width=40)
    'epoch 1/4  9:59 left  loss 0.2500'
    """
    count = len(texts)
    while count > 2 and len("  ".join(texts[:count])) > width:
        count -= 1
    return "  ".join(texts[:count])


def time_left(elapsed: float, done: float, to_do: float) -> str:
    """At the speed so far.

    Args:
        elapsed: Seconds since this session began.
        done: Steps of this session, not of those before it.
        to_do: Steps still to do.

    Example:

    >>> time_left(elapsed=60.0, done=100, to_do=350), time_left(3600.0, 1000, 2500)
    ('3:30', '2:30:00')
    >>> time_left(elapsed=0.0, done=0, to_do=350)
    '?'
    """
    return duration(elapsed / done * to_do) if done else "?"


def duration(seconds: float) -> str:
    """In minutes and seconds, from an hour on with hours.

    Example:

    >>> duration(59.6), duration(3600)
    ('1:00', '1:00:00')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
