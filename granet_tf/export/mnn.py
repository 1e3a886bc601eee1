"""`export_mnn`: from a model to a checked file for MNN, an engine that skips zeros."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from granet_tf.export.comparison import Comparison, Expected
from granet_tf.export.file_report import FileReport, figures_of
from granet_tf.export.formats import FORMATS
from granet_tf.export.mnn_conversion import (
    AS_TFLITE,
    WAYS,
    Source,
    check_installed,
    of_tflite,
    to_mnn,
)
from granet_tf.export.mnn_file import DEPTHWISE, MNNWeight, read_mnn_weights, taken_in_blocks
from granet_tf.export.mnn_running import MNNRunner
from granet_tf.export.samples import Inputs
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import masked_weights
from granet_tf.writing import check_suffix, writing

# {format: {flag of the converter: value}}
MNN_FORMATS: dict[str, dict[str, str]] = {
    "float32": {},
    "dynamic_range": {"weightQuantBits": "8"},
}
_SPARSE = {"detectSparseSpeedUp": ""}

# Outputs of a block that all processors have a kernel for; one of 8, which only AVX-512 has, is no
# faster there.
BLOCK = 4
# Which share of a kernel's weights may be left for the converter to store them in such blocks.
_MOST = 0.7
# How many weights there may be in blocks for each that is not 0, as blocks at edges are filled up.
_SPARE = 1.25


@dataclasses.dataclass(frozen=True)
class MNNReport(FileReport):
    """What `export_mnn` wrote.

    Attributes:
        path: The file.
        raw_bytes: Size of the same model in the same format without sparse encoding, in bytes.
        sparse_bytes: Size of the file, in bytes.
        gzip_bytes: Size of the file after gzip, in bytes.
        max_error: Largest absolute difference between the file's outputs and the Keras model's.
        relative_error: The same as a fraction of the range of the outputs, see `TFLiteReport`.
        samples: On how many samples it was compared.
        format: Its number format.
        inputs: {name of an input in Keras: its name in the file}.
        outputs: The same of the outputs, "output_0" and so on where Keras has no names for them.
        accuracy_keras: Fraction of the samples that the Keras model classifies correctly; None
            without labels.
        accuracy_file: Fraction of them that the file classifies correctly; None without labels.
    """

    path: str
    raw_bytes: int
    sparse_bytes: int
    gzip_bytes: int
    max_error: float
    relative_error: float
    samples: int
    format: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    accuracy_keras: float | None = None
    accuracy_file: float | None = None


@dataclasses.dataclass(frozen=True)
class ConvertedMNN:
    """A model as a checked file, not written yet.

    Attributes:
        content: The file.
        dense: The same in the same format, no layer sparse.
        source: What both were made from.
        comparison: With Keras.
        feed: One sample, by names in Keras.
    """

    content: bytes
    dense: bytes
    source: Source
    comparison: Comparison
    feed: dict[str, Any]


def export_mnn(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: str = "float32",
    sample_inputs: Any = None,
    labels: Any = None,
    tolerance: float | None = None,
) -> MNNReport:
    """Writes a model to an `.mnn` file, whose convolutions and dense layers skip zeros in MNN.

    MNN is an engine for phones and servers. Unlike LiteRT's, its float32 kernels on x86 and ARM
    compute with the nonzero weights only, wherever these are, and the file stores no others. The
    file is run, and its outputs are compared with the Keras model's; it takes its final name only
    after that.

    Args:
        model: A `SparseModel`, a model with `PruneLowMagnitude` layers, or any Keras model. It
            must be built; a subclassed model must have been called once.
        path: The file to write, ending in `.mnn`. An existing file is replaced.
        format: "float32"; "dynamic_range", int8 weights: a smaller file, which computes as a dense
            one. There is no "float16": MNN's converter stores float16 weights densely.
        sample_inputs: What to run the file on, as for `export_tflite`.
        labels: Classes of the samples, to compare accuracies as well.
        tolerance: Largest difference allowed, as for `export_tflite`.

    Returns:
        An `MNNReport`: sizes, the largest difference, accuracies, and the names in the file.

    Raises:
        ImportError: If MNN is not installed; `pip install 'granet_tf[mnn]'` does so.
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `path` cannot be written, if the model is not built, if it needs operations
            that MNN lacks, which are named, or if an argument does not fit.
        RuntimeError: If the converted model does not run, or computes something else. No file is
            left behind.

    Warns:
        UserWarning: If nothing in the file is sparse.

    Source: https://github.com/alibaba/MNN, read in version 3.6.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((8, 8, 16)), keras.layers.Conv2D(64, 1)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    >>> report = granet_tf.export_mnn(model, "/tmp/model.mnn")
    >>> report.sparse_bytes < 0.5 * report.raw_bytes, report.relative_error < 1e-4
    (True, True)
    """
    check_installed()
    path = check_suffix(path, ".mnn")
    check_keras(model)
    with writing(path) as beside, masked_weights(model) as plain:
        made = converted(
            plain, format=format, sample_inputs=sample_inputs, labels=labels, tolerance=tolerance
        )
        with open(beside, "wb") as file:
            file.write(made.content)
    if len(made.content) >= len(made.dense):
        warnings.warn(
            "Nothing in the file is sparse: MNN stores convolutions and dense layers sparsely that "
            f"are mostly zeros. Received: model={model}",
            stacklevel=2,
        )
    return MNNReport(
        path,
        format=format,
        inputs=dict(made.source.inputs),
        outputs=dict(made.source.outputs),
        **figures_of(made.content, made.dense, made.comparison),
    )


def converted(
    model: keras.Model,
    *,
    format: str = "float32",
    sample_inputs: Any = None,
    labels: Any = None,
    tolerance: float | None = None,
    tflite: bytes | None = None,
) -> ConvertedMNN:
    """A plain Keras model as a checked file; arguments and errors are those of `export_mnn`.

    `tflite`: its dense float32 `.tflite` file, where that has been made already.
    """
    if format not in MNN_FORMATS:
        hint = " MNN's converter stores float16 weights densely." if format == "float16" else ""
        raise ValueError(
            f"`format` must be one of {', '.join(MNN_FORMATS)} for MNN.{hint} "
            f"Received: format={format!r}"
        )
    inputs = Inputs(model)
    expected = Expected.of(model, inputs, sample_inputs, labels)
    allowed = FORMATS[format].tolerance if tolerance is None else tolerance
    failed: dict[str, Exception] = {}
    ways = WAYS if tflite is None else WAYS | {AS_TFLITE: lambda *_: of_tflite(tflite)}
    for way, make in ways.items():
        try:
            source = make(model, inputs)
            dense = to_mnn(source, MNN_FORMATS[format])
            block = _block_of(read_mnn_weights(dense))
            content = to_mnn(source, _SPARSE | MNN_FORMATS[format], block=block)
            comparison = expected.compare(MNNRunner(content, source))
            comparison.check(allowed)
        # Also what Keras's converter raises of operations that only a graph can have.
        except (ValueError, RuntimeError) as error:
            failed[way] = error
            continue
        return ConvertedMNN(content, dense, source, comparison, expected.one_sample)
    raise _none_works(failed, model)


def _block_of(kernels: Sequence[MNNWeight]) -> int:
    """How many outputs share their zeros in a file; one number for all of its kernels."""
    sparse = [
        kernel
        for kernel in kernels
        if DEPTHWISE not in kernel.operators and kernel.nonzeros <= _MOST * kernel.values.size
    ]
    taken = sum(taken_in_blocks(kernel, BLOCK) for kernel in sparse)
    return BLOCK if sparse and taken <= _SPARE * sum(k.nonzeros for k in sparse) else 1


def _none_works(failed: Mapping[str, Exception], model: keras.Model) -> Exception:
    # What each received is the same model, or a file that nobody sees.
    texts = {
        way: str(error).partition(" Received:")[0].rstrip(".") for way, error in failed.items()
    }
    reasons = "; ".join(f"converted from {way}, {text}" for way, text in texts.items())
    # A file that computes something else is worse news than none.
    ran = any(isinstance(error, RuntimeError) for error in failed.values())
    kind = RuntimeError if ran else ValueError
    return kind(f"MNN cannot run this model: {reasons}. Received: model={model}")
