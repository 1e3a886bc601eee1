"""The first thing that happens on the command line: flags, --help, and errors in one line."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

from granet_train import flag_help, flags
from granet_train.errors import Interrupted, TrainingStopped, UsageError
from granet_train.in_flags import in_flags
from granet_train.options import wants_help
from granet_train.training_options import Options


def read(argv: Sequence[str]) -> Options:
    """The flags, by `flags.parse`.

    Prints the help, or the rows of the paper's tables, and exits where that was asked for.

    Example:

    >>> read(["--seed=3"]).seed
    3
    """
    flag_help.show_rows(argv)
    values, _ = flags.parse(argv)
    if wants_help(Options, argv):
        flag_help.show(flags.help_text())
    return values


def run(
    main: Callable,
    read: Callable,
    argv: Sequence[str] | None,
    arguments: Mapping[str, str] = flags.BY_PARAMETER,
) -> None:
    """A console script: `main` of what `read` makes of the arguments.

    Warnings and errors are one line each; exits with the error's code.

    Args:
        main: Does what was asked for.
        read: Reads the command line.
        argv: The command line without the program's name; None is that of this process.
        arguments: {argument of the library: flag}, for what the library warns of.
    """

    def one_line(message, *args, **kwargs):
        return f"warning: {in_flags(str(message), arguments)}\n"

    warnings.formatwarning = one_line
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
