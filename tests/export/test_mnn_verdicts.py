"""What an `.mnn` file has of each layer, against MNN's own reading, and what is said of it."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf.export import mnn_conversion, mnn_execution
from granet_tf.export.layers import Match
from granet_tf.export.mnn_file import MNNWeight, read_mnn_weights

layers = keras.layers
SPARSITIES = {
    "stem": 0.0,
    "window": 0.7,
    "grouped": 0.95,
    "deep": 0.9,
    "few": 0.5,
    "point": 0.8,
    "head": 0.95,
}
EXPECTED = {
    "stem": ("dense", "no zeros"),
    "window": ("sparse kernel", "Winograd"),
    "grouped": ("sparse kernel", "wherever they are"),
    "deep": ("densified", "depthwise"),
    "few": ("dense", "here 50% are"),
    "point": ("sparse kernel", "wherever they are"),
    "head": ("sparse kernel", "wherever they are"),
}


def network():
    """A layer of each kind, each at a sparsity of its own."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3), name="pixels"),
            layers.Conv2D(16, 3, name="stem"),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, padding="same", name="window"),
            layers.Conv2D(32, 3, groups=4, name="grouped"),
            layers.DepthwiseConv2D(3, name="deep"),
            layers.Conv2D(16, 1, name="few"),
            layers.Conv2D(32, 1, name="point"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(64, name="head"),
        ]
    )
    keras.utils.set_random_seed(0)
    for name, sparsity in SPARSITIES.items():
        kernel = model.get_layer(name).weights[0]
        values = np.random.default_rng(0).normal(size=kernel.shape).astype("float32")
        values.flat[
            np.random.default_rng(1).permutation(values.size)[: int(sparsity * values.size)]
        ] = 0
        kernel.assign(values)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(model, path of its `.mnn` file)"""
    path = tmp_path_factory.mktemp("mnn") / "model.mnn"
    model = network()
    granet_tf.export_mnn(model, path)
    return model, path


def test_kernels_are_those_of_keras(exported):
    model, path = exported
    found = {
        match.variable.path: match for match in mnn_execution.matched(model, read_mnn_weights(path))
    }
    assert len(found) == len(SPARSITIES)
    for name, sparsity in SPARSITIES.items():
        kernel = model.get_layer(name).weights[0]
        match = found[kernel.path]
        # Normalization is folded in.
        np.testing.assert_array_equal(match.values != 0, match.stored.values != 0)
        assert match.stored.nonzeros == np.count_nonzero(kernel) and match.added == 0
        assert match.stored.sparse == (sparsity > 0.6)


def test_what_is_sparse_is_what_mnn_says(exported, tmp_path):
    _, path = exported
    arguments = ["-f", "MNN", "--modelFile", str(path), "--JsonFile", str(tmp_path / "m.json")]
    program = mnn_conversion._CONVERTER
    subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=False)
    operations = json.loads((tmp_path / "m.json").read_text())["oplists"]
    kernels = [o for o in operations if o["type"] in ("Convolution", "ConvolutionDepthwise")]
    expected = [
        (o["name"].partition("__group__")[0], o["type"], "sparseParameter" in o["main"])
        for o in kernels
    ]
    found = [(w.name, *w.operators, w.sparse) for w in read_mnn_weights(path.read_bytes())]
    assert found == [*dict.fromkeys(expected)]


def test_verdicts(exported):
    model, path = exported
    verdicts = mnn_execution.verdicts(model, path.read_bytes())
    for name, (runs, said) in EXPECTED.items():
        verdict = verdicts[model.get_layer(name).weights[0].path]
        assert verdict.runs == runs and said in verdict.why, name


def test_the_report_has_them(exported, tmp_path):
    model, _ = exported
    report = granet_tf.export_report(model, tmp_path / "model.tflite", latency=False)
    rows = {row.layer.split("/")[-1]: row for row in report.rows}
    assert {name: row.mnn for name, row in rows.items()} == {
        name: runs for name, (runs, _) in EXPECTED.items()
    }
    dense, sparse = (
        sum(rows[name].flops_dense for name in names)
        for names in (EXPECTED, ("window", "grouped", "point", "head"))
    )
    assert f"{sparse / dense:.0%} in MNN." in str(report)
    assert any("they never run sparse" in text for text in report.advice)
    report.save(tmp_path / "r.html")
    assert "for such windows (Winograd&#39;s)" in (tmp_path / "r.html").read_text()


def test_without_mnn_the_reason_is_said(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "MNN", None)
    report = granet_tf.export_report(exported[0], tmp_path / "model.tflite", latency=False)
    assert {row.mnn for row in report.rows} == {None}
    assert "pip install 'granet_tf[mnn]'" in report.rows[0].mnn_why
    assert "in MNN" not in report.about_execution


def test_what_is_no_kernel_runs_dense(tmp_path):
    inputs = keras.Input((6,), dtype="int32")
    outputs = layers.Dense(8, name="head")(layers.Embedding(50, 16, name="words")(inputs))
    model = granet_tf.wrap(keras.Model(inputs, outputs), granet_tf.StaticSparse(0.5))
    report = granet_tf.export_report(model, tmp_path / "model.tflite", latency=False)
    words = next(row for row in report.rows if "words" in row.layer)
    assert (words.mnn, words.mnn_why) == ("dense", mnn_execution.ELSEWHERE.why)


@pytest.mark.parametrize(
    ("shape", "winograd", "zeros", "said", "block"),
    [
        ((64, 1, 1, 64), False, 0.65, "from about 75% zeros on, here 65% are", 1),
        ((64, 3, 3, 64), False, 0.8, "wherever they are", 1),
        ((64, 3, 3, 64), True, 0.8, "from about 90% zeros on, here 80% are", 1),
        ((64, 3, 3, 64), True, 0.95, "wherever they are", 1),
        ((64, 1, 1, 64), False, 0.5, "in blocks of 4 outputs", 4),
        ((64, 3, 3, 64), True, 0.7, "from about 80% zeros on, here 70% are", 4),
        ((64, 3, 3, 64), True, 0.85, "in blocks of 4 outputs", 4),
    ],
)
def test_rules(shape, winograd, zeros, said, block):
    values = np.ones(shape, "float32")
    values.flat[: int(zeros * values.size)] = 0
    operators = ("Convolution",)
    weight = MNNWeight("w", values, np.zeros(0), True, block, 0, operators, False, winograd)
    verdict = mnn_execution.verdict_on(Match(weight))
    assert said in verdict.why
    # To what has blocks already they are not recommended.
    assert ("pattern='mnn'" in (verdict.advice or "")) == (block == 1)


def test_where_winograd_could_be(exported):
    found = {weight.values.shape: weight.winograd for weight in read_mnn_weights(exported[1])}
    assert found[(32, 3, 3, 16)] and not found[(16, 1, 1, 32)]
    strided = keras.Sequential([keras.Input((9, 9, 8)), layers.Conv2D(16, 3, strides=2)])
    path = exported[1].with_name("strided.mnn")
    with pytest.warns(UserWarning, match="Nothing in the file is sparse"):
        granet_tf.export_mnn(strided, path)
    assert [weight.winograd for weight in read_mnn_weights(path)] == [False]
