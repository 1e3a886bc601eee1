"""Checks of parameters that several methods have."""

from __future__ import annotations

import math
from numbers import Integral

from granet_tf.methods import Method


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
