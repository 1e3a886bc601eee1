"""Errors of the library in the words of a command: its flags in the place of arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping


def in_flags(text: str, flags: Mapping[str, str]) -> str:
    """Names flags where an error names arguments: in backticks, in advice, and as received.

    Args:
        text: What an error or warning of the library says.
        flags: {argument: the flag that its value comes from}.

    Example:

    >>> in_flags("`end_step` must be >= 0. Received: end_step=-1", {"end_step": "--end"})
    '--end must be >= 0. Received: --end=-1'
    >>> in_flags("Or use scope='layer'.", {"scope": "--scope"})
    'Or use --scope=layer.'
    >>> in_flags("Received: method=GMP(0.9, end_step=5), end_step=5", {"end_step": "--end"})
    'Received: method=GMP(0.9, end_step=5), --end=5'
    """
    text = re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[0]), text)
    head, received, tail = text.rpartition("Received: ")
    if not received:
        head, tail = tail, ""
    head = re.sub(
        r"\b(\w+)='(\w+)'",
        lambda match: f"{flags[match[1]]}={match[2]}" if match[1] in flags else match[0],
        head,
    )
    return head + received + "".join(_renamed(part, flags) for part in _outside(tail))


def _renamed(part: tuple[str, bool], flags: Mapping[str, str]) -> str:
    """What is inside brackets belongs to a value. So does <...>, which no flag can have."""
    text, outside = part
    if not outside:
        return text
    return re.sub(r"(?<![\w-])(\w+)=(?!<)", lambda match: f"{flags.get(match[1], match[1])}=", text)


def _outside(text: str) -> list[tuple[str, bool]]:
    """The text in parts, each with whether it stands outside of all brackets."""
    parts, depth, begin = [], 0, 0
    for i, letter in enumerate(text):
        opens, closes = letter in "([{", letter in ")]}"
        if opens and depth == 0:
            parts.append((text[begin:i], True))
            begin = i
        depth = max(0, depth + opens - closes)
        if closes and depth == 0:
            parts.append((text[begin : i + 1], False))
            begin = i + 1
    return [*parts, (text[begin:], depth == 0)]
