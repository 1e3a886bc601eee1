"""Structured sparsity: which channels must be removed together, and removing them in training.

What few programs have a use for is imported when it is first used.

Example:

>>> import granet_tf
>>> granet_tf.structured.Shrunk(step=3, kept={"kernel": (0, 2)}, parameters=(9, 6)).step
3
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from granet_tf.structured.dependency_groups import Dependencies as Dependencies
    from granet_tf.structured.dependency_groups import dependencies as dependencies
    from granet_tf.structured.history import Shrunk as Shrunk

_NAMES = {
    "Dependencies": "dependency_groups",
    "dependencies": "dependency_groups",
    "Shrunk": "history",
}


def __getattr__(name):
    if name not in _NAMES:
        from granet_tf.unknown_names import unknown_name

        raise unknown_name(__name__, name, _NAMES)
    return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
