"""FLOPs of inference and of training, from how many weights the masks keep."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

import granet_tf
from granet_tf.reports.flops import FlopsReport, LayerFlops
from granet_tf.wrapping.stripping import pruned_weights

Nonzeros = Mapping[str, int]
"""Active elements by weight path; a weight that is not in it counts as dense."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one sample costs, in exact integers, without looking at the model again.

    Inference costs the FLOPs of each weight times its density, and what involves no weight.
    A training step costs that three times: the forward pass, the gradients with respect to the
    activations and those with respect to the active weights (Appendix B.3 of the paper). Where a
    mask update needs the dense gradient, the third of them is a dense pass, as RigL counts it.

    Unlike `granet_tf.count_flops`, it goes by the masks: a weight that has just grown costs, even
    while it is still 0.

    Attributes:
        layers: What each layer costs, dense.
        whole: FLOPs of inference of the dense network, where channels have been removed since:
            what ratios are relative to. None where it is this one.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")], name="n")
    >>> cost = Cost.of(model)
    >>> cost.dense, cost.inference({"n/head/kernel": 8})
    (64, 16)
    >>> cost.training({"n/head/kernel": 8}, steps=1)
    48
    >>> cost.training({"n/head/kernel": 8}, steps=10, dense_gradients=1)
    528
    >>> cost.relative(528, steps=10)
    0.275
    """

    layers: tuple[LayerFlops, ...]
    whole: int | None = None

    @classmethod
    def of(cls, model: keras.Model, input_shape: Any = None) -> Cost:
        """Traces `model` once.

        Args:
            model: A Keras model of any kind, or a `SparseModel`.
            input_shape: As for `granet_tf.count_flops`.
        """
        return cls(granet_tf.count_flops(model, input_shape).rows)

    @functools.cached_property
    def dense(self) -> int:
        """FLOPs of inference if all weights were active."""
        return sum(layer.dense for layer in self.layers)

    @property
    def reference(self) -> int:
        """FLOPs of inference of the dense network, with all channels that it ever had."""
        return self.dense if self.whole is None else self.whole

    def of_smaller(self, model: keras.Model) -> Cost:
        """The cost of the same model after it has been shrunk."""
        return dataclasses.replace(Cost.of(model), whole=self.reference)

    def report(self, nonzeros: Nonzeros) -> FlopsReport:
        """The costs by layer and weight at these numbers of active weights."""
        return FlopsReport(
            tuple(
                dataclasses.replace(
                    layer,
                    costs=tuple(
                        dataclasses.replace(cost, nonzeros=nonzeros.get(cost.path, cost.size))
                        for cost in layer.costs
                    ),
                )
                for layer in self.layers
            )
        )

    def inference(self, nonzeros: Nonzeros) -> int:
        """FLOPs of inference."""
        return self.report(nonzeros).sparse

    def inference_ratio(self, nonzeros: Nonzeros) -> float:
        """FLOPs of inference as a fraction of the dense network's; 1 where nothing costs any."""
        return self.inference(nonzeros) / self.reference if self.reference else 1.0

    def training(self, nonzeros: Nonzeros, steps: int = 1, dense_gradients: float = 0) -> int:
        """FLOPs of `steps` training steps, on one sample each, while the masks stay the same.

        Args:
            nonzeros: Active weights during these steps, so before the mask update that ends them.
            steps: Number of steps.
            dense_gradients: In how many of them the dense gradient was needed; a fraction, where
                it was needed of some weights only.
        """
        sparse = self.inference(nonzeros)
        return 3 * sparse * steps + round((self.dense - sparse) * dense_gradients)

    def relative(self, flops: int, steps: int) -> float:
        """Training FLOPs as a fraction of those of `steps` dense steps, on one sample each."""
        return flops / self.dense_training(steps) if self.reference else 1.0

    def dense_training(self, steps: int) -> int:
        """FLOPs of `steps` steps of the dense network, on one sample each."""
        return 3 * self.reference * steps


def active_weights(model: keras.Model) -> dict[str, int]:
    """How many weights the masks of `model` keep now, by path; empty for a dense model.

    Example:

    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="head")], name="n")
    >>> active_weights(granet_tf.wrap(model, granet_tf.StaticSparse(0.75)))
    {'n/head/kernel': 8}
    """
    return {
        pruned.path: int(tf.math.count_nonzero(tf.convert_to_tensor(pruned.mask)))
        for pruned in pruned_weights(model)
    }
