"""Every layer that Keras exports: pruned, listed as not prunable, or without weights.

A class that is new in Keras fails the first test until it is put in one of the tables.
"""

import inspect

import keras
import numpy as np
import pytest

import granet_tf
from keras_layers.known_layers import known
from keras_layers.prunable import own_weights, walk
from tests.support.cases import HALF

L = keras.layers
RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.normal(size=(2, *shape)).astype("float32")


# Pruned, by the shape of their input: {class: (its layer, its calls if not the usual one,
# {path of a pruned weight inside: number of weights})}.


def itself(layer, x):
    return layer(x)


def attention(layer, x):
    return layer(x, x)


def there_and_back(layer, x):
    return layer(layer(x), reverse=True)


def recurrent(cell, name):
    return lambda: L.RNN(cell(2, name=name))


GRU = {"gru_cell/kernel": 24, "gru_cell/recurrent_kernel": 12}
LSTM = {"lstm_cell/kernel": 32, "lstm_cell/recurrent_kernel": 16}
SIMPLE = {"simple_rnn_cell/kernel": 8, "simple_rnn_cell/recurrent_kernel": 4}
PROJECTIONS = ("query", "key", "value", "attention_output")
SERIES = {
    "Dense": (lambda: L.Dense(2), itself, {"kernel": 8}),
    "EinsumDense": (lambda: L.EinsumDense("abc,cd->abd", (3, 2)), itself, {"kernel": 8}),
    "Conv1D": (lambda: L.Conv1D(2, 2), itself, {"kernel": 16}),
    "Conv1DTranspose": (lambda: L.Conv1DTranspose(2, 2), itself, {"kernel": 16}),
    "SeparableConv1D": (lambda: L.SeparableConv1D(2, 2), itself, {"pointwise_kernel": 8}),
    "SimpleRNN": (lambda: L.SimpleRNN(2), itself, SIMPLE),
    "GRU": (lambda: L.GRU(2), itself, GRU),
    "LSTM": (lambda: L.LSTM(2), itself, LSTM),
    "SimpleRNNCell": (recurrent(L.SimpleRNNCell, "simple_rnn_cell"), itself, SIMPLE),
    "GRUCell": (recurrent(L.GRUCell, "gru_cell"), itself, GRU),
    "LSTMCell": (recurrent(L.LSTMCell, "lstm_cell"), itself, LSTM),
    "RNN": (
        lambda: L.RNN([L.GRUCell(2, name="a"), L.SimpleRNNCell(2, name="b")]),
        itself,
        {
            "stacked_rnn_cells/a/kernel": 24,
            "stacked_rnn_cells/a/recurrent_kernel": 12,
            "stacked_rnn_cells/b/kernel": 4,
            "stacked_rnn_cells/b/recurrent_kernel": 4,
        },
    ),
    "StackedRNNCells": (
        lambda: L.RNN(L.StackedRNNCells([L.SimpleRNNCell(2, name="a")], name="cells")),
        itself,
        {"cells/a/kernel": 8, "cells/a/recurrent_kernel": 4},
    ),
    "Bidirectional": (
        lambda: L.Bidirectional(L.LSTM(2, name="lstm")),
        itself,
        {f"{way}_lstm/{name}": n for way in ("forward", "backward") for name, n in LSTM.items()},
    ),
    "TimeDistributed": (
        lambda: L.TimeDistributed(L.Dense(2, name="dense")),
        itself,
        {"dense/kernel": 8},
    ),
    "SpectralNormalization": (
        lambda: L.SpectralNormalization(L.Dense(2, name="dense")),
        itself,
        {"dense/kernel": 8},
    ),
    "MultiHeadAttention": (
        lambda: L.MultiHeadAttention(2, 3),
        attention,
        {f"{name}/kernel": 24 for name in PROJECTIONS},
    ),
    "GroupQueryAttention": (
        lambda: L.GroupQueryAttention(3, 4, 2),
        attention,
        dict(zip((f"{name}/kernel" for name in PROJECTIONS), (48, 24, 24, 48), strict=True)),
    ),
}
CONV_LSTM = ("conv_lstm_cell/kernel", "conv_lstm_cell/recurrent_kernel")
IMAGE = {
    "Conv2D": (lambda: L.Conv2D(2, 2), itself, {"kernel": 16}),
    "Conv2DTranspose": (lambda: L.Conv2DTranspose(2, 2), itself, {"kernel": 16}),
    "SeparableConv2D": (lambda: L.SeparableConv2D(2, 2), itself, {"pointwise_kernel": 4}),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(2, 2), itself, dict.fromkeys(CONV_LSTM, 32)),
}
VOLUME = {
    "Conv3D": (lambda: L.Conv3D(2, 2), itself, {"kernel": 32}),
    "Conv3DTranspose": (lambda: L.Conv3DTranspose(2, 2), itself, {"kernel": 32}),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(2, 2), itself, dict.fromkeys(CONV_LSTM, 64)),
}
FILM = {"ConvLSTM3D": (lambda: L.ConvLSTM3D(2, 2), itself, dict.fromkeys(CONV_LSTM, 128))}
TOKENS = {
    "Embedding": (lambda: L.Embedding(6, 4), itself, {"embeddings": 24}),
    "ReversibleEmbedding": (
        lambda: L.ReversibleEmbedding(6, 4, tie_weights=False),
        there_and_back,
        {"embeddings": 24, "reverse_embeddings": 24},
    ),
}
FAMILIES = {
    "series": (SERIES, draw(3, 4)),
    "image": (IMAGE, draw(4, 4, 2)),
    "volume": (VOLUME, draw(3, 3, 3, 2)),
    "film": (FILM, draw(2, 3, 3, 3, 2)),
    "tokens": (TOKENS, np.array([[1, 2, 0], [5, 5, 3]])),
}

# Not pruned, with weights: {class: (layer, input, {weight: why not})}.
SCALES = {"gamma": "bias or scale", "beta": "bias or scale"}
LISTED = {
    "DepthwiseConv1D": (
        lambda: L.DepthwiseConv1D(2),
        draw(3, 4),
        {"kernel": "depthwise kernel", "bias": "bias or scale"},
    ),
    "DepthwiseConv2D": (
        lambda: L.DepthwiseConv2D(2),
        draw(4, 4, 2),
        {"kernel": "depthwise kernel", "bias": "bias or scale"},
    ),
    "BatchNormalization": (
        L.BatchNormalization,
        draw(4),
        {**SCALES, "moving_mean": "not trainable", "moving_variance": "not trainable"},
    ),
    "GroupNormalization": (lambda: L.GroupNormalization(2), draw(4), SCALES),
    "LayerNormalization": (lambda: L.LayerNormalization(axis=(1, 2)), draw(3, 4), SCALES),
    "RMSNormalization": (L.RMSNormalization, draw(4), {"scale": "bias or scale"}),
    "Normalization": (
        L.Normalization,
        draw(4),
        {"mean": "not trainable", "variance": "not trainable"},
    ),
    "PReLU": (L.PReLU, draw(3, 4), {"alpha": "slope of an activation"}),
    "Attention": (lambda: L.Attention(use_scale=True), [draw(3, 4)] * 2, {"scale": SCALES["beta"]}),
    "AdditiveAttention": (L.AdditiveAttention, [draw(3, 4)] * 2, {"scale": SCALES["beta"]}),
    "STFTSpectrogram": (
        lambda: L.STFTSpectrogram(frame_length=8, frame_step=4),
        draw(16, 1),
        {"real_kernel": "Fourier transform", "imag_kernel": "Fourier transform"},
    ),
}

# Without weights that training changes: nothing to prune, nothing to list.
PICTURE = np.abs(draw(8, 8, 3)) * 40
WORDS = np.array([["a b"], ["b c"]])
NUMBERS = np.array([[1], [2]])
PAIR = [draw(3, 4)] * 2
ON_PICTURES = {
    "GlobalAveragePooling2D": {},
    "GlobalMaxPooling2D": {},
    "AugMix": {},
    "AutoContrast": {},
    "CenterCrop": {"height": 4, "width": 4},
    "ContrastLimitedAdaptiveHistogramEqualization": {"tile_grid_size": (2, 2)},
    "Equalization": {},
    "RandAugment": {},
    "RandomBrightness": {"factor": 0.1},
    "RandomColorDegeneration": {"factor": 0.1},
    "RandomColorJitter": {},
    "RandomContrast": {"factor": 0.1},
    "RandomCrop": {"height": 4, "width": 4},
    "RandomElasticTransform": {},
    "RandomErasing": {},
    "RandomFlip": {},
    "RandomGaussianBlur": {},
    "RandomGrayscale": {},
    "RandomHue": {"factor": 0.1},
    "RandomInvert": {},
    "RandomPerspective": {},
    "RandomPosterization": {"factor": 2},
    "RandomRotation": {"factor": 0.1},
    "RandomSaturation": {"factor": 0.1},
    "RandomSharpness": {"factor": 0.1},
    "RandomShear": {},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "Rescaling": {"scale": 2.0},
    "Resizing": {"height": 4, "width": 4},
    "Solarization": {},
    "AdaptiveAveragePooling2D": {"output_size": 2},
    "AdaptiveMaxPooling2D": {"output_size": 2},
    "AveragePooling2D": {"pool_size": 2},
    "MaxPooling2D": {},
    "Cropping2D": {},
    "UpSampling2D": {},
    "ZeroPadding2D": {},
    "SpatialDropout2D": {"rate": 0.5},
    "Pipeline": {"layers": [L.Rescaling(2.0)]},
}
ON_SERIES = {
    "Activation": {"activation": "relu"},
    "ActivityRegularization": {"l2": 0.1},
    "AdaptiveAveragePooling1D": {"output_size": 2},
    "AdaptiveMaxPooling1D": {"output_size": 2},
    "AlphaDropout": {"rate": 0.5},
    "AveragePooling1D": {"pool_size": 2},
    "Cropping1D": {},
    "Dropout": {"rate": 0.5},
    "ELU": {},
    "Flatten": {},
    "GaussianDropout": {"rate": 0.5},
    "GaussianNoise": {"stddev": 0.5},
    "GlobalAveragePooling1D": {},
    "GlobalMaxPooling1D": {},
    "Identity": {},
    "Lambda": {"function": keras.ops.square},
    "LeakyReLU": {},
    "Masking": {},
    "MaxPooling1D": {},
    "Permute": {"dims": (2, 1)},
    "ReLU": {},
    "Reshape": {"target_shape": (2, 8)},
    "Softmax": {},
    "SpatialDropout1D": {"rate": 0.5},
    "UnitNormalization": {},
    "UpSampling1D": {},
    "ZeroPadding1D": {},
}
ON_VOLUMES = {
    "AdaptiveAveragePooling3D": {"output_size": 2},
    "AdaptiveMaxPooling3D": {"output_size": 2},
    "AveragePooling3D": {"pool_size": 2},
    "Cropping3D": {},
    "GlobalAveragePooling3D": {},
    "GlobalMaxPooling3D": {},
    "MaxPooling3D": {},
    "SpatialDropout3D": {"rate": 0.5},
    "UpSampling3D": {},
    "ZeroPadding3D": {},
}
ON_PAIRS = {
    **{name: {} for name in ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply")},
    "Dot": {"axes": -1},
    "Subtract": {},
}
LABELS = {"images": PICTURE, "labels": np.eye(2, dtype="float32")}
BOXES = {
    "boxes": np.zeros((2, 1, 4), "float32"),
    "labels": np.zeros((2, 1), "int32"),
}
OTHERS = {
    "CutMix": ({}, LABELS),
    "MixUp": ({}, LABELS),
    "CategoryEncoding": ({"num_tokens": 4}, NUMBERS),
    "Discretization": ({"bin_boundaries": [0.5]}, draw(4)),
    "HashedCrossing": ({"num_bins": 4}, (WORDS, WORDS)),
    "Hashing": ({"num_bins": 4}, WORDS),
    "IntegerLookup": ({"vocabulary": [1, 2]}, NUMBERS),
    "StringLookup": ({"vocabulary": ["a b"]}, WORDS),
    "TextVectorization": ({"vocabulary": ["a", "b"]}, WORDS),
    "MaxNumBoundingBoxes": (
        {"max_number": 2, "bounding_box_format": "xyxy"},
        {"images": PICTURE, "bounding_boxes": BOXES},
    ),
    "MelSpectrogram": (
        {"fft_length": 16, "sequence_stride": 8, "num_mel_bins": 4, "sampling_rate": 100},
        draw(64),
    ),
    "RepeatVector": ({"n": 2}, draw(4)),
}
WITHOUT_WEIGHTS = {
    **{name: (options, PICTURE) for name, options in ON_PICTURES.items()},
    **{name: (options, draw(4, 4)) for name, options in ON_SERIES.items()},
    **{name: (options, draw(4, 4, 4, 2)) for name, options in ON_VOLUMES.items()},
    **{name: (options, PAIR) for name, options in ON_PAIRS.items()},
    **OTHERS,
}

# Never in a model as they are, or only in the models of another backend.
ABSTRACT = {"Layer", "Wrapper", "InputLayer"}
OTHER_BACKENDS = {"FlaxLayer", "JaxLayer", "TorchModuleWrapper"}
FROM_FILES = {"TFSMLayer"}
PRUNED = {name: family for family, (table, _) in FAMILIES.items() for name in table}


def test_no_layer_of_keras_is_missing():
    kinds = [kind for kind in vars(L).values() if inspect.isclass(kind)]
    exported = {kind for kind in kinds if issubclass(kind, keras.Layer)}
    tables = [PRUNED, LISTED, WITHOUT_WEIGHTS, ABSTRACT, OTHER_BACKENDS, FROM_FILES]
    named = [name for table in tables for name in table]
    assert len(named) == len(set(named))
    known = {getattr(L, name) for name in named if hasattr(L, name)}
    assert {kind.__name__ for kind in exported - known} == set()


def family_model(family, wrap):
    """All layers of a family side by side, each named after its class."""
    table, x = FAMILIES[family]
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    outputs = []
    for name, (make, call, _) in table.items():
        if hasattr(L, name):
            layer = make()
            layer = type(layer).from_config({**layer.get_config(), "name": name})
            outputs.append(L.Flatten()(call(wrap(layer), inputs)))
    joined = L.Concatenate()(outputs) if len(outputs) > 1 else outputs[0]
    return keras.Model(inputs, L.Dense(2, name="head")(joined), name="net")


def by_wrap(family, mask_only):
    method = granet_tf.GMP(schedule=HALF, distribution="uniform")
    return granet_tf.wrap(
        family_model(family, lambda layer: layer), method, mask_only=mask_only
    ), lambda path: path.removeprefix("net/")


def by_model(family, mask_only):
    model = family_model(family, lambda layer: layer)
    pruned = granet_tf.sparsity.keras.prune_low_magnitude(model, HALF, mask_only=mask_only)
    return pruned, lambda path: path.removeprefix("net/")


def by_layer(family, mask_only):
    """Wrapped before they are built, as a user's own code does."""

    def wrap(layer):
        return granet_tf.sparsity.keras.prune_low_magnitude(layer, HALF, mask_only=mask_only)

    model = family_model(family, wrap)
    pruned = granet_tf.sparsity.keras.prune_low_magnitude(model, HALF, mask_only=mask_only)
    return pruned, lambda path: path.split("/", 1)[1] if path.startswith("prune_low") else path


@pytest.mark.parametrize(
    ("prune", "mask_only"),
    [(by_wrap, False), (by_wrap, True), (by_model, False), (by_layer, True)],
)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*GRU|`build", "ignore::UserWarning:keras.src.layers.layer")
def test_layers_with_kernels_are_pruned(tmp_path, family, prune, mask_only):
    table, x = FAMILIES[family]
    model, short = prune(family, mask_only)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(x, np.ones((2, 2)), verbose=0)

    rows = {short(row.path): row for row in granet_tf.summarize(model).rows}
    sizes = {
        f"{name}/{weight}": size
        for name, (_, _, weights) in table.items()
        if hasattr(L, name)
        for weight, size in weights.items()
    }
    active = {path: row.nonzeros for path, row in rows.items() if row.pruned}
    head = active.pop("head/kernel")
    assert head == rows["head/kernel"].size // 2
    assert active == {path: size // 2 for path, size in sizes.items()}
    others = {row.reason for row in rows.values() if not row.pruned}
    assert others <= {"bias or scale", "depthwise kernel", "not trainable"}
    if not mask_only:
        values = {short(v.path): np.count_nonzero(v) for v in model.variables}
        assert {path: values[path] for path in active} == active

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert granet_tf.summarize(loaded).nonzeros == granet_tf.summarize(model).nonzeros
    outputs = model(x)
    stripped = granet_tf.strip(model)
    np.testing.assert_allclose(stripped(x), outputs, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in (*PRUNED, *LISTED) if hasattr(L, name)])
def test_every_layer_that_trains_a_matrix_has_a_row_that_says_what_becomes_of_it(name):
    if name in LISTED:
        (make, x, _), call = LISTED[name], itself
    else:
        table, x = FAMILIES[PRUNED[name]]
        make, call, _ = table[name]
    layer = make()
    call(layer, x)
    owners = [
        part
        for part in walk(layer)
        if any(w.trainable and len(w.shape) > 1 for w in own_weights(part))
    ]
    assert owners or name in LISTED
    assert [part for part in owners if not (known(part).prunable or known(part).why_not)] == []


@pytest.mark.parametrize("name", LISTED)
def test_other_layers_with_weights_are_listed_with_the_reason(name):
    make, x, reasons = LISTED[name]
    layer = make()
    layer(x)
    rows = granet_tf.summarize(layer).rows
    assert {row.path.split("/")[-1]: row.reason for row in rows} == reasons
    assert not any(row.pruned for row in rows)
    for either in (layer, make()):
        assert granet_tf.sparsity.keras.prune_low_magnitude(either) is either
        wrapper = granet_tf.PruneLowMagnitude(either)
        wrapper(x)
        assert wrapper.pruned == ()


@pytest.mark.parametrize("name", [name for name in WITHOUT_WEIGHTS if hasattr(L, name)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_layers_without_weights_stay_as_they_are(name):
    options, x = WITHOUT_WEIGHTS[name]
    layer = getattr(L, name)(**options)
    assert granet_tf.sparsity.keras.prune_low_magnitude(layer) is layer
    layer(x)
    assert granet_tf.summarize(layer).rows == ()
    assert granet_tf.sparsity.keras.prune_low_magnitude(layer) is layer


@pytest.mark.parametrize("name", sorted(OTHER_BACKENDS))
def test_layers_of_other_backends_can_not_be_made_at_all(name):
    with pytest.raises((ImportError, ValueError, RuntimeError, TypeError)):
        getattr(L, name)(lambda params, x: x)


def test_a_layer_from_a_saved_model_is_listed(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(2)])
    model.export(str(tmp_path / "model"), verbose=False)
    layer = L.TFSMLayer(str(tmp_path / "model"), call_endpoint="serve")
    layer(draw(4))
    rows = granet_tf.summarize(layer).rows
    assert [(row.shape, row.pruned) for row in rows] == [((4, 2), False), ((2,), False)]
    assert rows[0].reason == "TFSMLayer names no get_prunable_weights()"
    assert granet_tf.sparsity.keras.prune_low_magnitude(layer) is layer
