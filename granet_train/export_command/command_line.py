"""The first thing that happens on the command line: flags, --help, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl.flags import FlagValues

from granet_train.command_line import errors_in_one_line as errors_in_one_line
from granet_train.command_line import run as run
from granet_train.export_command import flags


def read(argv: Sequence[str]) -> FlagValues:
    """The flags, by `flags.parse`; prints the help and exits where that was asked for.

    Example:

    >>> read(["--model=model.keras"]).encoding
    'auto'
    """
    values = flags.parse(argv)
    if flags.wants_help(values):
        print(flags.help_text(), end="", flush=True)
        sys.exit()
    return values
