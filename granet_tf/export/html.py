"""The report as one HTML page that needs nothing else: figures, plots, a table, advice."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from granet_tf.export import svg

if TYPE_CHECKING:
    from granet_tf.export.report import ExportReport

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --paper: #fff; --line: #e4e7ec;
  --before: #cfd5df; --after: #2563eb; --sparse: #12a150; --densified: #e8a317; --dense: #98a2b3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --soft: #9aa4b5; --paper: #14171d;
  --line: #2a2f3a; --before: #3a4250; --after: #6ea0ff; --sparse: #3ccf7a; --densified: #f2bd52;
  --dense: #6b7484; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
p, .soft { color: var(--soft); }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.card { border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1.1rem;
  min-width: 9rem; }
.card b { display: block; font-size: 1.6rem; } .card span { color: var(--soft); font-size: .85rem; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font: 12px system-ui; }
svg .soft { fill: var(--soft); }
.before { fill: var(--before); background: var(--before); }
.after { fill: var(--after); background: var(--after); }
.sparse { fill: var(--sparse); background: var(--sparse); }
.densified { fill: var(--densified); background: var(--densified); }
.dense { fill: var(--dense); background: var(--dense); }
.axis { stroke: var(--line); }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin: 0 .3em 0 1em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; width: 100%; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; } th:nth-child(-n+2), td:nth-child(-n+2), td.text { text-align: left; }
td.text { white-space: normal; min-width: 18rem; color: var(--soft); }
"""

# {what `execution` says: class of the colour, what the legend says}
_COLOURS = {
    "sparse kernel": ("sparse", "sparse kernel: zeros are skipped"),
    "densified": ("densified", "densified: small file, dense computation"),
    "dense": ("dense", "dense"),
}


def page(report: ExportReport) -> str:
    """The whole page.

    Example:

    >>> from granet_tf.export.report import ExportReport, TFLiteReport
    >>> report = ExportReport(TFLiteReport("<m>.tflite", 90, 80, 70, 0.0), (), {}, "x86_64", 1)
    >>> "<title>&lt;m&gt;.tflite</title>" in page(report)
    True
    """
    parts = [_cards(report), _execution(report), _bytes(report), _latency(report)]
    parts += [_advice(report), _table(report)]
    name = escape(report.file.path)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{name}</h1>\n<p>{escape(_subtitle(report))}</p>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )


def _subtitle(report: ExportReport) -> str:
    file = report.file
    return (
        f"{file.format}, encoding {file.encoding}; runs with OpResolverType.{file.resolver}; "
        f"compared with Keras on {file.samples:,} sample{'s' if file.samples > 1 else ''}, "
        f"largest difference {file.difference}. {report.about_difference}"
        + (f" {report.about_sample}" if report.shapes else "")
    )


def _cards(report: ExportReport) -> str:
    file = report.file
    cards = [
        (_bytes_text(file.sparse_bytes), f"was {_bytes_text(file.raw_bytes)} stored densely"),
        (f"{file.raw_bytes / file.sparse_bytes:.1f}×", "smaller"),
        (_bytes_text(file.gzip_bytes), "after gzip"),
        (f"{report.sparsity:.1%}", f"zeros of {report.size:,} weights"),
    ]
    if report.speedup is not None:
        cards.append((f"{report.speedup:.2f}×", "latency, dense over sparse, here"))
    if file.accuracy_file is not None:
        cards.append((f"{file.accuracy_file:.2%}", f"accuracy; Keras {file.accuracy_keras:.2%}"))
    items = "".join(f'<div class="card"><b>{a}</b><span>{b}</span></div>' for a, b in cards)
    return f'<div class="cards">{items}</div>'


def _execution(report: ExportReport) -> str:
    if not report.rows:
        return ""
    rows = {
        name: [
            svg.Part(
                row.flops_dense or row.size,
                _COLOURS[getattr(row, place)][0],
                f"{_name(row)}: {getattr(row, place)}. {row.why}",
            )
            for row in report.rows
        ]
        for name, place in (("x86", "x86"), ("ARM", "arm"))
    }
    legend = "".join(
        f'<i class="{colour}"></i>{escape(text)}' for colour, text in _COLOURS.values()
    )
    return (
        "<h2>How it will run</h2>\n<p>Each stripe is a layer, as wide as its share of the FLOPs."
        f"</p>\n{svg.stripes(rows)}\n"
        f'<p class="legend">{legend}</p>'
    )


def _bytes(report: ExportReport) -> str:
    if not report.rows:
        return ""
    bars = [
        svg.Bar(_name(row), row.bytes_before, row.bytes_after, f"{row.sparsity:.1%} zeros")
        for row in report.rows
    ]
    legend = '<i class="before"></i>stored densely<i class="after"></i>in this file'
    return (
        f"<h2>Bytes of each layer</h2>\n{svg.bars(bars, _bytes_text)}\n"
        f'<p class="legend">{legend}</p>'
    )


def _latency(report: ExportReport) -> str:
    if not report.latency:
        return ""
    spans = {
        name: (latency.low, latency.median, latency.high)
        for name, latency in report.latency.items()
    }
    runs = next(iter(report.latency.values())).runs
    return (
        f"<h2>Latency here</h2>\n<p>{escape(report.machine)}, {report.threads} thread"
        f"{'s' if report.threads > 1 else ''}: median and middle half of {runs} times, dense and "
        f"sparse file in turns.</p>\n{svg.spans(spans, 'ms')}"
    )


def _advice(report: ExportReport) -> str:
    if not report.advice:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in report.advice)
    return f"<h2>To get more</h2>\n<ul>{items}</ul>"


def _table(report: ExportReport) -> str:
    head = ("layer", "operation", "stored", "weights", "nonzeros", "sparsity", "bytes before")
    head += ("after", "dense FLOPs", "sparse", "x86", "ARM", "why")
    lines = ["".join(f"<th>{text}</th>" for text in head)]
    for row in report.rows:
        counts = [row.size, row.nonzeros]
        cells = [_name(row), row.operation, f"{row.dtype}, {row.encoding}"]
        cells += [f"{count:,}" for count in counts] + [f"{row.sparsity:.2%}"]
        counts = [row.bytes_before, row.bytes_after, row.flops_dense, row.flops_sparse]
        cells += [f"{count:,}" for count in counts] + [row.x86, row.arm]
        line = "".join(f"<td>{escape(text)}</td>" for text in cells)
        lines.append(f'{line}<td class="text">{escape(row.why)}</td>')
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<h2>Layer by layer</h2>\n<div class="wide"><table>{body}</table></div>'


def _name(row) -> str:
    return f"{row.layer}/{row.weight}" if row.weight else row.layer


def _bytes_text(count: float) -> str:
    """
    Example:

    >>> _bytes_text(999), _bytes_text(2_710_000)
    ('999 B', '2.7 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"
