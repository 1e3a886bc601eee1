"""What a text must be that a flag is given, and what a mistyped name may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from granet_train import durations

Rule = tuple[Callable[[Any], bool], str]
"""What a value must satisfy, and what to say if it does not; None always passes."""


def suggestion(
    name: str, names: Collection[str], before: str = "", otherwise: str = "See --help."
) -> str:
    """A question with those of the names that `name` may be a slip of, or where to look.

    Example:

    >>> suggestion("vgg-19", ["vgg19", "resnet20"]), suggestion("foo", ["bar"])
    ('Did you mean vgg19?', 'See --help.')
    """
    # Of two that differ in case only, the first: ours come before those of Keras.
    lower = {each.lower(): each for each in reversed(list(names))}
    close = difflib.get_close_matches(name.lower(), lower, n=2)
    return f"Did you mean {' or '.join(before + lower[c] for c in close)}?" if close else otherwise


def sparsities(items: Sequence[str]) -> dict[str | int, float]:
    """{weight: sparsity} from items such as "0:0.0" or "*/fc/kernel:0.8".

    Raises:
        ValueError: If an item is something else.

    Example:

    >>> sparsities(["0:0.0", "-1:0.8", "*/fc/kernel:0.8"])
    {0: 0.0, -1: 0.8, '*/fc/kernel': 0.8}
    """
    parsed = {}
    for item in items:
        key, _, number = item.rpartition(":")
        if not key:
            raise ValueError(f"{item!r} has no weight before a colon")
        if not _is_sparsity(sparsity := float(number)):
            raise ValueError(f"{item!r} has no sparsity after the colon")
        parsed[int(key) if re.fullmatch(r"-?\d+", key) else key] = sparsity
    return parsed


def _is_sparsity(value: float) -> bool:
    return 0.0 <= value < 1.0


def _is_duration(text: str) -> bool:
    try:
        return bool(durations.parse(text))
    except ValueError:
        return False


def _is_period(text: str) -> bool:
    return _is_duration(text) and durations.parse(text)[0] > 0


def _are_durations(texts: Sequence[str]) -> bool:
    return bool(texts) and all(map(_is_duration, texts))


def _are_sparsities(items: Sequence[str]) -> bool:
    try:
        return len(sparsities(items)) == len(items)
    except ValueError:
        return False


def _are_addresses(texts: Sequence[str]) -> bool:
    one = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
    return len(set(texts)) == len(texts) and all(map(one.fullmatch, texts))


def _are_moments(texts: Sequence[str]) -> bool:
    try:
        return bool(texts) and all(durations.parse(text)[1] != "steps" for text in texts)
    except ValueError:
        return False


TEXTS: dict[str, Rule] = {
    "name": (bool, "must not be empty"),
    "duration": (_is_duration, f"must be {durations.SYNTAX}"),
    "period": (_is_period, f"must be longer than nothing: {durations.SYNTAX}"),
    "durations": (_are_durations, f"must be a list of one or more durations: {durations.SYNTAX}"),
    "points": (
        lambda texts: all(map(_is_duration, texts)),
        f"must be a list of durations: {durations.SYNTAX}",
    ),
    "moments": (
        _are_moments,
        'must be a list of fractions of training ("0.5") or epochs ("30e", "30epochs")',
    ),
    "weights": (
        _are_sparsities,
        "must be a list of weight:sparsity, each weight once: its position (0 is the first, -1 the "
        'last) or a pattern of its path, such as "0:0.0,-1:0.8,*/fc/kernel:0.8"',
    ),
    "addresses": (_are_addresses, "must be a list of host:port, each once"),
}
"""{what a text, or a list of them, is: its rule}"""


def numbers(texts: Sequence[str]) -> tuple[float, ...]:
    """The items of a list as numbers; whole ones as int.

    Example:

    >>> numbers(["0", "0.5"])
    (0, 0.5)
    """
    return tuple(int(text) if re.fullmatch(r"\d+", text) else float(text) for text in texts)


def list_rule(is_right: Callable[[float], bool], text: str) -> Rule:
    """A rule for a list of different numbers, at least one.

    Args:
        is_right: What each must satisfy.
        text: What to say if it does not.
    """

    def check(items: Sequence[str]) -> bool:
        try:
            parsed = numbers(items)
        except ValueError:
            return False
        return bool(parsed) and len(set(parsed)) == len(parsed) and all(map(is_right, parsed))

    return check, text


def subset(choices: Collection[str]) -> Rule:
    """A rule for a list of some of the choices, each once."""
    return (
        lambda items: bool(items) and set(items) <= set(choices) and len(set(items)) == len(items),
        f"must be a list of any of {', '.join(choices)}, each once",
    )
