"""Top-KAST: a sparse forward pass, and a larger set of weights that learn."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import tensorflow as tf

from granet_tf.methods.base import Method
from granet_tf.methods.largest import largest
from granet_tf.methods.parameters import parameter
from granet_tf.methods.records import State, Updated
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TopKAST(Method):
    """Top-K always sparse training (Jayakumar et al., 2021).

    Three sets of weights, by |w|: A, the top D of them, is what the network computes with. B, the
    top D + M, contains A, and learns. The rest keeps its value, and comes back when those in B fall
    below it. The masks are chosen anew every `frequency` steps, until less than a whole period of
    training is left.

    What keeps weights in B from staying there for ever is the exploration penalty, an L2 penalty
    that weighs more where a weight is not used:

        decay / 2 · (Σ_A w² + Σ_{B − A} w² / D)

    Use it in place of a weight decay; the one of the optimizer or of regularizers adds to it.

    Args:
        final_sparsity: 1 − D, that of the network, in [0, 1).
        backward_sparsity: 1 − (D + M), in [0, final_sparsity]; None makes B twice as large as A.
        begin_step: First update: optimizer steps (int) or fraction of training (float).
        frequency: Steps between updates.
        exploration_decay: Weight of the exploration penalty, 0 or more.
        **kwargs: See `Method`. In the paper all layers are as sparse, `distribution="uniform"`,
            which at high sparsities leaves small layers too few weights to learn.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = TopKAST(0.75, backward_sparsity=0.5)
    >>> from granet_tf.methods.records import Snapshot
    >>> weight = Snapshot("w", tf.constant([0.1, 0.4, -0.3, 0.2]), tf.ones(4, tf.bool))
    >>> [first] = method.initial_state([weight])
    >>> [m.numpy().astype(int).tolist() for m in (first.mask, first.state["backward"])]
    [[0, 1, 0, 0], [0, 1, 1, 0]]
    """

    backward_sparsity: float | None = parameter(
        None,
        "Fraction of the weights that do not learn, at most final_sparsity; by default twice as "
        "many learn as are active.",
        at_least=0,
        below=1,
        unit="zeros",
    )
    begin_step: int | float = parameter(
        0, "First update of the masks.", at_least=0, unit="duration"
    )
    frequency: int = parameter(100, "Time between updates.", above=0, unit="period")
    exploration_decay: float = parameter(
        1e-4, "Weight decay of all that learn, most of what is not active.", at_least=0
    )
    command_name: ClassVar[str] = "top_kast"
    keeps_values: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if self.backward_sparsity is not None and self.backward_sparsity > self.final_sparsity:
            raise ValueError(
                "`backward_sparsity` must not be above `final_sparsity`: what is used learns. "
                f"Received: backward_sparsity={self.backward_sparsity}, "
                f"final_sparsity={self.final_sparsity}"
            )

    @property
    def states(self):
        return (State("backward", lambda weight: tf.ones(weight.shape, tf.bool)),)

    @property
    def regenerates(self):
        return False

    def gradient_mask(self, mask, state):
        return state["backward"]

    def make_schedule(self):
        return self.throughout(self.frequency, self.steps("begin_step"))

    def initial_state(self, weights):
        return self.update(0, weights, dormant_compete=True)

    def update(self, step, weights, *, dormant_compete):
        forward = largest(self, self.final_sparsity, weights)
        # By layer, the counts of a distribution could be the other way round.
        more = largest(self, self._backward_sparsity, weights)
        return [Updated(a, a, {"backward": a | b}) for a, b in zip(forward, more, strict=True)]

    def penalty(self, weight, mask, state):
        if not self.exploration_decay:
            return None
        forward, backward = tf.cast(mask, weight.dtype), tf.cast(state["backward"], weight.dtype)
        unused = (backward - forward) / (1.0 - self.final_sparsity)
        return self.exploration_decay / 2 * tf.reduce_sum((forward + unused) * weight**2)

    def dense_gradients(self, steps, updates):
        # Those of the weights that learn and are not used, as a share of all that are not used.
        return steps * (self.final_sparsity - self._backward_sparsity) / self.final_sparsity

    @property
    def _backward_sparsity(self):
        twice = max(1.0 - 2.0 * (1.0 - self.final_sparsity), 0.0)
        return twice if self.backward_sparsity is None else self.backward_sparsity
