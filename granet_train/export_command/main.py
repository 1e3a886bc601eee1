"""granet-export: a model in, a checked `.tflite` or `.mnn` file and a report out.

Read from `main`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

import keras

import granet_tf
from granet_tf.export import keras_files
from granet_tf.export.report import check_saves_as
from granet_tf.export.samples import Inputs
from granet_tf.wrapping.stripping import masked_weights
from granet_train import command_line
from granet_train.errors import UsageError
from granet_train.export_command import data, models
from granet_train.export_command.flags import ARGUMENTS, MNN, Options, read
from granet_train.in_flags import in_flags
from granet_train.quiet_tensorflow import without_notes


def main(values: Options) -> None:
    """Exports one model.

    Args:
        values: The flags, parsed.

    Raises:
        UsageError: If what was asked for cannot be done. Files that are written are whole.
    """
    try:
        for path in values.report:
            check_saves_as(path)
    except (ImportError, ValueError) as error:  # Before the work, not after it.
        raise UsageError(f"--report: {error}") from error
    with without_notes():
        found = models.load(values.model, values.run)
    model = _compacted(found.model) if values.compact else found.model
    write = _write_mnn if values.format == MNN else _write_tflite
    output = values.output or os.path.splitext(found.output)[0] + values.suffix
    try:
        with masked_weights(model) as plain:
            print(f"{found.source}: {plain.count_params():,} parameters", flush=True)
            samples = data.find(Inputs(plain), values, found.settings)
        print(f"Checked on {samples.description}.", flush=True)
        with contextlib.nullcontext() if values.verbose else without_notes():
            report = write(model, output, samples, values)
        print(f"\n{report}")
        for path in values.report:
            report.save(path)
        if values.stripped:
            keras_files.write_keras(model, values.stripped)
        if values.saved_model:
            with without_notes():
                keras_files.write_saved_model(model, values.saved_model)
    except (ImportError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError(in_flags(str(error), ARGUMENTS)) from error
    written = [output, *values.report, values.stripped, values.saved_model]
    print("\nWritten:")
    for path in filter(None, written):
        print(f"  {path}  ({_size(path):,} bytes)")


def _write_tflite(model, output, samples, values):
    return granet_tf.export_report(
        model,
        output,
        format=values.format,
        encoding=values.encoding,
        representative_data=samples.representative,
        sample_inputs=samples.inputs,
        labels=samples.labels,
        tolerance=values.tolerance,
        latency=values.latency,
        threads=values.threads,
    )


def _write_mnn(model, output, samples, values):
    return granet_tf.export_mnn(
        model,
        output,
        sample_inputs=samples.inputs,
        labels=samples.labels,
        tolerance=values.tolerance,
    )


def _compacted(model: keras.Model) -> keras.Model:
    try:
        smaller = granet_tf.compact(model)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--compact: {in_flags(str(error), ARGUMENTS)}") from error
    with masked_weights(model) as plain:
        before, after = plain.count_params(), smaller.count_params()
    print(f"Compacted: {after:,} of {before:,} parameters are left.", flush=True)
    return smaller


def _size(path: str) -> int:
    """Bytes of a file, or of all files in a directory."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )


def cli(argv: Sequence[str] | None = None) -> None:
    """The console script: prints errors as one line and exits with their code.

    Example:

    >>> cli(["--model=no_such_file.keras"])
    Traceback (most recent call last):
        ...
    SystemExit: 2
    """
    command_line.run(main, read, argv, ARGUMENTS)
