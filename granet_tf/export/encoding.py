"""Which tensors of a file are stored sparsely, and what the operations that read them need then.

The converter's own sparse encoding cuts off rows, mistakes very sparse matrices for block-sparse
ones and makes int8 files that LiteRT's default delegate cannot load. So the file is converted
densely, and encoded here.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np

from granet_tf.export import sparse_format
from granet_tf.export.flatbuffer import (
    Readers,
    code_name,
    parse,
    serialize,
    tensor_dtype,
    tensor_values,
)
from granet_tf.export.sparse_format import Encoded

# This version says that weights are sparse. XNNPACK, the default delegate, leaves it to LiteRT's
# own kernels; of any other version it would take stored values for dense weights.
_SPARSE_FULLY_CONNECTED = 8


@dataclasses.dataclass(frozen=True)
class Way:
    """How an operation gets weights that are stored sparsely.

    Attributes:
        place: Which of its inputs the weights are.
        data: Which of its inputs they are applied to.
        native_block: Size of the blocks, along the inputs, that a kernel computes with as they
            are stored; None if there is no such kernel, and DENSIFY must expand them.
        version: The version of the operation that is then needed, natively or expanded; None
            leaves it as it is.
        dequantize: Whether weights must be expanded to float32, since the delegate cannot load
            the operation with int8 ones that DENSIFY made.
    """

    place: int = 1
    data: int = 0
    native_block: int | None = None
    version: int | None = None
    dequantize: bool = False


_DENSE_LAYER = Way(version=_SPARSE_FULLY_CONNECTED)
_EXPANDED = Way()
_DEQUANTIZED = Way(dequantize=True)
_TRANSPOSED = Way(data=2)
_TABLE = Way(place=0, data=1)

# {(operation, weights, what they are applied to): way}. What is not here keeps dense weights.
# Float16 under TRANSPOSE_CONV, CONV_3D and GATHER is left out on purpose: XNNPACK does not take
# these, and then expands float16 to wrong numbers.
WAYS: dict[tuple[str, str, str], Way] = {
    ("FULLY_CONNECTED", "float32", "float32"): dataclasses.replace(_DENSE_LAYER, native_block=4),
    ("FULLY_CONNECTED", "float16", "float32"): _EXPANDED,
    ("FULLY_CONNECTED", "int8", "float32"): dataclasses.replace(_DENSE_LAYER, native_block=16),
    ("FULLY_CONNECTED", "int8", "int8"): dataclasses.replace(_DENSE_LAYER, native_block=16),
    ("CONV_2D", "float32", "float32"): _EXPANDED,
    ("CONV_2D", "float16", "float32"): _EXPANDED,
    ("CONV_2D", "int8", "float32"): _DEQUANTIZED,
    ("CONV_2D", "int8", "int8"): _EXPANDED,
    ("DEPTHWISE_CONV_2D", "float32", "float32"): _EXPANDED,
    ("DEPTHWISE_CONV_2D", "float16", "float32"): _EXPANDED,
    ("DEPTHWISE_CONV_2D", "int8", "float32"): _DEQUANTIZED,
    ("DEPTHWISE_CONV_2D", "int8", "int8"): _EXPANDED,
    ("TRANSPOSE_CONV", "float32", "float32"): _TRANSPOSED,
    ("TRANSPOSE_CONV", "int8", "int8"): _TRANSPOSED,
    ("CONV_3D", "float32", "float32"): _EXPANDED,
    ("GATHER", "float32", "int32"): _TABLE,
    ("GATHER", "int8", "int32"): _TABLE,
}

# The first buffer of a file is empty, and that of all tensors that are computed.
_NO_DATA = 0

ENCODINGS = ("auto", "sparse", "dense")


def check(encoding: str) -> None:
    """Raises ValueError if there is no such encoding.

    Example:

    >>> check("auto")
    """
    if encoding not in ENCODINGS:
        raise ValueError(
            f"`encoding` must be one of {', '.join(ENCODINGS)}. Received: encoding={encoding!r}"
        )


def has_sparse_tensor(content: bytes) -> bool:
    """Whether a tensor of a file is stored sparsely.

    Example:

    >>> from tensorflow.lite.python import schema_py_generated as schema
    >>> model = schema.ModelT()
    >>> model.subgraphs = []
    >>> has_sparse_tensor(serialize(model))
    False
    """
    graphs = parse(content).subgraphs or []
    return any(tensor.sparsity is not None for graph in graphs for tensor in graph.tensors)


def encode_file(content: bytes, encoding: str) -> bytes:
    """A dense `.tflite` file anew, with sparse tensors.

    Args:
        content: The file, as the converter makes it without `EXPERIMENTAL_SPARSITY`.
        encoding: "auto" stores each tensor in the way that takes fewer bytes, and never makes a
            larger file; "sparse" stores every weight sparsely that has a zero and may be; "dense"
            changes nothing.

    Raises:
        ValueError: On another encoding.
        RuntimeError: If a tensor does not come back as it was.

    Example:

    >>> encode_file(b"", "smallest")
    Traceback (most recent call last):
        ...
    ValueError: `encoding` must be one of auto, sparse, dense. Received: encoding='smallest'
    """
    check(encoding)
    if encoding == "dense":
        return content
    model = parse(content)
    graphs = [_Graph(model, graph) for graph in model.subgraphs]
    if not sum(graph.encode(always=encoding == "sparse") for graph in graphs):
        return content
    _shorten_names(model)
    _drop_unused(model)
    encoded = serialize(model)
    _check_lossless(content, encoded)
    if encoding == "auto" and len(encoded) >= len(content):
        return content
    return encoded


class _Graph:
    """One subgraph while its tensors are being encoded."""

    def __init__(self, model: Any, graph: Any):
        self.model, self.graph = model, graph
        self.readers = Readers(model, graph)

    def encode(self, *, always: bool) -> int:
        """Stores sparsely what is to be; returns how many tensors."""
        stored = 0
        for index in list(self.readers.constants()):
            way = self._way(index)
            if way is None:
                continue
            values = tensor_values(self.model, self.graph.tensors[index])
            encoded = self._chosen(index, values, way, always=always)
            if encoded is not None:
                self._store(index, encoded, way)
                stored += 1
        return stored

    def _chosen(self, index: int, values: np.ndarray, way: Way, *, always: bool) -> Encoded | None:
        """The smallest encoding; None for dense."""
        if values.all():
            return None
        candidates = [sparse_format.encode(values)]
        if way.native_block and values.shape[-1] % way.native_block == 0:
            candidates.append(sparse_format.encode(values, way.native_block))
        sizes = [each.nbytes + self._more(index, each, way) for each in candidates]
        if always or min(sizes) < values.nbytes:
            return candidates[int(np.argmin(sizes))]
        return None

    def _more(self, index: int, encoded: Encoded, way: Way) -> int:
        """Bytes that an encoding takes besides values and indices, once another tensor has it.

        Measured on files of nothing but the tensor, twice and without values, and what reads it:
        scales are written again where DENSIFY expands integers, which can be more than is won.
        """
        sizes = []
        for stored in ([0], [0, 1]):
            excerpt = _excerpt(self.model, self.graph.tensors[index], self.readers.direct(index))
            for place in stored:
                _Graph(excerpt, excerpt.subgraphs[0])._store(place, encoded.without_values(), way)
            sizes.append(len(serialize(excerpt)))
        one, both = sizes
        return both - one

    def _way(self, index: int) -> Way | None:
        """How all readers of a constant get it when it is sparse; None if one of them cannot."""
        tensor = self.graph.tensors[index]
        if tensor.sparsity is not None or tensor.shape is None or len(tensor.shape) < 2:
            return None
        ways = {
            self._way_into(operator, place, tensor) for operator, place in self.readers.final(index)
        }
        return ways.pop() if len(ways) == 1 else None

    def _way_into(self, operator: Any, place: int, tensor: Any) -> Way | None:
        types = [tensor_dtype(self.graph.tensors[i]) if i >= 0 else "" for i in operator.inputs]
        inputs, name = list(operator.inputs), self.readers.name(operator)
        for (operation, weights, data), way in WAYS.items():
            if (
                (operation, weights) == (name, tensor_dtype(tensor))
                and len(inputs) > max(way.place, way.data)
                and inputs[way.place] == place
                and types[way.data] == data
            ):
                return way
        return None

    def _store(self, index: int, encoded: Encoded, way: Way) -> None:
        tensor = self.graph.tensors[index]
        tensor.sparsity = sparse_format.parameters(encoded)
        # Other tensors may share the old one.
        tensor.buffer = self._new_buffer(encoded.values.view(np.uint8))
        readers = self.readers.direct(index)
        native = encoded.block == way.native_block
        if way.version is not None and (native or tensor_dtype(tensor) == "int8"):
            for operator in readers:
                operator.opcodeIndex = self._code(self.readers.name(operator), way.version)
        if native:
            return
        unpacked, first = self._unpacked(index, "DENSIFY"), readers[0]
        operators = [self._operator("DENSIFY", index, unpacked)]
        if way.dequantize:
            packed, unpacked = unpacked, self._unpacked(unpacked, "DEQUANTIZE")
            operators.append(self._operator("DEQUANTIZE", packed, unpacked))
        for operator in readers:
            operator.inputs = np.array(
                [unpacked if i == index else i for i in operator.inputs], np.int32
            )
        at = self.graph.operators.index(first)
        self.graph.operators[at:at] = operators

    def _new_buffer(self, data: np.ndarray) -> int:
        from tensorflow.lite.python import schema_py_generated as schema

        buffer = schema.BufferT()
        buffer.data = data
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def _unpacked(self, index: int, by: str) -> int:
        """A new tensor for what an operation makes of the one at `index`."""
        from tensorflow.lite.python import schema_py_generated as schema

        tensor = copy.copy(self.graph.tensors[index])
        tensor.sparsity = None
        tensor.buffer = _NO_DATA
        tensor.name = by.lower().encode()
        if by == "DEQUANTIZE":
            tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _operator(self, name: str, source: int, target: int) -> Any:
        from tensorflow.lite.python import schema_py_generated as schema

        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(name, _VERSIONS[name])
        operator.inputs = np.array([source], np.int32)
        operator.outputs = np.array([target], np.int32)
        return operator

    def _code(self, name: str, version: int) -> int:
        """Index of the operation's code, which is added if the file has none."""
        from tensorflow.lite.python import schema_py_generated as schema

        codes = self.model.operatorCodes
        for index, code in enumerate(codes):
            if (code_name(code), code.version) == (name, version):
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = version
        codes.append(code)
        return len(codes) - 1


# DEQUANTIZE has one scale a channel from 5 on. (Both operations have codes below 127, so that the
# file's older field for them holds them as well.)
_VERSIONS = {"DENSIFY": 1, "DEQUANTIZE": 5}


def _excerpt(model: Any, tensor: Any, readers: list) -> Any:
    """A file of one tensor of a graph, in places 0 and 1, each with operators that read it."""
    from tensorflow.lite.python import schema_py_generated as schema

    excerpt, graph = schema.ModelT(), schema.SubGraphT()
    excerpt.subgraphs, excerpt.operatorCodes = [graph], list(model.operatorCodes)
    excerpt.buffers = [schema.BufferT() for _ in range(3)]
    graph.tensors, graph.operators = [copy.copy(tensor), copy.copy(tensor)], []
    for place, own in enumerate(graph.tensors):
        own.buffer = place + 1
        for operator in map(copy.copy, readers):
            # What else they read is left out; that they read this one at all is what counts.
            operator.inputs = np.full(len(operator.inputs), place, np.int32)
            graph.operators.append(operator)
    return excerpt


def _shorten_names(model: Any) -> None:
    """Leaves the first of the names that the converter joined where it fused operations.

    In a small network that was pruned, names of activations can be a twentieth of the file.
    """
    for graph in model.subgraphs:
        named = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in named and model.buffers[tensor.buffer].data is None:
                tensor.name = (tensor.name or b"").partition(b";")[0]


def _drop_unused(model: Any) -> None:
    """Takes out buffers that nothing refers to any more."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    owners = [*tensors, *(model.metadata or [])]
    used = sorted({_NO_DATA, *(owner.buffer for owner in owners)})
    places = {old: new for new, old in enumerate(used)}
    for owner in owners:
        owner.buffer = places[owner.buffer]
    model.buffers = [model.buffers[old] for old in used]


def _check_lossless(content: bytes, encoded: bytes) -> None:
    before, after = parse(content), parse(encoded)
    for graph, other in zip(before.subgraphs, after.subgraphs, strict=True):
        for index in Readers(before, graph).constants():
            tensor = graph.tensors[index]
            if tensor_dtype(tensor) is None:
                continue
            values = tensor_values(before, tensor)
            stored = tensor_values(after, other.tensors[index])
            if not np.array_equal(values, stored, equal_nan=True):
                raise RuntimeError(
                    "A tensor is not what it was after its encoding. "
                    f"Received: {tensor.name.decode()} of shape {values.shape}"
                )
