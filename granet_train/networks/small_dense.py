"""Small-Dense: how narrow a dense network has as many parameters as a sparse one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import granet_tf
from granet_train import models


def width_of(
    name: str, input_shape: tuple[int, ...], classes: int, width: float, sparsity: float
) -> float:
    """The width at which a dense network has the parameters of a sparse one of `width`.

    Those of the sparse one are its active weights, and all of its biases and normalizations. It is
    the baseline that the paper calls Small-Dense (Table 3).

    Args:
        name: A network of `granet_train.models`.
        input_shape: Height, width and channels of an image.
        classes: Number of logits.
        width: Width of the sparse network.
        sparsity: Its fraction of zeros among the prunable weights, in [0, 1).

    Raises:
        UsageError: If the network comes in one width only.

    Example:

    >>> width = width_of("small_cnn", (8, 8, 1), 10, 1.0, 0.9)
    >>> network = models.make("small_cnn", (8, 8, 1), 10, width)
    >>> sum(v.shape.num_elements() for v in network.trainable_variables)  # of 9831 wanted
    9832
    """

    @functools.cache
    def parameters(width: float) -> int:
        network = models.make(name, input_shape, classes, width)
        return sum(math.prod(v.shape) for v in network.trainable_variables)

    prunable = granet_tf.summarize(models.make(name, input_shape, classes, width)).size
    return nearest_width(parameters, parameters(width) - sparsity * prunable, width)


def nearest_width(parameters: Callable[[float], int], wanted: float, highest: float) -> float:
    """The width in (0, highest] whose number of parameters is nearest to `wanted`.

    Args:
        parameters: Width -> number of parameters, a staircase that rises.
        wanted: A number of parameters.
        highest: A width with at least as many.

    Example:

    >>> nearest_width(lambda width: round(64 * width) ** 2, 100, 1.0)
    0.1484375
    """
    # No layer is so wide that 2 ** -12 of it is more than one channel.
    low, high = 0, 1 << 12
    while high - low > 1:
        middle = (low + high) // 2
        if parameters(highest * middle / 4096) >= wanted:
            high = middle
        else:
            low = middle
    both = [highest * n / 4096 for n in (low, high) if n > 0]
    return min(both, key=lambda width: abs(parameters(width) - wanted))
