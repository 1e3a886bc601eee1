"""Methods of one layer that tell others when they are called."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import keras


class Observed:
    """In the place of a method of one layer: calls it through its observers.

    Args:
        method: The layer's method.
    """

    def __init__(self, method: Callable):
        functools.update_wrapper(self, method)
        self.method = method
        # An observer that nobody holds any more must not come between.
        self.observers: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    def __call__(self, *args, **kwargs) -> Any:
        method = self.method
        for observer, around in list(self.observers.items()):
            method = functools.partial(around, observer, method)
        return method(*args, **kwargs)


def observe(layer: keras.Layer, name: str, observer: Any, around: Callable) -> None:
    """Makes `layer.name(...)` a call of `around(observer, method, ...)`, once for each observer.

    Args:
        layer: A layer.
        name: The name of a method of it.
        observer: Held weakly: with it, the observation ends.
        around: `(observer, method, *args, **kwargs) -> result`.

    Example:

    >>> class Observer:
    ...     pass
    >>> layer, observer = keras.layers.Dense(2), Observer()
    >>> observe(layer, "count_params", observer, lambda observer, method: "asked")
    >>> layer.count_params()
    'asked'
    >>> stop_observing(layer, observer)
    >>> "count_params" in vars(layer)
    False
    """
    if not isinstance(vars(layer).get(name), Observed):
        setattr(layer, name, Observed(getattr(layer, name)))
    getattr(layer, name).observers[observer] = around


def is_observed(layer: keras.Layer, observer: Any) -> bool:
    """Whether `observer` observes a method of `layer`."""
    methods = [m for m in vars(layer).values() if isinstance(m, Observed)]
    return any(observer in method.observers for method in methods)


def stop_observing(layer: keras.Layer, observer: Any) -> None:
    """Ends what `observe` began, for all methods of `layer`; without observers, they are its own.

    Args:
        layer: A layer.
        observer: What was given to `observe`.
    """
    for name, method in list(vars(layer).items()):
        if not isinstance(method, Observed):
            continue
        method.observers.pop(observer, None)
        if not method.observers:
            delattr(layer, name)
            if getattr(layer, name) != method.method:  # Keras keeps some methods in the instance.
                setattr(layer, name, method.method)
