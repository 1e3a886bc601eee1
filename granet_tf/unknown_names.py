"""What is said of a name that a module does not have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown_name(module: str, name: str, known: Iterable[str]) -> AttributeError:
    """The error for a module's `__getattr__`, with the nearest of the names that there are.

    Example:

    >>> print(unknown_name("granet_tf", "warp", ["strip", "wrap"]))
    module 'granet_tf' has no attribute 'warp'. Did you mean wrap?
    """
    near = [f" Did you mean {each}?" for each in difflib.get_close_matches(name, list(known), 1)]
    return AttributeError(f"module {module!r} has no attribute {name!r}.{''.join(near)}")
