"""The report's figures against the masks, its verdicts against what runs, its page as a page."""

import dataclasses
import html.parser
import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf.export import execution, running
from granet_tf.export.engines import EngineLatency
from granet_tf.export.execution import Graph
from granet_tf.export.report import ExportReport
from granet_train import models

layers = keras.layers


def network():
    """A convolution that batch normalization scales, two dense layers of the same shape."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 8)),
            layers.Conv2D(32, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(32, "relu", name="blocks"),
            layers.Dense(32, name="single"),
        ],
        name="net",
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(wrapped model, its report with latencies, folder)"""
    folder = tmp_path_factory.mktemp("report")
    keras.utils.set_random_seed(0)
    model = granet_tf.wrap(network(), granet_tf.StaticSparse(0.75, distribution="uniform"))
    rng = np.random.default_rng(0)
    norm = model.model.get_layer("norm")
    for variable in norm.weights:  # A negative factor, too.
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    norm.gamma.assign(norm.gamma * np.where(np.arange(32) % 2, 1.0, -1.0))
    blocks = np.repeat(rng.random((8, 32)) < 0.25, 4, axis=0)
    for pruned in model.pruned:
        if "/blocks/" in pruned.path:
            pruned.mask.assign(blocks)
            pruned.variable.assign(rng.normal(size=(32, 32)) * blocks)
    samples = rng.normal(size=(5, 6, 6, 8)).astype("float32")
    report = granet_tf.export_report(
        model, folder / "<net> & co.tflite", sample_inputs=samples, labels=[0, 1, 2, 3, 4]
    )
    return model, report, folder


def test_each_weight_is_found_with_its_mask_and_flops(exported):
    model, report, _ = exported
    masks = {pruned.path: pruned.mask.numpy() for pruned in model.pruned}
    counted = {row.layer: row for row in granet_tf.count_flops(model).rows}
    assert [row.layer for row in report.rows] == ["net/conv", "net/blocks", "net/single"]
    for row in report.rows:
        mask = masks[f"{row.layer}/{row.weight}"]
        assert (row.size, row.nonzeros, row.rounded_to_zero) == (mask.size, mask.sum(), 0)
        flops = counted[row.layer]
        assert (row.flops_dense, row.flops_sparse) == (flops.dense, flops.sparse)
        assert row.bytes_before == 4 * mask.size > row.bytes_after
    assert report.sparsity == pytest.approx(0.75, abs=0.02)


def test_verdicts(exported):
    _, report, folder = exported
    found = {row.layer.removeprefix("net/"): (row.x86, row.encoding) for row in report.rows}
    assert found == {
        "conv": ("densified", "sparse"),
        "blocks": ("sparse kernel", "sparse, blocks of 4"),
        "single": ("densified", "sparse"),
    }
    # What the verdicts say is what is in the file.
    [file] = folder.glob("*.tflite")
    assert running.Runner(file.read_bytes()).operations().count("DENSIFY") == 2
    assert any("pattern='litert'" in text for text in report.advice)


def test_text(exported):
    text = str(exported[1])
    assert re.search(
        r"^net/blocks/kernel +FULLY_CONNECTED +sparse kernel +sparse kernel", text, re.M
    )
    assert re.search(r"^  dense: .* ms \(.* to .*\)$", text, re.M)
    assert "less than 0.01% of the range of its outputs" in text
    assert "furthest from Keras's on 5 samples" in text and "Compare accuracies" in text
    assert "1 thread, median and middle half" in text and "\nTo get more:\n- " in text


def test_other_engines(exported):
    report = exported[1]
    of_litert = {r.weights: r.latency for r in report.engines.rows if r.engine == "LiteRT"}
    assert of_litert == report.latency
    assert {("MNN", "dense"), ("MNN", "sparse")} <= {
        (row.engine, row.weights) for row in report.engines.rows
    }
    assert "\nMNN " in str(report) and "times as fast as the fastest dense one" in str(report)


@pytest.mark.parametrize(
    ("dense", "sparse", "said"),
    [(6.0, 2.0, "here 2 ms, where the fastest dense file (LiteRT) takes 6."), (2.0, 6.0, None)],
)
def test_advice_knows_an_engine_that_is_faster(exported, dense, sparse, said):
    times = {("LiteRT", "dense"): dense, ("LiteRT", "sparse"): 7.0, ("MNN", "sparse"): sparse}
    rows = [EngineLatency(*key, 1, running.Latency(t, t, t, 9)) for key, t in times.items()]
    engines = granet_tf.EngineComparison(tuple(rows), {}, "here", {})
    report = dataclasses.replace(exported[1], engines=engines)
    found = [text for text in report.advice if "granet_tf.export_mnn" in text]
    assert len(found) == (said is not None)
    assert said is None or found[0].endswith(said)


def test_advice_where_mnn_is_not_installed(exported):
    left_out = {"MNN": "it is not installed (pip install 'granet_tf[mnn]')"}
    engines = granet_tf.EngineComparison((), left_out, "here", {})
    report = dataclasses.replace(exported[1], engines=engines)
    assert report.advice[-1].endswith(
        "Not measured: it is not installed (pip install 'granet_tf[mnn]')."
    )


def test_json(exported, tmp_path):
    exported[1].save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    assert [row["encoding"] for row in content["rows"]] == [
        "sparse",
        "sparse, blocks of 4",
        "sparse",
    ]
    assert 0 <= content["file"]["relative_error"] < 1e-4 and content["file"]["max_error"] < 1e-5
    assert content["file"]["samples"] == 5 and content["file"]["accuracy_keras"] is not None
    latency = content["latency"]
    assert content["speedup"] == latency["dense"]["median"] / latency["sparse"]["median"]
    assert latency["dense"]["low"] <= latency["dense"]["median"] <= latency["dense"]["high"]


class Page(html.parser.HTMLParser):
    """Open tags must close; addresses and text are kept."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_one_page_that_needs_nothing_else(exported, tmp_path):
    _, report, _ = exported
    report.save(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.addresses == [] and "url(" not in text and "http" not in text
    assert "<net>" not in text and any("<net> & co.tflite" in words for words in page.words)
    assert any("blocks/kernel" in words for words in page.words)
    assert any("of the range of its outputs" in words for words in page.words)
    assert any("Compare accuracies to see whether it matters" in words for words in page.words)

    stripes, bars, spans = (ElementTree.fromstring(s) for s in re.findall("<svg.*?</svg>", text))
    # A stripe for each layer on each of two processors, as wide as its FLOPs.
    widths = [float(rect.get("width")) for rect in stripes.iter("rect")]
    assert [rect.get("class") for rect in stripes.iter("rect")] == [
        "densified",
        "sparse",
        "densified",
    ] * 2
    dense = np.array([row.flops_dense for row in report.rows])
    np.testing.assert_allclose(widths[:3], dense / dense.sum() * 940 - 1, atol=1.0)
    # Bars before and after on one scale.
    pairs = np.array([float(rect.get("width")) for rect in bars.iter("rect")]).reshape(3, 2)
    sizes = np.array([(row.bytes_before, row.bytes_after) for row in report.rows])
    np.testing.assert_allclose(pairs / pairs.max(), sizes / sizes.max(), atol=0.01)
    assert len(list(spans.iter("rect"))) == len(list(spans.iter("line"))) == 2
    for plot in (stripes, bars, spans):
        right = float(plot.get("viewBox").split()[2])
        for rect in plot.iter("rect"):
            assert 0 <= float(rect.get("x")) <= right - float(rect.get("width"))


def test_other_suffixes_and_places(exported, tmp_path):
    with pytest.raises(ValueError, match=r"end with .html, .json, .txt. Received: path='r.pdf'"):
        exported[1].save("r.pdf")
    with pytest.raises(ValueError, match=r"Cannot write in the directory .*Received: path="):
        exported[1].save(tmp_path / "missing" / "r.html")


def test_the_page_is_the_same_each_time_and_without_a_trace_of_matplotlib(exported, tmp_path):
    for name in ("a.html", "b.html"):
        exported[1].save(tmp_path / name)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.html").read_text(encoding="utf-8")
    assert " id=" not in text and "style=" not in text and "DejaVu" not in text


def test_names_are_text_in_charts_and_tables(exported, tmp_path):
    name = "<b>\"$x$ & 'y' \u4f60"
    row = dataclasses.replace(exported[1].rows[0], layer=name, why=name)
    report = dataclasses.replace(exported[1], rows=(row,), machine=name)
    report.save(tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    # In the titles of two stripes, at a bar, at the latency, in two cells of the table.
    assert page.open == [] and sum(name in words for words in page.words) == 6


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_what_makes_the_page(exported, tmp_path, monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != missing and find(name))
    with pytest.raises(ImportError, match=rf"granet_tf\[report\].*Received: .* {missing.title()}"):
        exported[1].save(tmp_path / "r.html")
    assert not list(tmp_path.iterdir())
    exported[1].save(tmp_path / "r.txt")


def weight(operator, shape, dtype="float32", zeros=0.9, *, sparse=True, block=1, densified=True):
    values = np.ones(shape, dtype)
    values.flat[: int(zeros * values.size)] = 0
    return granet_tf.export.StoredWeight(
        "w", values, np.zeros(0), sparse, block, 0, (operator,), densified
    )


FITS, DOES_NOT = Graph(None), Graph("no symmetric stem")


@pytest.mark.parametrize(
    ("of", "graph", "x86", "arm", "said"),
    [
        (weight("CONV_2D", (8, 1, 1, 8)), FITS, "densified", "sparse kernel", "on ARM"),
        (weight("CONV_2D", (8, 1, 1, 8)), DOES_NOT, "densified", "densified", "symmetric stem"),
        (weight("CONV_2D", (8, 1, 1, 8), "int8"), FITS, "densified", "densified", "int8"),
        (weight("CONV_2D", (8, 3, 3, 8)), FITS, "densified", "densified", "windows"),
        (weight("CONV_2D", (8, 1, 1, 8), "float16"), FITS, "densified", "sparse kernel", "ARM"),
        (weight("FULLY_CONNECTED", (8, 8), "float16"), FITS, "densified", "densified", "float16"),
        (
            weight("FULLY_CONNECTED", (8, 16), "int8", block=16, densified=False),
            FITS,
            "sparse kernel",
            "sparse kernel",
            "XNNPACK's dense int8",
        ),
        (weight("CONV_2D", (8, 3, 3, 8), zeros=0, sparse=False), FITS, "dense", "dense", "no zero"),
        (weight("GATHER", (8, 8)), FITS, "densified", "densified", "loaded"),
    ],
)
def test_rules(of, graph, x86, arm, said):
    verdict = execution.verdict_on(of, graph)
    assert (verdict.x86, verdict.arm) == (x86, arm)
    assert said in verdict.why


def test_what_keeps_xnnpack_from_sparse_inference():
    pointwise = [weight("CONV_2D", (64, 1, 1, 64), zeros=0.5)]
    ours = models.make("mobilenet_v1", (32, 32, 3), 10, width=0.125)
    assert "here 50% is" in Graph.of(ours, pointwise).obstacle
    assert Graph.of(ours, [weight("CONV_2D", (64, 1, 1, 64), zeros=0.7)]).obstacle is None
    resnet = models.make("resnet20", (32, 32, 3), 10, width=0.25)
    assert "3×3 Conv2D of stride 2" in Graph.of(resnet, pointwise).obstacle


def test_a_model_without_kernels_has_a_report(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.ReLU()])
    with pytest.warns(UserWarning, match="Nothing in the file is sparse"):
        report = granet_tf.export_report(model, tmp_path / "m.tflite", latency=False)
    assert isinstance(report, ExportReport) and report.rows == () and report.sparsity == 0.0
    report.save(tmp_path / "r.html")
    assert "<svg" not in (tmp_path / "r.html").read_text()
