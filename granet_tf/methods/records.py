"""What a method keeps for each weight, and what it is given of the weights."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from keras_layers.layouts import Layout


def zeros(weight: tf.Tensor) -> tf.Tensor:
    """Zeros of the shape of `weight`, float32.

    Example:

    >>> zeros(tf.constant([1.0, 2.0], tf.float64)).numpy().tolist()
    [0.0, 0.0]
    """
    return tf.zeros(weight.shape)


class Needed(enum.Enum):
    """When a method looks at the dense gradient, d loss / d (w · mask), also of dormant weights.

    All that it costs follows from that: in mask_only the layers compute it (straight-through), it
    is summed over replicas where an update or a step looks at it, and its FLOPs are counted.
    """

    NEVER = "never"
    AT_UPDATES = "at updates"
    AT_EVERY_STEP = "at every step"


@dataclasses.dataclass(frozen=True)
class State:
    """A variable that a method keeps for each weight, saved with the model.

    Attributes:
        name: Key of the variable in what the hooks are given.
        initial: The weight's first value, before masks -> what the variable starts from, whose
            shape and type are the variable's.
        trainable: Whether it is trained like a weight. One that is not, is the method's to change.
        decay: Of what is trained: weight decay, an L2 penalty of half of it.
        neutral: The value with which `Method.reparameterize` changes nothing, which `strip` leaves;
            None is 0 of what is trained, and leaves all else as it is.
    """

    name: str
    initial: Callable[[tf.Tensor], tf.Tensor] = zeros
    trainable: bool = False
    decay: float = 0.0
    neutral: float | None = None


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A weight and what belongs to it, as it is at a step.

    Attributes:
        path: Its name.
        weight: Its value.
        mask: Its mask.
        gradient: The dense gradient, summed over replicas; None where the method looks at none.
        state: {name: variable's value}, of what the method declares.
        layout: Which axes are inputs and outputs.
        scale: What the batch normalisation behind multiplies each output by; None where no
            criterion looks at it.
    """

    path: str
    weight: tf.Tensor
    mask: tf.Tensor
    gradient: tf.Tensor | None = None
    state: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)
    layout: Layout = dataclasses.field(default_factory=Layout)
    scale: tf.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Updated:
    """What an update makes of a weight, or what training begins with.

    Attributes:
        mask: Its new mask. As `survivors`, of the weight's shape, or flat.
        survivors: The entries that keep their value and their optimizer slots, where every other
            one starts afresh.
        state: {name: new value}; what is left out stays as it is.
    """

    mask: tf.Tensor
    survivors: tf.Tensor
    state: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)


def updated(
    masks: Sequence[tf.Tensor], survivors: Sequence[tf.Tensor], **state: tf.Tensor
) -> list[Updated]:
    """A record of each weight, all with the same state.

    Example:

    >>> [first, _] = updated(["mask of a", "mask of b"], ["what survives of a", "of b"])
    >>> first.survivors
    'what survives of a'
    """
    return [Updated(*each, state) for each in zip(masks, survivors, strict=True)]


def shaped(updates: Sequence[Updated], weights: Sequence[Snapshot]) -> list[Updated]:
    """The same, with masks and survivors of the weights' shapes.

    Example:

    >>> weight = Snapshot("kernel", tf.zeros((1, 2)), tf.constant([[True, True]]))
    >>> [new] = shaped([Updated(tf.constant([True, False]), tf.constant([True, False]))], [weight])
    >>> new.mask.numpy().tolist()
    [[True, False]]
    """
    return [
        dataclasses.replace(
            new,
            mask=tf.reshape(new.mask, w.mask.shape),
            survivors=tf.reshape(new.survivors, w.mask.shape),
        )
        for new, w in zip(updates, weights, strict=True)
    ]
