"""Compaction must not change outputs, and must remove exactly what is dead."""

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf import compaction
from granet_tf.compaction.convolutions import padded_taps
from granet_train.networks.resnet import resnet20
from granet_train.networks.vgg import vgg19
from tests.support.compacting import (
    compacted,
    fill,
    kept,
    same_outputs,
    sequential,
    silence,
)
from tests.support.models import subclassed
from tests.support.random_graphs import RandomGraph

layers = keras.layers


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(24))
def test_outputs_of_random_graphs(seed):
    model, x = RandomGraph(seed).model()
    small = granet_tf.compact(model)
    same_outputs(model, small, x)
    sizes = {row.layer: row.kept for row in compaction.explain(model).rows}
    for layer in small._flatten_layers(include_self=False):
        if layer.name in sizes and hasattr(layer, "filters"):
            assert layer.filters == sizes[layer.name]
    # Nothing that is left is dead any more, but for what had to stay.
    assert granet_tf.compact(small).count_params() == small.count_params()


def test_dead_units_and_unused_ones(rng):
    model = sequential(
        (4,),
        layers.Dense(6, "sigmoid", name="a"),
        layers.Dense(5, "softplus", name="b"),
        layers.Dense(2, name="c"),
    )
    fill(model, rng, zero=[("a", [0, 5])])  # constant: sigmoid(bias)
    silence(model.get_layer("b"), inputs=[1])  # nobody uses it
    silence(model.get_layer("c"), inputs=[4])  # and so does the last unit of b
    small = compacted(model, rng)
    assert [layer.units for layer in small.layers] == [3, 4, 2]
    assert small.count_params() == (4 * 3 + 3) + (3 * 4 + 4) + (4 * 2 + 2)
    a, b = (m.get_layer("a") for m in (model, small))
    np.testing.assert_array_equal(b.kernel.numpy(), a.kernel.numpy()[:, [2, 3, 4]])


def test_constants_fold_into_the_next_bias(rng):
    model = sequential(
        (2,), layers.Dense(2, "sigmoid", name="a"), layers.Dense(1, use_bias=False, name="b")
    )
    model.get_layer("a").set_weights([np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([0.5, 3.0])])
    model.get_layer("b").set_weights([np.array([[4.0], [5.0]])])
    small = compacted(model, rng)
    assert small.get_layer("b").use_bias
    expected = 5.0 / (1.0 + np.exp(-3.0))
    np.testing.assert_allclose(small.get_layer("b").bias.numpy(), [expected], rtol=1e-6)


def test_death_spreads_in_both_directions(rng):
    model = sequential((3,), *[layers.Dense(4, "relu", name=name) for name in "abcd"])
    fill(model, rng)
    # b's first unit has only a's first for input, and c's first only b's first.
    silence(model.get_layer("a"), outputs=[0])
    for name in "bc":
        layer = model.get_layer(name)
        kernel = layer.kernel.numpy()
        kernel[1:, 0] = 0
        layer.kernel.assign(kernel)
    # Nothing but c's second unit reads b's fourth, and nothing reads that one.
    kernel = model.get_layer("c").kernel.numpy()
    kernel[3, [0, 2, 3]] = 0
    model.get_layer("c").kernel.assign(kernel)
    silence(model.get_layer("d"), inputs=[1])
    small = compacted(model, rng)
    assert [layer.units for layer in small.layers] == [3, 2, 2, 4]


@pytest.mark.parametrize(
    ("padding", "left"), [("valid", 4), ("same", 5)], ids=["folds", "one carries all"]
)
def test_constants_and_padding(rng, padding, left):
    model = sequential(
        (6, 6, 2),
        layers.Conv2D(8, 3, name="a"),
        layers.BatchNormalization(name="norm"),
        layers.Activation("softplus"),
        layers.MaxPooling2D(2),
        layers.Conv2D(3, 3, padding="same", name="b")
        if padding == "same"
        else layers.Conv2D(3, 2, name="b"),
    )
    fill(model, rng, zero=[("a", [0, 2, 4, 6])])
    small = compacted(model, rng)
    assert small.get_layer("a").filters == left
    assert small.get_layer("norm").gamma.shape == (left,)
    report = compaction.explain(model)
    reasons = [(x.layer, x.channels, "zero padding" in x.reason) for x in report.left]
    assert ([("a", 1, True)] in (reasons[:1],)) == (padding == "same")


def test_a_zero_constant_passes_padding(rng):
    model = sequential(
        (6, 6, 2),
        layers.Conv2D(4, 3, use_bias=False, padding="same", name="a"),
        layers.ReLU(),
        layers.ZeroPadding2D(1),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise"),
        layers.Conv2D(3, 3, padding="same", name="b"),
    )
    fill(model, rng, zero=[("a", [1, 2])])
    small = compacted(model, rng)
    assert small.get_layer("depthwise").kernel.shape == (3, 3, 2, 1)
    assert small.get_layer("b").kernel.shape == (3, 3, 2, 3)


def test_constants_in_a_frame_of_zeros(rng):
    model = sequential(
        (6, 6, 2),
        layers.Conv2D(6, 3, activation="sigmoid", name="a"),
        layers.ZeroPadding2D(2),
        layers.Conv2D(3, 3, name="b"),
    )
    fill(model, rng, zero=[("a", [1, 2, 4])])
    # In the frame there are zeros, so that one of the three carries the others.
    assert compacted(model, rng).get_layer("a").filters == 4


def test_constants_that_a_padded_depthwise_convolution_spoils(rng):
    model = sequential(
        (6, 6, 2),
        layers.Conv2D(4, 3, activation="sigmoid", name="a"),
        layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
        layers.Conv2D(3, 1, name="b"),
    )
    fill(model, rng, zero=[("a", [1, 2])])
    assert compacted(model, rng).count_params() == model.count_params()
    [left] = compaction.explain(model).left
    assert left.reason == "'depthwise' makes its constant differ from position to position"


def test_taps_that_meet_no_padding_carry_constants(rng):
    model = sequential(
        (5, 5, 2),
        layers.Conv2D(4, 1, activation="sigmoid", name="a"),
        layers.Conv2D(3, 3, padding="same", name="b"),
    )
    fill(model, rng, zero=[("a", [0])])
    kernel = np.zeros((3, 3, 4, 3))
    kernel[1, 1] = rng.normal(size=(4, 3))
    kernel[:, :, 1:] = rng.normal(size=(3, 3, 3, 3))
    model.get_layer("b").kernel.assign(kernel)
    assert compacted(model, rng).get_layer("a").filters == 3


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "causal"])
def test_which_taps_meet_padding(window, stride, padding):
    # A tap meets padding if the convolution of ones with that tap alone is 0 somewhere.
    for size in (4, 7):
        met = [
            bool(
                (
                    keras.ops.conv(
                        np.pad(np.ones((1, size, 1)), [(0, 0), (window - 1, 0), (0, 0)])[
                            :, (0 if padding == "causal" else window - 1) :
                        ],
                        np.eye(window)[tap].reshape(window, 1, 1),
                        strides=stride,
                        padding="valid" if padding == "causal" else padding,
                    ).numpy()
                    == 0
                ).any()
            )
            for tap in range(window)
        ]
        ours = padded_taps(size, window, stride, 1, padding)
        # "Causal" is known to pad whatever the stride.
        np.testing.assert_array_equal(ours, met)
        assert (padded_taps(None, window, stride, 1, padding) >= ours).all()


def test_residual_branches_are_tied(rng):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="a")(inputs)
    y = layers.Conv2D(6, 3, padding="same", use_bias=False, name="b")(layers.ReLU()(x))
    x = layers.ReLU()(layers.Add(name="sum")([x, y]))
    outputs = layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    fill(model, rng, zero=[("a", [0, 1, 2]), ("b", [1, 2, 3])])
    silence(model.get_layer("head"), inputs=[5])
    small = compacted(model, rng)
    # Dead in both: 1 and 2. The sum's last channel is not used, but b reads a's.
    assert kept(model) == {"a": 4, "b": 4, "head": 2}
    assert small.get_layer("sum").output.shape == (None, 6, 6, 4)
    left = [(x.layer, x.channels, x.reason) for x in compaction.explain(model).left]
    assert left[0] == ("a", 1, "'sum' joins it with channels that are not dead")
    assert ("b", 1, "it is tied to channels that 'b' reads") in left


def test_concatenation_flattening_and_reshaping(rng):
    inputs = keras.Input((4, 4, 2))
    a = layers.Conv2D(4, 3, activation="sigmoid", name="a")(inputs)
    b = layers.Conv2D(3, 3, activation="relu", name="b")(inputs)
    x = layers.Concatenate(name="both")([a, b])
    x = layers.Reshape((4, 7), name="reshape")(x)
    x = layers.Flatten()(layers.Permute((2, 1))(x))
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    fill(model, rng, zero=[("a", [0, 3]), ("b", [1])])
    small = compacted(model, rng)
    assert kept(model) == {"a": 2, "b": 2, "head": 2}
    assert small.get_layer("reshape").target_shape == (4, 4)
    assert small.get_layer("head").kernel.shape == (4 * 4, 2)
    # Flattened after a permutation, what belongs to a channel stands together.
    original = model.get_layer("head").kernel.numpy().reshape(7, 4, 2)[[1, 2, 4, 6]]
    np.testing.assert_array_equal(small.get_layer("head").kernel.numpy(), original.reshape(16, 2))


def test_flattened_channels_go_only_if_unused_at_all_positions(rng):
    model = sequential(
        (4, 4, 1), layers.Conv2D(3, 3, name="a"), layers.Flatten(), layers.Dense(2, name="head")
    )
    fill(model, rng)
    # Of 2 × 2 positions: channel 0 unused everywhere, channel 1 everywhere but in one.
    silence(model.get_layer("head"), inputs=[0, 3, 6, 9, 1, 4, 7])
    assert compacted(model, rng).get_layer("a").filters == 2


def test_grouped_convolutions_stay_even(rng):
    model = sequential(
        (5, 5, 2),
        layers.Conv2D(8, 3, use_bias=False, name="a"),
        layers.Conv2D(8, 3, groups=4, use_bias=False, name="grouped"),
        layers.Flatten(),
        layers.Dense(2, name="head"),
    )
    # Group 0 is dead, both inputs and outputs; of group 1 one input, of 2 and 3 one output each.
    fill(model, rng, zero=[("a", [0, 1, 2]), ("grouped", [0, 1, 4, 6])])
    small = compacted(model, rng)
    grouped = small.get_layer("grouped")
    assert (grouped.groups, grouped.filters) == (3, 6)
    assert small.get_layer("a").filters == 6
    silence(model.get_layer("grouped"), outputs=[2])
    grouped = compacted(model, rng).get_layer("grouped")
    assert (grouped.groups, grouped.filters, grouped.kernel.shape) == (3, 3, (3, 3, 2, 3))


def test_nothing_is_emptied(rng):
    model = sequential(
        (5, 5, 2),
        layers.Conv2D(8, 3, name="a"),
        layers.Conv2D(8, 3, groups=4, name="grouped"),
        layers.GlobalMaxPooling2D(),
        layers.Dense(3, name="head"),
    )
    fill(model, rng, zero=[("a", range(8)), ("grouped", range(8)), ("head", range(3))])
    small = compacted(model, rng)
    assert kept(model) == {"a": 1, "grouped": 1, "head": 3}
    assert small.output_shape == (None, 3)


def test_shared_layers_and_models_inside(rng):
    encoder = sequential(
        (6,), layers.Dense(8, "sigmoid", name="first"), layers.Dense(5, name="second")
    )
    encoder.name = "encoder"
    left, right = keras.Input((6,)), keras.Input((6,))
    joined = layers.Subtract()([encoder(left), encoder(right)])
    model = keras.Model([left, right], layers.Dense(1, name="head")(joined))
    fill(encoder, rng, zero=[("second", [1])])
    fill(model.get_layer("head"), rng)
    silence(encoder.get_layer("second"), inputs=[0, 1, 2])
    small = granet_tf.compact(model)
    x = list(rng.normal(size=(2, 4, 6)))
    same_outputs(model, small, x)
    inner = small.get_layer("encoder")
    # The second layer's dead unit adds its bias twice, as a difference: nothing.
    assert [layer.units for layer in inner.layers] == [5, 4]
    assert inner.output_shape == (None, 4)


def test_what_it_cannot_see_through_is_named(rng):
    model = sequential(
        (6, 4),
        layers.Dense(8, "relu", name="before"),
        layers.LayerNormalization(name="norm"),
        layers.Dense(5, name="after"),
        layers.RNN(layers.GRUCell(3), name="gru"),
    )
    fill(model, rng, zero=[("before", [0]), ("after", [1, 2])])
    small = compacted(model, rng)
    assert small.count_params() == model.count_params()
    report = compaction.explain(model)
    assert dict(report.opaque).keys() == {"norm", "gru"}
    assert [(x.layer, x.channels) for x in report.left] == [("before", 1), ("after", 2)]
    assert "'gru' reads it" in report.left[1].reason
    assert "left in 'after': 2, because 'gru' reads it" in str(report)


@keras.saving.register_keras_serializable("tests")
class Renamed(layers.Dense):
    """A dense layer like any other."""


@keras.saving.register_keras_serializable("tests")
class Shifted(layers.Dense):
    """One that computes something else."""

    def call(self, inputs):
        return super().call(inputs) + 1.0


def test_subclasses_follow_their_base_unless_they_override(rng):
    for kind, units in [(Renamed, 3), (Shifted, 4)]:
        model = sequential((3,), kind(4, name="a"), layers.Dense(2, name="b"))
        fill(model, rng, zero=[("a", [1])])
        small = compacted(model, rng)
        assert type(small.get_layer("a")) is kind
        assert small.get_layer("a").units == units


def small_base():
    """A convolution, a separable block and what is between them, as networks for transfer have."""
    inputs = keras.Input((10, 10, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="depthwise_norm")(x))
    x = layers.Conv2D(12, 1, use_bias=False, name="pointwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="pointwise_norm")(x))
    return keras.Model(inputs, layers.Dropout(0.5, name="drop")(x), name="base")


def transfer(base, call):
    inputs = keras.Input((10, 10, 3))
    x = layers.GlobalAveragePooling2D()(call(base, inputs))
    return keras.Model(inputs, layers.Dense(5, name="head")(x))


def silence_base(base):
    silence(base.get_layer("stem"), outputs=[0, 2, 5])
    silence(base.get_layer("pointwise"), outputs=range(8))


def inside(base, x):
    inner = keras.Input(x.shape[1:])
    return keras.Model(inner, base(inner, training=False))(x, training=False)


# Five channels of the stem are left, and four of the last convolution, which gets a bias for what
# was constant before it.
TRANSFER_PARAMETERS = (27 * 5 + 4 * 5) + (9 * 5 + 4 * 5) + (5 * 4 + 4 + 4 * 4) + (4 * 5 + 5)
TRANSFER_CALLS = {
    "no keyword": lambda base, x: base(x),
    "training=False": lambda base, x: base(x, training=False),
    "training=None": lambda base, x: base(x, training=None),
    "mask=None": lambda base, x: base(x, mask=None),
    "inputs=": lambda base, x: base(inputs=x, training=False),
    "one in another": inside,
    "sequential": lambda base, x: keras.Sequential([keras.Input(x.shape[1:]), base])(
        x, training=False
    ),
}


@pytest.mark.parametrize("call", TRANSFER_CALLS.values(), ids=TRANSFER_CALLS)
def test_keywords_that_change_nothing_are_no_obstacle(rng, call):
    base = small_base()
    model = transfer(base, call)
    fill(model, rng)
    silence_base(base)
    assert compacted(model, rng).count_params() == TRANSFER_PARAMETERS
    assert compaction.explain(model).opaque == ()


def test_a_model_inside_is_called_as_before(rng):
    base = small_base()
    model = transfer(base, TRANSFER_CALLS["training=False"])
    fill(model, rng)
    silence_base(base)
    small = compacted(model, rng)
    [node] = small.get_layer("base")._inbound_nodes
    assert node.arguments.kwargs["training"] is False


@pytest.mark.parametrize("entry", ["wrap", "prune_low_magnitude"])
def test_a_pruned_model_with_a_frozen_base(rng, entry):
    base = small_base()
    model = transfer(base, TRANSFER_CALLS["training=False"])
    fill(model, rng)
    silence_base(base)
    if entry == "wrap":
        masked = granet_tf.wrap(model, granet_tf.StaticSparse(0.0), prunable=["*head/kernel"])
    else:
        masked = granet_tf.sparsity.keras.prune_low_magnitude(
            model, granet_tf.sparsity.keras.ConstantSparsity(0.5, 0)
        )
    small = granet_tf.compact(masked)
    same_outputs(model, small, rng.normal(size=(4, 10, 10, 3)))
    assert small.count_params() == TRANSFER_PARAMETERS


def test_several_inputs_and_a_keyword(rng):
    left, right = keras.Input((4,), name="x"), keras.Input((3,), name="y")
    joined = layers.Add()([layers.Dense(6, name="a")(left), layers.Dense(6, name="b")(right)])
    base = keras.Model({"x": left, "y": right}, joined)
    x, y = keras.Input((4,)), keras.Input((3,))
    model = keras.Model([x, y], layers.Dense(2, name="c")(base({"x": x, "y": y}, training=False)))
    fill(model, rng, zero=[])
    for name in "ab":
        silence(base.get_layer(name), outputs=[1, 4])
    small = granet_tf.compact(model)
    same_outputs(model, small, [rng.normal(size=(4, 4)), rng.normal(size=(4, 3))])
    assert small.count_params() == (4 * 4 + 4) + (3 * 4 + 4) + (4 * 2 + 2)


def test_what_training_changes_is_named_and_nothing_else(rng):
    base = small_base()
    model = transfer(base, lambda base, x: base(x, training=True))
    fill(model, rng)
    silence_base(base)
    report = compaction.explain(model)
    reason = "it is called with training=True"
    # No channels that could go reach the one between them.
    assert dict(report.opaque) == {"stem_norm": reason, "pointwise_norm": reason}
    assert granet_tf.compact(model).count_params() == model.count_params()
    # A keyword of the model outside goes before those inside it, as in Keras.
    outer = transfer(
        base,
        lambda base, x: keras.Model(i := keras.Input(x.shape[1:]), base(i, training=True))(
            x, training=False
        ),
    )
    fill(outer.get_layer("head"), rng)
    assert compacted(outer, rng).count_params() == TRANSFER_PARAMETERS


def test_training_is_no_obstacle_for_what_it_does_not_change(rng):
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="a")(inputs, training=True)
    x = layers.Dense(5, name="b")(layers.ReLU()(x))
    inner = keras.Model(inputs, x, name="inner")
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(2, name="c")(inner(inputs, training=True)))
    fill(model, rng)
    silence(inner.get_layer("a"), outputs=[0, 1, 2])
    assert compacted(model, rng).count_params() == (6 * 5 + 5) + (5 * 5 + 5) + (5 * 2 + 2)


def test_a_model_that_another_model_calls_otherwise(rng):
    base = small_base()
    model = transfer(base, TRANSFER_CALLS["training=False"])
    fill(model, rng)
    silence_base(base)
    transfer(base, lambda base, x: base(x, training=True))
    assert compacted(model, rng).count_params() == TRANSFER_PARAMETERS


def test_a_mask_for_a_model_inside_is_named(rng):
    inputs = keras.Input((5,))
    embedded = layers.Embedding(6, 4, mask_zero=True, name="table")(inputs)
    inner = keras.Input((5, 4))
    base = keras.Model(inner, layers.Dense(3, name="dense")(inner), name="base")
    model = keras.Model(inputs, layers.Dense(2, name="head")(base(embedded)))
    fill(model, rng)
    assert compaction.explain(model).opaque == (("base", "it is called with `mask`"),)


def test_what_is_read_first_is_named_too(rng):
    """Nothing before it is held back, but what is in it."""
    model = sequential((3,), Shifted(4, name="a"), layers.Dense(2, name="b"))
    fill(model, rng, zero=[("a", [1])])
    assert dict(compaction.explain(model).opaque) == {"a": "Shifted overrides something of Dense"}


def test_a_product_with_a_mask_is_no_constant(rng):
    """Keras's Multiply leaves a factor out where its mask hides a position."""
    tokens, other = keras.Input((5,)), keras.Input((5, 4))
    table = layers.Embedding(6, 4, mask_zero=True, name="table")
    x = layers.Multiply(name="product")([table(tokens), layers.Dense(4, name="dense")(other)])
    model = keras.Model([tokens, other], layers.Conv1D(3, 1, name="head")(x))
    fill(model, rng)
    table.embeddings.assign(table.embeddings * np.array([0.0, 1, 1, 1]))
    x = [np.array([[1, 2, 0, 0, 3]]), rng.normal(size=(1, 5, 4))]
    same_outputs(model, granet_tf.compact(model), x)


def test_layers_keep_what_is_theirs(rng):
    model = sequential(
        (3,),
        layers.Dense(
            6,
            name="a",
            kernel_regularizer=keras.regularizers.L2(0.01),
            kernel_constraint="non_neg",
            dtype="mixed_bfloat16",
            trainable=False,
        ),
        layers.Dense(2, name="b", dtype="float32"),
    )
    fill(model, rng, zero=[("a", [1])])
    small = granet_tf.compact(model)
    a = small.get_layer("a")
    assert a.kernel.shape == (3, 5)
    assert a.kernel_regularizer.l2 == 0.01
    assert isinstance(a.kernel_constraint, keras.constraints.NonNeg)
    assert (a.dtype_policy.name, a.trainable) == ("mixed_bfloat16", False)
    assert small.get_layer("b").trainable
    assert small.name == model.name


def test_initializers_with_values_fit_the_new_shape(rng, tmp_path):
    table = rng.normal(size=(5, 4)) * [1, 0, 1, 1]
    model = sequential(
        (6,),
        layers.Embedding(5, 4, embeddings_initializer=keras.initializers.Constant(table)),
        layers.Flatten(),
        layers.Dense(2),
    )
    small = granet_tf.compact(model)
    x = rng.integers(0, 5, size=(3, 6))
    same_outputs(model, small, x)
    assert small.layers[0].output_dim == 3
    small.save(tmp_path / "small.keras")
    same_outputs(small, keras.models.load_model(tmp_path / "small.keras"), x)


def test_masked_models_count_their_masks(rng):
    method = granet_tf.StaticSparse(0.5, pattern=granet_tf.Filter(), distribution="uniform")
    plain = sequential((6,), layers.Dense(8, "relu", name="a"), layers.Dense(4, name="b"))
    fill(plain, rng)
    model = granet_tf.wrap(plain, method, mask_only=True)
    before = plain.get_layer("a").kernel.numpy()
    assert np.count_nonzero(before) == 48
    small = granet_tf.compact(model)
    same_outputs(model, small, rng.normal(size=(4, 6)))
    assert [layer.units for layer in small.layers] == [4, 4]
    np.testing.assert_array_equal(plain.get_layer("a").kernel.numpy(), before)


def test_vgg19_with_emptied_filters(rng):
    """Half of each layer's filters are 0 and their constants positive: one carries the others."""
    model = vgg19((16, 16, 3), 10, width=1 / 16)
    fill(model, rng)
    convolutions = [x for x in model.layers if isinstance(x, layers.Conv2D)]
    for layer in convolutions:
        silence(layer, outputs=range(layer.filters // 2))
        norm = model.get_layer(f"{layer.name}_norm")
        for name, value in [("gamma", 1), ("beta", 1), ("moving_mean", 0)]:
            getattr(norm, name).assign(np.full(norm.gamma.shape, value))
    small = compacted(model, rng)
    # All but the last are read by a padded convolution.
    halves = [x.filters // 2 for x in convolutions]
    expected = [*(half + 1 for half in halves[:-1]), halves[-1]]
    assert list(kept(model).values()) == [*expected, 10]
    kernels = [9 * a * b for a, b in zip([3, *expected], expected, strict=False)]
    norms = [4 * channels for channels in expected]
    assert small.count_params() == sum(kernels) + sum(norms) + expected[-1] * 10 + 10


def test_resnet20_with_pruned_filters(rng):
    """Filters are pruned at 50 % by `Filter`, where a block's inside is all that can shrink."""
    model = granet_tf.wrap(
        resnet20((16, 16, 3), 10, width=0.5),
        granet_tf.StaticSparse(0.5, pattern=granet_tf.Filter(), distribution="uniform"),
        prunable=["*_conv1/kernel"],
    )
    for variable in model.model.weights:  # beta ≤ 0: what is dead is 0 behind the ReLU
        if variable.name == "beta":
            variable.assign(-abs(rng.normal(size=variable.shape)))
    small = granet_tf.compact(model)
    same_outputs(model, small, rng.normal(size=(4, 16, 16, 3)))
    expected = 3 * 9 * 8 + 4 * 8  # the stem and its normalisation
    before = 8
    for channels in (8, 16, 32):
        for block in range(3):
            inside = channels // 2
            expected += 9 * before * inside + 4 * inside + 9 * inside * channels + 4 * channels
            if block == 0 and channels > 8:
                expected += before * channels + 4 * channels
            before = channels
    assert small.count_params() == expected + 32 * 10 + 10


def test_refuses_what_it_cannot_take_apart():
    with pytest.raises(TypeError, match=r"must be a Keras model\. Received: model=3"):
        granet_tf.compact(3)
    with pytest.raises(ValueError, match="must be built before it is compacted"):
        granet_tf.compact(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ValueError, match=r"sequential or functional.*Received: model=<Subclassed"):
        granet_tf.compact(subclassed())


class Unserializable(layers.Layer):
    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = [scale, object()]

    def call(self, inputs):
        return inputs

    def get_config(self):
        raise NotImplementedError("no config")


def test_names_the_layer_that_cannot_be_copied():
    model = sequential((3,), Unserializable(2, name="odd"), layers.Dense(1))
    with pytest.raises(ValueError, match="Layer 'odd' is not: no config"):
        granet_tf.compact(model)
