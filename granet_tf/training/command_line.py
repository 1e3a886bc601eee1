"""The first thing that happens on the command line: flags, --help, and errors in one line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

from absl.flags import FlagValues

from granet_tf.training import flags
from granet_tf.training.errors import Interrupted, TrainingStopped, UsageError


def read(argv: Sequence[str]) -> FlagValues:
    """The flags, by `flags.parse`; prints the help and exits where that was asked for.

    Example:

    >>> read(["--seed=3"]).seed
    3
    """
    values, _ = flags.parse(argv)
    if flags.wants_help(values):
        print(flags.help_text(), end="", flush=True)
        sys.exit()
    return values


def run(main: Callable, read: Callable, argv: Sequence[str] | None) -> None:
    """A console script: `main` of what `read` makes of the arguments.

    Warnings and errors are one line each; exits with the error's code.
    """
    warnings.formatwarning = lambda message, *args, **kwargs: f"warning: {message}\n"
    with errors_in_one_line():
        main(read(sys.argv[1:] if argv is None else argv))


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Errors that a user can mend are printed without a traceback; exits with their code."""
    try:
        yield
    except (UsageError, TrainingStopped) as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(Interrupted.exit_code)
    except BrokenPipeError:  # As in `granet-train | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
