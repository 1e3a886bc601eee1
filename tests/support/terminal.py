"""A terminal that keeps what is written to it, and what a person would see there."""

import io
import re


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text):
    """What a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif part.startswith("\x1b"):
            row -= int(part[2:-1]) if part.endswith("A") else 0
            lines[row] = "" if part == "\x1b[2K" else lines[row]
        else:
            before, after = lines[row][:column].ljust(column), lines[row][column + len(part) :]
            lines[row] = before + part + after
            column += len(part)
    return [line.rstrip() for line in lines]
