"""Each weight pruned alone, against the same in NumPy."""

import keras
import numpy as np
import pytest

import granet_tf

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(32, n)).astype("float32") for n in (6, 3))
DATA = (X, Y)


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(n, use_bias=False, name=name) for n, name in ((8, "a"), (3, "b"))]
    model = keras.Sequential([keras.Input((6,)), *layers], name="net")
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def pruned(kernel, sparsity):
    """The largest half, and so on, by a sort."""
    order = np.argsort(-np.abs(kernel), axis=None, kind="stable")
    kept = np.zeros(kernel.size, bool)
    kept[order[: round(kernel.size * (1 - sparsity))]] = True
    return np.where(kept.reshape(kernel.shape), kernel, 0)


def losses(kernels):
    """{path: loss} of the linear network, with one kernel pruned to each sparsity alone."""
    a, b = kernels
    found = {}
    for path, at in (("net/a/kernel", 0), ("net/b/kernel", 1)):
        for sparsity in (0.5, 0.75):
            pair = [pruned(k, sparsity) if i == at else k for i, k in enumerate((a, b))]
            found[path, sparsity] = np.mean((X @ pair[0] @ pair[1] - Y) ** 2)
    return found


@pytest.mark.parametrize("wrap", [None, False, True], ids=["plain", "zero", "mask_only"])
def test_losses_are_those_of_numpy(wrap):
    model = plain = network()
    if wrap is not None:
        model = granet_tf.wrap(plain, granet_tf.GMP(0.9), mask_only=wrap)
        model.compile("sgd", "mse")
    before = [v.numpy() for v in model.variables]
    report = granet_tf.sensitivity(model, DATA, sparsities=[0.5, 0.75])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    kernels = [layer.kernel.numpy() for layer in plain.layers]
    found = {(row.path, s): value for row in report.rows for s, value in row.values.items()}
    expected = losses(kernels)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5)
    whole = np.mean((X @ kernels[0] @ kernels[1] - Y) ** 2)
    np.testing.assert_allclose(report.unpruned, whole, rtol=1e-5)
    for row in report.rows:
        changes = [abs(expected[row.path, s] - whole) for s in (0.5, 0.75)]
        np.testing.assert_allclose(row.change, np.mean(changes), rtol=1e-4)
    assert report.rows[0].change >= report.rows[1].change


def test_the_most_sensitive_are_pinned():
    model = network()
    report = granet_tf.sensitivity(model, DATA, sparsities=[0.5], metric="mae")
    assert report.metric == "mae" and report.pins(0) == {}
    first = report.rows[0].path
    assert report.pins(1, 0.25) == {first: 0.25}
    sparse = granet_tf.wrap(model, granet_tf.StaticSparse(0.5, pinned=report.pins(1)))
    dense = {p.path for p in sparse.pruned if p.mask.numpy().all()}
    assert dense == {first}


def test_the_table_and_the_plot(tmp_path):
    report = granet_tf.sensitivity(network(), DATA, sparsities=[0.5, 0.75])
    lines = str(report).splitlines()
    assert lines[0].startswith("loss when one weight alone is pruned; ")
    assert lines[1].split() == ["weight", "weights", "at", "0.5", "at", "0.75"]
    assert len(lines) == 4
    figure = report.plot(to_file=tmp_path / "sensitivity.svg")
    assert (tmp_path / "sensitivity.svg").exists()
    points = {line.get_label(): line.get_xydata()[:, 0].tolist() for line in figure.axes[0].lines}
    assert points == {f"net/{name}/kernel": [0.0, 0.5, 0.75] for name in "ab"}


def test_bad_input_is_told():
    model = network()
    with pytest.raises(ValueError, match=r"`metric` must be one of \['loss', 'mae'\].*Received"):
        granet_tf.sensitivity(model, DATA, metric="accuracy")
    with pytest.raises(ValueError, match=r"`sparsities` must be .*Received: sparsities=\[1.0\]"):
        granet_tf.sensitivity(model, DATA, sparsities=[1.0])
    with pytest.raises(ValueError, match="`count` must be a number of weights from 0 to 2"):
        granet_tf.sensitivity(model, DATA, sparsities=[0.5]).pins(3)
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"`model` must be compiled.*Received"):
        granet_tf.sensitivity(plain, DATA)
    with pytest.raises(TypeError, match="Received"):
        granet_tf.sensitivity(object(), DATA)
    assert granet_tf.wrap(model) is not None  # Is as it was, not wrapped.
