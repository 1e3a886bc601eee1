"""Criteria: by what whole filters are ranked, other than by what a method ranks weights by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from granet_tf.schedules import PACKAGE


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of one weight, a column each.

    Attributes:
        weights: (weights of a filter, filters).
        gradients: The dense gradient, as `weights`; None unless the criterion asks for it.
        scales: (filters,): what the batch normalisation behind multiplies the outputs by; None
            unless the criterion asks for it.
    """

    weights: tf.Tensor
    gradients: tf.Tensor | None = None
    scales: tf.Tensor | None = None


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Criterion:
    """Scores whole filters; those with the lowest score are pruned first.

    Args:
        score: Takes `Filters`; returns the score of each, of shape (filters,). Where filters of
            several weights are coupled, their scores are added.
        total: Takes the sums, of shape (units,), and returns the scores to rank; None takes them as
            they are.
        needs_gradient: Whether `score` looks at gradients, which costs a dense backward pass when
            masks are updated.
        needs_scale: Whether `score` looks at scales.

    Functions that are to be saved with a model must be registered with Keras.

    Example:

    >>> largest = Criterion(lambda filters: tf.reduce_max(tf.abs(filters.weights), 0))
    >>> largest.score(Filters(tf.constant([[1.0, -4.0], [2.0, 3.0]]))).numpy().tolist()
    [2.0, 4.0]
    """

    score: Callable[[Filters], tf.Tensor]
    total: Callable[[tf.Tensor], tf.Tensor] | None = None
    needs_gradient: bool = False
    needs_scale: bool = False

    def get_config(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: keras.saving.serialize_keras_object(v) for k, v in values.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Criterion:
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})


@keras.saving.register_keras_serializable(PACKAGE)
def l1(filters: Filters) -> tf.Tensor:
    """Sum of |w| (Li et al., 2017).

    Example:

    >>> l1(Filters(tf.constant([[1.0, -4.0], [2.0, 3.0]]))).numpy().tolist()
    [3.0, 7.0]
    """
    return tf.reduce_sum(tf.abs(filters.weights), 0)


@keras.saving.register_keras_serializable(PACKAGE)
def squares(filters: Filters) -> tf.Tensor:
    """Sum of w², whose root is the Euclidean norm.

    Example:

    >>> squares(Filters(tf.constant([[1.0, -4.0], [2.0, 3.0]]))).numpy().tolist()
    [5.0, 25.0]
    """
    return tf.reduce_sum(tf.square(filters.weights), 0)


@keras.saving.register_keras_serializable(PACKAGE)
def taylor(filters: Filters) -> tf.Tensor:
    """Sum of |w · gradient|: to first order, what the loss changes without a weight.

    Source: Molchanov et al., 2019, Eq. 8, without the squares.

    Example:

    >>> weights = tf.constant([[1.0, -4.0], [2.0, 3.0]])
    >>> taylor(Filters(weights, tf.constant([[-1.0, 0.5], [0.5, 0.0]]))).numpy().tolist()
    [2.0, 2.0]
    """
    return tf.reduce_sum(tf.abs(filters.weights * filters.gradients), 0)


@keras.saving.register_keras_serializable(PACKAGE)
def scale(filters: Filters) -> tf.Tensor:
    """|γ| of the batch normalisation behind (Liu et al., 2017).

    Example:

    >>> scale(Filters(tf.zeros((3, 2)), scales=tf.constant([0.5, -1.0]))).numpy().tolist()
    [0.5, 1.0]
    """
    return tf.abs(filters.scales)


@keras.saving.register_keras_serializable(PACKAGE)
def root(sums: tf.Tensor) -> tf.Tensor:
    """Square root.

    Example:

    >>> root(tf.constant([9.0])).numpy().tolist()
    [3.0]
    """
    return tf.sqrt(sums)


CRITERIA: dict[str, Criterion] = {
    "l1": Criterion(l1),
    "l2": Criterion(squares, total=root),
    "taylor": Criterion(taylor, needs_gradient=True),
    "scale": Criterion(scale, needs_scale=True),
}
"""What a criterion's name stands for."""
