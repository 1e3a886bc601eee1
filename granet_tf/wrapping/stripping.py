"""`strip`: the user's own model back, without masks and wrappers; for good or for a while."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import keras

from granet_tf.graphs import rebuilt
from granet_tf.wrapping.compiling import innermost, optimizers_of
from granet_tf.wrapping.own_classes import (
    check_keras,
    forget_training,
    is_own_class,
    own_class,
    replaced,
)
from granet_tf.wrapping.states import make_neutral
from keras_layers.carrier import carries_masks
from keras_layers.held import hold
from keras_layers.keras_internals import Functional, layers_of
from keras_layers.masking import PrunedWeight, masked_value
from keras_layers.settling import leave_alone


def strip(model: keras.Model) -> keras.Model:
    """Returns the user's own model, its weights masked, without masks or wrappers.

    Args:
        model: A `SparseModel`, or a model with PruneLowMagnitude layers. The latter, functional or
            sequential, comes back as a new graph of the same inner layers; one of a class of your
            own is the same object, with the inner layers in their wrappers' place, not compiled.

    Returns:
        The very model that was wrapped. Dormant weights are 0 in it; a model wrapped with
        mask_only=True loses their kept values. Optimizer state is not touched.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If nothing in `model` carries masks.
    """
    check_keras(model)
    owners = [layer for layer in layers_of(model) if carries_masks(layer)]
    stripped, _ = _stripped(model)
    for owner in owners:
        leave_alone(owner)
    if stripped is model:
        forget_training(model)
        for name, optimizer in optimizers_of(model).items():
            setattr(model, name, innermost(optimizer))
    return stripped


def _stripped(model):
    """What `strip` returns, and how to undo what has changed in place."""
    check_keras(model)
    carriers = [layer for layer in layers_of(model) if carries_masks(layer)]
    if not carriers:
        raise ValueError(
            "`model` must be a model from granet_tf.wrap(), or have PruneLowMagnitude layers. "
            f"Received: model={model}"
        )
    pruned = pruned_weights(model)
    with contextlib.ExitStack() as undo:
        stripped = _without_wrappers(model, undo)
        for weight in pruned:
            weight.variable.assign(masked_value(weight))
        for carrier in carriers:
            make_neutral(carrier.pruned, carrier.method)
            hold(carrier, 0.0)
        return stripped, undo.pop_all().close


def pruned_weights(model: keras.Layer) -> tuple[PrunedWeight, ...]:
    """All masked weights in `model`: those of a SparseModel and of PruneLowMagnitude layers."""
    layers = [layer for layer in layers_of(model) if carries_masks(layer)]
    return tuple(weight for layer in layers for weight in layer.pruned)


@contextlib.contextmanager
def masked_weights(model: keras.Model) -> Iterator[keras.Model]:
    """Yields the user's model with masked weights; all is as it was afterwards.

    Example:

    >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    >>> model = granet_tf.wrap(network, granet_tf.StaticSparse(0.75), mask_only=True)
    >>> with masked_weights(model) as plain:
    ...     inside = int(keras.ops.count_nonzero(plain.layers[0].kernel))
    >>> plain is network, inside, int(keras.ops.count_nonzero(network.layers[0].kernel))
    (True, 2, 8)
    """
    variables = [v for p in pruned_weights(model) for v in (p.variable, *p.state.values())]
    held = [layer.held for layer in layers_of(model) if carries_masks(layer) and layer.held]
    variables += [vector.variable for each in held for vector in each.vectors]
    kept = [(variable, variable.numpy()) for variable in variables]
    stripped, undo = _stripped(model) if kept else (model, lambda: None)
    try:
        yield stripped
    finally:
        undo()
        for variable, value in kept:
            variable.assign(value)


def _without_wrappers(model, undo):
    """`model` with what is inside in the place of the wrappers.

    Adds to `undo`, an ExitStack, what puts back the wrappers of models that are not copied.
    """

    @functools.cache
    def change(layer):
        if carries_masks(layer):
            return change(getattr(layer, layer.inside_name))
        if not any(carries_masks(inner) for inner in layers_of(layer)):
            return layer
        if isinstance(layer, (keras.Sequential, Functional)) and not is_own_class(layer):
            return rebuilt(layer, change)
        stripped, put_back = replaced(layer, change, own_class(layer))
        undo.callback(put_back)
        return stripped

    return change(model)
