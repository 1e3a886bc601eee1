"""Reading a model as if its variables had other values, which none of them is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_layers.keras_internals import get_global_attribute


class Substituted(keras.StatelessScope):
    """Here variables have the values that `values` says, and None where it leaves them as they are.

    Whatever layers assign or note down in here is dropped. Scopes nest.

    Args:
        values: Takes a variable; returns its value here, of any type, or None.

    Example:

    >>> weight = keras.Variable([1.0, 2.0])
    >>> with Substituted(lambda variable: keras.ops.zeros(2) if variable is weight else None):
    ...     inside = keras.ops.convert_to_numpy(weight).tolist()
    >>> inside, keras.ops.convert_to_numpy(weight).tolist()
    ([0.0, 0.0], [1.0, 2.0])
    """

    def __init__(self, values: Callable[[keras.Variable], Any] = lambda variable: None):
        super().__init__(collect_losses=True)
        self._substitute = values
        self._around = get_global_attribute("stateless_scope")

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None:
            value = self._substitute(variable)
        if value is None and self._around is not None:
            value = self._around.get_current_value(variable)
        return value
