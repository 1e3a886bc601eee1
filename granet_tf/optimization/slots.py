"""Slots: the variables that an optimizer keeps for each weight, and what they start from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from keras_layers.keras_internals import variables_trained_by


@dataclasses.dataclass(frozen=True)
class Slot:
    """An optimizer variable that belongs to one weight, and what it starts from.

    Attributes:
        variable: The variable, of the weight's shape.
        initializer: What it starts from.
        is_average: Whether it is a moving average of the weight, which is masked like the weight.
    """

    variable: keras.Variable
    initializer: Callable
    is_average: bool = False

    @property
    def starts_at_zero(self) -> bool:
        return isinstance(self.initializer, keras.initializers.Zeros)

    def initial_value(self) -> tf.Tensor:
        return self.initializer(self.variable.shape, dtype=self.variable.dtype)


def parts_of(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that do the work in `optimizer`: itself, or those that it holds.

    Example:

    >>> sgd = keras.optimizers.SGD()
    >>> parts_of(keras.optimizers.LossScaleOptimizer(sgd)) == [sgd]
    True
    """
    inside = getattr(optimizer, "optimizers", None)  # Of a MultiOptimizer.
    if inside is None and hasattr(optimizer, "inner_optimizer"):
        inside = [optimizer.inner_optimizer]
    return [optimizer] if inside is None else [p for each in inside for p in parts_of(each)]


def record_slots(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> dict[int, tuple[Slot, ...]]:
    """Builds `optimizer` and returns {id(weight): its slots}, by the reference that Keras is given.

    Args:
        optimizer: A Keras optimizer. Where it is built already, a copy of it is built to see which
            of its variables is which.
        variables: The trainable variables; where it is built, those that it was built with count.
    """
    parts = parts_of(optimizer)
    if parts == [optimizer]:
        return _record_slots(optimizer, variables)
    optimizer.build(list(variables))
    found: dict[int, tuple[Slot, ...]] = {}
    for part in parts_of(optimizer):  # Building may have made some.
        if part.built:
            found |= _record_slots(part, variables)
    return found


def _record_slots(optimizer, variables):
    target = optimizer
    if optimizer.built:
        with tf.init_scope():
            target = type(optimizer).from_config(optimizer.get_config())
        variables = variables_trained_by(optimizer)
    recorded: list[tuple[int, keras.Variable, Callable]] = []
    with _recording(target, recorded):
        target.build(list(variables))
    twin = dict(zip(map(id, target.variables), optimizer.variables, strict=True))
    averages = optimizer._model_variables_moving_average if optimizer.use_ema else ()
    averages = {id(average) for average in averages}
    slots: dict[int, tuple[Slot, ...]] = {}
    for reference, variable, initializer in recorded:
        own = twin[id(variable)]
        slot = Slot(own, initializer, id(own) in averages)
        slots[reference] = (*slots.get(reference, ()), slot)
    return slots


@contextlib.contextmanager
def _recording(optimizer, recorded):
    original = optimizer.add_variable_from_reference

    def add(reference_variable, name=None, initializer="zeros"):
        variable = original(reference_variable, name=name, initializer=initializer)
        recorded.append((id(reference_variable), variable, keras.initializers.get(initializer)))
        return variable

    optimizer.add_variable_from_reference = add
    try:
        yield
    finally:
        del optimizer.add_variable_from_reference


def check_slots(
    optimizer: keras.optimizers.Optimizer,
    slots: Mapping[int, Sequence[Slot]],
    variables: Sequence[keras.Variable],
) -> None:
    """Raises ValueError unless each array of the optimizer is a weight's, and of its shape."""
    mapped = {id(slot.variable) for group in slots.values() for slot in group}
    shapes = {id(v): tuple(v.shape) for v in variables}
    unknown = [v.path for v in optimizer.variables if v.shape.rank and id(v) not in mapped]
    unknown += [
        slot.variable.path
        for reference, group in slots.items()
        for slot in group
        if tuple(slot.variable.shape) != shapes[reference]
    ]
    if unknown:
        raise ValueError(
            f"{type(optimizer).__name__} keeps variables that are not one value for each weight, "
            "so those of a pruned weight can't be reset. Use an optimizer such as SGD, AdamW or "
            "Lion, or mask_only=True, which resets nothing; with it, Adafactor needs "
            "epsilon_1=1e-16, as Keras's default of 1e-30 gives NaN where gradients stay 0. "
            f"Received: optimizer={optimizer}, which has {sorted(set(unknown))}"
        )
