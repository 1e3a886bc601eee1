"""What an `.mnn` file says of its convolutions and dense layers.

The fields of MNN's schema (`schema/default/MNN.fbs` and `CaffeOp.fbs` of version 3.6), by their
numbers, which no later version may change.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

import flatbuffers
import numpy as np
from flatbuffers.number_types import Float32Flags, Int32Flags, Uint8Flags, UOffsetTFlags

from granet_tf.export.flatbuffer import StoredWeight

_NET_OPERATIONS, _NET_SUBGRAPHS = 3, 10
_SUBGRAPH_OPERATIONS = 4
_OPERATION_HAS, _OPERATION_MAIN, _OPERATION_NAME, _OPERATION_TYPE = 1, 2, 3, 5
_COMMON, _WEIGHT, _QUANTIZED, _SPARSE = 0, 1, 3, 5
_KERNEL_X, _KERNEL_Y, _OUTPUTS = 2, 3, 10
# Strides and dilations.
_MOVES = (4, 5, 6, 7)
_VALUES, _SIZE, _INDEX = 1, 12, 13
_ARGUMENTS, _INTEGER, _KEY = 1, 1, 3
# Which of the union of parameters a convolution has, a dense layer's too.
_CONVOLUTION_2D = 9

CONVOLUTION, DEPTHWISE = "Convolution", "ConvolutionDepthwise"
_TYPES = {12: CONVOLUTION, 13: DEPTHWISE}


@dataclasses.dataclass(frozen=True)
class MNNWeight(StoredWeight):
    """A `StoredWeight` of an `.mnn` file.

    Attributes:
        winograd: Whether a dense kernel could compute it by Winograd's algorithm, with fewer
            products: a square window that moves by one position.
    """

    winograd: bool


def read_mnn_weights(file: str | os.PathLike[str] | bytes) -> list[MNNWeight]:
    """The float32 kernels of an `.mnn` file, in the order of their operations.

    Dense layers are convolutions of 1 × 1 in MNN. Kernels in other number formats are left out.

    Args:
        file: Path of the file, or its content.

    Returns:
        An `MNNWeight` for each, as `read_weights` has them, in TFLite's layout; `operators` has
        "Convolution" or "ConvolutionDepthwise". `densified` says that MNN expands it: it does so
        with depthwise kernels.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((8, 8, 16)), keras.layers.Conv2D(32, 3)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    >>> _ = granet_tf.export_mnn(model, "/tmp/read.mnn")
    >>> [weight] = read_mnn_weights("/tmp/read.mnn")
    >>> weight.values.shape, weight.sparse, weight.nonzeros, weight.operators
    ((32, 3, 3, 16), True, 461, ('Convolution',))
    """
    if isinstance(file, bytes):
        content = file
    else:
        with open(file, "rb") as opened:
            content = opened.read()
    net = _Table.root(content)
    operations = net.tables(_NET_OPERATIONS)
    for graph in net.tables(_NET_SUBGRAPHS):
        operations += graph.tables(_SUBGRAPH_OPERATIONS)
    kernels = [kernel for kernel in map(_kernel, operations) if kernel is not None]
    return [_joined([*parts]) for _, parts in itertools.groupby(kernels, _name_of_all_groups)]


def taken_in_blocks(weight: MNNWeight, block: int) -> int:
    """How many weights the blocks of this many outputs have in which some weight is not 0.

    Example: a kernel of one input and eight outputs, of which four are not 0.

    >>> def kernel(*outputs):
    ...     values = np.array(outputs, np.float32).reshape(8, 1, 1, 1)
    ...     return MNNWeight("w", values, values, True, 1, 16, (CONVOLUTION,), False, False)
    >>> taken_in_blocks(kernel(1, 2, 3, 4, 0, 0, 0, 0), 4)
    4
    >>> taken_in_blocks(kernel(1, 0, 2, 0, 3, 0, 4, 0), 4)
    8
    """
    active = weight.values.reshape(len(weight.values), -1) != 0
    filled = np.pad(active, [(0, -len(active) % block), (0, 0)])
    return block * int(filled.reshape(-1, block, active.shape[1]).any(1).sum())


def _name_of_all_groups(kernel: MNNWeight) -> str:
    """MNN has an operation for each group of a convolution.

    Example:

    >>> nothing = np.zeros(0)
    >>> kernel = MNNWeight("conv__group__3", nothing, nothing, True, 1, 8, (), False, False)
    >>> _name_of_all_groups(kernel)
    'conv'
    """
    return kernel.name.partition("__group__")[0]


def _joined(parts: list[MNNWeight]) -> MNNWeight:
    if len(parts) == 1:
        return parts[0]
    return dataclasses.replace(
        parts[0],
        name=_name_of_all_groups(parts[0]),
        values=np.concatenate([part.values for part in parts]),
        sparse=any(part.sparse for part in parts),
        nbytes=sum(part.nbytes for part in parts),
    )


def _kernel(operation: _Table) -> MNNWeight | None:
    kind = _TYPES.get(operation.integer(_OPERATION_TYPE))
    if kind is None or operation.integer(_OPERATION_HAS, Uint8Flags) != _CONVOLUTION_2D:
        return None
    convolution = operation.table(_OPERATION_MAIN)
    stored = _values(convolution)
    if stored is None:
        return None
    values, nbytes = stored
    common = convolution.table(_COMMON)
    sparse = convolution.table(_SPARSE)
    is_sparse = sparse is not None
    return MNNWeight(
        name=operation.text(_OPERATION_NAME),
        values=_in_order(values, common, kind),
        scale=np.zeros(0, np.float32),
        sparse=is_sparse,
        block=_block(sparse) if is_sparse else 1,
        nbytes=nbytes,
        operators=(kind,),
        densified=is_sparse and kind == DEPTHWISE,
        winograd=_may_be_winograd(common),
    )


def _block(sparse: _Table) -> int:
    """How many outputs the kernel takes together."""
    arguments = sparse.tables(_ARGUMENTS)
    return next(a.integer(_INTEGER) for a in arguments if a.text(_KEY) == "sparseBlockOC")


def _values(convolution: _Table) -> tuple[np.ndarray, int] | None:
    """Values and the bytes that they take; None where they are not in float32."""
    dense = convolution.vector(_WEIGHT, Float32Flags)
    if dense is not None:
        return dense, dense.nbytes
    quantized = convolution.table(_QUANTIZED)
    index = None if quantized is None else quantized.vector(_INDEX, UOffsetTFlags)
    if index is None:
        return None
    nonzeros = quantized.vector(_VALUES, Float32Flags)
    values = np.zeros(quantized.integer(_SIZE), np.float32)
    values[index] = nonzeros
    return values, nonzeros.nbytes + index.nbytes


def _may_be_winograd(common: _Table) -> bool:
    height, width = (common.integer(field, default=1) for field in (_KERNEL_Y, _KERNEL_X))
    return height == width > 1 and all(common.integer(f, default=1) == 1 for f in _MOVES)


def _in_order(values: np.ndarray, common: _Table, kind: str) -> np.ndarray:
    """From (outputs, inputs, height, width) to TFLite's layout."""
    height, width = common.integer(_KERNEL_Y, default=1), common.integer(_KERNEL_X, default=1)
    by_output = values.reshape(common.integer(_OUTPUTS), -1, height, width)
    order = (1, 2, 3, 0) if kind == DEPTHWISE else (0, 2, 3, 1)
    return by_output.transpose(order)


class _Table:
    """A table of a flatbuffer, whose fields are asked for by number.

    Example:

    >>> builder = flatbuffers.Builder()
    >>> builder.StartObject(2)
    >>> builder.PrependInt32Slot(1, 7, 0)
    >>> _ = builder.Finish(builder.EndObject())
    >>> table = _Table.root(bytes(builder.Output()))
    >>> table.integer(0, default=3), table.integer(1), table.table(0)
    (3, 7, None)
    """

    def __init__(self, content: bytes, position: int):
        self._content = content
        self._table = flatbuffers.table.Table(content, position)

    @classmethod
    def root(cls, content: bytes) -> _Table:
        return cls(content, flatbuffers.encode.Get(UOffsetTFlags.packer_type, content, 0))

    def _place(self, field):
        """From the beginning of the table; 0 where it is left out."""
        return self._table.Offset(4 + 2 * field)

    def integer(self, field: int, flags=Int32Flags, default: int = 0) -> int:
        place = self._place(field)
        return self._table.Get(flags, place + self._table.Pos) if place else default

    def text(self, field: int) -> str:
        place = self._place(field)
        return self._table.String(place + self._table.Pos).decode() if place else ""

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        if not place:
            return None
        return _Table(self._content, self._table.Indirect(place + self._table.Pos))

    def tables(self, field: int) -> list[_Table]:
        place = self._place(field)
        if not place:
            return []
        begin = self._table.Vector(place)
        places = range(begin, begin + 4 * self._table.VectorLen(place), 4)
        return [_Table(self._content, self._table.Indirect(each)) for each in places]

    def vector(self, field: int, flags) -> np.ndarray | None:
        place = self._place(field)
        return self._table.GetVectorAsNumpy(flags, place) if place else None
