"""Masks of a layer's weights, and calling a layer as if its weights were masked."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops.control_flow_v2_func_graphs import ControlFlowFuncGraph

from keras_layers.keras_internals import (
    get_global_attribute,
    initialize_all_variables,
    layers_of,
    without_variable,
)
from keras_layers.known_layers import layout_of
from keras_layers.layouts import Layout
from keras_layers.transparent import keras_global

if TYPE_CHECKING:
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
        transform: (value, {name: state, "mask": mask}) -> the value to compute with; None is
            w · mask.
        was_frozen: Whether it was not trainable when it got its mask, which somebody asked for.
        slots: What the optimizer that updates the mask keeps for the weight and is to reset, each a
            `granet_tf.optimization.slots.Slot`; only that optimizer knows them.
        scale: What the batch normalisation behind multiplies each output by, where that is ranked.
    """

    path: str
    variable: keras.Variable
    mask: keras.Variable
    layout: Layout = dataclasses.field(default_factory=Layout)
    state: Mapping[str, keras.Variable] = dataclasses.field(default_factory=dict)
    explored: keras.Variable | None = None
    transform: Callable | None = None
    was_frozen: bool = False
    slots: tuple = ()
    scale: keras.Variable | None = None


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


def forget(owner: keras.Layer, names: Iterable[str]) -> None:
    """Takes from `owner` what `track` has given it by these names."""
    kept = re.compile(f"({'|'.join(names)})_[0-9]+")
    for name in [name for name in vars(owner) if kept.fullmatch(name)]:
        without_variable(owner, name)


def masked_value(pruned: PrunedWeight, *, straight_through: bool = False) -> tf.Tensor:
    """w · mask, or what the weight's `transform` makes of w.

    The gradient of w · mask reaches w masked, or as it is if `straight_through`.

    Example:

    >>> weight, mask = keras.Variable([3.0, 4.0]), keras.Variable([True, False], dtype="bool")
    >>> masked_value(PrunedWeight("kernel", weight, mask)).numpy().tolist()
    [3.0, 0.0]
    """
    value, mask = tf.convert_to_tensor(pruned.variable), tf.convert_to_tensor(pruned.mask)
    if pruned.transform is not None:
        state = {name: tf.convert_to_tensor(v) for name, v in pruned.state.items()}
        return pruned.transform(value, {"mask": mask, **state})
    return _unmasked_gradient(value, mask) if straight_through else _masked(value, mask)


def some_are_dormant(pruned: Iterable[PrunedWeight]) -> bool:
    """Whether a mask of these weights has a zero, which tells masks that have been drawn."""
    # In a graph that is just being traced, too.
    with tf.init_scope():
        return any(not np.all(p.mask.numpy()) for p in pruned)


def masked_call(
    layer: keras.Layer,
    pruned: Iterable[PrunedWeight],
    args: tuple,
    kwargs: dict[str, Any],
    *,
    straight_through: bool,
) -> Any:
    """Calls `layer` with w · mask in place of each pruned weight w, which keeps its value.

    Everything else that the call does really happens, as without masks: whatever variable it
    assigns is assigned, and losses are added to the layers that add them.

    Args:
        layer: A built layer or model.
        pruned: Its masked weights.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        straight_through: Whether w gets the dense gradient, d loss / d (w · mask), which a method
            that regenerates ranks, instead of the masked one.

    Raises:
        ValueError: If a layer in it would compute with other weights than those of the call.
    """
    for each in layers_of(layer):
        _check_can_be_masked(each)
    with _MaskedWeights(pruned, straight_through) as scope:
        outputs = layer(*args, **kwargs)
    scope.hand_over_losses(layer)
    return outputs


def _check_can_be_masked(layer):
    remat = layer._remat_mode
    reasons = {
        "is a tf.function, which goes on with the weights that it was first called with": (
            isinstance(layer.call, tf.types.experimental.PolymorphicFunction)
        ),
        "is rematerialized, and computes without masks in the backward pass": (
            remat is not None
            and (remat.mode in ("full", "larger_than") or layer.name in remat.layer_names)
        ),
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise ValueError(
                f"`mask_only` must be False, as the call() of {layer.name} {reason}. "
                f"Received: mask_only=True, with layer={layer}"
            )


class _MaskedWeights(keras.StatelessScope):
    """Here the value of a masked weight is w · mask. All else is as outside.

    Keras asks the scope of the thread for the value of each variable, and tells it each new one.
    """

    def __init__(self, pruned, straight_through):
        super().__init__(collect_losses=True)
        self._pruned = {id(p.variable): p for p in pruned}
        self._straight_through = straight_through
        self._graph = _graph()
        self._outside = get_global_attribute("stateless_scope")
        # Once for all, as a layer may be called in a loop.
        self._values = {key: self._masked_value(p) for key, p in self._pruned.items()}

    def _masked_value(self, pruned):
        # In the weight's own type: a layer that autocasts casts it when it reads it.
        with self._stepped_out(), keras_global("autocast_scope", None):
            return masked_value(pruned, straight_through=self._straight_through)

    def _stepped_out(self):
        return keras_global("stateless_scope", self._outside)

    def get_current_value(self, variable):
        pruned = self._pruned.get(id(variable))
        if pruned is not None:
            # A tf.function in the layer outlives the values of this call.
            known = self._values if _graph() is self._graph else {}
            return known[id(variable)] if id(variable) in known else self._masked_value(pruned)
        with self._stepped_out():
            self._initialize(variable)
            value = self._outside and self._outside.get_current_value(variable)
        return variable._value if value is None else value

    def add_update(self, update):
        variable, value = update
        pruned = self._pruned.get(id(variable))
        with self._stepped_out():
            self._initialize(variable)
            if pruned is not None:  # What is dormant keeps its value.
                value = tf.where(tf.convert_to_tensor(pruned.mask), value, variable)
                self._values.pop(id(variable), None)
            variable.assign(value)

    def _initialize(self, variable):
        """Keras waits with variables that are made in a scope until there is none."""
        if variable._value is None and self._outside is None:
            initialize_all_variables()

    def hand_over_losses(self, layer):
        """Adds the losses that layers have added in here to the same layers outside."""
        for each in layers_of(layer):
            own = [loss for loss in self.losses if id(loss) in each._loss_ids]
            each._loss_ids.difference_update(map(id, own))
            if own:
                each.add_loss(own)


def _graph():
    """Where tensors that are made now may be used: a graph and the loops in it; None if eager."""
    if tf.executing_eagerly():
        return None
    graph = tf.compat.v1.get_default_graph()
    while isinstance(graph, ControlFlowFuncGraph):
        graph = graph.outer_graph
    return graph


def _masked(value, mask):
    return tf.where(mask, value, tf.zeros((), value.dtype))


@tf.custom_gradient
def _unmasked_gradient(value, mask):
    return _masked(value, mask), lambda gradient: (gradient, None)
