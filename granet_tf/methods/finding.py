"""Which methods there are, found by looking: a new one needs no entry in a list."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import keras

from granet_tf.methods.base import Method
from granet_tf.schedules import PACKAGE


def all_methods() -> dict[str, type[Method]]:
    """{name that the commands use: class} of the methods in this package, by name.

    A method is what a file can name, so what is registered with Keras; base classes are not.

    Example:

    >>> sorted(all_methods())[:4]
    ['acdc', 'deep_r', 'dpf', 'dsr']
    >>> all_methods()["top_kast"].__name__
    'TopKAST'
    """
    package = __package__
    found = {}
    for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        module = importlib.import_module(info.name)
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == info.name and _is_method(kind):
                found[_name(kind)] = kind
    return found


def _is_method(kind):
    registered = keras.saving.get_registered_object(f"{PACKAGE}>{kind.__name__}")
    return issubclass(kind, Method) and registered is kind


def _name(kind):
    # A subclass does not answer to the name of its base.
    return vars(kind).get("command_name", kind.__name__.lower())
