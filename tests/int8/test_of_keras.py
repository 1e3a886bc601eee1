"""Keras's own `model.quantize` of a stripped model keeps all zeros: seen by what layers compute."""

import keras
import numpy as np
import pytest

import granet_tf

L = keras.layers


def dense():
    return L.Dense(24, use_bias=False, name="layer"), keras.Input((40,)), np.eye(40)


def einsum():
    layer = L.EinsumDense("abc,cd->abd", (None, 24), name="layer")
    return layer, keras.Input((1, 40)), np.eye(40)[:, None]


def embedding():
    return L.Embedding(40, 24, name="layer"), keras.Input((1,)), np.arange(40)[:, None]


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("make", [dense, einsum, embedding])
def test_zeros_are_kept(make, mode):
    layer, inputs, basis = make()
    model = keras.Model(inputs, layer(inputs))
    plain = granet_tf.strip(granet_tf.wrap(model, granet_tf.StaticSparse(0.9)))
    before = plain.predict(basis, verbose=0).reshape(40, 24)
    assert np.sum(before == 0) == 864
    plain.quantize(mode)
    assert layer.quantization_mode == mode
    # Each row of the basis reads one row of the weights.
    after = plain.predict(basis, verbose=0).reshape(40, 24)
    assert np.all(after[before == 0] == 0)
    step = np.abs(before).max() / {"int8": 127, "int4": 7}[mode]
    np.testing.assert_allclose(after, before, atol=step)
