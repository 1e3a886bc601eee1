"""The work directory: whose it is, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from granet_tf.writing import remove as remove
from granet_tf.writing import replacing as replacing
from granet_tf.writing import unfinished
from granet_train.errors import TrainingStopped, UsageError

SPARSE = "sparse.keras"
STRIPPED = "stripped.keras"
TFLITE = "model.tflite"
PLOT = "training.png"
METRICS = "metrics.csv"
UPDATES = "updates.csv"
LAYERS = "layers.csv"
FLOPS_PLOT = "flops.png"
SUMMARY = "summary.json"
RUN = "run.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
ALL = (
    *(SPARSE, STRIPPED, TFLITE, PLOT, FLOPS_PLOT, METRICS, UPDATES, LAYERS, SUMMARY, RUN),
    *(CHECKPOINTS, TENSORBOARD),
)

# How runs went that were begun before there was a flag for it.
_BEFORE = {"prune_outputs": True, "round_to": 1, "shrink_at": []}

# A run notes how often defaults had been changed when it began.
_DEFAULTS, _IN_FORCE = "defaults", 3

# {how often, with this change: {method: {flag: what it was where it was not given}}}; None is any.
_UNIFORM = {"distribution": "uniform"}
_DEFAULTS_BEFORE: dict[int, dict[str | None, dict[str, Any]]] = {
    0: {None: {"prune_outputs": _BEFORE["prune_outputs"]}},
    1: {"top_kast": _UNIFORM},
    2: {"gmp": _UNIFORM, "dpf": _UNIFORM},
    3: {"sis": {"scope": "global", "distribution": "uniform"}},
}

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare(
    path: str,
    flags: Mapping[str, Any],
    free: Collection[str],
    *,
    overwrite: bool,
    advice: Mapping[str, str] | None = None,
) -> Path:
    """Makes the directory, or raises UsageError if this run may not write there.

    Args:
        path: The directory. It may be empty, or hold an earlier session of the same run.
        flags: What makes this run the one it is, by name.
        free: Names of flags that may differ from one session to the next.
        overwrite: Whether any earlier run in it may be replaced.
        advice: {flag: what to do where it is not what it was in an earlier session}.
    """
    workdir = Path(path).expanduser().absolute()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
        if not overwrite:
            _check_earlier(workdir, path, flags, free, advice or {})
    except OSError as error:
        raise UsageError(
            f"Cannot write in the work directory: {error.strerror or error}. "
            f"Received: --workdir={path}"
        ) from error
    return workdir


def settings_of(workdir: Path) -> dict[str, Any]:
    """The flags of the run whose directory this is.

    Raises:
        FileNotFoundError: If it is none's.
        UsageError: If that cannot be told.
    """
    saved = _read(workdir / RUN)
    unsaid = _unsaid(saved, _changes(saved))
    saved.pop(_DEFAULTS, None)
    return {**_BEFORE, **saved, **unsaid}


def _changes(saved: Mapping[str, Any]) -> int:
    """How often defaults had been changed when a run began."""
    if _DEFAULTS in saved:
        return saved[_DEFAULTS]
    # New flags came with the changes. Studies of tables note none, and are not older than these.
    if "shrink_at" in saved or "table" in saved:
        return 1
    return 0 if "prune_outputs" in saved else -1


def _unsaid(flags: Mapping[str, Any], changes: int) -> dict[str, Any]:
    """Values of flags that are not given, where their default was another after so many changes."""
    return {
        name: value
        for number, of_methods in _DEFAULTS_BEFORE.items()
        for method in (None, flags.get("method"))
        for name, value in of_methods.get(method, {}).items()
        if number > changes and flags.get(name) is None
    }


def unsaid_in_study(flags: Mapping[str, Any], study: Path) -> dict[str, Any]:
    """Values of flags that a new cell of a study has, as earlier cells had them by default.

    Args:
        flags: Those of the cell.
        study: The directory of the study.

    Example:

    >>> with tempfile.TemporaryDirectory() as directory:
    ...     _ = (Path(directory) / RUN).write_text('{"prune_outputs": null, "shrink_at": []}')
    ...     unsaid_in_study({"method": "gmp", "distribution": None}, Path(directory))
    {'distribution': 'uniform'}
    """
    return _unsaid(flags, _changes(_read(study / RUN)))


def _read(noted: Path) -> dict[str, Any]:
    try:
        return json.loads(noted.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"Cannot tell whose run this is: {error}. Start again with --overwrite. "
            f"Received: {noted}"
        ) from error


def left_unsaid(flags: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Values of flags that are not given, and whose default was another when the run was begun.

    Example:

    >>> left_unsaid({"method": "top_kast", "distribution": None}, {"distribution": "uniform"})
    {'distribution': 'uniform'}
    >>> left_unsaid({"method": "top_kast", "distribution": None}, {"distribution": None})
    {}
    """
    return {
        name: value
        for of_methods in _DEFAULTS_BEFORE.values()
        for name, value in of_methods.get(flags["method"], {}).items()
        if flags.get(name) is None and earlier.get(name) == value
    }


def earlier(path: str, *, overwrite: bool) -> dict[str, Any]:
    """The flags of the run that would go on there; {} for a new one."""
    try:
        return {} if overwrite else settings_of(Path(path).expanduser())
    except OSError:
        return {}


def different(
    flags: Mapping[str, Any], earlier: Mapping[str, Any], free: Collection[str]
) -> list[str]:
    """Names of the flags that are not what they were in an earlier session.

    Example:

    >>> different({"epochs": 5, "seed": 0, "plot": True}, {"epochs": 4, "seed": 0}, free=["plot"])
    ['epochs']
    """
    now = _as_saved(flags)
    unsaid = {name for name in _BEFORE if now.get(name) is None}
    names = sorted({*now, *earlier} - set(free) - unsaid)
    return [name for name in names if now.get(name) != earlier.get(name)]


def begin(
    workdir: Path, flags: Mapping[str, Any], *, overwrite: bool, names: Collection[str] = ALL
) -> None:
    """Notes whose directory this is, and removes what a killed run left unfinished.

    Where a run goes on, the defaults that it began with stay noted.

    Args:
        workdir: The directory.
        flags: As for `prepare`.
        overwrite: Whether to remove what an earlier run wrote, too.
        names: What that may be.
    """
    if overwrite:
        clear(workdir, names)
    for name in (RUN, *names):
        for left in unfinished(workdir / name):
            remove(left)
    try:
        began = _IN_FORCE if overwrite else _changes(_read(workdir / RUN))
    except FileNotFoundError:
        began = _IN_FORCE
    with replacing(workdir / RUN) as beside:
        noted = {**flags, _DEFAULTS: began}
        beside.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")


def _check_earlier(workdir, path, flags, free, advice):
    try:
        earlier = settings_of(workdir)
    except FileNotFoundError:
        # A run that was killed at once may have left its note unfinished.
        taken = sorted(entry.name for entry in set(workdir.iterdir()) - unfinished(workdir / RUN))
        if taken:
            raise UsageError(
                f"The work directory is not empty: it holds {_shortened(taken)}. Choose another "
                f"--workdir, or replace what an earlier run wrote there with --overwrite. "
                f"Received: --workdir={path}"
            ) from None
        return
    if names := different(flags, earlier, free):
        now = _as_saved(flags)
        received = (f"--{name}={now.get(name)} instead of {earlier.get(name)}" for name in names)
        more = "".join(f"{advice[name]} " for name in names if name in advice)
        raise UsageError(
            "The work directory holds another run. Give the same flags to go on with it, choose "
            f"another --workdir, or replace it with --overwrite. {more}"
            f"Received: {', '.join(received)}"
        )


def _as_saved(flags):
    """As they come back from a file, where a tuple is a list."""
    return json.loads(json.dumps(dict(flags)))


def clear(workdir: Path, names: Collection[str] = ALL) -> None:
    """Removes what an earlier run wrote, lest it stand beside newer files; others stay."""
    for name in names:
        remove(workdir / name)


@contextlib.contextmanager
def full_disk_as_error() -> Iterator[None]:
    """TrainingStopped instead of an OSError that making room mends."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise TrainingStopped(
            f"The disk is full: {error.strerror}. Make room, and the same command, without "
            f"--overwrite, goes on from its last checkpoint. Received: {error.filename or error}"
        ) from error


def _shortened(names: list[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
