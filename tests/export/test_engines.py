"""`compare_engines`: what is compared, and what is said of what cannot be."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf.export import engines
from granet_tf.export.engines import EngineComparison, EngineLatency
from granet_tf.export.running import Latency

layers = keras.layers


def model():
    built = keras.Sequential([keras.Input((8, 8, 16), name="x"), layers.Conv2D(32, 1)])
    return granet_tf.wrap(built, granet_tf.StaticSparse(0.9))


def test_each_engine_and_number_of_threads():
    found = granet_tf.compare_engines(model(), threads=[1, 2], seconds=0.01)
    measured = {(row.engine, row.weights, row.threads) for row in found.rows}
    expected = {
        (engine, weights, threads)
        for engine in ("LiteRT", "MNN")
        for weights in ("dense", "sparse")
        for threads in (1, 2)
    }
    assert expected <= measured
    assert found.threads == (1, 2)
    assert found.shapes == {"x": (1, 8, 8, 16)}
    assert not {"LiteRT", "MNN"} & {*found.left_out}


SIGNALLED = """
import os, signal
from granet_tf.export.engines import OpenVINORunner

with open("dense.tflite", "rb") as file:
    content = file.read()
runners = [OpenVINORunner(content, threads) for threads in (1, 2)]
while runners:
    runners.pop(0)
signal.signal(signal.SIGTERM, lambda *_: print("saved", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_answered_after_openvino_has_run(tmp_path):
    """Not by the end of the process, as with two cores of OpenVINO's one after the other."""
    pytest.importorskip("openvino")
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    granet_tf.export_tflite(dense, tmp_path / "dense.tflite", verbose=False)
    found = subprocess.run(
        [sys.executable, "-c", SIGNALLED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "saved\n"


def test_gain_is_against_the_best_dense_engine():
    times = {
        ("LiteRT", "dense"): 6.0,
        ("MNN", "dense"): 9.0,
        ("LiteRT", "sparse"): 5.0,
        ("MNN", "sparse"): 2.0,
    }
    rows = tuple(EngineLatency(*key, 1, Latency(t, t, t, 5)) for key, t in times.items())
    found = EngineComparison(rows, {"OpenVINO": "it is not installed"}, "x86_64", {})
    assert (found.best(1, "dense").engine, found.best(1, "sparse").engine) == ("LiteRT", "MNN")
    assert found.gain(1) == 3.0
    assert str(found).splitlines()[-2:] == [
        "With 1 thread, the fastest sparse file (MNN) is 3.00 times as fast as the fastest dense "
        "one (LiteRT).",
        "OpenVINO is left out: it is not installed.",
    ]


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "MNN", None)
    found = granet_tf.compare_engines(model(), threads=[1], seconds=0.01)
    assert found.left_out["MNN"] == "it is not installed (pip install 'granet_tf[mnn]')"
    assert {row.engine for row in found.rows} <= {"LiteRT", "OpenVINO"}


def test_what_an_engine_lacks_is_said():
    inputs = keras.Input((12, 32))
    attention = keras.Model(inputs, layers.MultiHeadAttention(4, 8)(inputs, inputs))
    found = granet_tf.compare_engines(
        granet_tf.wrap(attention, granet_tf.StaticSparse(0.9)), threads=[1], seconds=0.01
    )
    assert "it lacks Einsum" in found.left_out["MNN"]
    assert ("LiteRT", "sparse") in {(row.engine, row.weights) for row in found.rows}


def test_runners_of_all_engines_compute_the_same():
    plain = granet_tf.strip(model())
    made = engines.tflite.converted(plain)
    [(name, array)] = made.feed.items()
    expected = plain.predict(array, verbose=0)
    for engine, files_of in engines.ENGINES.items():
        try:
            loads = files_of(plain, made)
        except ImportError:
            continue
        for load in loads.values():
            [actual] = load(1)({name: array}).values()
            np.testing.assert_allclose(actual, expected, atol=1e-5, err_msg=engine)


@pytest.mark.parametrize("threads", [[], [0], ["2"], [1.0]])
def test_bad_threads(threads):
    with pytest.raises(ValueError, match=r"`threads` must be a list of positive whole numbers"):
        granet_tf.compare_engines(model(), threads=threads)
