"""What --help shows: the flags by section, in the order of their definition, at any width."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import NoReturn

from granet_train import flagfiles, rows
from granet_train.options import Option, in_sections, written

USAGE = """\
granet-train trains a network sparse and compares it with others trained alike.

  granet-train --flagfile=configs/digits_granet.flags
  granet-train --flagfile=configs/digits_granet.flags --final_sparsity=0.95 --workdir=work/95
  granet-train --row=table2/cifar10/vgg19/95/granet_si0 --download

A row is a run of the paper's tables; all other flags win over it. --row=list shows all rows.
What stands later wins, so any flag of a flagfile can be overridden after it. A flagfile holds one
flag a line; # begins a comment, and a --flagfile in it is relative to its own directory.
A flag without a default is as the method or the optimizer has it. A duration is
optimizer steps ("500"), a fraction of training ("0.5") or epochs ("30e", "30epochs").
"""

_MARGIN = 27
_MOST = 100


def show(text: str) -> NoReturn:
    """Prints what --help shows, and ends."""
    print(text, end="", flush=True)
    sys.exit()


def show_rows(argv: Sequence[str]) -> None:
    """Prints the rows of the paper's tables, and ends, where --row=list asks for them.

    Example:

    >>> show_rows(["--row=table2/cifar10/vgg19/dense"])
    """
    if flagfiles.row_of(argv) == rows.LIST:
        show(rows.listing())


def text_of(
    options: type, hidden: Collection[str] = (), usage: str = USAGE, section: str | None = None
) -> str:
    """Usage, then each section with its options.

    Args:
        options: A dataclass of options.
        hidden: Names of those not to be shown.
        usage: What stands above them.
        section: The only section to be shown; by default all are.

    Example:

    >>> from granet_train.flags import Options
    >>> lines = text_of(Options, section="What to write").splitlines()
    >>> print(lines[-1])
      --[no]plot               Whether to draw training.png. Default: yes.
    """
    width = min(shutil.get_terminal_size((_MOST, 0)).columns, _MOST)
    blocks = [usage]
    for name, members in in_sections(options).items():
        shown = [_entry(flag, each, width) for flag, each in members.items() if flag not in hidden]
        if shown and section in (None, name):
            blocks.append("\n".join([f"{name}:", *shown, ""]))
    return "\n".join(blocks)


def _entry(flag: str, each: Option, width: int) -> str:
    name = f"  --{'[no]' if each.kind is bool else ''}{flag}"
    sentences = [each.help]
    if each.choices and each.kind is str:
        sentences.append(f"One of {', '.join(each.choices)}.")
    if each.default not in (None, ()):
        sentences.append(f"Default: {_default(each)}.")
    text = " ".join(sentences)
    lines = textwrap.wrap(text, max(width - _MARGIN, 20), break_on_hyphens=False)
    if len(name) > _MARGIN - 1:
        return "\n".join([name, *(" " * _MARGIN + line for line in lines)])
    return f"\n{' ' * _MARGIN}".join([name.ljust(_MARGIN) + lines[0], *lines[1:]])


def _default(each: Option) -> str:
    return {True: "yes", False: "no"}[each.default] if each.kind is bool else written(each.default)
