"""In which numbers a file stores and computes: float32, float16 weights, two kinds of int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

Calibration = Callable[[], Iterable[Mapping[str, Any]]]
"""Makes batches of inputs by name, from which ranges of activations are measured."""


@dataclasses.dataclass(frozen=True)
class Format:
    """One number format.

    Attributes:
        description: In a few words.
        tolerance: Largest difference from Keras that passes, as a fraction of an output's largest
            magnitude. That of int8 only tells rounding from garbage.
        needs_data: Whether activations are quantized, for which their ranges must be measured.
        options: What the converter is told.
    """

    description: str
    tolerance: float
    needs_data: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def converter_options(self, calibration: Calibration | None) -> dict[str, Any]:
        """Options for `keras.Model.export`, with the data where they are needed.

        Example:

        >>> FORMATS["float32"].converter_options(None)
        {}
        """
        data = {"representative_dataset": calibration} if self.needs_data else {}
        return {**self.options, **data}


_SMALLER = {"optimizations": [tf.lite.Optimize.DEFAULT]}

FORMATS: dict[str, Format] = {
    "float32": Format("float32", 1e-4),
    "float16": Format(
        "float16 weights, computed in float32",
        1e-2,
        options={**_SMALLER, "target_spec": {"supported_types": [tf.float16]}},
    ),
    "dynamic_range": Format("int8 weights, float32 activations", 0.5, options=_SMALLER),
    "int8": Format(
        "int8 weights and activations, float32 inputs and outputs",
        0.5,
        needs_data=True,
        # No SELECT_TF_OPS: TensorFlow's own operations do not compute in int8.
        options={
            **_SMALLER,
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        },
    ),
}
"""By name. "int8" fails where an operation has no int8 kernel."""


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        ValueError: If there is none.

    Example:

    >>> format_named("int8").needs_data
    True
    """
    if name not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: format={name!r}")
    return FORMATS[name]
