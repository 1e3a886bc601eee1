"""Groups: the masks in a model, by the method that updates them together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np

from granet_tf.methods import Method
from granet_tf.optimization.slots import Slot
from keras_layers.carrier import CarriesMasks, carries_masks
from keras_layers.held import HeldVectors
from keras_layers.keras_internals import layers_of
from keras_layers.masking import PrunedWeight
from keras_layers.prunable import unique


@dataclasses.dataclass(frozen=True)
class Group:
    """Weights whose masks one method updates together.

    `method` is a function, as a model learns the length of its training only in `fit`. `held` are
    vectors that are held at zero where channels are pruned.
    """

    method: Callable[[], Method]
    pruned: tuple[PrunedWeight, ...]
    mask_only: bool
    held: HeldVectors | None = None

    def trained_by(self, variables: Iterable[keras.Variable], *, alone: bool) -> Group:
        """Those of the weights that are in `variables`, which an optimizer trains.

        Args:
            variables: What the optimizer trains.
            alone: Whether it is the only one, and so updates the masks of weights that were frozen
                when they got them, too: somebody has asked for that.
        """
        own = set(map(id, variables))
        pruned = tuple(p for p in self.pruned if id(p.variable) in own or (alone and p.was_frozen))
        if len(pruned) == len(self.pruned):
            return self
        every, some = ([p.path for p in weights] for weights in (self.pruned, pruned))
        return dataclasses.replace(
            self, pruned=pruned, method=lambda: self.method().among(every, some)
        )

    def with_slots(self, slots: Mapping[int, Sequence[Slot]]) -> Group:
        """Its weights with their slots, by id; none in mask_only, where nothing is reset."""
        if self.mask_only:
            return self
        pruned = (
            dataclasses.replace(p, slots=tuple(slots.get(id(p.variable), ()))) for p in self.pruned
        )
        return dataclasses.replace(self, pruned=tuple(pruned))

    def active(self, pruned: PrunedWeight) -> np.ndarray:
        """What of a weight counts as active: its mask, and whatever in it is not 0 in zero mode.

        The two differ where something has trained the weight that knows no masks.
        """
        mask = pruned.mask.numpy()
        return mask if self.mask_only else mask | (pruned.variable.numpy() != 0)

    @property
    def masks_gradients(self) -> bool:
        """Mask-only GMP leaves gradients to the chain rule, and so momentum to the original."""
        return not self.mask_only or self.method().straight_through


def groups_of(model: keras.Layer) -> Iterator[Group]:
    """The masks in `model`, by the method that updates them.

    PruneLowMagnitude layers with the same settings share a group: fewer conditions in the step.

    Example:

    >>> layers = [keras.Input((2,)), keras.layers.Dense(2, name="first")]
    >>> [group] = groups_of(granet_tf.wrap(keras.Sequential(layers, name="net")))
    >>> type(group.method()).__name__, [pruned.path for pruned in group.pruned]
    ('GraNet', ['net/first/kernel'])
    """
    together: dict[Hashable, list[CarriesMasks]] = {}
    for layer in layers_of(model):
        if carries_masks(layer) and layer.pruned:
            together.setdefault(layer.updated_with, []).append(layer)
    for layers in together.values():
        first, taken = layers[0], set()
        pruned = tuple(
            dataclasses.replace(p, path=unique(p.path, taken)) for x in layers for p in x.pruned
        )
        yield Group(lambda first=first: first.method, pruned, first.mask_only, first.held)


def count_active(model: keras.Layer) -> tuple[int, int]:
    """How many of the weights with masks are active, and how many there are.

    Example:

    >>> layers = [keras.Input((4,)), keras.layers.Dense(2)]
    >>> count_active(granet_tf.wrap(keras.Sequential(layers), granet_tf.StaticSparse(0.75)))
    (2, 8)
    """
    masks = [group.active(p) for group in groups_of(model) for p in group.pruned]
    return sum(int(np.count_nonzero(mask)) for mask in masks), sum(mask.size for mask in masks)


def groups_in(model: keras.Layer) -> tuple[Group, ...]:
    """The masks in `model`, for an optimizer that is going to update them.

    Raises:
        ValueError: If there are none.
    """
    groups = tuple(groups_of(model))
    if not groups:
        raise ValueError(
            "`model` must have masks: wrap it with granet_tf.wrap(model), or build a model "
            "that has PruneLowMagnitude layers before giving it here. "
            f"Received: model={model}"
        )
    for layer in layers_of(model):
        if carries_masks(layer):
            layer.give_to_optimizer()
    for group in groups:
        for state in group.method().states:
            for pruned in group.pruned if state.trainable else ():
                # What changes the value that a weight stands for is as frozen as the weight.
                trains = pruned.variable.trainable or pruned.was_frozen
                pruned.state[state.name].trainable = trains
    return groups
