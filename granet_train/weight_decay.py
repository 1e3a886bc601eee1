"""Coupled weight decay for any Keras model, as PyTorch's optimizers have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Which trainable variables decay: those with two dimensions or more, or all as in PyTorch.
DECAYS: dict[str, Callable[[Any], bool]] = {
    "kernels": lambda variable: len(variable.shape) > 1,
    "all": lambda variable: True,
}


def add(model: Any, amount: float, decays: Callable[[Any], bool]) -> None:
    """Adds `amount` · w to the gradient of each trainable variable that decays.

    It is half of that as an L2 regularizer on the variable, so pruned weights are treated as the
    model's semantics has it. Layers are told too, where they have a place for it: then it is saved.

    Args:
        model: A built Keras model.
        amount: As PyTorch's `weight_decay`.
        decays: Says of a variable whether it decays; see `DECAYS`.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> add(model, 0.1, DECAYS["kernels"])
    >>> [round(v.regularizer.l2, 3) if v.regularizer else None for v in model.trainable_variables]
    [0.05, None]
    """
    import keras

    from keras_layers.keras_internals import layers_of

    if not amount:
        return
    for layer in layers_of(model):
        for variable in layer._trainable_variables:
            if decays(variable):
                variable.regularizer = keras.regularizers.L2(amount / 2)
                for name in _places(variable.name):
                    if hasattr(layer, name):
                        setattr(layer, name, variable.regularizer)


def _places(name: str) -> tuple[str, ...]:
    """Attributes in which layers keep the regularizer of a variable of this name."""
    own = f"{name.removesuffix('_kernel')}_regularizer"
    # That of DepthwiseConv2D is called "kernel" too.
    return (own, "depthwise_regularizer") if name == "kernel" else (own,)
