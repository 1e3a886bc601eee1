"""Where cells are run: in processes of this machine, by joblib's loky, or on workers of Dask."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any, Protocol

from joblib.externals.loky import ProcessPoolExecutor

from granet_train.errors import TrainingStopped, UsageError
from granet_train.studies import worker

LOG = "worker{}.log"
_PATIENCE = 10  # seconds for a scheduler to answer
_IDLE = 60.0  # seconds until a process of a Dask worker lets go of its GPU
_EXIT_CODES = re.compile(r"\((-?\d+)\)")


class Pool(Protocol):
    """Where cells can be sent."""

    def size(self) -> int:
        """How many can run side by side now."""

    def submit(self, work: Callable, *arguments: Any) -> Future:
        """Has one of its processes call `work`; called while fewer than `size()` do."""

    def why_lost(self, future: Future, error: BaseException) -> str:
        """Why a call has no answer.

        Raises:
            TrainingStopped: If no call will have one.
        """


class _Processes:
    """Each of them is a pool of its own for joblib's loky, which ends a pool when one dies."""

    def __init__(
        self, logs: Sequence[Path], devices: Sequence[str] = (), idle: float | None = None
    ):
        self.logs, self.devices, self.idle = logs, devices, idle
        self.executors: dict[int, Executor] = {}
        self.futures: dict[int, Future] = {}

    def size(self) -> int:
        return len(self.logs)

    def submit(self, work: Callable, *arguments: Any) -> Future:
        slot = next(
            slot
            for slot in range(len(self.logs))
            if slot not in self.futures or self.futures[slot].done()
        )
        if slot not in self.executors:
            device = self.devices and self.devices[slot % len(self.devices)]
            self.executors[slot] = ProcessPoolExecutor(
                max_workers=1,
                timeout=self.idle,
                initializer=worker.begin,
                initargs=(self.logs[slot],),
                env={"CUDA_VISIBLE_DEVICES": device} if device else None,
            )
        self.futures[slot] = self.executors[slot].submit(work, *arguments)
        return self.futures[slot]

    def why_lost(self, future: Future, error: BaseException) -> str:
        [slot] = [slot for slot, mine in self.futures.items() if mine is future]
        self.executors.pop(slot).shutdown()
        code = _EXIT_CODES.search(str(error))
        ended = f"its process ended with code {code[1]}" if code else f"its process ended: {error}"
        return f"{ended}; see {self.logs[slot]}"

    def close(self) -> None:
        for executor in self.executors.values():
            executor.shutdown()


class _Cluster:
    """Workers of a Dask scheduler, which may come and go; it sends a lost cell to another one."""

    def __init__(self, client, directory: Path):
        self.client, self.directory = client, directory
        self.executor = client.get_executor(pure=False)

    def size(self) -> int:
        try:
            # One cell waits where there is no worker yet.
            return max(1, sum(self.client.nthreads().values()))
        except OSError as error:
            raise _lost() from error

    def submit(self, work: Callable, *arguments: Any) -> Future:
        return self.executor.submit(_answer_apart, self.directory, work, *arguments)

    def why_lost(self, future: Future, error: BaseException) -> str:
        from distributed import KilledWorker

        try:
            raise error
        except KilledWorker:
            return (
                f"each worker that ran it ended, the last one {error.last_worker.address}; see the "
                "logs of Dask's workers"
            )
        except CancelledError:
            raise _lost() from error
        except Exception:
            raise worker.other_version(error) from error


# A worker of Dask with several threads still runs one cell at a time.
_one_at_a_time = threading.Lock()
_apart: dict[Path, _Processes] = {}


def _answer_apart(directory: Path, work: Callable, *arguments: Any) -> tuple[str, Any]:
    """Has a process of this worker's own do it.

    In the worker's process Dask would draw from the same random numbers as the training, and wait
    where TensorFlow keeps Python to itself.
    """
    with _one_at_a_time:
        for other in _apart.keys() - {directory}:
            _apart.pop(other).close()
        if directory not in _apart:
            # Else it could have no children.
            multiprocessing.current_process().daemon = False
            log = directory / LOG.format(f"_{socket.gethostname()}_{os.getpid()}")
            _apart[directory] = _Processes([log], idle=_IDLE)
        pool = _apart[directory]
        future = pool.submit(work, *arguments)
        if error := future.exception():
            return worker.FAILED, pool.why_lost(future, error)
        return future.result()


@contextlib.contextmanager
def processes(directory: Path, jobs: int, devices: Sequence[str]) -> Iterator[Pool]:
    """Processes of this machine.

    Args:
        directory: Where each has a log.
        jobs: How many.
        devices: GPUs, as in CUDA_VISIBLE_DEVICES, that they take turns on. With none, each sees
            all.

    Example:

    >>> with processes(Path("."), 2, ()) as pool:
    ...     pool.size()
    2
    """
    pool = _Processes([directory / LOG.format(number + 1) for number in range(jobs)], devices)
    try:
        yield pool
    finally:
        pool.close()


@contextlib.contextmanager
def cluster(directory: Path, address: str) -> Iterator[Pool]:
    """The workers of a Dask scheduler.

    Args:
        directory: Where each has a log; all of them see it.
        address: As in tcp://HOST:8786.

    Raises:
        UsageError: If there is no Dask here, or no scheduler there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "--scheduler needs Dask: pip install 'granet_tf[dask]'. "
            f"Received: --scheduler={address}"
        ) from error
    # Its errors are told by those that follow.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        _check_answers(address)
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            "--scheduler must be the address of a Dask scheduler that runs, such as "
            f"tcp://HOST:8786, which `dask scheduler` prints: {error}. "
            f"Received: --scheduler={address}"
        ) from error
    with client:
        yield _Cluster(client, directory)


def _check_answers(address: str) -> None:
    """Raises OSError or ValueError at once, where Dask's client would try again and again."""
    import socket

    from distributed.comm import get_address_host_port

    with socket.create_connection(get_address_host_port(address), _PATIENCE):
        pass


def _lost() -> TrainingStopped:
    return TrainingStopped(
        "The Dask scheduler does not answer any more. Start it again; the same command, without "
        "--overwrite, goes on from there."
    )
