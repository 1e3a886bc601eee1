"""Keras's converter: a model in, the bytes of a dense `.tflite` file out."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings

import keras

from granet_tf.export.flatbuffer import code_name, parse
from granet_tf.export.formats import Calibration, Format
from granet_tf.export.samples import Inputs
from granet_tf.int8.folding import folded, is_fake_quantized
from granet_tf.reasons import reason_of

# Operations that only turn numbers into other numbers may stay float32 in an int8 file.
_BORDER = frozenset({"QUANTIZE", "DEQUANTIZE"})


def convert(
    model: keras.Model,
    inputs: Inputs,
    number_format: Format,
    calibration: Calibration | None = None,
) -> bytes:
    """The `.tflite` file that Keras's converter makes, all tensors dense.

    Args:
        model: A built Keras model.
        inputs: What it takes.
        number_format: One of `formats.FORMATS`.
        calibration: Needed if the format quantizes activations, but for a fake-quantized model,
            which has their ranges.

    Raises:
        ValueError: If LiteRT lacks an operation, or one that computes in int8; if a fake-quantized
            model is to be stored in another format than int8.

    Example:

    >>> from granet_tf.export.formats import FORMATS
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> convert(model, Inputs(model), FORMATS["float32"])[4:8]
    b'TFL3'
    """
    source = model
    if is_fake_quantized(model):
        number_format.check_fake_quantized(model)
        source, calibration = folded(model), lambda: iter([inputs.feed(inputs.accepted(model))])
    # Until Keras 3.15 `verbose` is not heard, and notes are printed.
    quiet = contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), quiet:
        # The converter itself uses the interpreter that it deprecates.
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
        file = os.path.join(folder, "converted.tflite")
        try:
            source.export(
                file,
                format="litert",
                input_signature=inputs.signature,
                verbose=False,
                **number_format.converter_options(calibration),
            )
        # The converter raises a class of its own, a bare Exception in some versions.
        except Exception as error:
            raise ValueError(
                f"The converter cannot convert this model ({number_format.description}): "
                f"{reason_of(error)}. Received: model={model}"
            ) from error
        with open(file, "rb") as converted:
            content = converted.read()
    reject_flex_operations(content, model)
    return content


def reject_flex_operations(content: bytes, model: keras.Model) -> None:
    """Flex operations are TensorFlow's own, which an application with LiteRT alone cannot run.

    Raises:
        ValueError: If the file has some; they are named.

    Example:

    >>> from tensorflow.lite.python import schema_py_generated as schema
    >>> from granet_tf.export.flatbuffer import serialize
    >>> file = schema.ModelT()
    >>> file.operatorCodes = []
    >>> reject_flex_operations(serialize(file), keras.Sequential())
    """
    names = {code_name(code) for code in parse(content).operatorCodes}
    flex = sorted(name for name in names if name.startswith("Flex"))
    if flex:
        raise ValueError(
            f"The model needs operations that LiteRT does not have: {', '.join(flex)}. Often the "
            "reason is a layer that computes in float16 or bfloat16, or a recurrent layer without "
            f"`unroll=True`. Received: model={model}"
        )


def float_operations(content: bytes) -> tuple[str, ...]:
    """Operations of a file that compute in float32, in alphabetic order.

    Example:

    >>> from granet_tf.export.formats import FORMATS
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> float_operations(convert(model, Inputs(model), FORMATS["float32"]))
    ('FULLY_CONNECTED',)
    """
    from tensorflow.lite.python.schema_py_generated import TensorType

    model, found = parse(content), set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            outputs = [graph.tensors[index] for index in operator.outputs]
            if any(tensor.type == TensorType.FLOAT32 for tensor in outputs):
                found.add(code_name(model.operatorCodes[operator.opcodeIndex]))
    return tuple(sorted(found - _BORDER))
