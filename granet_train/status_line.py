"""One line that is written again and again on a terminal, with others put above it."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO


class StatusLine:
    """On a terminal one line, rewritten; elsewhere each text is a line of its own.

    Args:
        stream: Where to write; None is stdout as it is now.

    Example:

    >>> status = StatusLine()  # no terminal in a test
    >>> status.show("half done")
    half done
    >>> status.above("a note")
    a note
    """

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self.rewrites = self.stream.isatty()
        self._shown = ""

    @property
    def width(self) -> int | None:
        """How many characters there is room for; None is no limit."""
        return shutil.get_terminal_size().columns - 1 if self.rewrites else None

    def show(self, text: str) -> None:
        """Puts `text` in the place of what stands there."""
        if self.rewrites:
            self._write("\r" + text.ljust(len(self._shown)))
            self._shown = text
        else:
            self._write(f"{text}\n")

    def above(self, text: str) -> None:
        """A line of its own, above the one that is rewritten."""
        if self._shown:
            text = "\r" + text.ljust(len(self._shown))
        self._write(f"{text}\n{self._shown}")

    def close(self) -> None:
        """Leaves the line as it is."""
        if self._shown:
            self._shown = ""
            self._write("\n")

    def _write(self, text: str):
        self.stream.write(text)
        self.stream.flush()
