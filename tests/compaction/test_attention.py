"""Heads of attention, hidden units of transformers, and dense layers that are equations."""

import sys

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf import compaction
from granet_tf.registered.narrow_attention import narrow_encoder
from granet_tf.structured.dependency_groups import dependencies
from tests.support.compacting import (
    check_compacted,
    check_random_groups,
    compacted,
    fill,
    kept,
    same_outputs,
    sequential,
    silence,
    without_groups,
)
from tests.support.random_graphs import RandomAttention

layers = keras.layers


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ids_of(found, weight):
    return found.members()[id(weight)].ids.tolist()


def silence_values(layer, heads, *, bias=False):
    """Sets to zero what heads take from the values; their bias too, if it is to be."""
    dense = layer.value_dense
    for weight in [dense.kernel, *([dense.bias] if bias else [])]:
        value = weight.numpy()
        value[..., heads, :] = 0
        weight.assign(value)


def attending(rng, **options):
    """One attention of 4 heads on 6 channels that stay."""
    inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(4, 3, value_dim=2, name="attention", **options)
    model = keras.Model(inputs, attention(inputs, inputs))
    fill(model, rng)
    return model, attention


@pytest.mark.parametrize("use_bias", [True, False])
def test_dead_heads_go(rng, use_bias):
    model, attention = attending(rng, use_bias=use_bias)
    silence_values(attention, [1])  # Its bias moves on.
    kernel = attention.output_dense.kernel.numpy()
    kernel[3] = 0  # Nobody reads this one.
    attention.output_dense.kernel.assign(kernel)
    # All of its two values are read, or not constant, but never both.
    kernel[2, 0] = 0
    attention.output_dense.kernel.assign(kernel)
    value = attention.value_dense.kernel.numpy()
    value[:, 2, 1] = 0
    attention.value_dense.kernel.assign(value)

    small = compacted(model, rng).get_layer("attention")
    assert (small.num_heads, small.key_dim, small.value_dim) == (1, 3, 2)
    for name in ("query_dense", "key_dense", "value_dense"):
        before, after = (getattr(x, name).kernel.numpy() for x in (attention, small))
        np.testing.assert_array_equal(after, before[:, [0]])
    np.testing.assert_array_equal(small.output_dense.kernel.numpy(), kernel[[0]])
    if use_bias:
        bias = attention.value_dense.bias.numpy()
        moved = np.einsum("hd,hdo->o", bias[1:], kernel[1:])
        expected = attention.output_dense.bias.numpy() + moved
        np.testing.assert_allclose(small.output_dense.bias.numpy(), expected, rtol=1e-5)
    assert kept(model) == {"attention (heads)": 1, "attention": 6}


def test_the_last_head_stays(rng):
    model, attention = attending(rng)
    silence_values(attention, [0, 1, 2, 3])
    assert compacted(model, rng).get_layer("attention").num_heads == 1


@pytest.mark.parametrize("bias", [False, True], ids=["bias", "no bias"])
def test_a_mask_may_leave_nothing_to_attend_to(rng, bias):
    """Then the output is not the bias of the values, which can't move on."""
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True, name="table")(tokens)
    x = layers.LayerNormalization()(x)
    attention = layers.MultiHeadAttention(4, 3, dropout=0.5, name="attention")
    model = keras.Model(tokens, attention(x, x, use_causal_mask=True))
    fill(model, rng)
    silence_values(attention, [0, 2], bias=bias)
    small = granet_tf.compact(model)
    same_outputs(model, small, np.array([[1, 2, 0, 3, 0], [0, 0, 0, 0, 0], [0, 1, 2, 3, 4]]))
    assert small.get_layer("attention").num_heads == (2 if bias else 4)


def test_what_attention_reads_and_writes_goes(rng):
    """Query, key and value come from dense layers of their own, and a dense layer follows."""
    a, b = keras.Input((4, 3)), keras.Input((5, 3))
    query, key, value = (
        layers.Dense(n, "relu", name=name)(x)
        for x, n, name in [(a, 6, "query"), (b, 7, "key"), (b, 8, "value")]
    )
    attention = layers.MultiHeadAttention(3, 2, name="attention")
    x = layers.Dense(2, name="head")(attention(query, value, key))
    model = keras.Model([a, b], x)
    fill(model, rng)
    for name, channels in [("query", [0, 1]), ("key", [2]), ("value", [3, 4, 5])]:
        silence(model.get_layer(name), outputs=channels)
        bias = model.get_layer(name).bias
        bias.assign(bias * np.where(np.isin(np.arange(bias.shape[0]), channels), 0, 1))
    silence(model.get_layer("head"), inputs=[4])
    silence_values(attention, [1])
    # Only the head that goes reads the first value.
    kernel = attention.value_dense.kernel.numpy()
    kernel[0, [0, 2]] = 0
    attention.value_dense.kernel.assign(kernel)
    small = granet_tf.compact(model)
    same_outputs(model, small, [rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 5, 3))])
    expected = {"query": 4, "key": 6, "value": 4, "attention (heads)": 2, "attention": 5, "head": 2}
    assert kept(model) == expected
    assert small.get_layer("attention").query_dense.kernel.shape == (4, 2, 2)
    assert small.get_layer("attention").output_dense.kernel.shape == (2, 2, 5)


def test_biases_of_heads_of_size_1_stay(rng):
    """Keras 3.15 adds them to positions where there are as many as heads."""
    inputs = keras.Input((4, 6))
    attention = layers.MultiHeadAttention(4, 3, value_dim=1, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    fill(model, rng)
    silence_values(attention, [1], bias=True)
    assert compacted(model, rng).count_params() == model.count_params()
    assert "size 1" in dict(compaction.explain(model).opaque)["attention"]


def test_grouped_queries_go_with_their_keys(rng):
    inputs = keras.Input((5, 6))
    attention = layers.GroupQueryAttention(3, 6, 3, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    fill(model, rng)
    found = dependencies(model)
    query, key, value, output = (w for w in attention.weights if "kernel" in w.path)
    assert ids_of(found, key) == ids_of(found, value) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert ids_of(found, query) == [0] * 6 + [1] * 6 + [2] * 6
    assert id(output) not in found.members()
    value.assign(value.numpy() * np.array([1, 0, 1])[:, None])
    small = compacted(model, rng).get_layer("attention")
    assert (small.num_query_heads, small.num_key_value_heads) == (4, 2)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            lambda layer, x: layer(x, x, return_attention_scores=True)[0],
            "`return_attention_scores`",
        ),
        (
            lambda layer, x: layer(x, x, attention_mask=np.ones((1, 4, 5, 5), bool)),
            "axis for heads",
        ),
        (lambda layer, x: layer(x, x, training=True), "training=True"),
    ],
    ids=["scores", "mask of heads", "training"],
)
def test_where_heads_stay(rng, call, reason):
    inputs = keras.Input((5, 6))
    model = keras.Model(inputs, call(layers.MultiHeadAttention(4, 3, name="attention"), inputs))
    fill(model, rng)
    silence_values(model.get_layer("attention"), [1], bias=True)
    assert compacted(model, rng).count_params() == model.count_params()
    [(name, why)] = compaction.explain(model).opaque
    assert name == "attention" and reason in why


@pytest.mark.parametrize("seed", range(8))
def test_outputs_of_random_attention(seed):
    check_compacted(RandomAttention(seed))


@pytest.mark.parametrize("seed", range(4))
def test_random_groups_of_attention(seed):
    """Any groups that can go may be set to 0 together, and the model without them is the same."""
    check_random_groups(RandomAttention(seed))


def transformer():
    """Two blocks that normalise first, as a vision transformer has them."""
    inputs = keras.Input((5, 6))
    x = layers.Dense(8, name="patches")(inputs)
    for i in range(2):
        normed = layers.LayerNormalization(name=f"norm{i}_1")(x)
        attended = layers.MultiHeadAttention(4, 3, name=f"attention{i}")(normed, normed)
        x = layers.Add(name=f"sum{i}_1")([x, attended])
        normed = layers.LayerNormalization(name=f"norm{i}_2")(x)
        hidden = layers.Dense(16, "gelu", name=f"hidden{i}")(normed)
        x = layers.Add(name=f"sum{i}_2")([x, layers.Dense(8, name=f"out{i}")(hidden)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm")(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_groups_of_a_transformer(rng):
    model = transformer()
    found = dependencies(model)
    attention, hidden = model.get_layer("attention0"), model.get_layer("hidden0")
    heads = ids_of(found, attention.value_dense.kernel)
    assert [heads.count(each) for each in heads] == [3] * 12 and len(set(heads)) == 4
    assert ids_of(found, attention.query_dense.kernel) == heads
    assert ids_of(found, attention.key_dense.kernel) == heads
    biases = [found.offsets()[id(x.bias)].ids.tolist() for x in (attention.value_dense, hidden)]
    assert biases == [heads, ids_of(found, hidden.kernel)]
    assert len(set(ids_of(found, hidden.kernel))) == 16
    assert {found.why_not(x) for x in (attention.value_dense.kernel, hidden.kernel)} == {None}
    # What is added up all along is one group, and it is normalised.
    stream = [model.get_layer(name).kernel for name in ("patches", "out0", "out1")]
    stream += [model.get_layer(f"attention{i}").output_dense.kernel for i in range(2)]
    assert len({tuple(ids_of(found, kernel)) for kernel in stream}) == 1
    for kernel in stream:
        assert "'norm0_1' reads it, which stays as it is: it averages over channels" in (
            found.why_not(kernel)
        )

    fill(model, rng)
    units = sorted(set(ids_of(found, hidden.kernel)))
    small = without_groups(model, {heads[0], heads[-1], *units[:10]})
    x = rng.normal(size=(4, 5, 6))
    np.testing.assert_allclose(small(x), model(x), rtol=0, atol=1e-5)
    assert small.get_layer("attention0").num_heads == 2
    assert small.get_layer("attention1").num_heads == 4
    assert [small.get_layer(f"hidden{i}").units for i in range(2)] == [6, 16]
    assert granet_tf.compact(model).count_params() == small.count_params()
    removed = 2 * (3 * (8 * 3 + 3) + 3 * 8) + 10 * (8 + 1 + 8)
    assert small.count_params() == model.count_params() - removed


@pytest.mark.parametrize("equation", ["abc,cd->abd", "...x,xy->...y"])
def test_equations_of_dense_layers(rng, equation):
    flat = equation.startswith(".")
    model = sequential(
        (5, 4),
        layers.EinsumDense(
            equation,
            8 if flat else (5, 8),
            activation="sigmoid",
            bias_axes=equation[-1],
            name="first",
        ),
        layers.EinsumDense(equation, 6 if flat else (5, 6), name="second"),
        layers.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de", name="heads"),
    )
    fill(model, rng, zero=[("first", [0, 5])])  # constant: sigmoid(bias)
    silence(model.get_layer("second"), outputs=[2], inputs=[3])
    small = compacted(model, rng)
    first, second, heads = small.layers
    assert (first.kernel.shape, second.kernel.shape) == ((4, 5), (5, 5))
    assert (heads.kernel.shape, heads.bias.shape) == ((5, 2, 3), (2, 3))
    # What was constant is in a bias, which the second did not have.
    assert second.bias.shape == (5,)
    assert kept(model) == {"first": 5, "second": 5, "heads": 3}


def test_other_equations_are_named(rng):
    model = sequential(
        (5, 4), layers.Dense(4), layers.EinsumDense("abc,bd->adc", (6, 4), name="mixes")
    )
    fill(model, rng)
    assert compaction.explain(model).opaque == (
        ("mixes", "its equation is not that of a dense layer on the last axis"),
    )


def bert(keras_hub, num_heads=2):
    return keras_hub.models.BertBackbone(
        vocabulary_size=30,
        num_layers=2,
        num_heads=num_heads,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )


def bert_tokens(rng):
    return {
        "token_ids": rng.integers(0, 30, (3, 8)),
        "segment_ids": rng.integers(0, 2, (3, 8)),
        "padding_mask": (np.arange(8) < np.array([[8], [5], [3]])).astype(int),
    }


def test_hidden_units_of_a_model_of_keras_hub(rng):
    keras_hub = pytest.importorskip("keras_hub")
    model = bert(keras_hub)
    fill(model, rng)
    tokens = bert_tokens(rng)
    encoder = model.get_layer("transformer_layer_0")
    # Half of them are dead, by weights that lead to them or on from them. Their biases stay.
    silence(encoder._feedforward_intermediate_dense, outputs=range(8))
    silence(encoder._feedforward_output_dense, inputs=range(8, 16))
    small = granet_tf.compact(model)
    same_outputs(model, small, tokens)
    smaller = small.get_layer("transformer_layer_0")
    assert (smaller.intermediate_dim, smaller.num_heads) == (16, 2)
    assert small.count_params() == model.count_params() - 16 * (16 + 1 + 16)
    assert kept(model)["transformer_layer_0 (hidden units)"] == 16

    found = dependencies(model)
    kernel = encoder._feedforward_intermediate_dense.kernel
    ids = ids_of(found, kernel)
    assert len(set(ids)) == 32 and found.why_not(kernel) is None
    bias = found.offsets()[id(encoder._feedforward_intermediate_dense.bias)]
    assert bias.ids.tolist() == ids
    assert found.why_not(encoder._self_attention_layer.value_dense.kernel) is None
    small = without_groups(model, ids[:24])
    same_outputs(model, small, tokens)
    assert small.get_layer("transformer_layer_0").intermediate_dim == 8


def test_heads_of_a_model_of_keras_hub(rng, tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    model = bert(keras_hub, num_heads=4)
    fill(model, rng)
    tokens = bert_tokens(rng)
    first, second = (model.get_layer(f"transformer_layer_{i}") for i in range(2))
    silence_values(first._self_attention_layer, [1, 2], bias=True)
    output = second._self_attention_layer.output_dense.kernel
    output.assign(output.numpy() * np.array([0, 1, 1, 1])[:, None, None])  # Nobody reads the first.
    silence_values(second._self_attention_layer, [3])  # Its bias is left, under a mask.
    silence(second._feedforward_intermediate_dense, outputs=range(8))
    small = granet_tf.compact(model)
    same_outputs(model, small, tokens)
    assert small.get_layer("transformer_layer_0").get_config()["num_heads"] == 2
    assert small.get_layer("transformer_layer_0").get_config()["head_size"] == 4
    assert kept(model)["transformer_layer_0 (heads)"] == 2
    assert kept(model)["transformer_layer_1 (heads)"] == 3
    # Of a head of 4: query, key and value with biases, and the kernel of the output.
    head = 3 * 4 * (16 + 1) + 4 * 16
    assert small.count_params() == model.count_params() - 3 * head - 8 * (16 + 1 + 16)

    small.save(tmp_path / "small.keras")
    same_outputs(small, keras.models.load_model(tmp_path / "small.keras"), tokens)
    # It can become smaller once more.
    silence_values(small.get_layer("transformer_layer_1")._self_attention_layer, [0], bias=True)
    smaller = granet_tf.compact(small)
    same_outputs(small, smaller, tokens)
    assert smaller.get_layer("transformer_layer_1").num_heads == 2


def test_heads_and_hidden_units_of_a_model_of_keras_hub_are_pruned(rng):
    keras_hub = pytest.importorskip("keras_hub")
    model = bert(keras_hub, num_heads=4)
    fill(model, rng)
    attention = model.get_layer("transformer_layer_0")._self_attention_layer
    found = dependencies(model)
    heads = ids_of(found, attention.value_dense.kernel)
    assert heads == [x for x in heads[::4] for _ in range(4)] and len(set(heads)) == 4
    assert heads == ids_of(found, attention.query_dense.kernel)
    units = ids_of(
        found, model.get_layer("transformer_layer_1")._feedforward_intermediate_dense.kernel
    )
    small = without_groups(model, [heads[0], *units[:24]])
    same_outputs(model, small, bert_tokens(rng))
    assert small.get_layer("transformer_layer_0").num_heads == 3
    assert small.get_layer("transformer_layer_1").intermediate_dim == 8


def test_half_of_the_heads_and_hidden_units_of_a_model_of_keras_hub_go(rng):
    keras_hub = pytest.importorskip("keras_hub")
    model = bert(keras_hub, num_heads=4)
    fill(model, rng)
    sparse = granet_tf.wrap(
        model,
        granet_tf.MagnitudeAtInit(
            final_sparsity=0.5, scope="layer", pattern=granet_tf.Filter(coupled=True)
        ),
    )
    granet_tf.strip(sparse)
    small = granet_tf.compact(model)
    same_outputs(model, small, bert_tokens(rng))
    for name in ("transformer_layer_0", "transformer_layer_1"):
        layer = small.get_layer(name)
        assert (layer.num_heads, layer.intermediate_dim) == (2, 16)


def test_a_file_with_fewer_heads_says_that_it_needs_keras_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    monkeypatch.setitem(sys.modules, "keras_hub.layers", None)
    narrow_encoder.cache_clear()
    config = {"intermediate_dim": 4, "num_heads": 1, "head_size": 2}
    saved = {"class_name": "TransformerEncoder", "registered_name": "granet_tf>TransformerEncoder"}
    with pytest.raises(ImportError, match=r"`pip install keras-hub`. Received: .*keras_hub"):
        keras.saving.deserialize_keras_object(
            saved | {"module": "granet_tf.registered.narrow_attention", "config": config}
        )


def test_heads_of_an_encoder_stay_where_each_has_a_mask():
    keras_hub = pytest.importorskip("keras_hub")
    inputs, mask = keras.Input((4, 8)), keras.Input((2, 4, 4), dtype="bool")
    encoder = keras_hub.layers.TransformerEncoder(12, 2, name="encoder")
    model = keras.Model([inputs, mask], encoder(inputs, attention_mask=mask))
    assert compaction.explain(model).opaque == (("encoder", "its mask has an axis for heads"),)


def test_decoders_and_cached_attention_of_keras_hub(rng):
    keras_hub = pytest.importorskip("keras_hub")
    a, b = keras.Input((4, 8)), keras.Input((3, 8))
    x = keras_hub.layers.TransformerDecoder(12, 2, name="decoder")(a, b)
    attention = keras_hub.layers.CachedMultiHeadAttention(4, 2, name="attention")
    model = keras.Model([a, b], attention(x, x))
    fill(model, rng)
    decoder = model.get_layer("decoder")
    silence(decoder._feedforward_intermediate_dense, outputs=[0, 3, 5])
    silence_values(attention, [2])
    small = granet_tf.compact(model)
    same_outputs(model, small, [rng.normal(size=(2, 4, 8)), rng.normal(size=(2, 3, 8))])
    assert small.get_layer("decoder").intermediate_dim == 9
    assert "heads stay" in dict(compaction.explain(model).opaque)["decoder"]
    assert small.get_layer("attention").num_heads == 3


def test_averages_over_channels_are_named(rng):
    for norm in ("LayerNormalization", "RMSNormalization", "UnitNormalization"):
        model = sequential((4,), layers.Dense(4, name="a"), getattr(layers, norm)(name="norm"))
        [(name, reason)] = compaction.explain(model).opaque
        assert (name, reason.split(",")[0]) == ("norm", "it averages over channels")
