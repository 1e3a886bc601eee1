"""One command at work on a study: what its workers see of it, wherever they run.

All of them look at one directory, `.running` in that of the study. Locks of its files say who is
alive, as the operating system lets go of those of a process that ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from granet_train.errors import Interrupted, UsageError
from granet_train.stopping import Stop

FOLDER = ".running"
PATIENCE = 0.5  # seconds between two looks
_STUDY = "study"
_ATTEMPTS = 5


@dataclasses.dataclass(frozen=True)
class Session:
    """A command at work; can be pickled.

    Attributes:
        directory: That of the study.
        name: Another one for each command.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, begun(Path(directory)) as session:
    ...     session.asked()
    ...     session.ask(signal.SIGTERM)
    ...     session.asked().name
    'SIGTERM'
    """

    directory: Path
    name: str

    @property
    def path(self) -> Path:
        """What it writes for its workers, locked as long as it lives."""
        return self.directory / FOLDER / _STUDY

    def ask(self, number: int) -> None:
        """Lets all workers save and end, as if this signal had come."""
        with open(self.path, "r+", encoding="utf-8") as file:
            _write(file, {"name": self.name, "signal": int(number)})

    def asked(self) -> signal.Signals | None:
        """The signal that workers are to end by; None while they are to go on."""
        try:
            with open(self.path, encoding="utf-8") as file:
                told = json.load(file)
                dead = _lock(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            return signal.SIGTERM
        except (OSError, ValueError):
            return None  # It is being written.
        if dead or told["name"] != self.name:
            return signal.SIGTERM
        return told["signal"] and signal.Signals(told["signal"])

    def check_seen(self) -> None:
        """Raises UsageError unless this process sees that the session lives."""
        try:
            with open(self.path, encoding="utf-8") as file:
                free = _lock(file, fcntl.LOCK_SH)
        except OSError:
            free = True
        if free:
            raise UsageError(
                "All workers must see the directory of the study, under the same name and on a "
                "file system whose locks hold for all hosts. "
                f"Received: {self.directory}, which {socket.gethostname()} does not see so"
            )

    @contextlib.contextmanager
    def claimed(self, cell: str, stop: Stop) -> Iterator[Callable[[float], None]]:
        """Waits until no other process runs the cell, then keeps others from running it.

        Args:
            cell: Its name.
            stop: Ends the waiting.

        Yields:
            Tells the share of it that is done, for `share`.
        """
        with open(self._claim(cell), "a", encoding="utf-8") as file:
            while _lock(file, fcntl.LOCK_EX) is False:
                if stop:
                    raise Interrupted("Stopped.", stop.signal)
                time.sleep(PATIENCE)

            def tell(share: float) -> None:
                _write(file, share)

            tell(0.0)
            yield tell

    def release(self, cell: str) -> None:
        """Forgets who ran a cell that is done."""
        self._claim(cell).unlink(missing_ok=True)

    def share(self, cell: str) -> float | None:
        """What is done of a cell; None before it is begun."""
        try:
            return json.loads(self._claim(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _claim(self, cell: str) -> Path:
        return self.directory / FOLDER / f"{cell}.json"


@contextlib.contextmanager
def begun(directory: Path, *, on_many_hosts: bool = False) -> Iterator[Session]:
    """A session that lives until the end of it.

    Args:
        directory: That of the study.
        on_many_hosts: Whether workers may be lost sight of while they live.

    Raises:
        UsageError: If another one is at work there, or workers of many hosts could not be kept
            apart.
    """
    session = Session(directory, uuid.uuid4().hex)
    session.path.parent.mkdir(exist_ok=True)
    with open(session.path, "a", encoding="utf-8") as file:
        for _ in range(_ATTEMPTS):  # A worker of an earlier one may be looking.
            taken = _lock(file, fcntl.LOCK_EX)
            if taken is not False:
                break
            time.sleep(PATIENCE / _ATTEMPTS)
        if taken is None and on_many_hosts:
            raise UsageError(
                "--scheduler needs a --workdir on a file system that has locks, lest two workers "
                f"run one cell. Received: {directory}"
            )
        if taken is False:
            raise UsageError(
                "Another command is at work on this study. Wait for its end, or choose another "
                f"--workdir. Received: {directory}"
            )
        for claim in session.path.parent.glob("*.json"):
            # What an earlier session told; a worker of its may hold the lock still.
            claim.write_text("")
        _write(file, {"name": session.name, "signal": None})
        yield session


class Asked(Stop):
    """Also true once the study says so.

    Args:
        session: That of the study.
        own: Of this process.
    """

    def __init__(self, session: Session, own: Stop):
        self.session, self.own, self.next = session, own, 0.0

    def __bool__(self) -> bool:
        if self.signal is None:
            self.signal = self.own.signal
        if self.signal is None and time.monotonic() >= self.next:
            self.signal = self.session.asked()
            self.next = time.monotonic() + PATIENCE
        return self.signal is not None


def _lock(file: TextIO, how: int) -> bool | None:
    """Whether it is ours now; None where the file system has no locks."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _write(file: TextIO, content: Any) -> None:
    """Whole at once, where others look now and then."""
    file.seek(0)
    file.truncate()
    file.write(json.dumps(content))
    file.flush()
    os.fsync(file.fileno())
