"""Small plots as SVG, to stand in a page; colours are classes of the page's style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _NAMES, _ROW = 1000, 290, 20


class Bar(NamedTuple):
    """A pair of bars, one within the other.

    Attributes:
        name: What stands to the left.
        before: Length of the pale one.
        after: Length of the strong one.
        note: What stands to the right, after the lengths.
    """

    name: str
    before: float
    after: float
    note: str


def bars(items: Sequence[Bar], text: Callable[[float], str]) -> str:
    """Horizontal bars below one another, on one scale from 0.

    Args:
        items: The bars.
        text: How a length is written.

    Example:

    >>> bars([Bar("dense", 4.0, 2.0, "half")], str).count("<rect")
    2
    """
    longest = max((max(item.before, item.after) for item in items), default=0) or 1
    scale = (_WIDTH - _NAMES - 290) / longest
    parts = []
    for i, item in enumerate(items):
        y = i * _ROW
        label = f"{text(item.before)} → {text(item.after)}, {item.note}"
        parts += [
            _text(_NAMES - 8, y + 14, _shortened(item.name), "end"),
            _rect(_NAMES, y + 2, max(1.0, item.before * scale), _ROW - 5, "before"),
            _rect(_NAMES, y + 5, max(1.0, item.after * scale), _ROW - 11, "after"),
            _text(
                _NAMES + max(item.before, item.after) * scale + 8, y + 14, label, "start", "soft"
            ),
        ]
    return _svg(len(items) * _ROW, parts)


class Part(NamedTuple):
    """A part of a bar.

    Attributes:
        size: Its length, on any scale.
        colour: A class of the page's style.
        title: What is shown when the pointer is on it.
    """

    size: float
    colour: str
    title: str


def stripes(rows: Mapping[str, Sequence[Part]]) -> str:
    """Bars of full length, each divided into parts of a colour.

    Args:
        rows: {name: parts}.

    Example:

    >>> stripes({"x86": [Part(1, "dense", "stem"), Part(3, "sparse", "head")]}).count("<rect")
    2
    """
    left, parts = 60, []
    for i, (name, row) in enumerate(rows.items()):
        parts.append(_text(left - 8, 34 * i + 20, name, "end"))
        x, scale = float(left), (_WIDTH - left) / (sum(part.size for part in row) or 1)
        for part in row:
            width = part.size * scale
            y = 34 * i + 4
            parts.append(_rect(x, y, max(0.4, width - 1), 24, part.colour, part.title))
            x += width
    return _svg(34 * len(rows), parts)


def spans(rows: Mapping[str, tuple[float, float, float]], unit: str) -> str:
    """Medians as bars from 0, with a line from the first to the third quartile.

    Args:
        rows: {name: (first quartile, median, third quartile)}.
        unit: What they are measured in.

    Example:

    >>> spans({"dense": (1.0, 2.0, 3.0)}, "ms").count("<line")
    1
    """
    longest = max((high for _, _, high in rows.values()), default=0) or 1
    left = 80
    scale = (_WIDTH - left - 180) / longest
    parts = []
    for i, (name, (low, median, high)) in enumerate(rows.items()):
        y = 34 * i
        parts += [
            _text(left - 8, y + 21, name, "end"),
            _rect(left, y + 6, max(1.0, median * scale), 22, "after" if i else "before"),
            f'<line x1="{left + low * scale:.1f}" x2="{left + high * scale:.1f}" y1="{y + 17}" '
            f'y2="{y + 17}" stroke="currentColor" stroke-width="2"/>',
            _text(left + high * scale + 8, y + 21, f"{median:.3g} {unit}", "start", "soft"),
        ]
    return _svg(34 * len(rows), parts)


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">'
        f"{''.join(parts)}</svg>"
    )


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    return (
        f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="2"><title>{escape(title)}</title></rect>'
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "") -> str:
    return (
        f'<text class="{colour}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _shortened(name: str, most: int = 42) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
