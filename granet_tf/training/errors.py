"""Why a run ends early, as the user is told: one line, no traceback."""


class UsageError(Exception):
    """What was asked for cannot be done; nothing was trained."""

    exit_code = 2


class TrainingStopped(Exception):
    """Training ended before its last epoch."""

    exit_code = 1


class Interrupted(TrainingStopped):
    """The user pressed Ctrl-C."""

    exit_code = 130
