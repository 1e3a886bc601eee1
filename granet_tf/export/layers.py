"""Which layer of the Keras model a tensor of the file comes from.

Names in a file are the converter's, and change from one conversion to the next. So tensors are
told by their values: up to a factor for each channel, which batch normalization leaves behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import keras
import numpy as np

from granet_tf.export.flatbuffer import StoredWeight

# Axes of Keras's kernels in TFLite's order, by the number of axes: outputs first, or as they are.
_ORDERS: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((1, 0), (0, 1)),
    3: ((2, 0, 1), (1, 2, 0), (0, 1, 2), (0, 2, 1)),
    4: ((3, 0, 1, 2), (0, 1, 2, 3), (2, 0, 1, 3)),
    5: ((0, 1, 2, 3, 4),),
}
# What float16 and int8 may change of a value, as a fraction of its channel's largest one.
_ROUNDING = 0.02
# Values that are compared first: most other tensors differ there.
_FIRST = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """A weight of a file and where it comes from.

    Attributes:
        stored: The weight in the file.
        variable: The Keras variable; None where there is none.
        values: Its values in the file's layout, before normalization is folded in and numbers are
            rounded; None where there is no variable.
    """

    stored: StoredWeight
    variable: keras.Variable | None = None
    values: np.ndarray | None = None

    @property
    def rounded_to_zero(self) -> int:
        """Weights that are not zero in Keras, and are in the file."""
        if self.values is None:
            return 0
        return int(np.count_nonzero((self.values != 0) & (self.stored.values == 0)))

    @property
    def added(self) -> int:
        """Weights that are zero in Keras, and are not in the file."""
        if self.values is None:
            return 0
        return int(np.count_nonzero((self.values == 0) & (self.stored.values != 0)))


def matched(model: keras.Model, stored: Sequence[StoredWeight]) -> list[Match]:
    """The weights of a file, each with the variable that it comes from.

    Args:
        model: The Keras model that was converted.
        stored: What `read_weights` found in its file. Those with one axis are left out.

    Example:

    >>> import granet_tf
    >>> layers = [keras.layers.Dense(32, name="first"), keras.layers.Dense(32, name="second")]
    >>> model = keras.Sequential([keras.Input((32,)), *layers])
    >>> _ = granet_tf.export_tflite(model, "/tmp/two.tflite", encoding="dense")
    >>> weights = granet_tf.export.read_weights("/tmp/two.tflite")
    >>> [match.variable.path.split("/")[1] for match in matched(model, weights)]
    ['first', 'second']
    """
    free = [v for v in model.variables if len(v.shape) > 1 and _is_float(v)]
    values = {id(v): keras.ops.convert_to_numpy(v) for v in free}
    matches = []
    for weight in stored:
        if weight.values.ndim < 2 or weight.values.dtype == np.int32:
            continue
        match = Match(weight)
        for variable in free:
            found = _as_stored(values[id(variable)], weight.values)
            if found is not None:
                match = Match(weight, variable, found)
                break
        # By identity: variables compare by value.
        free = [v for v in free if v is not match.variable]
        matches.append(match)
    return matches


def _is_float(variable: keras.Variable) -> bool:
    return keras.backend.is_float_dtype(variable.dtype)


def _as_stored(ours: np.ndarray, stored: np.ndarray) -> np.ndarray | None:
    """Ours in the layout of the stored values; None if they are not the same."""
    if ours.size != stored.size:
        return None
    theirs = _normalized(stored.astype("float32"))
    for candidate in _layouts(ours, stored.shape):
        fractions = _normalized(candidate)
        first = np.abs(fractions.flat[:_FIRST] - theirs.flat[:_FIRST])
        if first.max() <= _ROUNDING and np.abs(fractions - theirs).max() <= _ROUNDING:
            return candidate
    return None


def _layouts(ours: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for order in _ORDERS.get(ours.ndim, ()):
        yield ours.transpose(order).reshape(shape)
    # Layers such as EinsumDense: some axes are inputs, the rest outputs.
    for split in range(1, ours.ndim):
        matrix = ours.reshape(int(np.prod(ours.shape[:split])), -1)
        yield matrix.T.reshape(shape)


def _normalized(values: np.ndarray) -> np.ndarray:
    """Magnitudes as fractions of the largest of their channel."""
    # The first axis has the outputs, but for depthwise kernels, where it is 1.
    axes = tuple(range(1, values.ndim)) if values.shape[0] > 1 else tuple(range(values.ndim - 1))
    magnitudes = np.abs(values)
    largest = magnitudes.max(axis=axes, keepdims=True)
    return magnitudes / np.where(largest > 0, largest, 1.0)
