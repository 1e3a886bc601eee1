"""`export_mnn`: files for an engine that skips zeros, run here by MNN itself."""

import os
import sys

import keras
import MNN
import numpy as np
import pytest

import granet_tf
from granet_tf.export import mnn_conversion
from granet_tf.export.mnn_file import read_mnn_weights

layers = keras.layers


def pruned(model, sparsity=0.9):
    """Each kernel at this sparsity, at random."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            weight.assign(weight * (rng.random(weight.shape) > sparsity))
    return model


def convolutions():
    return pruned(
        keras.Sequential(
            [
                keras.Input((16, 16, 3), name="pixels"),
                layers.Conv2D(32, 3, padding="same", activation="relu"),
                layers.Conv2D(64, 1),
                layers.BatchNormalization(),
                layers.DepthwiseConv2D(3, strides=2),
                layers.GlobalAveragePooling2D(),
                layers.Dense(10, activation="softmax"),
            ]
        )
    )


def run(path, report, feed):
    """Outputs by their names in Keras, as an application gets them by the names of the report."""
    net = MNN.Interpreter(str(path))
    session = net.createSession({"backend": "CPU", "precision": "high"})
    for name, array in feed.items():
        tensor = net.getSessionInput(session, report.inputs[name])
        net.resizeTensor(tensor, array.shape)
    net.resizeSession(session)
    for name, array in feed.items():
        tensor = net.getSessionInput(session, report.inputs[name])
        kind = MNN.Halide_Type_Int if array.dtype == np.int32 else MNN.Halide_Type_Float
        tensor.copyFrom(MNN.Tensor(array.shape, kind, array, tensor.getDimensionType()))
    net.runSession(session)
    outputs = {}
    for name, own in report.outputs.items():
        tensor = net.getSessionOutput(session, own)
        outputs[name] = np.array(tensor.getNumpyData()).reshape(tensor.getShape())
    return outputs


def test_the_file_computes_what_keras_does_on_batches_of_any_size(tmp_path):
    model, path = convolutions(), tmp_path / "model.mnn"
    images = np.random.default_rng(1).normal(size=(70, 16, 16, 3)).astype("float32")
    report = granet_tf.export_mnn(model, path, sample_inputs=images)
    assert os.listdir(tmp_path) == ["model.mnn"]
    assert (report.samples, report.sparse_bytes) == (70, path.stat().st_size)
    for number in (1, 70):
        actual = run(path, report, {"pixels": images[:number]})
        expected = model.predict(images[:number], verbose=0)
        np.testing.assert_allclose(actual["output_0"], expected, atol=1e-6)


def large():
    return pruned(keras.Sequential([keras.Input((8, 8, 128)), layers.Conv2D(256, 1)]), 0.95)


def test_zeros_take_no_room(tmp_path):
    model = large()
    report = granet_tf.export_mnn(model, tmp_path / "model.mnn")
    dense = 4 * 128 * 256
    assert report.raw_bytes > dense
    # A value and where it is, and what the file has besides.
    assert report.sparse_bytes < 0.12 * dense + 2048


def in_blocks(model, outputs, sparsity=0.9):
    """Each kernel at this sparsity, its zeros in blocks of as many outputs."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        if len(weight.shape) > 1:
            *rest, number = weight.shape
            drawn = rng.random((*rest, -(-number // outputs))) > sparsity
            weight.assign(weight * np.repeat(drawn, outputs, -1)[..., :number])
    return model


def kernels_of_each_kind():
    """Numbers of outputs that are multiples of 4, and that are not."""
    return keras.Sequential(
        [
            keras.Input((12, 12, 8), name="pixels"),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(30, 1),
            layers.BatchNormalization(),
            layers.Conv2D(16, 3, strides=2, groups=2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(50, activation="relu"),
            layers.Dense(10),
        ]
    )


def test_zeros_in_blocks_are_computed_in_blocks(tmp_path):
    model, path = in_blocks(kernels_of_each_kind(), 4, 0.7), tmp_path / "model.mnn"
    images = np.random.default_rng(1).normal(size=(9, 12, 12, 8)).astype("float32")
    report = granet_tf.export_mnn(model, path, sample_inputs=images)
    assert {(w.sparse, w.block) for w in read_mnn_weights(path)} == {(True, 4)}
    for number in (1, 9):
        actual = run(path, report, {"pixels": images[:number]})["output_0"]
        expected = model.predict(images[:number], verbose=0)
        np.testing.assert_allclose(actual, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize(("outputs", "block"), [(1, 1), (2, 1), (8, 4)])
def test_zeros_that_four_outputs_do_not_share_are_computed_one_by_one(outputs, block, tmp_path):
    granet_tf.export_mnn(in_blocks(kernels_of_each_kind(), outputs), tmp_path / "model.mnn")
    assert {w.block for w in read_mnn_weights(tmp_path / "model.mnn")} == {block}


def test_the_pattern_mnn_gives_such_blocks(tmp_path):
    sparse = granet_tf.wrap(
        kernels_of_each_kind(), granet_tf.StaticSparse(0.8, pattern="mnn", distribution="uniform")
    )
    granet_tf.export_mnn(sparse, tmp_path / "model.mnn")
    kernels = read_mnn_weights(tmp_path / "model.mnn")
    assert {w.block for w in kernels} == {4}
    for kernel in kernels[:2]:
        active = kernel.values[: len(kernel.values) // 4 * 4] != 0
        of_four = active.reshape(-1, 4, active[0].size)
        np.testing.assert_array_equal(of_four.any(1), of_four.all(1))


def test_eight_bits_take_less(tmp_path):
    model = large()
    whole = granet_tf.export_mnn(model, tmp_path / "whole.mnn")
    rounded = granet_tf.export_mnn(model, tmp_path / "int8.mnn", format="dynamic_range")
    assert rounded.sparse_bytes < 0.7 * whole.sparse_bytes
    assert 0 < rounded.relative_error < 0.1


def test_a_wrapped_model_is_exported_with_its_masks(tmp_path):
    model = granet_tf.wrap(convolutions(), granet_tf.StaticSparse(0.9), mask_only=True)
    report = granet_tf.export_mnn(model, tmp_path / "model.mnn")
    image = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype("float32")
    actual = run(tmp_path / "model.mnn", report, {"pixels": image})["output_0"]
    expected = granet_tf.strip(model).predict(image, verbose=0)
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    left, right = keras.Input((16,), name="left"), keras.Input((8, 8, 3), name="right")
    seen = layers.Flatten()(layers.Conv2D(8, 3)(right))
    joined = layers.Concatenate()([layers.Dense(32)(left), seen])
    model = keras.Model(
        [left, right], {"large": layers.Dense(5)(joined), "small": layers.Dense(3)(joined)}
    )
    report = granet_tf.export_mnn(pruned(model), tmp_path / "model.mnn")
    rng = np.random.default_rng(1)
    feed = {
        "left": rng.normal(size=(2, 16)).astype("float32"),
        "right": rng.normal(size=(2, 8, 8, 3)).astype("float32"),
    }
    actual = run(tmp_path / "model.mnn", report, feed)
    expected = model.predict(list(feed.values()), verbose=0)
    assert sorted(actual) == sorted(expected) == ["large", "small"]
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, atol=1e-5)


def test_sequences_of_any_length(tmp_path):
    model = pruned(
        keras.Sequential(
            [
                keras.Input((None,), dtype="int32", name="tokens"),
                layers.Embedding(100, 16),
                layers.Conv1D(32, 3, padding="same"),
                layers.GlobalAveragePooling1D(),
                layers.Dense(4),
            ]
        )
    )
    report = granet_tf.export_mnn(model, tmp_path / "model.mnn")
    for shape in ((1, 7), (3, 20)):
        tokens = np.random.default_rng(1).integers(0, 100, shape).astype("int32")
        actual = run(tmp_path / "model.mnn", report, {"tokens": tokens})["output_0"]
        np.testing.assert_allclose(actual, model.predict(tokens, verbose=0), atol=1e-6)


def test_accuracies(tmp_path):
    model = convolutions()
    images = np.random.default_rng(1).normal(size=(20, 16, 16, 3)).astype("float32")
    labels = model.predict(images, verbose=0).argmax(-1)
    labels[:5] = (labels[:5] + 1) % 10
    path = tmp_path / "model.mnn"
    report = granet_tf.export_mnn(model, path, sample_inputs=images, labels=labels)
    assert (report.accuracy_keras, report.accuracy_file) == (0.75, 0.75)
    assert "accuracy 75.00%, in Keras 75.00%" in str(report)


def test_operations_that_mnn_lacks_are_named_and_nothing_is_written(tmp_path):
    inputs = keras.Input((12, 32))
    model = keras.Model(inputs, layers.MultiHeadAttention(4, 8)(inputs, inputs))
    path = tmp_path / "model.mnn"
    path.write_bytes(b"of before")
    with pytest.raises((RuntimeError, ValueError), match=r"it lacks Einsum\. Received: model="):
        granet_tf.export_mnn(model, path)
    assert os.listdir(tmp_path) == ["model.mnn"]
    assert path.read_bytes() == b"of before"


def test_what_computes_something_else_is_not_written(tmp_path):
    model = large()
    with pytest.raises(RuntimeError, match=r"computes something else: .* Received: model="):
        granet_tf.export_mnn(model, tmp_path / "m.mnn", format="dynamic_range", tolerance=1e-7)
    assert os.listdir(tmp_path) == []


def test_a_model_without_zeros_gives_a_warning(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 16)), layers.Conv2D(64, 1)])
    with pytest.warns(UserWarning, match="Nothing in the file is sparse"):
        granet_tf.export_mnn(model, tmp_path / "model.mnn")


BAD = {
    "suffix": ({"path": "m.tflite"}, "`path` must end with '.mnn'. Received: path='m.tflite'"),
    "directory": ({"path": "no/such/m.mnn"}, "Cannot write in the directory"),
    "format": (
        {"format": "float16"},
        "`format` must be one of float32, dynamic_range for MNN. MNN's converter stores float16 "
        "weights densely. Received: format='float16'",
    ),
    "labels": ({"labels": [1]}, "`labels` need `sample_inputs`. Received: sample_inputs=None"),
    "samples": (
        {"sample_inputs": np.zeros((2, 5))},
        r"`sample_inputs` must have the shape \(any, 4\)",
    ),
    "unbuilt": ({"model": keras.Sequential([layers.Dense(2)])}, "call the model once on a batch"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, message = BAD[case]
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    arguments = {"model": model, "path": "m.mnn"} | given
    with pytest.raises(ValueError, match=message):
        granet_tf.export_mnn(arguments.pop("model"), arguments.pop("path"), **arguments)
    assert os.listdir(tmp_path) == []


def test_what_is_not_keras(tmp_path):
    with pytest.raises(TypeError, match=r"Received: .*object"):
        granet_tf.export_mnn(object(), tmp_path / "m.mnn")


def test_without_mnn(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "MNN", None)
    with pytest.raises(ImportError, match=r"pip install 'granet_tf\[mnn\]'. Received: an env"):
        granet_tf.export_mnn(convolutions(), tmp_path / "m.mnn")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('Start to Convert'); print('no room left')", "the converter says 'no room left'"),
        ("import os; os.abort()", "the converter ended with code -6"),
    ],
)
def test_a_converter_that_fails(program, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(mnn_conversion, "_CONVERTER", program)
    with pytest.raises(ValueError, match=f"{reason}.* Received: model="):
        granet_tf.export_mnn(convolutions(), tmp_path / "m.mnn")
    assert os.listdir(tmp_path) == []
