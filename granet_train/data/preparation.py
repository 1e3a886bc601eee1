"""Finds a set that tensorflow_datasets has prepared, prepares it, or says what is missing."""

from __future__ import annotations

import difflib
import os
from typing import Any

from granet_tf.reasons import reason_of
from granet_train.data.facts import Facts, base_name
from granet_train.data.interface import Options
from granet_train.errors import UsageError


def prepared(name: str, options: Options, known: Facts) -> Any:
    """A `tfds.core.DatasetBuilder` of data that are on disk.

    Takes the newest version that is there, whichever version of tensorflow_datasets made it.
    Otherwise prepares the set if its raw files are there or `options.download` allows to fetch
    them. Nothing but that uses the network.

    Raises:
        UsageError: If there is no such set, or it is not there and cannot be prepared.
    """
    wording = options.wording
    if name.startswith((os.sep, ".", "~")):
        raise UsageError(
            f"A data set is given by its name, and this is a path. {wording.folder} "
            f"Received: {wording.dataset.format(name)}"
        )
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(
            "Data sets other than digits and synthetic need tensorflow_datasets: "
            f"pip install 'granet_tf[training]'. Received: {wording.dataset.format(name)}"
        ) from error
    data_dir = os.path.expanduser(options.data_dir or _default_dir())
    try:
        builder = _on_disk(name, data_dir, wording)
        builder_class = None if builder else _class(name, tfds, wording)
    except ImportError as error:  # Some builders need more than tensorflow_datasets installs.
        raise UsageError(
            f"{name} needs a package that is not installed: {reason_of(error)}. "
            f"Received: {wording.dataset.format(name)}"
        ) from error
    if builder:
        return builder
    manual = [os.path.join(data_dir, "downloads", "manual", file) for file in known.manual]
    if options.download or (manual and all(map(os.path.exists, manual))):
        print(f"{name}: preparing it in {data_dir}, which is done once.", flush=True)
        return _prepare(name, data_dir, tfds, wording)
    raise UsageError(_what_to_do(name, data_dir, builder_class, manual, wording))


def _default_dir() -> str:
    """As tensorflow_datasets has it, which it does not tell."""
    return os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))


def _on_disk(name, data_dir, wording):
    from google.protobuf.json_format import ParseError
    from tensorflow_datasets.core import read_only_builder, registered

    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except registered.DatasetNotFoundError:
        return None
    except (ParseError, KeyError, OSError, ValueError) as error:
        raise UsageError(
            f"{name} in {data_dir} cannot be read: {reason_of(error)}. Copy it there again, or "
            "remove the folder and prepare the set again. "
            f"Received: {wording.data_dir.format(data_dir)}"
        ) from error


def _class(name, tfds, wording):
    try:
        return tfds.builder_cls(base_name(name))
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        known = ["digits", "synthetic", *tfds.list_builders(with_community_datasets=False)]
        close = difflib.get_close_matches(base_name(name), known, n=3, cutoff=0.6)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(
            f"There is no such data set in tensorflow_datasets {tfds.__version__}.{hint} "
            f"{wording.folder} "
            f"Received: {wording.dataset.format(name)}"
        ) from error


def _prepare(name, data_dir, tfds, wording):
    try:
        tfds.builder(name, data_dir=data_dir, try_gcs=False).download_and_prepare(
            download_dir=os.path.join(data_dir, "downloads")
        )
    except Exception as error:  # Whatever a builder raises, its reader is told in one line.
        raise UsageError(
            f"{name} could not be prepared in {data_dir}: {reason_of(error)}. "
            f"Received: {wording.dataset.format(name)}"
        ) from error
    return _on_disk(name, data_dir, wording)


def _what_to_do(name, data_dir, builder_class, manual, wording):
    configs = [config.name for config in builder_class.BUILDER_CONFIGS]
    config = name.partition("/")[2].partition(":")[0]
    if config and config not in configs:
        close = difflib.get_close_matches(config, configs, n=3) or configs[:3]
        return (
            f"{base_name(name)} has no such configuration; it has "
            f"{', '.join(close)}{' and others' if len(configs) > len(close) else ''}. "
            f"Received: {wording.dataset.format(name)}"
        )
    config = config or next(iter(configs), "")
    folder = os.path.join(data_dir, base_name(name), config, str(builder_class.VERSION))
    missing = "" if os.path.isdir(data_dir) else f"There is no directory {data_dir}. "
    ready = f"A set prepared elsewhere goes to {folder}/dataset_info.json and beside it."
    if manual:
        files = " and ".join(path for path in manual if not os.path.exists(path))
        how = f"Put {files} in place, and it is prepared from them at the first start. {ready}"
    elif builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS:
        text = " ".join(builder_class.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        place = os.path.join(data_dir, "downloads", "manual")
        how = f"Its files have to be put into {place} (tensorflow_datasets: {text}), then "
        how += f"{wording.fetch.format(name)} prepares it. {ready}"
    else:
        how = f"{wording.fetch.format(name)} fetches it. {ready}"
    received = wording.data_dir.format(data_dir)
    return f"{missing}{name} is not prepared in {data_dir}. {how} Received: {received}"
