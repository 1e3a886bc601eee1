"""MNN's converter: a model in, the bytes of an `.mnn` file out.

MNN (Alibaba's engine, Apache-2.0) reads `.tflite` files and frozen TensorFlow graphs, and lacks
other operations in the one than in the other. So both are ways to it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from granet_tf.export.conversion import convert
from granet_tf.export.flatbuffer import parse
from granet_tf.export.formats import FORMATS
from granet_tf.export.samples import Inputs

# The converter itself. The script `mnnconvert` installs a package and reports each use of it.
_CONVERTER = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
# What it says of an operation that it lacks, in a `.tflite` file and in a graph.
_LACKS = re.compile(r"NOT_SUPPORTED_OP: \[ (\w+) \]|These Op Not Support: (.*)")
# What it says of itself, and of how far it has come.
_NOISE = re.compile(r"The device supports|Start to |Converted Failed|\[ERROR\] Convert error")


class ConversionError(ValueError):
    """The converter cannot do it, in one of the ways to it."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A dense file that the converter reads.

    Attributes:
        framework: Its kind, as the converter calls it.
        content: The file.
        inputs: {name of an input in Keras: its name in the file}.
        outputs: The same of the outputs, as Keras's export names them.
    """

    framework: str
    content: bytes
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def check_installed() -> None:
    """Raises ImportError if MNN is not installed."""
    if importlib.util.find_spec("MNN") is None:
        raise ImportError(
            "`export_mnn` needs the package MNN: pip install 'granet_tf[mnn]'. "
            "Received: an environment without it"
        )


def as_tflite(model: keras.Model, inputs: Inputs) -> Source:
    """The model as a dense `.tflite` file.

    Raises:
        ValueError: If Keras's converter cannot make one.
    """
    return of_tflite(convert(model, inputs, FORMATS["float32"]))


def of_tflite(content: bytes) -> Source:
    """A dense float32 `.tflite` file, with the names that its signature has for inputs and outputs.

    Example:

    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2)])
    >>> list(of_tflite(convert(model, Inputs(model), FORMATS["float32"])).inputs)
    ['x']
    """
    file = parse(content)
    [signature], [graph] = file.signatureDefs, file.subgraphs

    def names(tensors):
        return {t.name.decode(): graph.tensors[t.tensorIndex].name.decode() for t in tensors}

    return Source("TFLITE", content, names(signature.inputs), names(signature.outputs))


def as_graph(model: keras.Model, inputs: Inputs) -> Source:
    """The model as a TensorFlow graph, its weights constants.

    Example:

    >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="y")])
    >>> source = as_graph(model, Inputs(model))
    >>> source.framework, source.inputs, list(source.outputs)
    ('TF', {'x': 'x'}, ['output_0'])
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    names: list[str] = []

    def run(*arrays):
        outputs = inputs.call(model, arrays)
        if not isinstance(outputs, dict):
            outputs = {f"output_{i}": x for i, x in enumerate(keras.tree.flatten(outputs))}
        names[:] = outputs
        return list(outputs.values())

    specs = [tf.TensorSpec(s.shape, s.dtype, name=s.name) for s in inputs.specs]
    traced = tf.function(run, autograph=False).get_concrete_function(*specs)
    frozen = convert_variables_to_constants_v2(traced)
    each_input = zip(inputs.specs, frozen.inputs, strict=True)
    return Source(
        "TF",
        frozen.graph.as_graph_def().SerializeToString(),
        {spec.name: tensor.op.name for spec, tensor in each_input},
        {name: _made_by(tensor) for name, tensor in zip(names, frozen.outputs, strict=True)},
    )


AS_TFLITE = "a .tflite file"
WAYS: dict[str, Callable[[keras.Model, Inputs], Source]] = {
    AS_TFLITE: as_tflite,
    "a TensorFlow graph": as_graph,
}
"""How a model gets to the converter, the first of which is to be tried first."""


def _made_by(tensor: tf.Tensor) -> str:
    """The name of an output in an `.mnn` file, which has no operations that only hand it on."""
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor.op.name + (f":{tensor.value_index}" if tensor.value_index else "")


def to_mnn(source: Source, options: Mapping[str, str], *, block: int = 1) -> bytes:
    """The `.mnn` file.

    Args:
        source: What it is made from.
        options: {flag of the converter: its value, "" for none}.
        block: How many outputs share their zeros, as kernels take them. MNN has kernels for 1 and
            for 4, and for 8 with AVX-512.

    Raises:
        ConversionError: If the converter lacks an operation, or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = os.path.join(folder, "dense"), os.path.join(folder, "converted.mnn")
        with open(before, "wb") as file:
            file.write(source.content)
        every = {"modelFile": before, "MNNModel": after, "bizCode": "granet_tf", **options}
        if block > 1:
            every["compressionParamsFile"] = os.path.join(folder, "blocks")
            with open(every["compressionParamsFile"], "wb") as file:
                file.write(_pruned_in(block))
        arguments = [text for name, value in every.items() for text in (f"--{name}", value) if text]
        # In a process of its own: it writes on both streams, and may end the process it is in.
        done = subprocess.run(
            [sys.executable, "-c", _CONVERTER, "-f", source.framework, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if "Converted Success" not in done.stdout or not os.path.exists(after):
            raise ConversionError(_reason(done.stdout, done.returncode))
        with open(after, "rb") as file:
            return file.read()


def _pruned_in(block: int) -> bytes:
    """What tells the converter of blocks: a `Pipeline` of its `MNN_compression.proto`, with one
    algorithm, to prune (type 1) in blocks of outputs (type 1).

    Example:

    >>> _pruned_in(4).hex(" ", 4)
    '0a0530 2e302e30 120a0801 1a060801 1a022004'
    """

    def message(field: int, content: bytes) -> bytes:
        return bytes([field << 3 | 2, len(content)]) + content

    pruning = b"\x08\x01" + message(3, bytes([4 << 3, block]))
    return message(1, b"0.0.0") + message(2, b"\x08\x01" + message(3, pruning))


def _reason(output: str, code: int) -> str:
    """What a converter that failed has written.

    Example:

    >>> _reason("Start to Optimize\\n[01:00:00] :3: These Op Not Support: Tensorflow::Einsum", 0)
    'it lacks Einsum'
    >>> _reason("", -11)
    'the converter ended with code -11'
    """
    lacks = [name for match in _LACKS.finditer(output) for name in match.groups() if name]
    if lacks:
        names = {each.rpartition("::")[2] for text in lacks for each in re.split(r"[|,\s]+", text)}
        return f"it lacks {', '.join(sorted(names - {''}))}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _NOISE.search(line)]
    return f"the converter says {lines[-1]!r}" if lines else f"the converter ended with code {code}"
