"""The flags of granet-export, with what --help says of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from absl.flags import FlagValues

from granet_train import flag_help
from granet_train.errors import UsageError
from granet_train.flagfiles import Arguments
from granet_train.flags import explained

# Those of `granet_tf.export`, which needs TensorFlow.
FORMATS = ("float32", "float16", "dynamic_range", "int8")
ENCODINGS = ("auto", "sparse", "dense")
SCALINGS = ("imagenet", "0_1", "-1_1", "0_255")
# {suffix of a file: what `ExportReport` writes to it}
REPORTS = (".html", ".json", ".txt")

USAGE = """\
granet-export turns a sparse Keras model into a .tflite file, runs it, and says what it will do.

  granet-export --model=work/digits
  granet-export --model=model.keras --format=float16 --report=report.html,report.json
  granet-export --model=work/cifar10 --format=int8 --output=int8.tflite --saved_model=served

A work directory of granet-train brings its own data for the check and for --format=int8.
"""
_SECTIONS = ("What to export", "How", "What to check it on", "What to write")
_HELP = ("help", "helpshort", "helpfull")


def define() -> FlagValues:
    """New flags at their defaults.

    Example:

    >>> define()["format"].value
    'float32'
    """
    values = FlagValues()

    def section(name: str) -> Callable[..., None]:
        def add(definer, *args, **kwargs):
            definer(*args, flag_values=values, module_name=name, **kwargs)

        return add

    what, how, check, write = map(section, _SECTIONS)
    what(
        flags.DEFINE_string,
        "model",
        None,
        "A .keras file, a work directory of granet-train, or a checkpoint in one, such as "
        "work/digits/checkpoints/granet/ckpt-440.",
    )
    what(
        flags.DEFINE_string,
        "run",
        None,
        "Which of the runs of a work directory, such as dense. By default the first.",
    )
    what(
        flags.DEFINE_bool,
        "compact",
        False,
        "Whether to remove dead filters and units first: a smaller dense model, same outputs.",
    )

    how(
        flags.DEFINE_enum,
        "format",
        "float32",
        FORMATS,
        "Numbers in the file: float16 and dynamic_range are for weights only, int8 is for "
        "activations too.",
    )
    how(
        flags.DEFINE_enum,
        "encoding",
        "auto",
        ENCODINGS,
        "Whether tensors are stored sparsely; auto does what takes fewer bytes, tensor by tensor.",
    )
    how(
        flags.DEFINE_float,
        "tolerance",
        None,
        "Largest difference from Keras, as a fraction of the largest output. By default 1e-4 for "
        "float32, 1e-2 for float16, 0.5 for int8.",
    )

    check(
        flags.DEFINE_string,
        "data",
        None,
        "Samples: a set of tensorflow_datasets, digits, folder (images in data_dir/test/CLASS/), "
        "or a directory of images. By default the data of the work directory, or else random "
        "numbers.",
    )
    check(
        flags.DEFINE_string,
        "data_dir",
        None,
        "Where tensorflow_datasets keeps its data; of folder, the directory of the images.",
    )
    check(flags.DEFINE_bool, "download", False, "Whether the data may be downloaded.")
    check(
        flags.DEFINE_enum,
        "scaling",
        "imagenet",
        SCALINGS,
        "How bytes of a directory of images become numbers: normalised as for ImageNet, or into a "
        "range.",
    )
    check(flags.DEFINE_integer, "samples", 256, "How many samples, at most.")

    write(
        flags.DEFINE_string,
        "output",
        None,
        "The .tflite file. By default beside the model; model.tflite in a work directory.",
    )
    write(
        flags.DEFINE_list,
        "report",
        [],
        f"Files for the report on each layer, by suffix: {', '.join(REPORTS)}.",
    )
    write(flags.DEFINE_string, "stripped", None, "A plain .keras file, pruned weights zero.")
    write(flags.DEFINE_string, "saved_model", None, "A directory for a TensorFlow SavedModel.")
    write(flags.DEFINE_bool, "latency", True, "Whether to measure latency, dense against sparse.")
    write(flags.DEFINE_integer, "threads", 1, "Threads to measure it with.")
    write(flags.DEFINE_bool, "verbose", False, "Whether to show the converter's log.")
    for name in _HELP:
        flags.DEFINE_bool(name, False, "Shows this.", flag_values=values, module_name="Help")
    return values


def parse(argv: Sequence[str]) -> FlagValues:
    """Flags from a command line without the program's name.

    Raises:
        UsageError: On anything that cannot be meant.

    Example:

    >>> parse(["--model=model.keras", "--format=float16"]).format
    'float16'
    """
    values = define()
    try:
        rest = values(["granet-export", *argv])[1:]
    except flags.Error as error:
        raise UsageError(explained(error, values, Arguments(tuple(argv)))) from error
    if rest:
        raise UsageError(
            f"Everything is a flag here, such as --model=model.keras. Received: {' '.join(rest)}"
        )
    if not wants_help(values):
        _check(values)
    return values


def wants_help(values: FlagValues) -> bool:
    """Whether the user asked for `help_text`.

    Example:

    >>> wants_help(parse(["--help"]))
    True
    """
    return any(values[name].value for name in _HELP)


def help_text() -> str:
    """What --help shows.

    Example:

    >>> help_text().splitlines()[2].strip()
    'granet-export --model=work/digits'
    """
    return flag_help.text_of(define(), _SECTIONS, hidden=_HELP, usage=USAGE)


# {argument of the library: what gives it here, as errors are to call it}
ARGUMENTS = {
    **{name: f"--{name}" for name in ("model", "format", "encoding", "tolerance", "threads")},
    "path": "--output",
    "sample_inputs": "--data",
    "representative_data": "--data",
    "labels": "labels of --data",
}

# {flag: (what its value must satisfy, what to say if it does not)}; None always passes.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (bool, "must not be empty"),
    "tolerance": (lambda x: 0 <= x < math.inf, "must be 0 or more"),
    "samples": (lambda n: n >= 1, "must be 1 or more"),
    "threads": (lambda n: n >= 1, "must be 1 or more"),
    "output": (lambda path: path.endswith(".tflite"), "must end with .tflite"),
    "stripped": (lambda path: path.endswith(".keras"), "must end with .keras"),
    "saved_model": (bool, "must not be empty"),
    "report": (
        lambda paths: all(path.endswith(REPORTS) for path in paths),
        f"must be a list of files that end with {', '.join(REPORTS)}",
    ),
}


def _check(values: FlagValues) -> None:
    if values.model is None:
        raise UsageError("--model is needed. See --help. Received: no --model")
    for name, (is_right, text) in _RULES.items():
        value = values[name].value
        if value is not None and not is_right(value):
            shown = ",".join(value) if isinstance(value, list) else value
            raise UsageError(f"--{name} {text}. Received: --{name}={shown}")
