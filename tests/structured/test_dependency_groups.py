"""Which channels can only be removed together, worked out by hand."""

import keras
import numpy as np

from granet_tf.structured.dependency_groups import dependencies

layers = keras.layers


def groups(model, *names):
    """{(layer, output)} by group, of the kernels of these layers."""
    members = dependencies(model).members()
    found = {}
    for name in names:
        layer = model.get_layer(name)
        kernel = getattr(layer, "kernel", None)
        kernel = layer.embeddings if kernel is None else kernel
        for output, channel in enumerate(members[id(kernel)].ids):
            found.setdefault(int(channel), set()).add((name, output))
    return sorted(map(sorted, found.values()))


def reasons(model):
    """{layer: why its kernel can't be removed}."""
    found = dependencies(model)
    return {
        layer.name: found.why_not(layer.kernel)
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "kernel", None) is not None
    }


def conv(filters, name, **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)


def ended(x, *inputs):
    return keras.Model(list(inputs), layers.Dense(2, name="head")(layers.Flatten()(x)))


def test_the_branches_of_an_addition_go_together():
    inputs = keras.Input((4, 4, 2))
    first = conv(2, "first")(inputs)
    second = layers.ReLU()(layers.BatchNormalization()(conv(2, "second")(first)))
    model = ended(layers.Add()([first, second]), inputs)
    assert groups(model, "first", "second") == [
        [("first", 0), ("second", 0)],
        [("first", 1), ("second", 1)],
    ]
    assert reasons(model)["head"] == "it is an output of the model"
    assert reasons(model)["first"] is None


def test_a_concatenation_ties_what_is_added_to_it():
    inputs = keras.Input((4, 4, 2))
    parts = [conv(1, "one")(inputs), conv(2, "two")(inputs)]
    model = ended(layers.Add()([layers.Concatenate()(parts), conv(3, "all")(inputs)]), inputs)
    assert groups(model, "one", "two", "all") == [
        [("all", 0), ("one", 0)],
        [("all", 1), ("two", 0)],
        [("all", 2), ("two", 1)],
    ]


def test_groups_of_a_convolution_lose_a_filter_each():
    inputs = keras.Input((4, 4, 4))
    x = conv(4, "before")(inputs)
    model = ended(conv(4, "grouped", groups=2)(x), inputs)
    assert groups(model, "before", "grouped") == [
        [("before", 0), ("before", 2)],
        [("before", 1), ("before", 3)],
        [("grouped", 0), ("grouped", 2)],
        [("grouped", 1), ("grouped", 3)],
    ]


def test_a_gate_goes_with_what_it_multiplies():
    inputs = keras.Input((4, 4, 2))
    x = conv(2, "body")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(2, 1, activation="sigmoid", name="gate")(gate)
    model = ended(layers.Multiply()([x, gate]), inputs)
    assert groups(model, "body", "gate") == [
        [("body", 0), ("gate", 0)],
        [("body", 1), ("gate", 1)],
    ]
    # Alone, a sigmoid leaves 0.5, which whoever reads it would miss.
    inputs = keras.Input((3,))
    x = layers.Dense(4, activation="sigmoid", name="half")(inputs)
    alone = keras.Model(inputs, layers.Dense(2, name="head")(x))
    assert reasons(alone)["half"] == "'head' reads it, and it is not 0 without weights"


def test_a_depthwise_convolution_passes_channels_on():
    inputs = keras.Input((4, 4, 2))
    x = conv(2, "before")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depth")(x)
    model = ended(x, inputs)
    assert groups(model, "before", "depth") == [
        [("before", 0), ("depth", 0), ("depth", 1)],
        [("before", 1), ("depth", 2), ("depth", 3)],
    ]


def test_shared_layers_and_embeddings():
    shared = layers.Dense(2, name="shared")
    inputs = [keras.Input((3,)), keras.Input((3,))]
    x = layers.Add()([shared(inputs[0]), shared(inputs[1])])
    table = layers.Embedding(5, 2, name="table")
    tokens = keras.Input((), dtype="int32")
    x = layers.Add()([x, table(tokens)])
    model = keras.Model([*inputs, tokens], layers.Dense(1, name="head")(x))
    assert groups(model, "shared", "table") == [
        [("shared", 0), ("table", 0)],
        [("shared", 1), ("table", 1)],
    ]


def test_what_stays_is_named():
    inputs = keras.Input((4, 4, 3))
    x = conv(3, "skip")(inputs)
    x = layers.Add()([x, inputs])
    y = layers.LayerNormalization(name="norm")(conv(4, "normed")(x))
    model = ended(conv(5, "free")(y), inputs)
    found = reasons(model)
    assert found["skip"] == "it is joined with channels that can't be removed"
    assert found["normed"].startswith("'norm' reads it, which stays as it is: ")
    assert found["free"] is None


def test_channels_of_a_weight_that_stays_hold_those_of_others():
    inputs = keras.Input((4, 4, 2))
    pair = [conv(1, "free")(inputs), conv(1, "held")(inputs)]
    model = ended(layers.Add()([layers.Concatenate()(pair), conv(2, "sum")(inputs)]), inputs)
    found = dependencies(model)
    kernel = model.get_layer("held").kernel
    fixed = found.without({id(kernel): "because"})
    # "sum" would lose the filter that is tied to "held", so it loses none, nor does "free".
    for name in ("held", "sum", "free"):
        assert fixed.why_not(model.get_layer(name).kernel) == "because"
        assert found.why_not(model.get_layer(name).kernel) is None


def test_transposed_and_separable_convolutions():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2DTranspose(3, 2, name="up")(inputs)
    x = layers.SeparableConv2D(3, 3, depth_multiplier=2, padding="same", name="separable")(x)
    model = ended(x, inputs)
    members = dependencies(model).members()
    up, separable = model.get_layer("up"), model.get_layer("separable")
    own = members[id(up.kernel)].ids
    np.testing.assert_array_equal(members[id(separable.depthwise_kernel)].ids, np.repeat(own, 2))
    assert not set(members[id(separable.pointwise_kernel)].ids) & set(own)
