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
        neutral: Of what is trained: the value with which `Method.reparameterize` changes nothing,
            which `strip` leaves.
    """

    name: str
    initial: Callable[[tf.Tensor], tf.Tensor] = zeros
    trainable: bool = False
    decay: float = 0.0
    neutral: float = 0.0


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The weights that a method updates together, one entry a weight.

    Attributes:
        paths: Names.
        weights: Values.
        masks: Masks.
        gradients: Dense gradients, summed over replicas; None where the method needs none.
        states: {name: variable's value}, of what the method declares.
        layouts: Which axes are inputs and outputs.
    """

    paths: Sequence[str]
    weights: Sequence[tf.Tensor]
    masks: Sequence[tf.Tensor]
    gradients: Sequence[tf.Tensor | None]
    states: Sequence[Mapping[str, tf.Tensor]]
    layouts: Sequence[Layout]

    @property
    def layouts_by_path(self) -> dict[str, Layout]:
        return dict(zip(self.paths, self.layouts, strict=True))
