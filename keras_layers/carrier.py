"""`CarriesMasks`: what an optimizer, reports and files ask of a layer that keeps masks."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import keras

from keras_layers.keras_internals import layers_of
from keras_layers.masking import PrunedWeight, masked_call
from keras_layers.transparent import Transparent, scope_outside


class CarriesMasks(Transparent):
    """To be mixed into a Keras layer that keeps the masks of the weights of the layer inside.

    Attributes:
        method: How the masks evolve, a `granet_tf.Method`.
        pruned: The masked weights; empty until built.
        mask_only: Whether dormant weights keep their value, and the layer computes with w · mask.
        has_optimizer: Whether an optimizer updates the masks.
        held: Vectors that are held at zero where a channel is pruned, a
            `keras_layers.held.HeldVectors`; None if there are none.
    """

    method: Any
    pruned: tuple[PrunedWeight, ...] = ()
    mask_only: bool = False
    has_optimizer: bool = False
    held: Any = None

    @property
    def updated_with(self) -> Hashable:
        """The masks of layers in which this is equal are updated together."""
        return id(self)

    def give_to_optimizer(self) -> None:
        """Tells the layer that an optimizer updates its masks."""
        self.has_optimizer = True

    def call_inside(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """What the layer inside returns with masked weights."""
        with scope_outside(self._inside):
            if not self.mask_only:  # The weights themselves are masked.
                return self._inside(*args, **kwargs)
            straight_through = self.method.straight_through
            return masked_call(
                self._inside, self.pruned, args, kwargs, straight_through=straight_through
            )


def carries_masks(layer: Any) -> bool:
    """Whether `layer` keeps masks and a method of its own, as PruneLowMagnitude does.

    Example:

    >>> import granet_tf
    >>> dense = keras.layers.Dense(2)
    >>> carries_masks(dense), carries_masks(granet_tf.PruneLowMagnitude(dense))
    (False, True)
    """
    return isinstance(layer, CarriesMasks)


def wrapped_models(model: keras.Layer) -> list[keras.Model]:
    """The models in `model`, or it itself, that keep masks; wrapped layers are none.

    Example:

    >>> import granet_tf
    >>> sparse = granet_tf.wrap(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
    >>> wrapped_models(sparse) == [sparse]
    True
    """
    return [x for x in layers_of(model) if carries_masks(x) and isinstance(x, keras.Model)]
