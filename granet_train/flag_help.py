"""What --help shows: the flags by section, in the order of their definition, at any width."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence

from absl import flags
from absl.flags import FlagValues

USAGE = """\
granet-train trains a network sparse and compares it with others trained alike.

  granet-train --flagfile=configs/digits_granet.flags
  granet-train --flagfile=configs/digits_granet.flags --final_sparsity=0.95 --workdir=work/95

What stands later wins, so any flag of a flagfile can be overridden after it. A flagfile holds one
flag a line; # begins a comment, and a --flagfile in it is relative to its own directory.
A flag without a default is as the method or the optimizer has it.
"""

_MARGIN = 27
_MOST = 100


def text_of(
    values: FlagValues, sections: Sequence[str], hidden: Collection[str], usage: str = USAGE
) -> str:
    """Usage, then each section with its flags.

    Args:
        values: The flags, at their defaults.
        sections: The `module_name` of flags that belong together.
        hidden: Names of flags not to be shown.
        usage: What stands above them.

    Example:

    >>> values = FlagValues()
    >>> _ = flags.DEFINE_bool("xla", False, "Whether.", values, module_name="How")
    >>> print(text_of(values, ["How"], hidden=()).splitlines()[-1])
      --[no]xla                Whether. Default: no.
    """
    width = min(shutil.get_terminal_size((_MOST, 0)).columns, _MOST)
    by_section = values.flags_by_module_dict()
    blocks = [usage]
    for section in sections:
        shown = [flag for flag in by_section[section] if flag.name not in hidden]
        if not shown:
            continue
        blocks.append("\n".join([f"{section}:", *(_entry(flag, width) for flag in shown), ""]))
    return "\n".join(blocks)


def _entry(flag: flags.Flag, width: int) -> str:
    name = f"  --{'[no]' if flag.boolean else ''}{flag.name}"
    choices = getattr(flag.parser, "enum_values", [])
    sentences = [flag.help.removeprefix(f"<{'|'.join(choices)}>: ")]  # absl puts them in front.
    if choices:
        sentences.append(f"One of {', '.join(choices)}.")
    if flag.default not in (None, []):
        sentences.append(f"Default: {_default(flag)}.")
    text = " ".join(sentences)
    lines = textwrap.wrap(text, max(width - _MARGIN, 20), break_on_hyphens=False)
    if len(name) > _MARGIN - 1:
        return "\n".join([name, *(" " * _MARGIN + line for line in lines)])
    return f"\n{' ' * _MARGIN}".join([name.ljust(_MARGIN) + lines[0], *lines[1:]])


def _default(flag: flags.Flag) -> str:
    if flag.boolean:
        return "yes" if flag.default else "no"
    return ",".join(flag.default) if isinstance(flag.default, list) else str(flag.default)
