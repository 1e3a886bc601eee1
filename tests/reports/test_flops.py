"""FLOPs of layers and models, against the paper's table and numbers worked out by hand."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import granet_tf
from granet_tf.masks import distributions
from granet_tf.reports import flops
from granet_train import models
from tests.support import resnet50
from tests.support.keras_versions import NORMALIZES_SEVERAL_AXES


def sequential(input_shape, *stack):
    return keras.Sequential([keras.Input(input_shape), *stack])


def dense_by_layer(report):
    return {row.layer.split("/")[-1]: row.dense for row in report.rows}


def first_nonzero(shape, count):
    """True in the first `count` elements."""
    return (np.arange(np.prod(shape)) < count).reshape(shape)


def set_nonzeros(variable, count):
    variable.assign(first_nonzero(variable.shape, count).astype("float32"))


def masked(model, masks):
    """Wraps `model` mask-only, so that weights keep their values; {path of weight: mask}."""
    sparse = granet_tf.wrap(model, mask_only=True)
    for pruned in sparse.pruned:
        pruned.mask.assign(masks[pruned.path])
    return sparse


# ResNet-50 v1.5: Table 10 of the paper


@pytest.fixture(scope="module")
def resnet():
    model = models.make("resnet50", (224, 224, 3), 1000)
    # Random weights are exactly 0 once in a while.
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape, "float32"))
    return model


@pytest.fixture(scope="module")
def resnet_report(resnet):
    return flops.count_flops(resnet)


def test_resnet50_has_the_papers_kernels(resnet):
    kernels = {v.path.split("/")[-2]: v.shape for v in resnet.weights if v.name == "kernel"}
    assert kernels == {name: shape for name, shape, _ in resnet50.KERNELS}
    assert len(kernels) == 54
    assert sum(np.prod(shape) for shape in kernels.values()) == 25_502_912
    assert sum(np.prod(s) for name, s in kernels.items() if name != "head") == 23_454_912


def test_resnet50_costs_what_the_paper_says(resnet_report):
    by_layer = dense_by_layer(resnet_report)
    assert by_layer.pop("head") == 4_096_000
    assert by_layer.pop("pool") == 200_704
    assert sum(by_layer.values()) == 8_174_272_512
    assert resnet_report.dense == 8_178_569_216
    assert resnet_report.sparse == 8_178_569_216
    assert resnet_report.ratio == 1.0


def test_resnet50_costs_this_much_in_each_layer(resnet_report):
    by_layer = dense_by_layer(resnet_report)
    expected = {name: 2 * np.prod(shape) * hw**2 for name, shape, hw in resnet50.KERNELS}
    expected["pool"] = 200_704
    assert by_layer == expected
    # As printed in Table 10.
    assert by_layer["stage1_block1_conv2"] == 231_211_008
    assert by_layer["stage1_block1_conv3"] == 102_760_448
    assert by_layer["stage2_block1_conv1"] == 205_520_896


@pytest.mark.parametrize(("sparsity", "ratio"), [(0.8, 0.4138), (0.9, 0.2418)])
def test_resnet50_with_erk_masks_costs_the_published_fraction(resnet, sparsity, ratio):
    shapes = {name: shape for name, shape, _ in resnet50.KERNELS}
    sparsities = distributions.erdos_renyi_kernel(shapes, sparsity)
    masks = {
        f"{name}/kernel": first_nonzero(shape, round(np.prod(shape) * (1 - sparsities[name])))
        for name, shape in shapes.items()
    }
    report = flops.count_flops(masked(resnet, masks))
    assert report.ratio == pytest.approx(ratio, abs=1e-4)


# Layers, by hand: 2 × multiply-adds


@pytest.mark.parametrize(
    ("input_shape", "layer", "expected"),
    [
        # 2 · kernel · positions
        ((8,), layers.Dense(3), 2 * 24),
        ((5, 8), layers.Dense(3), 2 * 24 * 5),
        ((5, 8), layers.EinsumDense("abc,cde->abde", (5, 4, 3)), 2 * 96 * 5),
        ((5, 8), layers.EinsumDense("...c,cd->...d", 4), 2 * 32 * 5),
        ((10, 3), layers.Conv1D(4, 3), 2 * 36 * 8),
        ((8, 8, 3), layers.Conv2D(4, 3), 2 * 108 * 36),
        ((8, 8, 3), layers.Conv2D(4, 3, strides=2, padding="same"), 2 * 108 * 16),
        ((8, 8, 3), layers.Conv2D(4, 3, dilation_rate=2), 2 * 108 * 16),
        ((3, 8, 8), layers.Conv2D(4, 3, data_format="channels_first"), 2 * 108 * 36),
        ((8, 8, 4), layers.Conv2D(6, 3, groups=2), 2 * 108 * 36),
        ((4, 4, 4, 2), layers.Conv3D(3, 2), 2 * 48 * 27),
        # Transposed: each input position meets the whole kernel.
        ((10, 3), layers.Conv1DTranspose(4, 3, strides=2), 2 * 36 * 10),
        ((8, 8, 3), layers.Conv2DTranspose(4, 3, strides=2), 2 * 108 * 64),
        ((4, 4, 4, 2), layers.Conv3DTranspose(3, 2), 2 * 48 * 64),
        ((10, 3), layers.DepthwiseConv1D(3, depth_multiplier=2), 2 * 18 * 8),
        ((8, 8, 3), layers.DepthwiseConv2D(3), 2 * 27 * 36),
        ((8, 8, 3), layers.DepthwiseConv2D(3, depth_multiplier=2), 2 * 54 * 36),
        # Depthwise and pointwise, both at the output's positions.
        ((10, 3), layers.SeparableConv1D(5, 3), 2 * (9 + 15) * 8),
        ((8, 8, 3), layers.SeparableConv2D(5, 3, depth_multiplier=2), 2 * (54 + 30) * 36),
        # 2 for each element that a window reads
        ((7, 7, 16), layers.GlobalAveragePooling2D(), 2 * 784),
        ((8, 8, 3), layers.AveragePooling2D(2), 2 * 192),
        ((8, 8, 3), layers.AveragePooling2D(3, strides=1), 2 * 9 * 108),
        ((9, 3), layers.AveragePooling1D(3), 2 * 27),
        # 2 · (kernel + recurrent kernel) · timesteps
        ((7, 5), layers.SimpleRNN(3), 2 * (15 + 9) * 7),
        ((7, 5), layers.LSTM(3), 2 * (60 + 36) * 7),
        ((7, 5), layers.LSTM(3, return_sequences=True, unroll=True), 2 * (60 + 36) * 7),
        ((7, 5), layers.GRU(3), 2 * (45 + 27) * 7),
        ((7, 5), layers.GRU(3, reset_after=False), 2 * (45 + 27) * 7),
        ((7, 5), layers.Bidirectional(layers.LSTM(3)), 2 * 2 * (60 + 36) * 7),
        (
            (7, 5),
            layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]),
            2 * (60 + 36 + 36 + 48) * 7,
        ),
        ((7, 5), layers.TimeDistributed(layers.Dense(3)), 2 * 15 * 7),
        # Free
        ((8, 8, 3), layers.BatchNormalization(), 0),
        ((8, 8, 3), layers.LayerNormalization(axis=(1, 2, 3)), 0),
        pytest.param(
            (8, 8, 3),
            layers.RMSNormalization(axis=(2, 3)),
            0,
            marks=pytest.mark.skipif(not NORMALIZES_SEVERAL_AXES, reason="Keras before 3.14"),
        ),
        ((8, 8, 3), layers.GroupNormalization(3), 0),
        ((8, 8, 3), layers.MaxPooling2D(), 0),
        ((8, 8, 3), layers.PReLU(), 0),
        ((8,), layers.Embedding(10, 4), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else None,
)
@pytest.mark.filterwarnings("error:Layer")
def test_a_layer_costs(input_shape, layer, expected):
    assert flops.count_flops(sequential(input_shape, layer)).dense == expected


def test_attention_costs_its_projections_and_its_two_products():
    query, value = keras.Input((6, 8)), keras.Input((9, 10))
    output = layers.MultiHeadAttention(2, 4, value_dim=3)(query, value)
    assert dense_by_layer(flops.count_flops(keras.Model([query, value], output))) == {
        "query": 2 * 8 * 8 * 6,
        "key": 2 * 10 * 8 * 9,
        "value": 2 * 10 * 6 * 9,
        "attention_output": 2 * 6 * 8 * 6,
        "multi_head_attention": 2 * 2 * 6 * 9 * (4 + 3),
    }


def test_attention_over_some_axes_costs_less():
    x = keras.Input((6, 7, 8))
    output = layers.MultiHeadAttention(2, 4, attention_axes=(2,))(x, x)
    report = flops.count_flops(keras.Model(x, output))
    # Each of the 42 positions attends to the 7 in its row.
    assert dense_by_layer(report)["multi_head_attention"] == 2 * 2 * 42 * 7 * (4 + 4)


def test_grouped_query_attention_costs_a_product_for_each_query_head():
    query, value = keras.Input((6, 8)), keras.Input((9, 8))
    output = layers.GroupQueryAttention(4, num_query_heads=4, num_key_value_heads=2)(query, value)
    report = flops.count_flops(keras.Model([query, value], output))
    assert dense_by_layer(report)["grouped_query_attention"] == 2 * 4 * 6 * 9 * (4 + 4)


def test_dot_product_attention_costs_its_two_products():
    query, value, key = keras.Input((6, 8)), keras.Input((9, 5)), keras.Input((9, 8))
    model = keras.Model([query, value, key], layers.Attention()([query, value, key]))
    assert flops.count_flops(model).dense == 2 * 6 * 9 * (8 + 5)


# Models of every kind


class Block(keras.layers.Layer):
    """A layer of layers, which it only makes when it is built."""

    def build(self, input_shape):
        self.dense = layers.Dense(4)
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(inputs)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.dropout = layers.Dropout(0.5, seed=1)
        self.normalization = layers.BatchNormalization()

    def call(self, inputs, training=None):
        outputs = self.block(self.dropout(inputs, training=training))
        return self.normalization(outputs, training=training)


def test_a_shared_layer_counts_once_for_each_call():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    report = flops.count_flops(keras.Model(inputs, shared(shared(shared(inputs)))))
    assert [(row.layer, row.calls, row.dense) for row in report.rows] == [("shared", 3, 96)]


def test_a_nested_model_counts_once_for_each_call():
    tower = keras.Sequential([layers.Conv2D(2, 3, name="conv"), layers.Flatten()], name="tower")
    left, right = keras.Input((5, 5, 1)), keras.Input((5, 5, 1))
    joined = layers.Concatenate()([tower(left), tower(right)])
    report = flops.count_flops(keras.Model([left, right], layers.Dense(3, name="top")(joined)))
    assert [(row.layer, row.calls, row.dense) for row in report.rows] == [
        ("tower/conv", 2, 2 * 2 * 18 * 9),
        ("top", 1, 2 * 36 * 3),
    ]


def test_a_built_subclassed_model_needs_no_input_shape():
    model = Subclassed()
    model(tf.ones((5, 7)))
    assert flops.count_flops(model).dense == 56


def test_a_model_that_is_not_built_gets_built():
    model = Subclassed()
    assert flops.count_flops(model, (7,)).dense == 56
    assert model.block.dense.kernel.shape == (7, 4)
    assert np.count_nonzero(model.block.dense.kernel) == 28


def test_input_shape_goes_before_the_shape_the_model_was_built_with():
    model = sequential((8, 8, 3), layers.Conv2D(4, 3))
    unknown = sequential((None, None, 3), layers.Conv2D(4, 3))
    assert flops.count_flops(model).dense == 2 * 108 * 36
    assert flops.count_flops(unknown, (10, 10, 3)).dense == 2 * 108 * 64


def test_inputs_in_a_dict_take_shapes_in_a_dict():
    x, y = keras.Input((None, 3), name="x"), keras.Input((None, 2), name="y")
    outputs = layers.Concatenate()([layers.Dense(4)(x), layers.Dense(4)(y)])
    model = keras.Model({"y": y, "x": x}, outputs)
    report = flops.count_flops(model, {"y": (6, 2), "x": (6, 3)})
    assert report.dense == 2 * (12 + 8) * 6


def test_a_dict_of_shapes_may_name_the_arguments_of_call():
    layer = layers.MultiHeadAttention(2, 4)
    expected = 2 * (8 * 8 * 6 + 8 * 8 * 9 + 8 * 8 * 9 + 8 * 8 * 6) + 2 * 2 * 6 * 9 * 8
    assert flops.count_flops(layer, {"query": (6, 8), "value": (9, 8)}).dense == expected
    assert flops.count_flops(layer).dense == expected


def test_flops_of_a_stateful_model_are_for_one_sample():
    model = keras.Sequential([keras.Input((7, 5), batch_size=4), layers.LSTM(3, stateful=True)])
    assert flops.count_flops(model).dense == 2 * (60 + 36) * 7


def test_layers_inside_a_tf_function_count_every_time():
    class Compiled(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        @tf.function
        def call(self, inputs):
            return self.dense(inputs)

    model = Compiled()
    model(tf.ones((1, 5)))
    assert [flops.count_flops(model).dense for _ in range(3)] == [30, 30, 30]
    assert not tf.config.functions_run_eagerly()


def test_quantized_layers_count():
    model = sequential((4,), layers.Dense(3))
    model.layers[0].quantize("int8")
    assert flops.count_flops(model).dense == 24


def test_a_model_in_mixed_precision_counts_the_same():
    dense = layers.Dense(3, dtype="mixed_bfloat16")
    assert flops.count_flops(sequential((4,), dense)).dense == 24


# Sparse FLOPs


def test_sparse_flops_are_those_of_nonzero_weights():
    model = sequential((8, 8, 3), layers.Conv2D(4, 3), layers.AveragePooling2D(6), layers.Dense(5))
    conv, _, dense = model.layers
    set_nonzeros(conv.kernel, 10)
    set_nonzeros(dense.kernel, 3)
    report = flops.count_flops(model)
    assert [(row.dense, row.sparse) for row in report.rows] == [
        (2 * 108 * 36, 2 * 10 * 36),
        (2 * 36 * 4, 2 * 36 * 4),
        (2 * 20, 2 * 3),
    ]
    assert (report.dense, report.sparse) == (8104, 1014)
    assert report.ratio == 1014 / 8104


def test_each_kernel_of_a_layer_counts_its_own_nonzeros():
    model = sequential((8, 8, 3), layers.SeparableConv2D(5, 3))
    set_nonzeros(model.layers[0].depthwise_kernel, 7)
    set_nonzeros(model.layers[0].pointwise_kernel, 2)
    (row,) = flops.count_flops(model).rows
    assert row.sparse == 2 * (7 + 2) * 36
    assert [path.split("/")[-1] for path in row.weights] == ["depthwise_kernel", "pointwise_kernel"]


def test_weights_behind_a_mask_do_not_count():
    model = sequential((4,), layers.Dense(3))
    kernel = model.layers[0].kernel
    set_nonzeros(kernel, 8)
    mask = np.arange(12).reshape(4, 3) % 2 == 0
    report = flops.count_flops(masked(model, {kernel.path: mask}))
    assert (report.dense, report.sparse) == (24, 2 * 4)


def test_weights_with_lora_count_as_they_are_multiplied():
    model = sequential((4,), layers.Dense(3))
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.zeros((2, 3)))
    set_nonzeros(model.layers[0]._kernel, 5)
    report = flops.count_flops(model)
    assert (report.dense, report.sparse) == (24, 10)


# The report


def test_a_report_prints_as_a_table():
    conv = layers.Conv2D(4, 3, name="conv")
    pool = layers.GlobalAveragePooling2D(name="pool")
    model = keras.Sequential([keras.Input((8, 8, 3)), conv, pool], name="net")
    set_nonzeros(conv.kernel, 54)
    assert str(flops.count_flops(model)).splitlines() == [
        "layer     weights  calls  dense FLOPs  sparse FLOPs   ratio",
        "net/conv  kernel       1        7,776         3,888  0.5000",
        "pool                   1          288           288  1.0000",
        "total                           8,064         4,176  0.5179",
    ]


def test_a_model_without_flops_has_an_empty_report():
    report = flops.count_flops(sequential((4,), layers.ReLU()))
    assert (report.rows, report.dense, report.sparse, report.ratio) == ((), 0, 0, 1.0)


# Counting changes nothing


def assert_unchanged_by_counting(model):
    weights = [(v.path, np.array(v)) for v in model.variables]
    attributes = {id(layer): dict(vars(layer)) for layer in model._flatten_layers()}
    flops.count_flops(model)
    assert [v.path for v in model.variables] == [path for path, _ in weights]
    for variable, (_, before) in zip(model.variables, weights, strict=True):
        np.testing.assert_array_equal(variable, before)
    for layer in model._flatten_layers():
        assert vars(layer).keys() == attributes[id(layer)].keys()
        assert "call" not in vars(layer)


def test_weights_statistics_and_seeds_stay_as_they_are():
    model = Subclassed()
    model.compile("adam", "mse")
    model.fit(np.ones((8, 7)), np.ones((8, 4)), verbose=0)
    assert_unchanged_by_counting(model)


def test_recurrent_states_stay_as_they_are():
    model = keras.Sequential([keras.Input((7, 5), batch_size=4), layers.LSTM(3, stateful=True)])
    model(tf.ones((4, 7, 5)))
    assert_unchanged_by_counting(model)


def test_the_graph_of_a_functional_model_stays_as_it_is():
    inputs = keras.Input((4,))
    dense = layers.Dense(4, activity_regularizer="l2")
    model = keras.Model(inputs, dense(dense(inputs)))
    flops.count_flops(model)
    assert len(dense._inbound_nodes) == 2
    assert model.losses == []
    assert model(tf.ones((2, 4))).shape == (2, 4)
    assert len(model.losses) == 2


def test_the_training_step_that_is_already_compiled_still_runs():
    model = Subclassed()
    model.compile("sgd", "mse")
    x, y = np.ones((8, 7)), np.ones((8, 4))
    model.fit(x, y, verbose=0)
    flops.count_flops(model)
    before = np.array(model.block.dense.kernel)
    model.fit(x, y, verbose=0)
    assert not np.array_equal(model.block.dense.kernel, before)


def test_a_failed_count_changes_nothing_either():
    model = sequential((4,), DataDependent(), layers.Dense(3))
    with pytest.raises(ValueError, match="depends on the data"):
        flops.count_flops(model)
    assert all("call" not in vars(layer) for layer in model._flatten_layers())
    assert not tf.config.functions_run_eagerly()


# Errors and warnings


class DataDependent(layers.Layer):
    def call(self, inputs):
        return tf.reshape(tf.boolean_mask(inputs, inputs > 0), (-1, 4))

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (Subclassed, "None"),
        (lambda: keras.Sequential([layers.Dense(3)]), "None"),
        (lambda: sequential((None, None, 3), layers.Conv2D(4, 3)), "[(None, None, 3)]"),
        (lambda: sequential((None, 5), layers.LSTM(3)), "[(None, 5)]"),
    ],
)
def test_an_unknown_input_shape_raises(make, known):
    message = (
        "Argument `input_shape` must be given, because the model does not know the shape of its "
        "input in full. Pass the shape of one sample, without the batch dimension. "
        f"Received: input_shape=None, known from the model: {known}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flops.count_flops(make())


@pytest.mark.parametrize("input_shape", [(1, 8, 8, 3), [(8, 8, 3), (8, 8, 3)]])
def test_an_input_shape_that_does_not_fit_raises(input_shape):
    message = (
        "Argument `input_shape` must fit the inputs of the model without their batch dimension, "
        f"[(None, 8, 8, 3)]. Received: input_shape={input_shape}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flops.count_flops(sequential((8, 8, 3), layers.Conv2D(4, 3)), input_shape)


def test_a_shape_that_depends_on_the_data_raises():
    model = sequential((4,), DataDependent(), layers.Dense(3, name="dense"))
    message = (
        f"The FLOPs of layer '{model.layers[1].path}' cannot be counted: a shape depends on the "
        "data. Received: shape=(None, 3)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flops.count_flops(model)


def test_a_layer_without_a_rule_warns_until_it_has_one():
    class Custom(layers.Layer):
        def build(self, input_shape):
            self.matrix = self.add_weight(shape=(input_shape[-1], 3))

        def call(self, inputs):
            return tf.matmul(inputs, self.matrix)

    model = sequential((4,), Custom(name="custom"))
    message = (
        f"Layer '{model.layers[0].path}' counts as 0 FLOPs: there is no rule for a Custom. "
        "Add one with `layer_flops.register`."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        assert flops.count_flops(model).dense == 0

    @flops.layer_flops.register
    def _(layer: Custom, call):
        return [(layer.matrix, 2 * 3 * call.size(call.input))]

    assert flops.count_flops(model).dense == 24
