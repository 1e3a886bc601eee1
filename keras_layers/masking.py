"""Masks of a layer's weights, and calling a layer as if its weights were masked."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_layers.layouts import Layout, layout_of
from keras_layers.prunable import Weight


@dataclasses.dataclass(frozen=True)
class PrunedWeight:
    """A weight and its mask (bool, True = active), both Keras variables of the same shape.

    Attributes:
        path: Path of the weight.
        variable: The weight.
        mask: Its mask.
        layout: Which of its axes are inputs and which outputs.
        state: What else a method keeps for the weight, by name.
        explored: Which entries have ever been active, where that is asked for.
        transform: (value, state) -> the value to compute with; None is w · mask.
        was_frozen: Whether it was not trainable when it got its mask, which somebody asked for.
    """

    path: str
    variable: keras.Variable
    mask: keras.Variable
    layout: Layout = dataclasses.field(default_factory=Layout)
    state: Mapping[str, keras.Variable] = dataclasses.field(default_factory=dict)
    explored: keras.Variable | None = None
    transform: Callable | None = None
    was_frozen: bool = False


def add_masks(owner: keras.Layer, weights: Iterable[Weight]) -> tuple[PrunedWeight, ...]:
    """Gives each weight an all-True mask, a non-trainable variable of `owner`, saved with it."""
    chosen = [weight for weight in weights if weight.prunable]
    masks = [_add_mask(owner, weight) for weight in chosen]
    track(owner, "_mask", masks)
    return tuple(
        PrunedWeight(
            weight.path,
            weight.variable,
            mask,
            layout_of(weight.layer, weight.variable),
            was_frozen=weight.frozen,
        )
        for weight, mask in zip(chosen, masks, strict=True)
    )


def _add_mask(owner, weight):
    # In the scope that made the weight, as every replica has a mask of its own copy.
    strategy = getattr(weight.variable.value, "distribute_strategy", None)
    with strategy.scope() if strategy else contextlib.nullcontext():
        return owner.add_weight(
            name=weight.path.replace("/", "_") + "_mask",
            shape=weight.variable.shape,
            initializer="ones",
            # bool: one byte, and the only small type that every strategy's collectives take.
            dtype="bool",
            trainable=False,
            aggregation="only_first_replica",
        )


def track(owner: keras.Layer, name: str, variables: Iterable[keras.Variable]) -> None:
    """Makes `variables` part of `owner` to Keras's files and TensorFlow's checkpoints alike.

    The latter see attributes, but not what is in a list.
    """
    for i, variable in enumerate(variables):
        setattr(owner, f"{name}_{i}", variable)


def masked_value(pruned: PrunedWeight, *, straight_through: bool = False) -> tf.Tensor:
    """w · mask, or what the weight's `transform` makes of w.

    The gradient of w · mask reaches w masked, or as it is if `straight_through`.

    Example:

    >>> weight, mask = keras.Variable([3.0, 4.0]), keras.Variable([True, False], dtype="bool")
    >>> masked_value(PrunedWeight("kernel", weight, mask)).numpy().tolist()
    [3.0, 0.0]
    """
    value = tf.convert_to_tensor(pruned.variable)
    if pruned.transform is not None:
        state = {name: tf.convert_to_tensor(v) for name, v in pruned.state.items()}
        return pruned.transform(value, state)
    mask = tf.convert_to_tensor(pruned.mask)
    return _unmasked_gradient(value, mask) if straight_through else _masked(value, mask)


def masked_call(
    layer: keras.Layer,
    pruned: Iterable[PrunedWeight],
    args: tuple,
    kwargs: dict[str, Any],
    *,
    straight_through: bool,
    owner: keras.Layer,
) -> Any:
    """Calls `layer` with w · mask in place of each pruned weight w, which keeps its value.

    Everything else that the call does stays as it is: moving statistics and random states advance,
    losses added in the call are added to `owner`.

    Args:
        layer: A built layer or model.
        pruned: Its masked weights.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        straight_through: Whether w gets the dense gradient, d loss / d (w · mask), which a method
            that regenerates ranks, instead of the masked one.
        owner: The layer in whose call this happens.
    """
    values = [(p.variable, masked_value(p, straight_through=straight_through)) for p in pruned]
    masked = {id(variable) for variable, _ in values}
    with keras.StatelessScope(values, collect_losses=True) as scope:
        outputs = layer(*args, **kwargs)
    for variable in layer.variables:
        updated = scope.get_current_value(variable)
        if updated is not None and id(variable) not in masked:
            variable.assign(updated)
    for loss in scope.losses:
        owner.add_loss(loss)
    return outputs


def _masked(value, mask):
    return tf.where(mask, value, tf.zeros((), value.dtype))


@tf.custom_gradient
def _unmasked_gradient(value, mask):
    return _masked(value, mask), lambda gradient: (gradient, None)
