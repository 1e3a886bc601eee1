"""What happens in the process that a cell is sent to, here or on another host.

It imports no TensorFlow, which comes with the first cell, when devices and output are set.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from granet_train.errors import Interrupted, TrainingStopped, UsageError
from granet_train.quiet_tensorflow import without_notes
from granet_train.stopping import Stop, asked_by, on_signal
from granet_train.studies.session import PATIENCE, Asked, Session

DONE, FAILED, REFUSED, INTERRUPTED = "done", "failed", "refused", "interrupted"

_of_this_process = contextlib.ExitStack()
_signals = Stop()


def begin(log: Path) -> None:
    """The first thing that the process does.

    Args:
        log: What it says is added to this file.
    """
    global _signals
    for stream in (1, 2):
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), stream)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _signals = _of_this_process.enter_context(on_signal())


def _end_with(study: int) -> None:
    """Where the study is killed, its worker must not write beside those of the next session."""
    while os.getppid() == study:
        time.sleep(PATIENCE)
    os._exit(1)


def answer(session: Session, study: bytes, cell: bytes) -> tuple[str, Any]:
    """Runs a cell unless it is done, and says what came of it.

    Args:
        session: That of the study.
        study: (grid, what opens it, its argument), pickled: see `granet_train.studies.jobs.run`.
        cell: The cell, pickled.

    Returns:
        `DONE`, `FAILED` and why, `REFUSED` and why no cell can be done, or `INTERRUPTED` and by
        which signal.

    Example:

    >>> answer(Session(Path("/no/such/directory"), "a name"), b"", b"")[0]
    'refused'
    """
    stop = Asked(session, _signals)
    try:
        with asked_by(stop):
            session.check_seen()
            _run(session, *_opened(study), _loaded(cell), stop)
    except Interrupted as error:
        return INTERRUPTED, error.exit_code - 128
    except TrainingStopped as error:
        return FAILED, str(error)
    except UsageError as error:
        return REFUSED, str(error)
    except Exception as error:
        from granet_tf.reasons import reason_of

        # Whatever it is, such as a lack of memory, other cells may do better.
        traceback.print_exc()
        return FAILED, f"{type(error).__name__}: {reason_of(error)}"
    return DONE, None


def _run(session, grid, run_cell: Callable, cell, stop: Stop) -> None:
    with session.claimed(cell.name, stop) as tell:
        if stop:
            raise Interrupted("Stopped.", stop.signal)
        # Another may have done it and not lived to say so.
        if grid.result(cell) is None:
            print(f"\n--- {cell.label}", flush=True)
            run_cell(cell, tell, stop)
        session.release(cell.name)


@functools.lru_cache(maxsize=1)
def _opened(study: bytes):
    """Prepared for the cells of one study: (grid, what runs them)."""
    grid, open_run, argument = _loaded(study)
    return grid, opened(open_run, grid, argument)


def opened(open_run: Callable, grid, argument: Any) -> Callable:
    """What runs the cells, in a process that is ready for them."""
    # Each cell has a network of its own, which TensorFlow takes for one that is traced again.
    logging.getLogger("tensorflow").addFilter(
        lambda record: "triggered tf.function retracing" not in record.getMessage()
    )
    return open_run(grid, argument)


def _loaded(pickled: bytes) -> Any:
    try:
        with without_notes():
            return pickle.loads(pickled)
    except (ImportError, AttributeError) as error:
        raise other_version(error) from error


def other_version(error: Exception) -> UsageError:
    """What to say where code that is sent does not fit the code that is there."""
    return UsageError(
        "Workers must have the same version of granet_tf, with its extras `training` and `dask`, "
        f"as the host of the study. Received: {type(error).__name__}: {error}"
    )
