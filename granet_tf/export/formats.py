"""In which numbers a file stores and computes: float32, float16 weights, two kinds of int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

Calibration = Callable[[], Iterable[Mapping[str, Any]]]
"""Makes batches of inputs by name, from which ranges of activations are measured."""


@dataclasses.dataclass(frozen=True)
class Format:
    """One number format.

    Attributes:
        description: In a few words.
        rounding: What its rounding usually does to outputs, in a sentence.
        tolerance: Largest difference from Keras that passes, as a fraction of an output's largest
            magnitude. That of int8 only tells rounding from garbage.
        needs_data: Whether activations are quantized, for which their ranges must be measured.
        quantizes: Whether weights are stored in fewer bits.
        types: Names of the types that weights are stored in, where not as the converter chooses.
        operations: Name of the only set of operations allowed, where not any.
    """

    description: str
    rounding: str
    tolerance: float
    needs_data: bool = False
    quantizes: bool = False
    types: tuple[str, ...] = ()
    operations: str | None = None

    def check_fake_quantized(self, model: keras.Model) -> None:
        """Raises a ValueError if this is not the format that a fake-quantized model computes in.

        Example:

        >>> FORMATS["int8"].check_fake_quantized(keras.Sequential())
        """
        if not self.needs_data:
            raise ValueError(
                'A fake-quantized model is exported with format="int8". For another format, '
                "export the model that it was made from, which has the same weights. "
                f"Received: format {self.description}, with model={model}"
            )

    def converter_options(self, calibration: Calibration | None) -> dict[str, Any]:
        """Options for `keras.Model.export`, with the data where they are needed.

        Example:

        >>> FORMATS["float32"].converter_options(None)
        {}
        """
        options: dict[str, Any] = {}
        # tf.lite loads when it is first used, which is not when granet_tf is imported.
        if self.quantizes:
            options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        if self.needs_data:
            options["representative_dataset"] = calibration
        if self.types:
            types = [tf.dtypes.as_dtype(name) for name in self.types]
            options["target_spec"] = {"supported_types": types}
        if self.operations:
            allowed = [tf.lite.OpsSet[self.operations]]
            options["target_spec"] = {"supported_ops": allowed}
        return options


FORMATS: dict[str, Format] = {
    "float32": Format("float32", "Rounding of float32 alone stays below 0.01%.", 1e-4),
    "float16": Format(
        "float16 weights, computed in float32",
        "Rounding of float16 alone mostly stays below 1%.",
        1e-2,
        quantizes=True,
        types=("float16",),
    ),
    "dynamic_range": Format(
        "int8 weights, float32 activations",
        "Rounding to int8 moves single outputs by some percent, more in deep networks.",
        0.5,
        quantizes=True,
    ),
    "int8": Format(
        "int8 weights and activations, float32 inputs and outputs",
        "Rounding to int8 moves single outputs by some percent, more in deep networks.",
        0.5,
        needs_data=True,
        quantizes=True,
        # No SELECT_TF_OPS: TensorFlow's own operations do not compute in int8.
        operations="TFLITE_BUILTINS_INT8",
    ),
}
"""By name."""


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
