"""What the outputs of a layer ask of its weights, and how far off others are.

An activation R that is the proximity operator of a convex f turns y = R(u) into u − y ∈ ∂f(y). So
other weights, with which u becomes v, are as good where v − y is in ∂f(y), and nearly as good where
it is near.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

# (v, u) -> v − y less what of ∂f(y) is nearest to it, with y = R(u).
Residual = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def of_a_bijection(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """∂f(y) is the single u − y: identity (f = 0), sigmoid, tanh.

    Example:

    >>> of_a_bijection(tf.constant([2.0, -1.0]), tf.constant([0.5, 0.5])).numpy().tolist()
    [1.5, -1.5]
    """
    return v - u


def of_relu(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """f is 0 on [0, ∞): ∂f(y) is {0} where y > 0, and (−∞, 0] where y = 0.

    Example:

    >>> v, u = tf.constant([2.0, -1.0, 2.0, -1.0]), tf.constant([0.5, 0.5, -3.0, -3.0])
    >>> of_relu(v, u).numpy().tolist()
    [1.5, -1.5, 2.0, 0.0]
    """
    return tf.where(u > 0, v - u, tf.nn.relu(v))


def of_relu6(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """f is 0 on [0, 6]: at y = 6, ∂f(y) is [0, ∞).

    Example:

    >>> of_relu6(tf.constant([5.0, 8.0, 1.0]), tf.constant([7.0, 5.0, -1.0])).numpy().tolist()
    [-1.0, 3.0, 1.0]
    """
    return tf.where(u < 6, of_relu(v, u), -tf.nn.relu(6 - v))


def of_softmax(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """∂f(y) is u − y and all that adds the same number to each entry, which changes no output.

    Example:

    >>> of_softmax(tf.constant([[4.0, 3.0]]), tf.constant([[1.0, 2.0]])).numpy().tolist()
    [[1.0, -1.0]]
    """
    return v - u - tf.reduce_mean(v - u, -1, keepdims=True)


RESIDUALS: dict[Callable, Residual] = {
    keras.activations.linear: of_a_bijection,
    keras.activations.relu: of_relu,
    keras.activations.relu6: of_relu6,
    keras.activations.sigmoid: of_a_bijection,
    keras.activations.softmax: of_softmax,
    keras.activations.tanh: of_a_bijection,
}


@dataclasses.dataclass(frozen=True)
class Inclusion:
    """The inclusions of a layer over samples: u = (X W) · scale + shift with the weights it has.

    Attributes:
        inputs: X, (samples, inputs); the last column is 1 if the layer has a bias.
        outputs: u, (samples, outputs).
        residual: By the activation.
        scale: Of each output, what batch normalization multiplies it by.
        shift: Of each output, what is added then.
    """

    inputs: tf.Tensor
    outputs: tf.Tensor
    residual: Residual = of_a_bijection
    scale: tf.Tensor | float = 1.0
    shift: tf.Tensor | float = 0.0

    def off(self, weights: tf.Tensor) -> tf.Tensor:
        """How far each output of each sample is off with these weights, (samples, outputs)."""
        return self.residual(self.inputs @ weights * self.scale + self.shift, self.outputs)

    def distance(self, weights: tf.Tensor) -> tf.Tensor:
        """The mean over samples of the squared distance to ∂f(y).

        Example:

        >>> x = tf.constant([[1.0], [2.0]])
        >>> float(Inclusion(x, 3.0 * x).distance(tf.constant([[2.0]])))
        2.5
        """
        return tf.reduce_mean(tf.reduce_sum(self.off(weights) ** 2, -1))
