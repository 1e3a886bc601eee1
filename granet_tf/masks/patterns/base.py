"""What is pruned as one unit. Selection ranks units; a pattern says what they are.

Methods and optimizer handle a new pattern without change, as they only ever see units: a subclass
of `Pattern` with `pool`, `units` and `expand`. Counts and sparsities are then those of units. One
that lets only some units be active together also says so in `tiers`, one whose scores say little
across weights in `comparable`, one whose units are outputs of a layer in `removes_outputs`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import keras
import tensorflow as tf

from granet_tf.masks.patterns.criteria import Criterion
from granet_tf.schedules import PACKAGE
from keras_layers.layouts import Layout


@dataclasses.dataclass(frozen=True)
class Capacity:
    """How many units of a weight there are, and how many of them may be active.

    They differ in N:M sparsity only, where the last group of an input that is no multiple of m is
    filled up with zeros.

    Attributes:
        slots: Units and what fills up: what a sparsity is a fraction of.
        open: Slots that the pattern lets be active.
        fitting: Units that fit into these.
    """

    slots: int
    open: int
    fitting: int

    @property
    def least_sparsity(self) -> float:
        """Where less is asked for, more units than fit have to be active."""
        return 1.0 - self.open / self.slots


class Pattern:
    """Maps a weight tensor to its units and back. A base class; saved as its fields.

    Attributes:
        is_single: Whether each unit is a single weight, in order.
    """

    is_single: ClassVar[bool] = False

    # Whether units of several weights that can only be removed together are one.
    coupled: bool = False
    # Of how many units each weight keeps a multiple.
    round_to: int = 1

    @property
    def judge(self) -> Criterion | None:
        """What ranks units when they are pruned, in place of what the method ranks weights by."""
        return None

    @property
    def needs_gradient(self) -> bool:
        """Whether `judge` looks at dense gradients."""
        return self.judge is not None and self.judge.needs_gradient

    def judged(self, weight: tf.Tensor, gradient: tf.Tensor | None, scale: tf.Tensor | None):
        """The scores of `judge` for the units of one weight."""
        raise NotImplementedError(f"{type(self).__name__} must implement judged()")

    @property
    def is_free(self) -> bool:
        """Whether any units may be active together, so that `tiers` has one tier only."""
        return type(self).tiers is Pattern.tiers

    @property
    def is_comparable(self) -> bool:
        """Whether units of several weights are ranked together by their own scores."""
        return type(self).comparable is Pattern.comparable

    def pool(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units."""
        raise NotImplementedError(f"{type(self).__name__} must implement pool()")

    def units(self, mask: tf.Tensor) -> tf.Tensor:
        """Mask of single weights -> mask of units."""
        raise NotImplementedError(f"{type(self).__name__} must implement units()")

    def expand(self, units: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Mask of units -> mask of the weights of a tensor of `shape`."""
        raise NotImplementedError(f"{type(self).__name__} must implement expand()")

    def tiers(
        self, score: tf.Tensor, eligible: tf.Tensor, kept: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, ...]:
        """The `eligible` units in the order in which they may be chosen; none is in two tiers.

        The first tier fits beside the units that are `kept`. The next is for what the first has no
        room for, where more units have to be active than the pattern lets.

        Args:
            score: Scores of units; the best of them come into the first tier.
            eligible: Which units to choose from.
            kept: Units that are active already, none of them eligible.
        """
        del score, kept
        return (eligible,)

    def comparable(self, score: tf.Tensor, eligible: tf.Tensor) -> tf.Tensor:
        """The scores by which units of several weights are ranked together, in scope "global".

        They say how many units each weight keeps. Which ones, its own scores say.

        Args:
            score: Scores of the units of one weight.
            eligible: Which of them are ranked.
        """
        del eligible
        return score

    def removes_outputs(self, layout: Layout, shape: tuple[int, ...] | None = None) -> bool:
        """Whether a unit holds all weights that lead to an output of the layer.

        Pruning it takes the output away. The weights that lead to the outputs of a model are
        spared then, unless the user names them: a class without weights is never predicted.

        Args:
            layout: Which axes of the weight are inputs and which outputs.
            shape: The weight's shape; None where it is not known yet.
        """
        del layout, shape
        return False

    def capacity(self, shape: tuple[int, ...]) -> Capacity:
        """How many units a weight of `shape` has room for."""
        with tf.init_scope():  # It is a number, and not to be found out at every step.
            units = self.units(tf.ones(shape, tf.bool)).shape.num_elements()
        return Capacity(units, units, units)

    def chosen(self, kind: str) -> Pattern:
        """The pattern of a layer of this kind; see `keras_layers.layouts.KINDS`."""
        del kind
        return self

    def bound(self, layout: Layout) -> Pattern:
        """The pattern with the axes of `layout`, where it was given none."""
        del layout
        return self

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Pattern:
        return cls(**config)


class SingleWeights(Pattern):
    """Base class: each weight is its own unit, whichever of them may be active together."""

    is_single = True

    def pool(self, score):
        return score

    def units(self, mask):
        return mask

    def expand(self, units, shape):
        del shape
        return units

    def capacity(self, shape):
        size = math.prod(shape)
        return Capacity(size, size, size)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Element(SingleWeights):
    """Unstructured sparsity: any weights may be active."""

    def __str__(self):
        return "weights"
