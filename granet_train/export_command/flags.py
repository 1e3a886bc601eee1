"""The flags of granet-export, with what --help says of each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from granet_tf.export.calibration import SCALINGS
from granet_tf.export.encoding import ENCODINGS
from granet_tf.export.formats import FORMATS
from granet_tf.export.report import SUFFIXES
from granet_train import flag_help, flagfiles, options
from granet_train.errors import UsageError
from granet_train.options import option

USAGE = """\
granet-export turns a sparse Keras model into a .tflite or .mnn file, runs it, and says how.

  granet-export --model=work/digits
  granet-export --model=model.keras --format=float16 --report=report.html,report.json
  granet-export --model=work/digits --format=mnn
  granet-export --model=work/cifar10 --format=int8 --output=int8.tflite --saved_model=served

A work directory of granet-train brings its own data for the check and for --format=int8.
"""
MNN = "mnn"  # The one format that is not LiteRT's.
WHAT, HOW, CHECK, WRITE = "What to export", "How", "What to check it on", "What to write"
_what, _how, _check, _write = (
    functools.partial(option, section=section) for section in (WHAT, HOW, CHECK, WRITE)
)


def _ends_with(suffix):
    return lambda path: path.endswith(suffix), f"must end with {suffix}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What granet-export is asked for."""

    SECTIONS = (WHAT, HOW, CHECK, WRITE)

    model: str | None = _what(
        None,
        "A .keras file, a work directory of granet-train, or a checkpoint in one, such as "
        "work/digits/checkpoints/granet/ckpt-440.",
        unit="name",
    )
    run: str | None = _what(
        None, "Which of the runs of a work directory, such as dense. By default the first."
    )
    compact: bool = _what(
        False,
        "Whether to remove dead filters and units first: a smaller dense model, same outputs.",
    )

    format: str = _how(
        "float32",
        "Numbers in the .tflite file: float16 and dynamic_range are for weights only, int8 is for "
        "activations too. Or mnn, a float32 file for MNN, an engine that skips zeros.",
        choices=(*FORMATS, MNN),
    )
    encoding: str = _how(
        "auto",
        "Whether tensors are stored sparsely; auto does what takes fewer bytes, tensor by tensor.",
        choices=ENCODINGS,
    )
    tolerance: float | None = _how(
        None,
        "Largest difference from Keras, as a fraction of the largest output. By default 1e-4 for "
        "float32, 1e-2 for float16, 0.5 for int8.",
        at_least=0,
    )

    data: str | None = _check(
        None,
        "Samples: a set of tensorflow_datasets, digits, folder (images in data_dir/test/CLASS/), "
        "or a directory of images. By default the data of the work directory, or else random "
        "numbers.",
    )
    data_dir: str | None = _check(
        None,
        "Where tensorflow_datasets keeps its data; of folder, the directory of the images.",
    )
    download: bool = _check(False, "Whether the data may be downloaded.")
    scaling: str = _check(
        "imagenet",
        "How bytes of a directory of images become numbers: normalised as for ImageNet, or into a "
        "range.",
        choices=tuple(SCALINGS),
    )
    samples: int = _check(256, "How many samples, at most.", at_least=1)

    output: str | None = _write(
        None,
        "The .tflite file, or the .mnn file of --format=mnn. By default beside the model; "
        "model.tflite or model.mnn in a work directory.",
    )
    report: tuple[str, ...] = _write(
        (),
        f"Files for the report on each layer, by suffix: {', '.join(SUFFIXES)}.",
        rule=(
            lambda paths: all(path.endswith(SUFFIXES) for path in paths),
            f"must be a list of files that end with {', '.join(SUFFIXES)}",
        ),
    )
    stripped: str | None = _write(
        None, "A plain .keras file, pruned weights zero.", rule=_ends_with(".keras")
    )
    saved_model: str | None = _write(None, "A directory for a TensorFlow SavedModel.", unit="name")
    latency: bool = _write(True, "Whether to measure latency, dense against sparse.")
    threads: int = _write(1, "Threads to measure it with.", at_least=1)
    verbose: bool = _write(False, "Whether to show the converter's log.")

    @property
    def suffix(self) -> str:
        """Of the file."""
        return ".mnn" if self.format == MNN else ".tflite"

    @property
    def needs_data(self) -> bool:
        """Whether the format needs samples of the data."""
        return self.format in FORMATS and FORMATS[self.format].needs_data


def parse(argv: Sequence[str]) -> Options:
    """Flags from a command line without the program's name.

    Raises:
        UsageError: On anything that cannot be meant.

    Example:

    >>> parse(["--model=model.keras", "--format=float16"]).format
    'float16'
    """
    values, reading = options.read(
        Options, flagfiles.expand(argv), command="granet-export", example="--model=model.keras"
    )
    if values.model is None and not reading.wants_help:
        raise UsageError("--model is needed. See --help. Received: no --model")
    _check_format(values)
    return values


def _check_format(values: Options) -> None:
    """What is LiteRT's is not for MNN."""
    suffix, of = values.suffix, f" for --format={MNN}" if values.format == MNN else ""
    if values.output is not None and not values.output.endswith(suffix):
        raise UsageError(f"--output must end with {suffix}{of}. Received: --output={values.output}")
    if values.format == MNN and values.report:
        raise UsageError(
            "--report is of .tflite files: export to one for it. "
            f"Received: --report={','.join(values.report)} with --format={MNN}"
        )
    if values.format == MNN and values.encoding != "auto":
        raise UsageError(
            "--encoding is of .tflite files: MNN's converter chooses for itself. "
            f"Received: --encoding={values.encoding} with --format={MNN}"
        )


def read(argv: Sequence[str]) -> Options:
    """`parse`, but prints the help and exits where that was asked for.

    Example:

    >>> read(["--model=model.keras"]).encoding
    'auto'
    """
    values = parse(argv)
    if options.wants_help(Options, argv):
        flag_help.show(help_text())
    return values


def help_text() -> str:
    """What --help shows.

    Example:

    >>> help_text().splitlines()[2].strip()
    'granet-export --model=work/digits'
    """
    return flag_help.text_of(Options, usage=USAGE)


# {argument of the library: what gives it here, as errors are to call it}
ARGUMENTS = {
    **{name: f"--{name}" for name in ("model", "format", "encoding", "tolerance", "threads")},
    "path": "--output",
    "sample_inputs": "--data",
    "representative_data": "--data",
    "labels": "labels of --data",
}
