"""The file must hold exactly the active weights, and an export that fails must leave nothing."""

import os
import tempfile

import keras
import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from tensorflow.lite.python import schema_py_generated as schema

import granet_tf

layers = keras.layers


def functional():
    """Conv + BatchNormalization + Dense, with moving statistics as after some training."""
    inputs = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(16, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    model = keras.Model(inputs, layers.Dense(10, name="head")(x))
    rng = np.random.default_rng(0)
    for variable in model.get_layer("norm").weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


class TwoBranches(keras.Model):
    """Takes a dict, returns a tuple; its `call` can be made to differ at each call."""

    def __init__(self, drift=0):
        super().__init__()
        self.left, self.right = layers.Dense(12), layers.Dense(12)
        self.drift, self.calls = drift, 0

    def call(self, inputs):
        self.calls += self.drift
        left, right = self.left(inputs["left"]), self.right(inputs["right"])
        return left - right, left + self.calls


def two_branches(**kwargs):
    model = TwoBranches(**kwargs)
    model({"right": np.ones((1, 20)), "left": np.ones((1, 40))})
    return model


def dense(units=16, inputs=32, **kwargs):
    return keras.Sequential([keras.Input((inputs,)), layers.Dense(units, name="only", **kwargs)])


def sparse(model, sparsity=0.9):
    return granet_tf.wrap(model, granet_tf.StaticSparse(sparsity))


def run(path, **inputs):
    runner = litert.Interpreter(str(path)).get_signature_runner()
    return runner(**{name: np.asarray(value, "float32") for name, value in inputs.items()})


def stored_kernels(path):
    """Every constant matrix or filter in the file, expanded, by its shape."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    kernels = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(tensor.shape) > 1:
            values = np.frombuffer(bytes(data), "float32")
            shape = tuple(map(int, tensor.shape))
            kernels[shape] = (
                values.reshape(shape)
                if tensor.sparsity is None
                else expand(values, shape, tensor.sparsity)
            )
    return kernels


def expand(values, shape, sparsity):
    """Decodes TFLite's sparse format: a tree with one level for each dimension, then each block."""
    result = np.zeros(shape, "float32")
    block_map = [] if sparsity.blockMap is None else list(sparsity.blockMap)
    levels = sparsity.dimMetadata

    def descend(level, position, path):
        if level == len(levels):
            coordinates = np.empty(len(levels), int)
            coordinates[sparsity.traversalOrder] = path
            index = coordinates[: len(shape)]
            for block, dimension in enumerate(block_map, start=len(shape)):
                index[dimension] = index[dimension] * levels[block].denseSize + coordinates[block]
            result[tuple(index)] = values[position]
        elif levels[level].format == schema.DimensionType.DENSE:
            size = levels[level].denseSize
            for i in range(size):
                descend(level + 1, position * size + i, [*path, i])
        else:
            segments = levels[level].arraySegments.values
            indices = levels[level].arrayIndices.values
            for i in range(segments[position], segments[position + 1]):
                descend(level + 1, i, [*path, indices[i]])

    descend(0, 0, [])
    return result


def test_file_is_small_and_holds_exactly_the_active_weights(tmp_path):
    model, path = functional(), tmp_path / "model.tflite"
    report = granet_tf.export_tflite(sparse(model), path)

    assert os.listdir(tmp_path) == ["model.tflite"]
    assert report.path == str(path)
    assert report.sparse_bytes == path.stat().st_size < 0.6 * report.raw_bytes
    assert report.gzip_bytes < report.sparse_bytes
    assert report.max_error < 1e-5
    assert f"{report.sparse_bytes:,} bytes" in str(report)

    stored = stored_kernels(path)
    norm = model.get_layer("norm")
    scale = norm.gamma / np.sqrt(norm.moving_variance + norm.epsilon)
    expected = [
        # The converter folds the normalization into the convolution: zeros stay zeros.
        (model.get_layer("conv").kernel * scale).numpy().transpose(3, 0, 1, 2),
        model.get_layer("hidden").kernel.numpy().T,
        model.get_layer("head").kernel.numpy().T,
    ]
    for kernel in expected:
        decoded = stored[kernel.shape]
        assert 0.85 < np.mean(kernel == 0) < 0.95
        np.testing.assert_array_equal(decoded != 0, kernel != 0)
        np.testing.assert_allclose(decoded, kernel, rtol=1e-6)


def test_outputs_match_keras_on_any_batch(tmp_path):
    model, path = functional(), tmp_path / "model.tflite"
    granet_tf.export_tflite(sparse(model), path)
    images = np.random.default_rng(1).normal(size=(5, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(
        run(path, image=images)["output_0"], model(images, training=False), atol=1e-6
    )


def test_a_plain_keras_model(tmp_path):
    model, path = dense(), tmp_path / "model.tflite"
    kernel = model.get_layer("only").kernel
    kernel.assign(kernel * (np.arange(32)[:, None] % 8 == 0))
    granet_tf.export_tflite(model, path)
    np.testing.assert_array_equal(stored_kernels(path)[(16, 32)], kernel.numpy().T)


@pytest.mark.parametrize("given", [None, "list", "dict"])
def test_inputs_are_matched_by_name(tmp_path, given):
    # Same shapes, and not in alphabetic order: only the names tell them apart.
    second, first = keras.Input((32,), name="second"), keras.Input((32,), name="first")
    outputs = {
        "sum": layers.Dense(16)(second) + layers.Dense(16)(first),
        "one": layers.Dense(16)(first),
    }
    inputs = {"second": second, "first": first} if given == "dict" else [second, first]
    model = keras.Model(inputs, outputs)
    arrays = np.random.default_rng(1).normal(size=(2, 3, 32))
    sample = {None: None, "list": list(arrays), "dict": dict(zip(inputs, arrays, strict=True))}
    path = tmp_path / "model.tflite"
    granet_tf.export_tflite(sparse(model), path, sample_inputs=sample[given])

    expected = model(sample[given] if given else list(arrays))
    actual = run(path, second=arrays[0], first=arrays[1])
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-6)


def test_a_subclassed_model_with_a_dict_of_inputs(tmp_path):
    model, path = two_branches(), tmp_path / "model.tflite"
    sample = {"left": np.ones((2, 40)), "right": np.zeros((2, 20))}
    granet_tf.export_tflite(sparse(model), path, sample_inputs=sample)
    actual = run(path, args_0_left=sample["left"], args_0_right=sample["right"])
    for name, value in zip(["output_0", "output_1"], model(sample), strict=True):
        np.testing.assert_allclose(actual[name], value, atol=1e-6)


def test_integer_inputs_and_open_dimensions(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 32)(tokens))
    model = sparse(keras.Model(tokens, layers.Dense(32)(x)))
    assert granet_tf.export_tflite(model, tmp_path / "model.tflite").max_error < 1e-5


def two_sequences():
    """One is to be as long as the other, and neither says how long."""
    left, right = keras.Input((None, 4), name="left"), keras.Input((None, 4), name="right")
    joined = layers.Add()([layers.Conv1D(6, 5)(left), layers.Conv1D(6, 5)(right)])
    return keras.Model([left, right], layers.Dense(3)(joined))


def deep(strides=2):
    """Too deep for images of 32 × 32."""
    parts = [layers.Conv2D(4, 5, strides=strides) for _ in range(5)]
    return keras.Sequential([keras.Input((None, None, 3)), *parts])


def skipping():
    """Heights and widths must be multiples of 4."""
    image = keras.Input((None, None, 3))
    x = layers.UpSampling2D(4)(layers.Conv2D(4, 3, padding="same")(layers.MaxPooling2D(4)(image)))
    return keras.Model(image, layers.Concatenate()([image, x]))


def attention():
    sequence = keras.Input((None, 8))
    return keras.Model(sequence, layers.MultiHeadAttention(2, 4)(sequence, sequence))


# {name: (model, another shape that it takes)}
OPEN = {
    "image": (lambda: sequential((None, None, 3), layers.Conv2D(4, 3)), (7, 11, 3)),
    "width": (lambda: sequential((20, None, 3), layers.Conv2D(4, 3)), (20, 9, 3)),
    "sequence": (
        lambda: sequential((None, 3), layers.Conv1D(4, 5), layers.GlobalMaxPooling1D()),
        (17, 3),
    ),
    "volume": (lambda: sequential((None, None, None, 2), layers.Conv3D(4, 3)), (4, 5, 6, 2)),
    "two inputs": (two_sequences, (9, 4)),
    "too deep for 32": (deep, (130, 125, 3)),
    "multiples of 4": (skipping, (12, 20, 3)),
    "multiples of 7": (
        lambda: sequential((None,), layers.Reshape((-1, 7)), layers.Dense(2)),
        (35,),
    ),
    "attention": (attention, (5, 8)),
    "batch and image": (
        lambda: keras.Sequential(
            [keras.Input(batch_shape=(2, None, None, 3)), layers.Conv2D(4, 3)]
        ),
        (8, 8, 3),
    ),
}


def sequential(shape, *rest):
    return keras.Sequential([keras.Input(shape), *rest])


@pytest.mark.parametrize("name", OPEN)
def test_open_dimensions(tmp_path, name):
    """The file runs at sizes that the model takes, not at 1 × 1, which few do."""
    make, shape = OPEN[name]
    model, path = make(), tmp_path / "model.tflite"
    for weight in model.weights:
        weight.assign(weight * (np.random.default_rng(1).random(weight.shape) < 0.5))
    report = granet_tf.export_report(model, path, encoding="sparse", latency=name == "image")
    assert report.file.max_error < 1e-5

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, *shape)).astype("float32") for _ in model.inputs]
    inputs = dict(zip([x.name for x in model.inputs], arrays, strict=True))
    runner = litert.Interpreter(str(path)).get_signature_runner()
    actual = runner(**inputs)["output_0"]
    np.testing.assert_allclose(actual, model(arrays if len(arrays) > 1 else arrays[0]), atol=1e-5)


def test_samples_decide_the_size(tmp_path):
    model = sequential((None, None, 3), layers.Conv2D(4, 3))
    report = granet_tf.export_report(
        model,
        tmp_path / "model.tflite",
        sample_inputs=np.ones((3, 10, 6, 3)),
        latency=False,
    )
    assert report.shapes == {model.inputs[0].name: (1, 10, 6, 3)}
    # Two for each product: 8 × 4 windows of 3 × 3 × 3, four filters.
    assert [row.flops_dense for row in report.rows] == [2 * 8 * 4 * 27 * 4]
    assert "for inputs of this shape" in str(report) and "1×10×6×3" in str(report)


def test_representative_data_of_several_sizes(tmp_path):
    model, path = sequential((None, None, 3), layers.Conv2D(4, 3)), tmp_path / "model.tflite"
    rng = np.random.default_rng(0)

    def batches():
        for size in (6, 9, 6):
            yield rng.uniform(-1, 1, size=(2, size, size, 3))

    with pytest.warns(UserWarning, match="Nothing in the file is sparse"):
        report = granet_tf.export_tflite(model, path, format="int8", representative_data=batches)
    assert report.samples == 6
    assert report.relative_error < 0.05


def test_the_only_size_that_a_model_takes(tmp_path):
    model = sequential((None,), layers.Reshape((13, 17)), layers.Dense(2))
    assert granet_tf.export_tflite(model, tmp_path / "model.tflite").max_error < 1e-5


def test_no_size_that_a_model_takes(tmp_path):
    model = sequential((None,), layers.Reshape((1000, 7)), layers.Dense(2))
    text = (
        "accepts random samples of no length up to 256 .*Reshape.call.*: pass `sample_inputs` of a "
        r"size that it takes. Received: inputs of shape \(any, any\)"
    )
    with pytest.raises(ValueError, match=text):
        granet_tf.export_tflite(model, tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == []
    granet_tf.export_tflite(model, tmp_path / "model.tflite", sample_inputs=np.ones((2, 7000)))


def test_samples_that_the_model_does_not_take(tmp_path):
    text = r"must accept the samples.*Received: inputs of shape {'.*': \(2, 8, 8, 3\)}"
    with pytest.raises(ValueError, match=text):
        granet_tf.export_tflite(deep(), tmp_path / "m.tflite", sample_inputs=np.ones((2, 8, 8, 3)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("inputs", [3, 130])
def test_rows_that_are_no_multiple_of_a_block_are_whole(tmp_path, inputs):
    # The converter's own encoding takes very sparse matrices for block-sparse ones, and loses the
    # last, partial block.
    path = tmp_path / "model.tflite"
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(40), layers.Dense(16)])
    model = sparse(model, 0.98).model
    kernel = model.layers[0].kernel.numpy()
    kernel[-1, 5] = 1.0
    model.layers[0].kernel.assign(kernel)
    granet_tf.export_tflite(model, path, encoding="sparse")
    stored = stored_kernels(path)
    np.testing.assert_array_equal(stored[(40, inputs)], kernel.T)
    np.testing.assert_array_equal(stored[(16, 40)], model.layers[1].kernel.numpy().T)


def test_block_sparse_kernels_keep_their_blocks(tmp_path):
    model, path = dense(16, 64), tmp_path / "model.tflite"
    kernel = model.get_layer("only").kernel
    blocks = np.random.default_rng(0).random((16, 16)) < 0.1
    kernel.assign(kernel * np.repeat(blocks, 4, axis=0))
    granet_tf.export_tflite(model, path)
    np.testing.assert_array_equal(stored_kernels(path)[(16, 64)], kernel.numpy().T)
    # Dense layers run blocks as they are: nothing expands them.
    operations = litert.Interpreter(str(path))._get_ops_details()
    assert [operation["op_name"] for operation in operations] == ["FULLY_CONNECTED"]


def test_a_dense_model_warns(tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.warns(UserWarning, match="Nothing in the file is sparse.*Received: model="):
        report = granet_tf.export_tflite(dense(), path)
    assert path.exists()
    assert report.sparse_bytes == pytest.approx(report.raw_bytes, rel=0.05)


def test_an_existing_file_is_replaced_with_usual_permissions(tmp_path):
    path, other = tmp_path / "model.tflite", tmp_path / "other"
    path.write_text("old")
    other.write_text("a new file")
    granet_tf.export_tflite(sparse(dense()), path)
    assert path.read_bytes() != b"old"
    assert path.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.keras", "must end with '.tflite'. Received: path='.*model.keras'"),
        ("folder.tflite", "must name a file, not a directory. Received: path="),
        ("missing/model.tflite", "Cannot write .*/missing': No such file.* Received: path="),
    ],
)
def test_bad_paths(tmp_path, name, text):
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(ValueError, match=text):
        granet_tf.export_tflite(dense(), tmp_path / name)
    assert os.listdir(tmp_path) == ["folder.tflite"]


def test_a_directory_that_is_not_writable(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(ValueError, match=r"Cannot write .*Permission denied. Received: path="):
        granet_tf.export_tflite(dense(), tmp_path / "model.tflite")


def float16():
    return dense(dtype="mixed_float16")


@pytest.mark.parametrize(
    ("make", "options", "error", "text"),
    [
        (object, {}, TypeError, "must be a Keras model. Received: model="),
        (TwoBranches, {}, ValueError, "call the model once on a batch. Received: model="),
        (float16, {}, ValueError, "LiteRT does not have: .*FlexMatMul.* Received: model="),
        (
            two_branches,
            {"sample_inputs": np.ones((1, 40))},
            ValueError,
            "one array for each input.*'args_0_left'.*Received: sample_inputs=",
        ),
        (
            lambda: two_branches(drift=1),
            {},
            RuntimeError,
            "something else: its output 'output_1' differs.* Received: tolerance=0.0001",
        ),
    ],
)
def test_failures_leave_what_was_there(tmp_path, make, options, error, text):
    path = tmp_path / "model.tflite"
    path.write_text("old")
    with pytest.raises(error, match=text):
        granet_tf.export_tflite(make(), path, **options)
    assert os.listdir(tmp_path) == ["model.tflite"]
    assert path.read_text() == "old"


def test_a_file_that_does_not_run(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, **_):
            raise ValueError("Node 3 failed to prepare")

    monkeypatch.setattr(litert, "Interpreter", Broken)
    text = "does not run in LiteRT: Node 3 failed to prepare. Received: a file of"
    with pytest.raises(RuntimeError, match=text):
        granet_tf.export_tflite(dense(), tmp_path / "model.tflite")
    assert os.listdir(tmp_path) == []


def test_a_larger_tolerance_accepts_a_difference(tmp_path):
    model = sparse(two_branches(drift=1))
    granet_tf.export_tflite(model, tmp_path / "model.tflite", tolerance=10.0)
    assert os.listdir(tmp_path) == ["model.tflite"]
