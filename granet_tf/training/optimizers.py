"""Optimizers and learning rate schedules, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

# Names of classes in `keras.optimizers`, which is imported only after the flags are checked.
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop"}
# Flags that only some optimizers have a parameter for.
OPTIONS = ("momentum", "nesterov")


def _constant(learning_rate: float, steps: int) -> Any:
    del steps
    return learning_rate


def _cosine(learning_rate: float, steps: int) -> Any:
    import keras

    return keras.optimizers.schedules.CosineDecay(learning_rate, steps)


def _step(learning_rate: float, steps: int) -> Any:
    import keras

    # As in the paper: a tenth from half of training, a hundredth from three quarters.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [steps // 2, steps * 3 // 4], [learning_rate, learning_rate / 10, learning_rate / 100]
    )


LEARNING_RATE_SCHEDULES: dict[str, Callable[[float, int], Any]] = {
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
}


def options_of(name: str) -> set[str]:
    """Which of `OPTIONS` the optimizer has."""
    return set(OPTIONS) & set(inspect.signature(_class(name)).parameters)


def make(name: str, learning_rate: Any, options: Mapping[str, Any]) -> Any:
    """A new optimizer, with those of the options that it has and that are not None."""
    known = options_of(name)
    given = {k: v for k, v in options.items() if k in known and v is not None}
    return _class(name)(learning_rate=learning_rate, **given)


def _class(name: str) -> type:
    import keras

    return getattr(keras.optimizers, OPTIMIZERS[name])
