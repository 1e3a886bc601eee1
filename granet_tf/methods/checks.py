"""Checks of parameters that several methods have."""

from __future__ import annotations

import math
from numbers import Integral

from granet_tf.methods.base import Method


def check_at_least(method: Method, *names: str, least: float = 0.0) -> None:
    """Raises ValueError unless these parameters are finite numbers >= `least`.

    Example:

    >>> from granet_tf.methods import RigL
    >>> check_at_least(RigL(0.5), "drop_fraction")
    """
    for name in names:
        value = getattr(method, name)
        if not (math.isfinite(value) and value >= least):
            raise ValueError(f"`{name}` must be a number >= {least:g}. Received: {name}={value}")


def check_point(method: Method, *names: str) -> None:
    """Raises ValueError unless these are numbers of steps >= 0 or fractions in [0, 1]."""
    for name in names:
        value = getattr(method, name)
        if not (value >= 0 if isinstance(value, Integral) else 0.0 <= value <= 1.0):
            raise ValueError(
                f"`{name}` must be a number of optimizer steps >= 0 (int) or a fraction of "
                f"training in [0, 1] (float). Received: {name}={value}"
            )


def check_frequency(method: Method) -> None:
    """Raises ValueError unless `frequency` is a whole number of steps."""
    if not (isinstance(method.frequency, Integral) and method.frequency > 0):
        raise ValueError(
            "`frequency` must be a whole number of steps > 0. "
            f"Received: frequency={method.frequency}"
        )


def check_duration(method: Method, *names: str) -> None:
    """Raises ValueError unless these are numbers of steps >= 1 or fractions in (0, 1]."""
    for name in names:
        value = getattr(method, name)
        if not (value >= 1 if isinstance(value, Integral) else 0.0 < value <= 1.0):
            raise ValueError(
                f"`{name}` must be a number of optimizer steps >= 1 (int) or a fraction of "
                f"training in (0, 1] (float). Received: {name}={value}"
            )


# As many updates as this are made while the sparsity rises, unless `frequency` says otherwise.
_UPDATES = 50


def default_frequency(begin: int, end: int) -> int:
    """The period, in steps, that makes about 50 updates between two steps.

    Example:

    >>> default_frequency(0, 1000)
    20
    """
    return max(1, (end - begin) // _UPDATES)


def check_window(method: Method) -> None:
    """Raises ValueError unless `begin_step`, `end_step` and `frequency` can be meant."""
    for name in ("begin_step", "end_step"):
        value = getattr(method, name)
        if not isinstance(value, Integral) and not 0.0 <= value <= 1.0:
            raise ValueError(
                f"`{name}` must be a number of optimizer steps (int) or a fraction of training in "
                f"[0, 1] (float). Received: {name}={value}"
            )
        if value < 0:
            raise ValueError(f"`{name}` must be >= 0. Received: {name}={value}")
    same_unit = isinstance(method.begin_step, Integral) == isinstance(method.end_step, Integral)
    if same_unit and method.end_step < method.begin_step:
        raise ValueError(
            "`end_step` must be >= `begin_step`. "
            f"Received: begin_step={method.begin_step}, end_step={method.end_step}"
        )
    frequency = method.frequency
    if frequency is not None and not (isinstance(frequency, Integral) and frequency > 0):
        raise ValueError(
            f"`frequency` must be a whole number of steps > 0. Received: frequency={frequency}"
        )


def check_fractions(method: Method) -> None:
    """Raises ValueError unless both drop fractions are in [0, 1]."""
    for name in ("drop_fraction", "final_drop_fraction"):
        value = getattr(method, name)
        if not 0.0 <= value <= 1.0 or math.isnan(value):
            raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value}")
