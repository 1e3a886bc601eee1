"""`export_tflite`: from a model to a checked `.tflite` file with sparse weights."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from granet_tf.export import encoding as encodings
from granet_tf.export.calibration import representative
from granet_tf.export.comparison import Comparison, Expected
from granet_tf.export.conversion import convert, float_operations
from granet_tf.export.file_report import FileReport, figures_of
from granet_tf.export.formats import FORMATS, Format, format_named
from granet_tf.export.running import DEFAULT, WITHOUT_DELEGATE, Runner
from granet_tf.export.samples import Inputs
from granet_tf.int8.folding import is_fake_quantized
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import masked_weights
from granet_tf.writing import check_suffix, writing


@dataclasses.dataclass(frozen=True)
class TFLiteReport(FileReport):
    """What `export_tflite` wrote.

    Attributes:
        path: The file.
        raw_bytes: Size of the same model in the same format without sparse encoding, in bytes.
        sparse_bytes: Size of the file, in bytes.
        gzip_bytes: Size of the file after gzip, in bytes.
        max_error: Largest absolute difference between the file's outputs and the Keras model's.
        format: Its number format.
        encoding: "auto", "sparse" or "dense".
        resolver: Name of the `OpResolverType` with which it runs: "AUTO", the default, or
            "BUILTIN_WITHOUT_DEFAULT_DELEGATES" where XNNPACK cannot load it.
        samples: On how many samples it was compared.
        accuracy_keras: Fraction of them that the Keras model classifies correctly; None without
            labels.
        accuracy_file: Fraction of them that the file classifies correctly; None without labels.
        relative_error: Largest difference as a fraction of the range of the outputs: of the
            largest minus the smallest value that the Keras model computes on the samples. With
            several outputs, of the one where it is largest. An output that never changes has no
            range; there it is a fraction of its magnitude. None where it was not compared.
    """

    path: str
    raw_bytes: int
    sparse_bytes: int
    gzip_bytes: int
    max_error: float
    format: str = "float32"
    encoding: str = "auto"
    resolver: str = DEFAULT
    samples: int = 1
    accuracy_keras: float | None = None
    accuracy_file: float | None = None
    relative_error: float | None = None

    def __str__(self) -> str:
        text = super().__str__()
        if self.resolver != DEFAULT:
            text += f"; needs OpResolverType.{self.resolver}"
        return text


@dataclasses.dataclass(frozen=True)
class Converted:
    """A model as a checked file, not written yet.

    Attributes:
        content: The file.
        dense: The same in the same format, all tensors dense.
        format: Name of the format.
        encoding: As asked for, or "dense" where the default delegate could not run it.
        resolver: With which it runs.
        comparison: With Keras.
        feed: One sample, by names in the file.
        inputs: What the model takes.
    """

    content: bytes
    dense: bytes
    format: str
    encoding: str
    resolver: str
    comparison: Comparison
    feed: dict[str, Any]
    inputs: Inputs

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of that sample."""
        return {name: array.shape for name, array in self.feed.items()}

    def report(self, path: str) -> TFLiteReport:
        """What was written to `path`."""
        return TFLiteReport(
            path,
            format=self.format,
            encoding=self.encoding,
            resolver=self.resolver,
            **figures_of(self.content, self.dense, self.comparison),
        )


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    format: str = "float32",
    encoding: str = "auto",
    representative_data: Any = None,
    sample_inputs: Any = None,
    labels: Any = None,
    tolerance: float | None = None,
    verbose: bool = False,
) -> TFLiteReport:
    """Writes a model to a `.tflite` file that stores only its nonzero weights.

    The file is run, and its outputs are compared with the Keras model's; it takes its final name
    only after that. It is smaller, and seldom faster: most kernels expand the weights when the
    model is loaded. `export_report` says which ones do not.

    Args:
        model: A `SparseModel`, a model with `PruneLowMagnitude` layers, or any Keras model. It
            must be built; a subclassed model must have been called once.
        path: The file to write, ending in `.tflite`. An existing file is replaced.
        format: "float32"; "float16", weights only; "dynamic_range", int8 weights; "int8", int8
            weights and activations, with float32 inputs and outputs.
        encoding: "auto" stores each tensor sparsely where that takes fewer bytes; "sparse" each
            one that has a zero and may be; "dense" none.
        representative_data: For format "int8" only, and not needed for a model that
            `granet_tf.fake_quantize` made: what ranges are measured on. Arrays of shape
            (samples, ...) in the structure that the model takes; a function without arguments that
            makes an iterable of such batches; the name of a tensorflow_datasets set on disk,
            scaled as `granet-train` does; or a directory of images. At most 256 samples are used.
        sample_inputs: What to run the file on: arrays of shape `(samples, ...)` in the structure
            that the model takes. By default the representative data, if any, else one sample,
            drawn with a fixed seed: standard normal for floats, 0 or 1 for other types.
            Dimensions that the model leaves open, such as an image's height, are then 32 long, or
            as long as the model accepts.
        labels: Classes of the samples, to compare accuracies as well.
        tolerance: Largest difference allowed, as a fraction of an output's largest magnitude: by
            default 1e-4 for float32, 1e-2 for float16, and 0.5 for int8, which only tells
            rounding from garbage. Differences up to 1e-6 always pass.
        verbose: Has no effect any more: TensorFlow's log is left to TensorFlow, whose environment
            variable TF_CPP_MIN_LOG_LEVEL=2 makes it tell of errors only.

    Returns:
        A `TFLiteReport`: the file's size with and without sparse encoding, its size after gzip,
        the largest difference and the accuracies.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `path` cannot be written, if the model is not built, if it needs operations
            that LiteRT lacks, if an argument does not fit, or if no random sample fits a model
            with open dimensions.
        RuntimeError: If the converted model does not run, or computes something else. No file is
            left behind.

    Warns:
        UserWarning: If nothing in the file is sparse; if the default delegate cannot run the
            sparse file, so that it is stored densely ("auto") or needs another interpreter option
            ("sparse"); if an "int8" file computes in float32 somewhere.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> model = granet_tf.wrap(model, granet_tf.StaticSparse(0.9))
    >>> report = granet_tf.export_tflite(model, "/tmp/model.tflite")
    >>> report.sparse_bytes < 0.5 * report.raw_bytes
    True
    """
    path = check_suffix(path, ".tflite")
    check_keras(model)
    with writing(path) as beside, masked_weights(model) as plain:
        made = converted(
            plain,
            format=format,
            encoding=encoding,
            representative_data=representative_data,
            sample_inputs=sample_inputs,
            labels=labels,
            tolerance=tolerance,
            verbose=verbose,
        )
        with open(beside, "wb") as file:
            file.write(made.content)
    return made.report(path)


def converted(
    model: keras.Model,
    *,
    format: str = "float32",
    encoding: str = "auto",
    representative_data: Any = None,
    sample_inputs: Any = None,
    labels: Any = None,
    tolerance: float | None = None,
    verbose: bool = False,
) -> Converted:
    """A plain Keras model as a checked file; arguments and errors are those of `export_tflite`."""
    del verbose  # TensorFlow's log is TensorFlow's.
    number_format = format_named(format)
    encodings.check(encoding)
    inputs = Inputs(model)
    if labels is not None and sample_inputs is None:
        raise ValueError("`labels` need `sample_inputs`. Received: sample_inputs=None")
    calibration = None
    if number_format.needs_data and (
        representative_data is not None or not is_fake_quantized(model)
    ):
        calibration = inputs.calibration(representative(representative_data, inputs))
    groups = _samples(model, inputs, sample_inputs, calibration)
    expected = Expected(model, inputs, groups, labels)
    dense = _dense(model, inputs, number_format, calibration)
    content = encodings.encode_file(dense, encoding)
    allowed = number_format.tolerance if tolerance is None else tolerance
    content, used, resolver, comparison = _checked(dense, content, encoding, expected, allowed)
    _warn_of_surprises(model, format, content, used)
    return Converted(
        content, dense, format, used, resolver, comparison, expected.one_sample, inputs
    )


def _samples(model: Any, inputs: Inputs, sample_inputs: Any, calibration: Any) -> list[list]:
    """What the file is run on, in groups of samples of one shape."""
    if sample_inputs is not None:
        return [inputs.arguments(sample_inputs, "sample_inputs")]
    return inputs.joined(calibration()) if calibration else [inputs.accepted(model)]


def _dense(model: Any, inputs: Inputs, number_format: Format, calibration: Any) -> bytes:
    try:
        return convert(model, inputs, number_format, calibration)
    except ValueError:
        # Without TensorFlow's own operations, the converter's error does not always name them.
        if number_format.needs_data and not is_fake_quantized(model):
            convert(model, inputs, FORMATS["float32"])
        raise


def _checked(
    dense: bytes, content: bytes, encoding: str, expected: Expected, tolerance: float
) -> tuple[bytes, str, str, Comparison]:
    """(file, encoding, resolver, comparison): the first that computes the right thing.

    Raises:
        RuntimeError: That of the file asked for under the default delegate, if none does.
    """
    first = None
    for candidate, used, resolver in _attempts(dense, content, encoding):
        try:
            comparison = expected.compare(Runner(candidate, resolver, shapes=expected.shapes))
            comparison.check(tolerance)
        except RuntimeError as error:
            first = first or error
            continue
        if first:
            _warn_of_fallback(first, used, resolver)
        return candidate, used, resolver, comparison
    raise first


def _attempts(dense: bytes, content: bytes, encoding: str) -> Iterator[tuple[bytes, str, str]]:
    yield content, encoding, DEFAULT
    if encoding == "auto" and content is not dense:
        yield dense, "dense", DEFAULT
    yield content, encoding, WITHOUT_DELEGATE


def _warn_of_fallback(error: RuntimeError, encoding: str, resolver: str) -> None:
    if resolver == DEFAULT:
        instead = f"It is stored with encoding={encoding!r} instead."
    else:
        instead = (
            "It runs in an interpreter made with experimental_op_resolver_type="
            f"OpResolverType.{resolver} only."
        )
    warnings.warn(
        f"The file fails under LiteRT's default delegate, XNNPACK. {instead} Received: {error}",
        stacklevel=5,
    )


def _warn_of_surprises(model: Any, format: str, content: bytes, encoding: str) -> None:
    if encoding != "dense" and not encodings.has_sparse_tensor(content):
        warnings.warn(
            "Nothing in the file is sparse: a tensor is stored sparsely only if it is smaller "
            f"then. Received: model={model}",
            stacklevel=4,
        )
    floats = float_operations(content) if FORMATS[format].needs_data else ()
    if floats:
        warnings.warn(
            f"Some operations have no int8 kernel and compute in float32: {', '.join(floats)}. "
            f"Received: format={format!r}",
            stacklevel=4,
        )
