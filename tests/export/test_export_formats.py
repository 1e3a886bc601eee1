"""Each format, sparse or dense, runs under LiteRT's default delegate and holds the mask's pattern.

The references are a decoder and a quantizer of this file, and LiteRT itself.
"""

import functools
import os
import re
import warnings

import keras
import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.lite.python import schema_py_generated as schema

import granet_tf
from granet_tf.export import encoding, formats, read_weights, running, sparse_format
from granet_tf.export.comparison import Comparison, Difference
from granet_tf.export.conversion import convert
from granet_tf.export.samples import Inputs

layers = keras.layers
FORMATS = ["float32", "float16", "dynamic_range", "int8"]
# Of a random network's largest output: rounding of weights, then of activations too.
ERRORS = {"float32": 1e-6, "float16": 2e-3, "dynamic_range": 0.05, "int8": 0.1}


def pruned(*parts, sparsity=0.9, blocks=1):
    """Random weights; blocks of inputs are zero in dense kernels, single weights elsewhere."""
    model = keras.Sequential(parts)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 2:
            kept = rng.random((weight.shape[0] // blocks, weight.shape[1])) > sparsity
            weight.assign(weight * np.repeat(kept, blocks, axis=0))
        elif len(weight.shape) > 2:
            weight.assign(weight * (rng.random(weight.shape) > sparsity))
    return model


MODELS = {
    "convolutions": lambda: pruned(
        keras.Input((9, 9, 16)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.DepthwiseConv2D(3),
        layers.Conv2D(64, 1),
        layers.Conv2DTranspose(32, 3),
        layers.Reshape((7, 7, 8, 4)),
        layers.Conv3D(32, 3),
        layers.GlobalAveragePooling3D(),
        layers.Dense(64),
    ),
    "blocks of 4": lambda: pruned(
        keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(48), blocks=4
    ),
    "blocks of 16": lambda: pruned(
        keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(48), blocks=16
    ),
    "embedding": lambda: pruned(
        keras.Input((8,), dtype="int32"),
        layers.Embedding(60, 64),
        layers.GlobalAveragePooling1D(),
        layers.Dense(32),
    ),
}
CASES = [
    *(("convolutions", format) for format in FORMATS),
    ("blocks of 4", "float32"),
    ("blocks of 4", "float16"),
    ("blocks of 16", "dynamic_range"),
    ("blocks of 16", "int8"),
    ("embedding", "float32"),
    ("embedding", "dynamic_range"),
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(model, samples, path, report, warnings) of a case; each is made once."""

    @functools.cache
    def make(name, format):
        path = tmp_path_factory.mktemp("exported") / "model.tflite"
        model = granet_tf.wrap(MODELS[name](), granet_tf.GMP(0.9))
        for pruned in model.pruned:  # What is zero stays so, in blocks or not.
            pruned.mask.assign(pruned.variable != 0)
        samples = samples_for(model.model)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            report = granet_tf.export_tflite(
                model, path, format=format, representative_data=samples, sample_inputs=samples
            )
        return model, samples, path, report, [str(each.message) for each in caught]

    return make


def samples_for(model, count=16):
    rng = np.random.default_rng(1)
    shape = (count, *model.input_shape[1:])
    if "int" in model.inputs[0].dtype:
        return rng.integers(0, 60, shape)
    return rng.normal(size=shape).astype("float32")


def constants(file):
    """{shape: float64 values, zeros included} of the weights, by a slow decoder of its own."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read_bytes(), 0))
    types = {0: "float32", 1: "float16", 9: "int8"}
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if (
            data is None
            or tensor.shape is None
            or len(tensor.shape) < 2
            or tensor.type not in types
        ):
            continue
        stored = np.frombuffer(bytes(data), types[tensor.type])
        shape = tuple(map(int, tensor.shape))
        found[shape] = (
            stored.reshape(shape) if tensor.sparsity is None else rows(stored, shape, tensor)
        ).astype("float64")
    return found


def rows(stored, shape, tensor):
    """Row by row: the files of this library have blocks along the last axis only."""
    *_, level = (m for m in tensor.sparsity.dimMetadata if m.format == 1)
    segments, indices = level.arraySegments.values, level.arrayIndices.values
    block = len(stored) // max(1, len(indices))
    matrix = np.zeros((int(np.prod(shape[:-1])), shape[-1]), stored.dtype)
    for row in range(len(matrix)):
        for i in range(segments[row], segments[row + 1]):
            begin = indices[i] * block
            matrix[row, begin : begin + block] = stored[i * block : (i + 1) * block]
    return matrix.reshape(shape)


@pytest.mark.parametrize(("name", "format"), CASES)
def test_every_format_runs_under_the_default_delegate(exported, name, format):
    model, samples, path, report, warned = exported(name, format)
    assert not [text for text in warned if "XNNPACK" in text]
    assert (report.resolver, report.encoding, report.samples) == ("AUTO", "auto", 16)
    assert report.sparse_bytes == os.path.getsize(path) < 0.85 * report.raw_bytes

    expected = model.model(samples).numpy()
    runner = litert.Interpreter(str(path)).get_signature_runner()
    [key] = runner.get_input_details()
    actual = runner(**{key: samples.astype(model.model.inputs[0].dtype)})["output_0"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ERRORS[format] * abs(expected).max())
    assert report.max_error == pytest.approx(abs(actual - expected).max(), rel=1e-3)
    spread = expected.max() - expected.min()
    assert report.relative_error == pytest.approx(report.max_error / spread, rel=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_no_weight_but_the_active_ones_survives(exported, format):
    model, _, path, _, _ = exported("convolutions", format)
    stored = constants(path)
    masks = {p.path.split("/")[1]: (p.variable.numpy(), p.mask.numpy()) for p in model.pruned}
    for layer, shape in {"conv2d": (32, 3, 3, 16), "conv2d_1": (64, 1, 1, 32)}.items():
        kernel, mask = (np.moveaxis(each, -1, 0) for each in masks[layer])
        active = mask.copy()
        if format in ("dynamic_range", "int8"):
            # What is below half a step rounds to 0, in steps of a 127th of the channel's largest.
            step = abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
            active &= abs(np.round(kernel / np.where(step, step, 1))) > 0
        assert 0.85 < np.mean(~active) < 0.95
        np.testing.assert_array_equal(stored[shape] != 0, active)


@pytest.mark.parametrize(
    ("name", "format", "block"),
    [
        ("blocks of 4", "float32", 4),
        ("blocks of 16", "dynamic_range", 16),
        ("blocks of 16", "int8", 16),
        ("blocks of 4", "float16", 1),
    ],
)
def test_dense_layers_with_blocks_have_a_kernel_of_their_own(exported, name, format, block):
    path = exported(name, format)[2]
    weights = [weight for weight in read_weights(path) if weight.values.ndim == 2]
    assert [weight.block for weight in weights] == [block, block]
    operations = running.Runner(path.read_bytes()).operations()
    assert operations.count("DENSIFY") == (0 if block > 1 else 2)
    assert [weight.densified for weight in weights] == [block == 1] * 2


def test_auto_stores_each_tensor_in_the_smaller_way(tmp_path):
    files, model = {}, pruned(keras.Input((8, 8, 8)), layers.Conv2D(64, 3), layers.Conv2D(2, 1))
    small, large = model.layers[::-1]
    small.kernel.assign(np.ones(small.kernel.shape) * (np.arange(2) == 0))
    for name in encoding.ENCODINGS:
        path = tmp_path / f"{name}.tflite"
        granet_tf.export_tflite(model, path, format="dynamic_range", encoding=name)
        files[name] = {w.values.shape: w.sparse for w in read_weights(path) if w.values.ndim > 1}
    small, large = (2, 1, 1, 64), (64, 3, 3, 8)
    assert files == {
        "auto": {large: True, small: False},
        "sparse": {large: True, small: True},
        "dense": {large: False, small: False},
    }
    sizes = {name: (tmp_path / f"{name}.tflite").stat().st_size for name in files}
    assert sizes["auto"] < sizes["sparse"] < sizes["dense"]


def test_auto_never_makes_a_larger_file(tmp_path):
    """Where DENSIFY expands int8 with scales for each channel, they are in the file twice."""
    model = pruned(keras.Input((64,)), *[layers.Dense(64) for _ in range(5)], sparsity=0.6)
    path = tmp_path / "model.tflite"
    with pytest.warns(UserWarning, match="Nothing in the file is sparse"):
        report = granet_tf.export_tflite(model, path, format="dynamic_range")
    assert path.stat().st_size == report.sparse_bytes <= report.raw_bytes


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["convolutions", "embedding", "blocks of 4"])
def test_auto_weighs_every_kind_of_weight(name, format):
    model, rng = MODELS[name](), np.random.default_rng(2)
    for i, weight in enumerate(model.weights):  # About where neither way is clearly smaller.
        kept = rng.random(weight.shape) > 0.5 + i % 3 / 10
        weight.assign(np.where(kept, rng.normal(size=weight.shape), 0.0))
    inputs, number_format = Inputs(model), formats.FORMATS[format]
    data = inputs.calibration(samples_for(model)) if number_format.needs_data else None
    dense = convert(model, inputs, number_format, data)
    auto, sparse = (len(encoding.encode_file(dense, each)) for each in ("auto", "sparse"))
    assert auto <= min(len(dense), sparse)


@pytest.mark.parametrize(("sparsity", "smaller"), [(0.3, False), (0.8, True)])
def test_int8_grows_when_encoded_below_about_half_sparsity(sparsity, smaller):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 99, (64, 256)) * (rng.random((64, 256)) >= sparsity)
    encoded = sparse_format.encode(values.astype("int8"))
    assert (encoded.nbytes < values.size) == smaller


def test_accuracy_before_and_after(tmp_path):
    model = pruned(keras.Input((20,)), layers.Dense(4))
    samples = samples_for(model, 200)
    labels = np.arange(200) % 4
    report = granet_tf.export_tflite(
        model, tmp_path / "model.tflite", sample_inputs=samples, labels=labels
    )
    expected = float(np.mean(np.argmax(samples @ model.layers[0].kernel.numpy(), -1) == labels))
    assert report.accuracy_keras == report.accuracy_file == pytest.approx(expected)
    assert f"accuracy {expected:.2%}" in str(report)


def test_a_function_makes_representative_data(tmp_path):
    model, path = pruned(keras.Input((64,)), layers.Dense(32)), tmp_path / "model.tflite"
    calls = []

    def batches():
        calls.append(1)
        for scale in (1.0, 10.0):
            yield np.full((4, 64), scale, "float32")

    granet_tf.export_tflite(model, path, format="int8", representative_data=batches)
    assert calls == [1]
    details = litert.Interpreter(str(path)).get_tensor_details()
    # Inputs from 0 to 10 in 256 steps: the largest batch counts.
    scales = [d["quantization"][0] for d in details if d["dtype"] == np.int8 and len(d["shape"])]
    assert max(scales) >= 10 / 255


def test_a_directory_of_images(tmp_path):
    import tensorflow as tf

    for i in range(3):
        pixels = np.full((10, 12, 3), 80 * i, np.uint8)
        (tmp_path / f"{i}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    model = pruned(keras.Input((8, 8, 3)), layers.Conv2D(16, 3), layers.Flatten(), layers.Dense(9))
    report = granet_tf.export_tflite(
        model, tmp_path / "m.tflite", format="int8", representative_data=str(tmp_path)
    )
    assert report.samples == 3


def test_the_name_of_a_data_set(tmp_path):
    model = pruned(keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10))
    report = granet_tf.export_tflite(
        model, tmp_path / "model.tflite", format="int8", representative_data="digits"
    )
    assert report.samples == 256


@pytest.mark.parametrize(
    ("ours", "theirs", "relative"),
    [
        ([[-2.0, 0.0], [1.0, 8.0]], [[-2.0, 0.5], [1.0, 8.0]], 0.05),  # Over all samples.
        ([[-300.0, 700.0]], [[-302.0, 700.0]], 0.002),
        ([[4.0, 4.0]], [[4.0, 5.0]], 0.25),  # Without a range, of the magnitude.
        ([[0.0, 0.0]], [[0.0, 0.125]], 0.125),  # Without a magnitude, as it is.
        ([[3.0, 3.0]], [[3.0, 3.0]], 0.0),
        ([[np.inf, 0.0, 2.0]], [[np.inf, 0.0, 1.0]], 0.5),
        ([[0.0, 2.0]], [[np.nan, 2.0]], np.nan),
        ([[np.nan, np.nan]], [[np.nan, np.nan]], 0.0),
    ],
)
def test_the_largest_difference_as_a_fraction_of_the_range(ours, theirs, relative):
    difference = Difference()
    for a, b in zip(ours, theirs, strict=True):
        difference.add(np.array([a]), np.array([b]))
    np.testing.assert_allclose(difference.relative, relative, rtol=1e-12)
    # Of several outputs, the worst.
    other = Difference(error=0.01, scale=1.0, low=0.0, high=1.0)
    worst = np.maximum(relative, 0.01)
    found = Comparison({"a": difference, "b": other}, samples=1).relative_error
    np.testing.assert_allclose(found, worst, rtol=1e-12)


@pytest.mark.parametrize(
    ("relative", "said"),
    [
        (0.0, "0% of the range"),
        (3e-8, "less than 0.01% of the range"),
        (0.0031, "0.31% of the range"),
        (0.183, "18% of the range"),
        (None, "at most 2.2e+00"),
    ],
)
def test_the_difference_in_words(relative, said):
    report = granet_tf.export.TFLiteReport("m.tflite", 90, 80, 70, 2.2, relative_error=relative)
    assert said in str(report) and "2.2e+00" in str(report)


class TestFailuresOfTheDefaultDelegate:
    """What XNNPACK cannot load is detected by running the file."""

    @pytest.fixture(autouse=True)
    def int8_convolutions_as_the_converter_encodes_them(self, monkeypatch):
        ways = {**encoding.WAYS, ("CONV_2D", "int8", "float32"): encoding.Way()}
        monkeypatch.setattr(encoding, "WAYS", ways)

    def model(self):
        return pruned(keras.Input((8, 8, 16)), layers.Conv2D(64, 3), layers.Flatten())

    def test_auto_falls_back_to_dense(self, tmp_path):
        path = tmp_path / "model.tflite"
        with pytest.warns(UserWarning, match="XNNPACK. It is stored with encoding='dense'"):
            report = granet_tf.export_tflite(self.model(), path, format="dynamic_range")
        assert (report.encoding, report.resolver) == ("dense", "AUTO")
        assert not any(weight.sparse for weight in read_weights(path))

    def test_sparse_says_which_option_is_needed(self, tmp_path):
        path = tmp_path / "model.tflite"
        with pytest.warns(UserWarning, match="BUILTIN_WITHOUT_DEFAULT_DELEGATES only.*Received"):
            report = granet_tf.export_tflite(
                self.model(), path, format="dynamic_range", encoding="sparse"
            )
        assert report.resolver == "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
        assert "needs OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES" in str(report)
        with pytest.raises(RuntimeError):
            litert.Interpreter(str(path)).allocate_tensors()
        litert.Interpreter(
            str(path), experimental_op_resolver_type=litert.OpResolverType[report.resolver]
        ).allocate_tensors()


def test_an_int8_file_says_what_stays_float32(exported):
    warned = exported("convolutions", "int8")[-1]
    assert any(re.search(r"in float32: .*CONV_3D.*Received: format='int8'", w) for w in warned)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"format": "int4"},
            "one of float32, float16, dynamic_range, int8. Received: format='int4'",
        ),
        ({"encoding": "csr"}, "one of auto, sparse, dense. Received: encoding='csr'"),
        ({"format": "int8"}, "must be given to quantize.* Received: representative_data=None"),
        (
            {"format": "int8", "representative_data": np.ones((2, 7))},
            r"must have the shape \(any, 20\) for the input .*Received: an array of shape \(2, 7\)",
        ),
        ({"format": "int8", "representative_data": list}, "hold a sample. Received: an empty"),
        (
            {"format": "int8", "representative_data": "/no/such/data"},
            "by name needs a model of one image.*Received: representative_data='/no/such/data'",
        ),
        (
            {"sample_inputs": np.ones((3, 20)), "labels": [0, 1]},
            r"hold the class of each sample.*Received: labels of shape \(2,\) for 3 samples",
        ),
        ({"labels": [0]}, "`labels` need `sample_inputs`. Received: sample_inputs=None"),
        ({"sample_inputs": np.ones((0, 20))}, r"Received: an array of shape \(0, 20\)"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, options, text):
    model = pruned(keras.Input((20,)), layers.Dense(4))
    with pytest.raises(ValueError, match=text):
        granet_tf.export_tflite(model, tmp_path / "model.tflite", **options)
    assert os.listdir(tmp_path) == []


def test_a_data_set_that_is_not_there_is_named(tmp_path):
    model = pruned(keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4))
    text = r"data set on disk, or a directory.*Received: representative_data='cifer10'$"
    with pytest.raises(ValueError, match=text):
        granet_tf.export_tflite(
            model, tmp_path / "m.tflite", format="int8", representative_data="cifer10"
        )


def test_buffers_are_aligned_as_the_schema_asks(tmp_path):
    path = tmp_path / "model.tflite"
    granet_tf.export_tflite(MODELS["convolutions"](), path)
    content = path.read_bytes()
    root = schema.Model.GetRootAs(content, 0)
    starts = []
    for i in range(root.BuffersLength()):
        if root.Buffers(i).DataLength():
            offset = root.Buffers(i)._tab.Offset(4)
            starts.append(root.Buffers(i)._tab.Vector(offset) % 16)
    assert len(starts) > 4 and set(starts) == {0}


def test_a_sparse_file_has_short_names_and_no_buffer_too_many(tmp_path):
    graphs, net = {}, MODELS["convolutions"]()
    for name in ("dense", "sparse"):
        granet_tf.export_tflite(net, tmp_path / "model.tflite", encoding=name)
        model = schema.ModelT.InitFromObj(
            schema.Model.GetRootAs((tmp_path / "model.tflite").read_bytes(), 0)
        )
        [graphs[name]] = model.subgraphs
    used = {tensor.buffer for tensor in graphs["sparse"].tensors}
    used |= {entry.buffer for entry in model.metadata}
    assert used | {0} == set(range(len(model.buffers)))
    names = {key: [tensor.name for tensor in graph.tensors] for key, graph in graphs.items()}
    assert any(b";" in name for name in names["dense"])
    kept = {*graphs["dense"].inputs, *graphs["dense"].outputs}
    for i, (dense, sparse) in enumerate(zip(*names.values(), strict=False)):
        constant = model.buffers[graphs["sparse"].tensors[i].buffer].data is not None
        assert sparse == (dense if constant or i in kept else dense.split(b";")[0])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.sampled_from([1, 4, 8, 300]),
    outer=st.sampled_from([(), (2,), (2, 3)]),
    block=st.sampled_from([1, 2, 4]),
    sparsity=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    dtype=st.sampled_from(["float32", "float16", "int8"]),
    seed=st.integers(0, 99),
)
def test_encoding_and_decoding_is_the_identity(rows, columns, outer, block, sparsity, dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 9, (*outer, rows, columns)) * (rng.random((rows, columns)) >= sparsity)
    values = values.astype(dtype)
    block = block if columns % block == 0 else 1
    encoded = sparse_format.encode(values, block)
    parameters = sparse_format.parameters(encoded)
    np.testing.assert_array_equal(
        sparse_format.decode(encoded.values, values.shape, parameters), values
    )


def test_the_decoder_reads_what_the_converter_encodes(tmp_path):
    import tensorflow as tf

    model, path = MODELS["blocks of 4"](), tmp_path / "model.tflite"
    model.export(
        str(path),
        format="litert",
        verbose=False,
        optimizations=[tf.lite.Optimize.EXPERIMENTAL_SPARSITY],
    )
    weights = [weight for weight in read_weights(path) if weight.values.ndim == 2]
    assert [weight.block for weight in weights] == [4, 4]
    for weight, layer in zip(weights, model.layers, strict=True):
        np.testing.assert_array_equal(weight.values, layer.kernel.numpy().T)


def test_what_is_no_file_of_tflite(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"PK\3\4 a zip archive")
    with pytest.raises(ValueError, match=r"not a .tflite file. Received: 18 bytes that begin with"):
        read_weights(tmp_path / "a.tflite")
