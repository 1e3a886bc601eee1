"""A `.tflite` file as nested objects, with the attributes of its schema, and back to bytes."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from granet_tf.export.sparse_format import decode

_IDENTIFIER = b"TFL3"
# What the schema asks for of the data of tensors.
_ALIGNMENT = 16
# {type of a tensor in the schema: NumPy's}; tensors of other types are never weights.
_DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "INT8": "int8", "INT32": "int32"}


@dataclasses.dataclass(frozen=True)
class StoredWeight:
    """A constant tensor of a file, with what is stored in it.

    Attributes:
        name: Its name in the file, which the converter made up.
        values: The tensor with its zeros: float32, float16, int8 or int32, in TFLite's layout:
            (outputs, inputs) of a dense layer, (outputs, height, width, inputs) of a convolution.
        scale: What integers are multiplied with, one value a channel or one for all; empty where
            nothing is quantized.
        sparse: Whether only nonzero blocks are stored.
        block: Values of a block; 1 for single ones.
        nbytes: Bytes that values and indices take in the file.
        operators: Names of the operations that read it, DENSIFY and DEQUANTIZE passed over.
        densified: Whether a DENSIFY operation expands it when the file is loaded.
    """

    name: str
    values: np.ndarray
    scale: np.ndarray
    sparse: bool
    block: int
    nbytes: int
    operators: tuple[str, ...]
    densified: bool

    @property
    def nonzeros(self) -> int:
        """How many values are not zero."""
        return int(np.count_nonzero(self.values))


def read_weights(file: str | os.PathLike[str] | bytes) -> list[StoredWeight]:
    """The constant tensors of a `.tflite` file, sparse ones expanded, in the order of their use.

    Args:
        file: Path of the file, or its content.

    Raises:
        ValueError: If it is no `.tflite` file.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    >>> _ = granet_tf.export_tflite(model, "/tmp/weights.tflite")
    >>> weight = max(read_weights("/tmp/weights.tflite"), key=lambda w: w.values.size)
    >>> weight.values.shape, weight.nonzeros, weight.sparse, weight.operators
    ((32, 64), 205, True, ('FULLY_CONNECTED',))
    """
    if isinstance(file, bytes):
        content = file
    else:
        with open(file, "rb") as opened:
            content = opened.read()
    model = parse(content)
    found = []
    for graph in model.subgraphs:
        readers = Readers(model, graph)
        for index in readers.constants():
            tensor = graph.tensors[index]
            if tensor_dtype(tensor) is not None:
                found.append(_stored(model, tensor, readers, index))
    return found


def parse(content: bytes) -> Any:
    """The file as a `ModelT`.

    Raises:
        ValueError: If it is no `.tflite` file.

    Example:

    >>> parse(b"PK")
    Traceback (most recent call last):
        ...
    ValueError: This is not a .tflite file. Received: 2 bytes that begin with b'PK'
    """
    from tensorflow.lite.tools import flatbuffer_utils

    if content[4:8] != _IDENTIFIER:
        raise ValueError(
            "This is not a .tflite file. "
            f"Received: {len(content):,} bytes that begin with {content[:8]!r}"
        )
    return flatbuffer_utils.convert_bytearray_to_object(content)


def serialize(model: Any) -> bytes:
    """The bytes of a `ModelT`, data of tensors aligned as the schema asks for.

    Example:

    >>> from tensorflow.lite.python import schema_py_generated as schema
    >>> serialize(schema.ModelT())[4:8]
    b'TFL3'
    """
    import flatbuffers

    for buffer in model.buffers or []:
        if buffer.data is not None and len(buffer.data):
            buffer.Pack = _aligned(buffer)
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _aligned(buffer: Any) -> Any:
    """What the schema's own Pack does, but for the alignment, which the object API leaves out."""
    from tensorflow.lite.python import schema_py_generated as schema

    data = np.asarray(buffer.data, np.uint8)

    def pack(builder):
        builder.StartVector(1, len(data), _ALIGNMENT)
        builder.head = builder.Head() - len(data)
        builder.Bytes[builder.Head() : builder.Head() + len(data)] = data.tobytes()
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)

    return pack


class Readers:
    """Who reads which tensor of one graph of a file.

    Args:
        model: A `ModelT`.
        graph: One of its subgraphs.
    """

    def __init__(self, model: Any, graph: Any):
        self.model, self.graph = model, graph
        self._of: dict[int, list] = {}
        for operator in graph.operators:
            for index in operator.inputs:
                self._of.setdefault(int(index), []).append(operator)

    def constants(self) -> Iterator[int]:
        """Indices of the tensors with data, in the order of their first use."""
        for index in self._of:
            data = index >= 0 and self.model.buffers[self.graph.tensors[index].buffer].data
            if data is not None and data is not False and len(data):
                yield index

    def direct(self, index: int) -> list:
        """The operators that read a tensor."""
        return self._of.get(index, [])

    def final(self, index: int) -> list:
        """(operator, index of the tensor it reads) past those that only unpack weights."""
        found = []
        for operator in self.direct(index):
            if self.name(operator) in ("DENSIFY", "DEQUANTIZE"):
                found += self.final(int(operator.outputs[0]))
            else:
                found.append((operator, index))
        return found

    def name(self, operator: Any) -> str:
        """The operator's name in the schema, or its own if it is a custom one."""
        return code_name(self.model.operatorCodes[operator.opcodeIndex])


def code_name(code: Any) -> str:
    """Name of an `OperatorCodeT`.

    Example:

    >>> from tensorflow.lite.python import schema_py_generated as schema
    >>> code = schema.OperatorCodeT()
    >>> code.builtinCode = schema.BuiltinOperator.CONV_2D
    >>> code_name(code)
    'CONV_2D'
    """
    if code.customCode:
        return code.customCode.decode()
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _names("BuiltinOperator")[number]


def tensor_dtype(tensor: Any) -> str | None:
    """NumPy's name for the tensor's type; None for those that no weight has."""
    return _DTYPES.get(_names("TensorType")[tensor.type])


def _names(enumeration: str) -> dict[int, str]:
    from tensorflow.lite.python import schema_py_generated as schema

    members = vars(getattr(schema, enumeration)).items()
    return {value: name for name, value in members if isinstance(value, int)}


def tensor_values(model: Any, tensor: Any) -> np.ndarray:
    """What is stored of a constant tensor, sparse ones expanded."""
    stored = np.frombuffer(bytes(model.buffers[tensor.buffer].data), tensor_dtype(tensor))
    shape = _shape(tensor)
    if tensor.sparsity is None:
        return stored.reshape(shape)
    return decode(stored, shape, tensor.sparsity)


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(map(int, tensor.shape))


def _stored(model: Any, tensor: Any, readers: Readers, index: int) -> StoredWeight:
    quantization = tensor.quantization
    scale = None if quantization is None else quantization.scale
    sparsity = tensor.sparsity
    levels = [] if sparsity is None else sparsity.dimMetadata
    return StoredWeight(
        name=(tensor.name or b"").decode(),
        values=tensor_values(model, tensor),
        scale=np.zeros(0, "float32") if scale is None else np.asarray(scale, "float32"),
        sparse=sparsity is not None,
        block=math.prod(int(level.denseSize) for level in levels[len(_shape(tensor)) :]),
        nbytes=len(model.buffers[tensor.buffer].data)
        + sum(
            vector.values.nbytes
            for level in levels
            for vector in (level.arraySegments, level.arrayIndices)
            if vector is not None
        ),
        operators=tuple(sorted({readers.name(operator) for operator, _ in readers.final(index)})),
        densified="DENSIFY" in map(readers.name, readers.direct(index)),
    )
