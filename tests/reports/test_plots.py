"""Plots hold the numbers that they are given, and Matplotlib is imported only for them."""

import importlib.util

import keras
import numpy as np
import pytest

import granet_tf
from tests.support.processes import run_python


def network():
    dense = keras.layers.Dense
    layers = [keras.Input((8,)), dense(8, name="body"), dense(4, name="head")]
    return keras.Sequential(layers, name="net")


def bars(figure):
    return [patch.get_width() for patch in figure.axes[0].patches]


def test_sparsity_of_each_weight_now_and_before(tmp_path):
    method = granet_tf.StaticSparse(0.75, distribution="uniform", pinned={-1: 0.5})
    model = granet_tf.wrap(network(), method)
    figure = granet_tf.plot_sparsity(model, to_file=tmp_path / "now.png")
    assert (tmp_path / "now.png").stat().st_size > 1000
    assert bars(figure) == [0.75, 0.5]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["net/body/kernel", "net/head/kernel"]
    [before] = figure.axes[0].collections
    np.testing.assert_array_equal(before.get_offsets()[:, 0], [0, 0])
    # 64 / 4 + 32 / 2
    assert figure.get_suptitle() == "32 of 96 weights left, sparsity 0.667"

    summary = granet_tf.summarize(model)
    model.set_masks({p.path: np.zeros(p.variable.shape, bool) for p in model.pruned})
    later = granet_tf.plot_sparsity(model, before=summary)
    assert bars(later) == [1.0, 1.0]
    np.testing.assert_array_equal(later.axes[0].collections[0].get_offsets()[:, 0], [0.75, 0.5])
    assert bars(granet_tf.plot_sparsity(summary)) == [0.75, 0.5]
    with pytest.raises(ValueError, match=r"must have weights that are pruned.*Received: model="):
        granet_tf.plot_sparsity(
            keras.Sequential([keras.Input((2,)), keras.layers.Activation("relu")])
        )


def test_history_of_fit():
    model = granet_tf.wrap(network(), granet_tf.SET(0.75))
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((8, 8)), np.ones((8, 4))
    history = model.fit(x, y, epochs=4, verbose=0, validation_data=(x, y), validation_freq=2)
    figure = granet_tf.plot_history(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mae", "sparsity"]
    lines = [[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]
    assert lines[0][0] == [[i + 1, loss] for i, loss in enumerate(history.history["loss"])]
    assert [x for x, _ in lines[1][1]] == [2, 4] and len(lines[2]) == 1
    assert [y for _, y in lines[2][0]] == [0.75] * 4
    assert len(granet_tf.plot_history(history.history).axes) == 2
    with pytest.raises(ValueError, match=r"must have an epoch.*Received: history="):
        granet_tf.plot_history({})


def test_matplotlib_is_imported_where_it_draws():
    # Keras itself imports it where it is installed.
    program = """
import sys, keras
for name in [name for name in sys.modules if name.startswith("matplotlib")]:
    del sys.modules[name]
import granet_tf
granet_tf.plot_sparsity, granet_tf.plot_history, granet_tf.sensitivity
print([name for name in sys.modules if name.startswith("matplotlib")])
"""
    assert run_python(program).strip() == "[]"


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'granet_tf\[report\]'.*Received: "):
        granet_tf.plot_history({"loss": [1.0]})
