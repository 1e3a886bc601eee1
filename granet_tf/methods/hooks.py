"""What a method may ask for beyond masks: state for each weight, a say in every step.

`Method` inherits from `Hooks`, whose defaults ask for nothing and cost nothing: what a method does
not declare is not in the graph of its step. See `granet_tf.methods` for methods that declare some.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import tensorflow as tf

from keras_layers.layouts import Layout


def zeros(weight: tf.Tensor) -> tf.Tensor:
    """Zeros of the shape of `weight`, float32.

    Example:

    >>> zeros(tf.constant([1.0, 2.0], tf.float64)).numpy().tolist()
    [0.0, 0.0]
    """
    return tf.zeros(weight.shape)


@dataclasses.dataclass(frozen=True)
class State:
    """A variable that a method keeps for each weight, saved with the model.

    Attributes:
        name: Key of the variable in what the hooks are given.
        initial: The weight's first value, before masks -> what the variable starts from, whose
            shape and type are the variable's.
        trainable: Whether it is trained like a weight. One that is not, is the method's to change.
        decay: Of what is trained: weight decay, an L2 penalty of half of it.
        neutral: Of what is trained: the value with which `Hooks.reparameterize` changes nothing,
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


class Hooks:
    """What a method may override besides its schedule and its scores.

    In the order of a training step:

    1. Forward: the model computes with `reparameterize(weight, state)` where that is given, else
       with the weight (zero mode) or w · mask (mask_only). `penalty` adds to the loss.
    2. Backward: with `straight_through`, w gets d loss / d (w · mask) as it is, in mask_only.
    3. What the optimizer gets of it is masked by `gradient_mask`.
    4. After the optimizer's step, `after_step` may change weights and states, if `follows_steps`.
    5. When the schedule says so, `update` gives new masks and states.

    Attributes:
        keeps_values: Whether dormant weights keep their value: True makes `wrap` mean
            mask_only=True, False makes it refuse that, None leaves it to the user.
        follows_steps: Whether `after_step` is called after each step.
        follows_gradients: Whether the dense gradient is needed at each step, summed over replicas.
        is_continuous: Whether masks change at nearly every step, too often to note each time.
    """

    keeps_values: ClassVar[bool | None] = None
    follows_steps: ClassVar[bool] = False
    follows_gradients: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = False
    # (weight, {name: state}) -> the value to compute with; None is w or w · mask.
    reparameterize: ClassVar[Callable | None] = None

    @property
    def states(self) -> tuple[State, ...]:
        """The variables that it keeps for each weight."""
        return ()

    @property
    def straight_through(self) -> bool:
        """Whether dormant weights get a gradient in mask_only, which then masks none by itself."""
        return self.regenerates

    def gradient_mask(self, mask: tf.Tensor, state: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """Which entries of the gradient reach the optimizer; None is all."""
        del state
        return mask

    def penalty(
        self, weight: tf.Tensor, mask: tf.Tensor, state: Mapping[str, tf.Tensor]
    ) -> tf.Tensor | None:
        """A scalar that one weight adds to the loss."""
        del weight, mask, state

    def initial_state(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        values: Sequence[tf.Tensor],
        layouts: Sequence[Layout],
    ):
        """`(masks, states)` to begin with, a list each; in a state, what is left out stays.

        Args:
            shapes: {path: shape}.
            values: The weights' first values.
            layouts: Which of their axes are inputs and outputs.
        """
        masks = self.initial_masks(shapes, dict(zip(shapes, layouts, strict=True)))
        return [masks[path] for path in shapes], [{} for _ in values]

    def after_step(self, step: tf.Tensor, tensors: Tensors, learning_rate: tf.Tensor):
        """`(weights, states)` after a step, a list each; what is returned as it came stays.

        Args:
            step: Number of finished optimizer updates.
            tensors: As they are after the optimizer's step.
            learning_rate: That of the step.
        """
        del step, learning_rate
        return tensors.weights, tensors.states

    def update(self, step: tf.Tensor, tensors: Tensors, *, dormant_compete: bool):
        """`(masks, survivors, states)` when an update is due; see `Method.update_masks`."""
        masks, survivors = self.update_masks(
            step,
            tensors.paths,
            tensors.weights,
            tensors.masks,
            tensors.gradients,
            dormant_compete=dormant_compete,
            layouts=tensors.layouts_by_path,
        )
        return masks, survivors, tensors.states

    def dense_gradients(self, steps: int, updates: int) -> float:
        """In how many of `steps` training steps a dense gradient was computed, to count FLOPs.

        Args:
            steps: Number of steps.
            updates: How many of them ended with an update.
        """
        if self.follows_gradients:
            return steps
        return updates if self.needs_gradient else 0
