"""The sparse tensors of a `.tflite` file: which bytes they take, and from there to arrays and back.

A sparse tensor is a tree: one level for each dimension, in the order of traversal, then one for
each dimension that is cut into blocks. A dense level has all children, a sparse one lists them, as
rows of a compressed sparse matrix do.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

# A list of indices takes the first of these that holds its largest one.
_INDICES = (
    (1 << 8, np.uint8, "Uint8Vector"),
    (1 << 16, np.uint16, "Uint16Vector"),
    (1 << 31, np.int32, "Int32Vector"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor as it is stored.

    Attributes:
        values: Stored values, one-dimensional: nonzeros, and zeros in a block with some nonzero.
        segments: Where each row's blocks begin among all blocks, and their number at the end.
        indices: Place of each block within its row.
        shape: Of the tensor.
        block: Consecutive values along the last axis that are stored together.
    """

    values: np.ndarray
    segments: np.ndarray
    indices: np.ndarray
    shape: tuple[int, ...]
    block: int

    @property
    def nbytes(self) -> int:
        """Bytes of values and indices in the file, its few fixed fields not counted."""
        return self.values.nbytes + _narrow(self.segments).nbytes + _narrow(self.indices).nbytes

    def without_values(self) -> Encoded:
        """What is left of it in the file when there is nothing to store."""
        nothing = np.zeros(0, np.int64)
        return dataclasses.replace(self, values=self.values[:0], segments=nothing, indices=nothing)


def encode(values: np.ndarray, block: int = 1) -> Encoded:
    """Stores only blocks with a nonzero, along the last axis; all other axes are dense.

    Args:
        values: An array with one axis or more.
        block: Consecutive values stored together. Must divide the last axis.

    Raises:
        ValueError: If blocks do not fit.

    Example:

    >>> encoded = encode(np.array([[0, 0, 0, 7], [5, 0, 0, 0]], np.int8))
    >>> encoded.values.tolist(), encoded.segments.tolist(), encoded.indices.tolist()
    ([7, 5], [0, 1, 2], [3, 0])
    >>> encoded.nbytes
    7
    """
    if values.ndim < 1 or block < 1 or values.shape[-1] % block:
        raise ValueError(
            "`block` must divide the last axis of `values`. "
            f"Received: block={block}, values of shape {values.shape}"
        )
    blocks = values.reshape(-1, values.shape[-1] // block, block)
    stored = (blocks != 0).any(axis=-1)
    segments = np.concatenate([[0], np.cumsum(stored.sum(axis=-1))])
    return Encoded(blocks[stored].reshape(-1), segments, np.nonzero(stored)[1], values.shape, block)


def parameters(encoded: Encoded) -> Any:
    """The tensor's `SparsityParametersT`, as the file's schema has it.

    Example:

    >>> sparsity = parameters(encode(np.eye(4, dtype="float32"), block=2))
    >>> sparsity.traversalOrder.tolist(), sparsity.blockMap.tolist()
    ([0, 1, 2], [1])
    """
    from tensorflow.lite.python import schema_py_generated as schema

    def dense(size):
        level = schema.DimensionMetadataT()
        level.format, level.denseSize = schema.DimensionType.DENSE, size
        return level

    rank = len(encoded.shape)
    sparse = schema.DimensionMetadataT()
    sparse.format = schema.DimensionType.SPARSE_CSR
    sparse.arraySegmentsType, sparse.arraySegments = _vector(encoded.segments)
    sparse.arrayIndicesType, sparse.arrayIndices = _vector(encoded.indices)
    result = schema.SparsityParametersT()
    result.dimMetadata = [*map(dense, encoded.shape[:-1]), sparse]
    if encoded.block > 1:
        result.dimMetadata.append(dense(encoded.block))
        result.blockMap = np.array([rank - 1], np.int32)
    result.traversalOrder = np.arange(len(result.dimMetadata), dtype=np.int32)
    return result


def decode(values: np.ndarray, shape: tuple[int, ...], sparsity: Any) -> np.ndarray:
    """The tensor with its zeros, from any `SparsityParametersT`, whatever wrote it.

    Args:
        values: The stored values, one-dimensional.
        shape: Of the tensor.
        sparsity: How they are stored.

    Raises:
        ValueError: If there are more or fewer values than the indices say.

    Example:

    >>> matrix = np.array([[0, 2, 0, 0], [0, 0, 0, 0], [3, 0, 4, 5]], np.int8)
    >>> encoded = encode(matrix, block=2)
    >>> bool((decode(encoded.values, matrix.shape, parameters(encoded)) == matrix).all())
    True
    """
    from tensorflow.lite.python.schema_py_generated import DimensionType

    # The place of each node of the tree on the levels so far, one row a level.
    places = np.zeros((0, 1), np.int64)
    for level in sparsity.dimMetadata:
        nodes = places.shape[1]
        if level.format == DimensionType.DENSE:
            counts = np.full(nodes, level.denseSize)
            own = np.tile(np.arange(level.denseSize), nodes)
        else:
            segments = np.asarray(level.arraySegments.values, np.int64)
            counts = np.diff(segments)[:nodes]
            own = np.asarray(level.arrayIndices.values, np.int64)
        places = np.vstack([np.repeat(places, counts, axis=1), own])
    if places.shape[1] != len(values):
        raise ValueError(
            f"The indices of a sparse tensor of shape {tuple(shape)} are for {places.shape[1]:,} "
            f"values. Received: {len(values):,} values"
        )
    coordinates = np.empty_like(places)
    coordinates[np.asarray(sparsity.traversalOrder)] = places
    position = coordinates[: len(shape)]
    cut = [] if sparsity.blockMap is None else list(sparsity.blockMap)
    order = list(sparsity.traversalOrder)
    for number, axis in enumerate(cut, start=len(shape)):
        size = sparsity.dimMetadata[order.index(number)].denseSize
        position[axis] = position[axis] * size + coordinates[number]
    result = np.zeros(shape, values.dtype)
    result[tuple(position)] = values
    return result


def _narrow(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(_kind(numbers)[1])


def _kind(numbers: np.ndarray) -> tuple:
    largest = int(numbers.max(initial=0))
    return next(kind for kind in _INDICES if largest < kind[0])


def _vector(numbers: np.ndarray) -> tuple[int, Any]:
    """(type, object) of the schema's union of vectors."""
    from tensorflow.lite.python import schema_py_generated as schema

    _, dtype, name = _kind(numbers)
    vector = getattr(schema, f"{name}T")()
    vector.values = numbers.astype(dtype)
    return getattr(schema.SparseIndexVector, name), vector
