"""The report as one HTML page that needs nothing else: `report.html` with figures and charts."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from granet_tf.export import charts

if TYPE_CHECKING:
    from granet_tf.export.report import ExportReport

_NEEDED = {"jinja2": "Jinja2", "matplotlib": "Matplotlib"}

# {what `execution` says: class of the colour, what the legend says}
_COLOURS = {
    "sparse kernel": ("sparse", "sparse kernel: zeros are skipped"),
    "densified": ("densified", "densified: small file, dense computation"),
    "dense": ("dense", "dense"),
}


def check_installed() -> None:
    """Raises ImportError if the page cannot be made, for want of other packages."""
    missing = [name for module, name in _NEEDED.items() if not importlib.util.find_spec(module)]
    if missing:
        raise ImportError(
            "The report as a page is made with Jinja2 and Matplotlib: "
            "pip install 'granet_tf[report]', or save it as .json or .txt. "
            f"Received: an environment without {' and '.join(missing)}"
        )


def page(report: ExportReport) -> str:
    """The whole page.

    Raises:
        ImportError: If Jinja2 or Matplotlib is not installed.

    Example:

    >>> from granet_tf.export.report import ExportReport, TFLiteReport
    >>> report = ExportReport(TFLiteReport("<m>.tflite", 90, 80, 70, 0.0), (), {}, "x86_64", 1)
    >>> "<title>&lt;m&gt;.tflite</title>" in page(report)
    True
    """
    check_installed()
    import jinja2
    import markupsafe

    loader = jinja2.PackageLoader("granet_tf", "export")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["size"] = _size
    # A chart is drawn where the page has it; in SVG names are escaped already.
    drawn = {
        name: lambda draw=draw: markupsafe.Markup(draw(report)) for name, draw in _CHARTS.items()
    }
    template = environment.get_template("report.html")
    return template.render(report=report, file=report.file, colours=_COLOURS, **drawn) + "\n"


def _execution(report: ExportReport) -> str:
    def part(row, verdict):
        title = f"{row.name}: {verdict}. {row.why}"
        return charts.Part(row.flops_dense or row.size, _COLOURS[verdict][0], title)

    x86 = [part(row, row.x86) for row in report.rows]
    return charts.stripes({"x86": x86, "ARM": [part(row, row.arm) for row in report.rows]})


def _bytes(report: ExportReport) -> str:
    bars = []
    for row in report.rows:
        sizes = f"{_size(row.bytes_before)} → {_size(row.bytes_after)}"
        label = f"{sizes}, {row.sparsity:.1%} zeros"
        bars.append(charts.Bar(row.name, row.bytes_before, row.bytes_after, label))
    return charts.bars(bars)


def _latency(report: ExportReport) -> str:
    times = {name: (each.low, each.median, each.high) for name, each in report.latency.items()}
    return charts.spans(times, "ms")


_CHARTS = {"execution": _execution, "bytes": _bytes, "latency": _latency}


def _size(count: float) -> str:
    """
    Example:

    >>> _size(999), _size(2_710_000)
    ('999 B', '2.7 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"
