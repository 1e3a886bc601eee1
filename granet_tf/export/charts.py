"""Small charts, drawn by Matplotlib, as SVG to stand in a page whose style has their colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_WIDTH = 1000  # Points.
_NAMES, _LABELS = 290, 290  # Left and right of bars.
_ROW, _TALL_ROW = 20, 34
_GROUP = "{http://www.w3.org/2000/svg}g"


class Bar(NamedTuple):
    """A pair of bars, one within the other.

    Attributes:
        name: What stands to the left.
        before: Length of the pale one.
        after: Length of the strong one.
        label: What stands to the right.
    """

    name: str
    before: float
    after: float
    label: str


def bars(items: Sequence[Bar]) -> str:
    """Horizontal bars below one another, on one scale from 0.

    Example:

    >>> bars([Bar("<dense>", 4.0, 2.0, "half")]).count("<rect")
    2
    """
    longest = max(max(item.before, item.after) for item in items)
    chart = _Chart(len(items), _ROW, _NAMES, _LABELS, longest)
    for i, item in enumerate(items):
        chart.name(i, _shortened(item.name))
        chart.bar(i, (0, item.before), 15 / _ROW, "before")
        chart.bar(i, (0, item.after), 9 / _ROW, "after")
        chart.label(i, max(item.before, item.after), item.label)
    return chart.svg()


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
    left = 60
    chart = _Chart(len(rows), _TALL_ROW, left, 0, _WIDTH - left)
    for i, (name, row) in enumerate(rows.items()):
        chart.name(i, name)
        begin, scale = 0.0, (_WIDTH - left) / (sum(part.size for part in row) or 1)
        for part in row:
            end = begin + part.size * scale
            chart.bar(i, (begin, end - 1), 24 / _TALL_ROW, part.colour, part.title)
            begin = end
    return chart.svg()


def spans(rows: Mapping[str, tuple[float, float, float]], unit: str) -> str:
    """Medians as bars from 0, with a line from the first to the third quartile.

    Args:
        rows: {name: (first quartile, median, third quartile)}; what the others are compared with
            comes first.
        unit: What they are measured in.

    Example:

    >>> spans({"dense": (1.0, 2.0, 3.0)}, "ms").count("<line")
    1
    """
    longest = max(high for _, _, high in rows.values())
    chart = _Chart(len(rows), _TALL_ROW, 80, 180, longest)
    for i, (name, (low, median, high)) in enumerate(rows.items()):
        chart.name(i, name)
        chart.bar(i, (0, median), 22 / _TALL_ROW, "after" if i else "before")
        chart.line(i, (low, high))
        chart.label(i, high, f"{median:.3g} {unit}")
    return chart.svg()


class _Chart:
    """Rows without axes, the first on top."""

    def __init__(self, rows: int, height: float, left: float, right: float, longest: float):
        # Not pyplot: it would choose a window system, and keep the figure alive.
        from matplotlib.figure import Figure

        self._figure = Figure((_WIDTH / 72, rows * height / 72))
        place = (left / _WIDTH, 0, (_WIDTH - left - right) / _WIDTH, 1)
        limits = {"xlim": (0, longest or 1), "ylim": (rows - 0.5, -0.5)}
        self._axes = self._figure.add_axes(place, **limits)
        self._axes.set_axis_off()
        # {id of what was drawn: makes of Matplotlib's element one with the page's classes}
        self._elements: dict[str, Callable[[Element], Element]] = {}

    def bar(self, row: int, ends: tuple[float, float], height: float, colour: str, title: str = ""):
        begin, end = ends
        gid = self._gid(lambda path: _rect(path, colour, title))
        self._axes.barh(row, max(0, end - begin), height, left=begin, gid=gid)

    def line(self, row: int, ends: tuple[float, float]):
        self._axes.plot(ends, (row, row), gid=self._gid(_line))

    def name(self, row: int, text: str):
        self._text(row, 0, text, ha="right", xytext=(-8, 0), anchor="end", colour="name")

    def label(self, row: int, x: float, text: str):
        self._text(row, x, text, ha="left", xytext=(8, 0), anchor="start", colour="soft")

    def _text(self, row, x, text, *, anchor, colour, **where):
        def element(drawn):
            place = {"x": drawn.get("x"), "y": drawn.get("y"), "text-anchor": anchor}
            made = Element("text", {"class": colour, **place})
            made.text = text
            return made

        where |= {"textcoords": "offset points", "va": "center_baseline", "parse_math": False}
        self._axes.annotate(text, (x, row), gid=self._gid(element), **where)

    def _gid(self, element: Callable[[Element], Element]) -> str:
        gid = f"element-{len(self._elements)}"
        self._elements[gid] = element
        return gid

    def svg(self) -> str:
        """One line without Matplotlib's colours, fonts and identifiers."""
        import matplotlib

        settings = {"svg.fonttype": "none", "svg.hashsalt": "granet_tf", "font.size": 12}
        with matplotlib.rc_context(settings), warnings.catch_warnings(), io.BytesIO() as file:
            warnings.simplefilter("ignore")  # Matplotlib's own font may lack a letter of a name.
            self._figure.savefig(file, format="svg", metadata={"Date": None})
            drawn = ElementTree.fromstring(file.getvalue())
        svg = Element("svg", viewBox=drawn.get("viewBox"), role="img")
        for group in drawn.iter(_GROUP):
            if group.get("id") in self._elements:
                svg.append(self._elements[group.get("id")](group[0]))
        return ElementTree.tostring(svg, encoding="unicode")


def _rect(path: Element, colour: str, title: str) -> Element:
    x, y, right, bottom = _box(path)
    width = max(0.4, right - x)  # What is next to nothing is seen, too.
    place = {"x": x, "y": y, "width": width, "height": bottom - y, "rx": 2}
    rect = Element("rect", {"class": colour, **{name: f"{n:.1f}" for name, n in place.items()}})
    if title:
        ElementTree.SubElement(rect, "title").text = title
    return rect


def _line(path: Element) -> Element:
    x, y, right, bottom = _box(path)
    place = {"x1": x, "y1": y, "x2": right, "y2": bottom}
    return Element("line", {name: f"{number:.1f}" for name, number in place.items()})


def _box(path: Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d"))]
    x, y = numbers[::2], numbers[1::2]
    return min(x), min(y), max(x), max(y)


def _shortened(name: str, most: int = 42) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
