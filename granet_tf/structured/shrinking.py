"""Shrinking: the channels that coupled filters have pruned are removed while training goes on.

The smaller model computes what the larger one computes with its masks, and its next step of
training is the same, to rounding. Whatever belongs to what is left goes on: weights, masks, what
the method and the optimizer keep for each weight, moving averages, iterations and random states.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from granet_tf.compaction.resizing import Move, moved
from granet_tf.compaction.rules import values_of
from granet_tf.masks.patterns.coupling import Coupling
from granet_tf.optimization.slots import parts_of, record_slots
from granet_tf.structured.coupled_weights import removable
from granet_tf.structured.history import Shrinking, Shrunk
from granet_tf.wrapping.compiling import sparse_parts
from keras_layers.held import alive_outputs
from keras_layers.keras_internals import variables_trained_by
from keras_layers.masking import PrunedWeight

if TYPE_CHECKING:
    from granet_tf.model import SparseModel
    from granet_tf.optimizer import SparseOptimizer


def shrink(
    model: SparseModel,
    optimizer: SparseOptimizer | None = None,
    kept: Mapping[str, Sequence[int]] | None = None,
    step: int | None = None,
) -> Shrunk | None:
    """See `SparseModel.shrink`.

    Example:

    >>> import granet_tf
    >>> layers = [keras.layers.Dense(4), keras.layers.Dense(2)]
    >>> network = keras.Sequential([keras.Input((3,)), *layers])
    >>> model = granet_tf.wrap(network, granet_tf.GMP(0.5), pattern="coupled_filter")
    >>> shrink(model) is None  # Nothing has been pruned.
    True
    """
    coupled = [p for p in model.pruned if p.layout.channels is not None]
    _check(model, coupled, optimizer)
    numbers = _numbers(model, coupled)
    left = _alive(coupled) if kept is None else _named(numbers, kept)
    found = removable(model.model, model.weight_verdicts, model.method)
    stays = np.ones(found.count, bool)
    for weight in coupled:
        stays[list(weight.layout.channels)] &= left[weight.path]
    plan = found.plan(stays)
    stays = {p.path: plan.stays[list(p.layout.channels)] for p in coupled}
    if all(each.all() for each in stays.values()):
        return None
    before, masks = model.model.count_params(), [_Kept.of(p) for p in model.pruned]
    optimizers = [optimizer] if optimizer is not None else sparse_parts(model)
    with model.distribute_strategy.scope():
        small, moves = moved(model.model, plan)
        by_old = {id(move.old): move for move in moves}
        parts = [part for o in optimizers for part in parts_of(o) if part.built]
        trained = [_Trained.of(part, by_old) for part in parts]
        for move in moves:
            move.new.assign(move.values())
        shrunk = Shrunk(
            step=max([0, *(o.steps for o in optimizers)]) if step is None else step,
            kept={path: tuple(map(int, numbers[path][each])) for path, each in stays.items()},
            parameters=(before, small.count_params()),
        )
        history = (*model.shape_history, shrunk)
        full = _full(model.pruned, coupled, stays, by_old)
        model.replace_inside(small, Shrinking(history, full))
        for pruned, each in zip(model.pruned, masks, strict=True):
            each.give(pruned, by_old)
        for part in trained:
            part.shrink()
        for each in optimizers:
            each.bind(model)
    return shrunk


def _check(model, coupled, optimizer):
    if not coupled:
        raise ValueError(
            "`model` must be pruned by coupled filters to be shrunk, such as by "
            "granet_tf.wrap(model, method, pattern='coupled_filter'). "
            f"Received: pattern={model.method.pattern!r}"
        )
    if optimizer is None and model.has_optimizer and not sparse_parts(model):
        raise ValueError(
            "`optimizer` must be given where the model is trained by another model or in a loop: "
            "the granet_tf.SparseOptimizer that trains it. Received: optimizer=None"
        )
    if model._inbound_nodes:
        raise ValueError(
            "A model that is a part of another one can't be shrunk, as the other one has its own "
            "variables and shapes: wrap and shrink the outer model. "
            f"Received: model={model}, which is called in another graph"
        )


def _full(pruned, coupled, stays, moves) -> dict[str, tuple[tuple[int, ...], int]]:
    """As `Shrinking.full`, of the smaller model."""
    gone: dict[str, int] = {}
    coupling = Coupling.of([p.layout.channels for p in coupled])
    for places in coupling.members:
        lost = {
            channel
            for i in places
            for channel, left in zip(
                coupled[i].layout.channels, stays[coupled[i].path], strict=True
            )
            if not left
        }
        gone |= {coupled[i].path: len(lost) for i in places}
    return {
        p.path: (
            p.layout.full_shape or tuple(p.variable.shape),
            p.layout.removed + gone.get(p.path, 0),
        )
        for p in pruned
        if p.layout.full_shape is not None or moves[id(p.variable)].entries is not None
    }


@dataclasses.dataclass(frozen=True)
class _Kept:
    """The mask of a weight, and what else is kept for it.

    Attributes:
        weight: The weight in the larger model.
        mask: The values of its mask.
        state: Those of what the method keeps.
        explored: Which entries have ever been active, where that is kept.
    """

    weight: keras.Variable
    mask: np.ndarray
    state: Mapping[str, np.ndarray]
    explored: np.ndarray | None

    @classmethod
    def of(cls, pruned: PrunedWeight) -> _Kept:
        state = {name: values_of(v) for name, v in pruned.state.items()}
        explored = None if pruned.explored is None else values_of(pruned.explored)
        return cls(pruned.variable, values_of(pruned.mask), state, explored)

    def give(self, pruned: PrunedWeight, moves: Mapping[int, Move]) -> None:
        """Gives it to the weight in the smaller model, as far as it is there."""
        move = moves[id(self.weight)]
        pruned.mask.assign(move.of(self.mask))
        for name, value in self.state.items():
            whole = value.shape != tuple(self.weight.shape)
            pruned.state[name].assign(value if whole else move.of(value))
        if pruned.explored is not None:
            pruned.explored.assign(move.of(self.explored))


def _numbers(model, coupled) -> dict[str, np.ndarray]:
    """{path: the numbers that the outputs of a coupled weight had at the beginning}."""
    if model.shape_history:
        return {path: np.array(kept) for path, kept in model.shape_history[-1].kept.items()}
    return {p.path: np.arange(len(p.layout.channels)) for p in coupled}


def _alive(coupled: Sequence[PrunedWeight]) -> dict[str, np.ndarray]:
    """{path: whether each output of a weight is alive}."""
    masks = {p.path: (tf.convert_to_tensor(p.mask), p.layout.outputs) for p in coupled}
    return {path: alive_outputs(*each).numpy() for path, each in masks.items()}


def _named(numbers, kept) -> dict[str, np.ndarray]:
    """{path: whether each output is among those that are to be kept}."""
    for path in kept:
        if path not in numbers:
            raise ValueError(
                f"Each key of `kept` must be the path of a coupled weight, one of {list(numbers)}. "
                f"Received: {path!r}"
            )
    return {path: np.isin(own, kept.get(path, own)) for path, own in numbers.items()}


@dataclasses.dataclass(frozen=True)
class _Trained:
    """An optimizer, and what it is to be in the smaller model.

    Attributes:
        optimizer: The optimizer.
        variables: What it trains from then on.
        values: Its variables' values then.
    """

    optimizer: keras.optimizers.Optimizer
    variables: list[keras.Variable]
    values: list[np.ndarray]

    @classmethod
    def of(cls, optimizer, moves: Mapping[int, Move]) -> _Trained:
        trained = variables_trained_by(optimizer)
        slots = record_slots(optimizer, trained)
        owner = {id(s.variable): key for key, own in slots.items() for s in own}
        values = []
        for variable in optimizer.variables:
            value, move = values_of(variable), moves.get(owner.get(id(variable)))
            if move is not None and move.entries is not None:
                if tuple(variable.shape) != tuple(move.old.shape):
                    raise ValueError(
                        f"{type(optimizer).__name__} keeps {variable.path} for {move.old.path}, "
                        "which is not one value for each weight, so it can't be made smaller with "
                        f"it. Use an optimizer such as SGD or AdamW. Received: {optimizer}"
                    )
                value = move.of(value)
            values.append(value)
        new = [moves[id(v)].new if id(v) in moves else v for v in trained]
        return cls(optimizer, new, values)

    def shrink(self) -> None:
        """Makes the optimizer anew, as the same object, around the smaller variables."""
        old = self.optimizer
        rate = vars(old)["_learning_rate"]
        new = type(old).from_config(old.get_config())
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            new._learning_rate = rate
        new.build(self.variables)
        for variable, value in zip(new.variables, self.values, strict=True):
            variable.assign(value)
        # Whoever holds the optimizer goes on with it.
        vars(old).clear()
        vars(old).update(vars(new))
