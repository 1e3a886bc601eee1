"""The variables that a method keeps for each weight, as part of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from granet_tf.methods import Method
from granet_tf.methods.records import Snapshot, State
from keras_layers.masking import PrunedWeight, track


def add_states(
    owner: keras.Layer,
    pruned: Sequence[PrunedWeight],
    method: Method,
    track_explored: bool = False,
) -> tuple[PrunedWeight, ...]:
    """Gives each weight the variables that `method` declares; they are saved with `owner`.

    Args:
        owner: The layer that is to own the variables.
        pruned: Masked weights of it, at their first values.
        method: The method.
        track_explored: Whether to keep which entries have ever been active, too.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    >>> [weight] = granet_tf.wrap(model, granet_tf.SNFS(0.5), track_explored=True).pruned
    >>> list(weight.state), tuple(weight.explored.shape)
    (['momentum'], (4, 4))
    """
    added, kept = [], []
    for weight in pruned:
        value = float_value(weight.variable)
        state = {s.name: _add(owner, weight, s, s.initial(value)) for s in method.states}
        explored = None
        if track_explored:
            explored = _add(owner, weight, State("explored"), tf.zeros(value.shape, tf.bool))
            kept.append(explored)
        kept += state.values()
        transform = method.transform(weight.layout)
        added.append(
            dataclasses.replace(weight, state=state, explored=explored, transform=transform)
        )
    track(owner, "_state", kept)
    return tuple(added)


def float_value(variable: keras.Variable) -> tf.Tensor:
    """The value of a weight, which is of integers where its layer is quantized.

    Example:

    >>> float_value(keras.Variable([1, 2], dtype="int8")).dtype.name
    'float32'
    """
    value = tf.convert_to_tensor(variable)
    return value if value.dtype.is_floating else tf.cast(value, tf.float32)


def snapshot(pruned: PrunedWeight) -> Snapshot:
    """A weight as it is now, outside of any step.

    Example:

    >>> weight, mask = keras.Variable([3.0, 4.0]), keras.Variable([True, False], dtype="bool")
    >>> snapshot(PrunedWeight("kernel", weight, mask)).mask.numpy().tolist()
    [True, False]
    """
    return Snapshot(
        pruned.path,
        float_value(pruned.variable),
        tf.convert_to_tensor(pruned.mask),
        state={name: tf.convert_to_tensor(v) for name, v in pruned.state.items()},
        layout=pruned.layout,
        scale=None if pruned.scale is None else tf.convert_to_tensor(pruned.scale),
    )


def make_neutral(pruned: Sequence[PrunedWeight], method: Method) -> None:
    """Sets what changes the value of the weights so that it changes them no more."""
    for weight in pruned:
        for state in method.states:
            if state.trainable or state.neutral is not None:
                weight.state[state.name].assign(state.neutral or 0.0)


def _add(owner, weight, state: State, value: tf.Tensor) -> keras.Variable:
    # What is not trained is assigned on every replica, the same on all.
    options = {} if state.trainable else {"aggregation": "only_first_replica"}
    if state.decay:
        options["regularizer"] = keras.regularizers.L2(state.decay / 2)
    variable = owner.add_weight(
        name=f"{weight.path.replace('/', '_')}_{state.name}",
        shape=value.shape,
        initializer="zeros",
        dtype=value.dtype.name,
        trainable=state.trainable,
        **options,
    )
    variable.assign(value)
    return variable
