"""Optimizers by name, and which of the flags each has a parameter for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Names of classes in `keras.optimizers`, which is imported only after the flags are checked.
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop"}
# {optimizer: flags that it has a parameter of the same name for}
OPTIONS = {
    "sgd": frozenset({"momentum", "nesterov"}),
    "adam": frozenset(),
    "rmsprop": frozenset({"momentum"}),
}
# Parameters of every optimizer that are flags.
_OF_ALL = frozenset({"global_clipnorm"})


def make(name: str, learning_rate: Any, options: Mapping[str, Any]) -> Any:
    """A new Keras optimizer.

    Args:
        name: One of `OPTIMIZERS`.
        learning_rate: A number or a Keras schedule, see `learning_rates.make`.
        options: {flag: value}; those that the optimizer has no parameter for, and those that are
            None, are left out.

    Example:

    >>> made = make("sgd", 0.1, {"momentum": 0.9, "nesterov": None, "global_clipnorm": 3.0})
    >>> made.momentum, made.global_clipnorm
    (0.9, 3.0)
    """
    import keras

    known = OPTIONS[name] | _OF_ALL
    given = {k: v for k, v in options.items() if k in known and v is not None}
    return getattr(keras.optimizers, OPTIMIZERS[name])(learning_rate=learning_rate, **given)
