"""Exporting to LiteRT (TFLite) with sparse weights, and checking that the file computes the same.

Keras converts; this module asks it for the sparse encoding, runs the file once and measures it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import os
import tempfile
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# No public name does what this one does: it is how Keras's own export finds a model's inputs.
from keras.src.export.export_utils import get_input_signature

from granet_tf.model import masked_weights
from quiet_tensorflow import without_notes

# What differs by less is rounding, however small the outputs are.
_ROUNDING = 1e-6

# A dimension left open in the model, such as an image's height, is this long in random samples.
_OPEN_DIMENSION = 32


@dataclasses.dataclass(frozen=True)
class TFLiteReport:
    """What `export_tflite` wrote.

    Attributes:
        path: The file.
        raw_bytes: Size of the same model converted without sparse encoding, in bytes.
        sparse_bytes: Size of the file, in bytes.
        gzip_bytes: Size of the file after gzip, in bytes.
        max_error: Largest absolute difference between the file's outputs and the Keras model's.
    """

    path: str
    raw_bytes: int
    sparse_bytes: int
    gzip_bytes: int
    max_error: float

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.sparse_bytes:,} bytes ({self.gzip_bytes:,} gzipped), "
            f"{self.sparse_bytes / self.raw_bytes:.0%} of the {self.raw_bytes:,} without sparse "
            f"encoding; differs from Keras by at most {self.max_error:.1e}"
        )


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    sample_inputs: Any = None,
    tolerance: float = 1e-4,
    verbose: bool = False,
) -> TFLiteReport:
    """Writes a model to a `.tflite` file that stores only its nonzero weights.

    The file is run once, and its outputs are compared with the Keras model's; it takes its final
    name only after that. LiteRT stores a tensor sparsely if at least 30 % of it is zero. The file
    is smaller, not faster: most kernels expand the weights when the model is loaded.

    Args:
        model: A `SparseModel`, or any Keras model. It must be built; a subclassed model must have
            been called once.
        path: The file to write, ending in `.tflite`. An existing file is replaced.
        sample_inputs: What to run the file on: arrays of shape `(batch, ...)` in the structure
            that the model takes. By default a batch of one, drawn with a fixed seed: standard
            normal for floats, 0 or 1 for other types, and 32 for dimensions that are open.
        tolerance: Largest difference allowed, as a fraction of an output's largest magnitude.
            Differences up to 1e-6 always pass.
        verbose: Whether to show the converter's whole log. Errors show either way.

    Returns:
        A `TFLiteReport`: the file's size with and without sparse encoding, its size after gzip,
        and the largest difference.

    Raises:
        ValueError: If `path` cannot be written, if the model is not a built Keras model, if it
            needs operations that LiteRT lacks, or if `sample_inputs` do not fit its inputs.
        RuntimeError: If the converted model does not run, or computes something else. No file is
            left behind.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    >>> report = granet_tf.export_tflite(model, "/tmp/model.tflite")
    >>> report.sparse_bytes < 0.5 * report.raw_bytes
    True
    """
    path = os.fspath(path)
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be a Keras 3 model; one made with `tf_keras` is not. "
            f"Received: model={model} (of type {type(model)})"
        )
    if not path.endswith(".tflite"):
        raise ValueError(f"`path` must end with '.tflite'. Received: path={path!r}")
    if os.path.isdir(path):
        raise ValueError(f"`path` must name a file, not a directory. Received: path={path!r}")

    with _folder_beside(path) as folder, masked_weights(model) as plain:
        signature = _named_signature(plain)
        inputs = _sample_inputs(signature, sample_inputs)
        with contextlib.nullcontext() if verbose else without_notes():
            sparse = _convert(
                plain, signature, folder, optimizations=[tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
            )
        _reject_flex_ops(sparse, plain)
        with contextlib.nullcontext() if verbose else without_notes():
            raw = _convert(plain, signature, folder)
            sparse = _restore_cut_rows(sparse, raw)
            outputs = _run(sparse, signature, inputs)
        max_error = _compare(outputs, plain(*inputs, training=False), tolerance)

        written = os.path.join(folder, "verified.tflite")
        with open(written, "wb") as file:
            file.write(sparse)
        os.replace(written, path)

    if not _has_sparse_tensor(sparse):
        warnings.warn(
            "Nothing in the file is sparse: a tensor is stored sparsely only if at least 30 % of "
            f"it is zero. Received: model={model}, path={path!r}",
            stacklevel=2,
        )
    return TFLiteReport(path, len(raw), len(sparse), len(gzip.compress(sparse)), max_error)


def _folder_beside(path: str) -> tempfile.TemporaryDirectory:
    """A temporary folder on the same file system, from which a file can be renamed to `path`."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        return tempfile.TemporaryDirectory(dir=directory, prefix=".export_tflite_")
    except OSError as error:
        raise ValueError(
            f"Cannot write in the directory {directory!r}: {error.strerror}. "
            f"Received: path={path!r}"
        ) from error


def _named_signature(model: keras.Model) -> list:
    """The model's positional arguments as `InputSpec`s, each with the name it has in the file."""
    try:
        signature = get_input_signature(model)
    except ValueError as error:
        raise ValueError(
            "The shapes of the model's inputs are not known yet: call the model once on a batch. "
            f"Received: model={model}"
        ) from error
    # Subclassed models have no names for their inputs: give those that can be told apart.
    named = [
        keras.InputSpec(
            shape=spec.shape,
            dtype=spec.dtype,
            name=spec.name or "_".join(["args", *map(str, place)]),
        )
        for place, spec in keras.tree.flatten_with_path(signature)
    ]
    return keras.tree.pack_sequence_as(signature, named)


def _sample_inputs(signature: list, given: Any) -> list:
    """Tensors in the structure of the model's positional arguments."""
    places, specs = zip(*keras.tree.flatten_with_path(signature), strict=True)
    if given is None:
        rng = np.random.default_rng(0)
        values = [_random_batch(spec, rng) for spec in specs]
    else:
        arguments = [given] if len(signature) == 1 else given
        given_at = keras.tree.flatten_with_path(arguments)
        if [place for place, _ in given_at] != list(places):
            raise ValueError(
                "`sample_inputs` must hold one array for each input, in the structure that the "
                f"model takes: {keras.tree.map_structure(lambda spec: spec.name, signature)}. "
                f"Received: sample_inputs={given}"
            )
        values = [value for _, value in given_at]
    tensors = [
        keras.ops.convert_to_tensor(value, spec.dtype)
        for value, spec in zip(values, specs, strict=True)
    ]
    return keras.tree.pack_sequence_as(signature, tensors)


def _random_batch(spec: keras.InputSpec, rng: np.random.Generator) -> np.ndarray:
    shape = [1, *(_OPEN_DIMENSION if size is None else size for size in spec.shape[1:])]
    if keras.backend.is_float_dtype(spec.dtype):
        return rng.normal(size=shape)
    # As indices, 0 and 1 are in range for nearly every table.
    return rng.integers(0, 2, size=shape)


def _convert(model: keras.Model, signature: list, folder: str, **options: Any) -> bytes:
    """The bytes of the `.tflite` file that Keras's converter makes."""
    file = os.path.join(folder, "converted.tflite")
    model.export(file, format="litert", input_signature=signature, verbose=False, **options)
    with open(file, "rb") as converted:
        return converted.read()


def _reject_flex_ops(content: bytes, model: keras.Model) -> None:
    """Flex operations are TensorFlow's own, which an application with LiteRT alone cannot run."""
    names = {(code.customCode or b"").decode() for code in _parse(content).operatorCodes}
    flex = sorted(name for name in names if name.startswith("Flex"))
    if flex:
        raise ValueError(
            f"The model needs operations that LiteRT does not have: {', '.join(flex)}. Often the "
            "reason is a layer that computes in float16 or bfloat16, or a recurrent layer without "
            f"`unroll=True`. Received: model={model}"
        )


def _restore_cut_rows(content: bytes, raw: bytes) -> bytes:
    """The sparse file, with the whole matrix wherever the converter stored only a part.

    The converter stores the weights of a dense layer in blocks of 1 × 4 if these are about as
    sparse as single weights, and forgets what follows the last whole block of each row. So
    it corrupts some layers whose number of inputs is no multiple of 4.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = _parse(content)
    cut = [tensor for graph in model.subgraphs for tensor in graph.tensors if _is_cut(tensor)]
    if not cut:
        return content
    shapes = ", ".join(sorted({str(tuple(map(int, tensor.shape[::-1]))) for tensor in cut}))
    warnings.warn(
        "The converter cannot store some sparse kernels, because their number of inputs is no "
        f"multiple of 4: they are stored densely. Received: kernels of shape {shapes}",
        stacklevel=3,
    )
    raw_model = _parse(raw)
    for graph, raw_graph in zip(model.subgraphs, raw_model.subgraphs, strict=True):
        # Names vary from one conversion to the next, but not the order of operations and inputs.
        pairs = zip(_operands(model, graph), _operands(raw_model, raw_graph), strict=True)
        for tensor, raw_tensor in pairs:
            if _is_cut(tensor):
                tensor.sparsity = None
                tensor.buffer = len(model.buffers)
                model.buffers.append(raw_model.buffers[raw_tensor.buffer])
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    return flatbuffer_utils.convert_object_to_bytearray(model)


def _operands(model: Any, graph: Any) -> list:
    """What the operations of a graph take, without those that only expand sparse weights."""
    from tensorflow.lite.python.schema_py_generated import BuiltinOperator

    return [
        graph.tensors[index]
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode != BuiltinOperator.DENSIFY
        for index in operator.inputs
        if index >= 0
    ]


def _is_cut(tensor: Any) -> bool:
    if tensor.sparsity is None or tensor.sparsity.blockMap is None:
        return False
    blocks = tensor.sparsity.dimMetadata[len(tensor.shape) :]
    sizes = [tensor.shape[dimension] for dimension in tensor.sparsity.blockMap]
    return any(size % block.denseSize for size, block in zip(sizes, blocks, strict=True))


def _has_sparse_tensor(content: bytes) -> bool:
    graphs = _parse(content).subgraphs
    return any(tensor.sparsity is not None for graph in graphs for tensor in graph.tensors)


def _parse(content: bytes) -> Any:
    """The file as nested objects, with the attributes of TFLite's schema."""
    from tensorflow.lite.tools import flatbuffer_utils

    return flatbuffer_utils.convert_bytearray_to_object(content)


def _run(content: bytes, signature: list, inputs: list) -> dict[str, np.ndarray]:
    """The outputs by name, from the interpreter that applications use."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter  # The same, in the package that it is leaving.
    feed = {
        spec.name: keras.ops.convert_to_numpy(value)
        for spec, value in zip(
            keras.tree.flatten(signature), keras.tree.flatten(inputs), strict=True
        )
    }
    try:
        return Interpreter(model_content=content).get_signature_runner()(**feed)
    except (RuntimeError, ValueError) as error:
        shapes = {name: value.shape for name, value in feed.items()}
        raise RuntimeError(
            f"The converted model does not run in LiteRT: {error}. "
            f"Received: inputs of shape {shapes}"
        ) from error


def _compare(outputs: dict[str, np.ndarray], expected: Any, tolerance: float) -> float:
    """The largest absolute difference over all outputs, none of which may be too large."""
    if not isinstance(expected, dict):
        expected = {f"output_{i}": value for i, value in enumerate(keras.tree.flatten(expected))}
    errors = []
    for name, value in expected.items():
        ours = np.asarray(keras.ops.convert_to_numpy(value), "float64")
        file = np.asarray(outputs[name], "float64")
        # Infinities and NaNs agree when they are the same.
        differs = (ours != file) & ~(np.isnan(ours) & np.isnan(file))
        with np.errstate(invalid="ignore"):
            error = np.max(np.abs(ours - file), where=differs, initial=0.0)
        scale = np.max(np.abs(ours), where=np.isfinite(ours), initial=0.0)
        # Written so that a NaN is no pass.
        if not error <= max(tolerance * scale, _ROUNDING):
            raise RuntimeError(
                f"The converted model computes something else: its output {name!r} differs from "
                f"Keras by {error:.3g}, where values reach {scale:.3g}. If the model is that "
                f"sensitive to rounding, pass a larger `tolerance`. Received: tolerance={tolerance}"
            )
        errors.append(error)
    return float(max(errors))
