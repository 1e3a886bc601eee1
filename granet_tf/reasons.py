"""What went wrong, in one line: what other libraries' errors say, without what nobody can use.

Keras, TensorFlow and the converter put whole configs, addresses of code and listings of graphs
around the one sentence that matters, often in front of it.
"""

from __future__ import annotations

import re

# Longest reason. Of a longer one the middle is left out, as causes stand at either end.
_MOST = 600

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_NAMES_OF_FUNCTIONS = re.compile(r"\{\{.*?\}\}|\[Op:\w*\]")
# What Keras says before it tells why something cannot be loaded, with a config between.
_BEFORE = "Exception encountered: "
# What Keras adds behind.
_BEHIND = re.compile(r"\s*(Full object config:|Arguments received by ).*", re.DOTALL)
# A line of the converter: where in the graph, then what is wrong.
_OF_CONVERTER = re.compile(r"error: loc\((?P<place>.*)\)\)?: (?P<text>.*)")
_LAYER = re.compile(r'"(?P<path>[^"@]+)@')


def reason_of(error: BaseException) -> str:
    """What an error says in one line, without a full stop.

    Args:
        error: Any exception.

    Example:

    >>> reason_of(ValueError("No layer could be loaded.\\n\\nconfig={...}.\\n\\nException "
    ...                      "encountered: Could not locate class 'Own'. Full object config: {}"))
    "Could not locate class 'Own'"
    >>> reason_of(KeyError())
    'KeyError'
    """
    text = _COLOURS.sub("", str(error))
    text = _converter_errors(text) or text
    text = _BEHIND.sub("", text.rpartition(_BEFORE)[2])
    text = " ".join(_NAMES_OF_FUNCTIONS.sub("", text).split()).rstrip(".")
    return shortened(text) or type(error).__name__


def shortened(text: str, most: int = _MOST) -> str:
    """The text, its middle left out where it is longer than `most` characters.

    Example:

    >>> shortened("0123456789", most=7)
    '012 … 789'
    """
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()}"


def _converter_errors(text: str) -> str:
    """The converter's sentences, each with the place in the model; "" if these are not its."""
    found = []
    for line in text.splitlines():
        if match := _OF_CONVERTER.search(line):
            layer = _LAYER.search(match["place"])
            found.append(match["text"] + (f" (in {layer['path']})" if layer else ""))
    return "; ".join(dict.fromkeys(found))
