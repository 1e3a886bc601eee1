"""Why a run ends early, as the user is told: one line, no traceback."""

import signal


class UsageError(Exception):
    """What was asked for cannot be done; nothing was trained."""

    exit_code = 2


class TrainingStopped(Exception):
    """Training ended before its last epoch."""

    exit_code = 1


class Interrupted(TrainingStopped):
    """A signal ended it.

    Args:
        message: What the user is told.
        number: The signal, from which a shell's exit code follows. By default that of Ctrl-C.
    """

    exit_code = 128 + signal.SIGINT

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_code = 128 + number
