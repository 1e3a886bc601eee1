"""AC/DC: dense and sparse phases take turns."""

from __future__ import annotations

import dataclasses

import keras

from granet_tf.methods.base import Method
from granet_tf.methods.parameters import parameter
from granet_tf.schedules import PACKAGE, AlternatingPhases


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ACDC(Method):
    """Alternating compressed and decompressed training (Peste et al., 2021).

    At the begin of a sparse phase, the weights of largest |w| stay, and the rest is 0. At the begin
    of a dense one all weights are active again, and train on from 0.

    Args:
        final_sparsity: s, in sparse phases and at the end, in [0, 1).
        begin_step: First sparse phase: optimizer steps (int) or fraction of training (float).
        end_step: Begin of the last sparse phase: optimizer steps or fraction of training.
        sparse_phase: Length of a sparse phase: optimizer steps or fraction of training.
        dense_phase: Length of a dense phase: optimizer steps or fraction of training.
        **kwargs: See `Method`. `scope` is "global" here, and `distribution` "uniform".

    Raises:
        ValueError: On a parameter out of range.

    The defaults are those of the paper's runs on ImageNet, of 100 epochs.

    Example:

    >>> schedule = ACDC(0.9, total_steps=1000).make_schedule()
    >>> [step for step in range(1001) if schedule(step)[0]][:3]
    [100, 150, 200]
    """

    begin_step: int | float = parameter(
        0.1, "Begin of the first sparse phase.", at_least=0, unit="duration"
    )
    end_step: int | float = parameter(
        0.85, "Begin of the last sparse phase.", at_least=0, unit="duration"
    )
    sparse_phase: int | float = parameter(
        0.05, "Length of a sparse phase.", above=0, unit="duration"
    )
    dense_phase: int | float = parameter(0.05, "Length of a dense phase.", above=0, unit="duration")
    scope: str = "global"
    distribution: str = "uniform"

    @property
    def initial_sparsity(self):
        return 0.0

    @property
    def regenerates(self):
        return False

    def make_schedule(self):
        begin, end = self.steps("begin_step"), self.steps("end_step")
        phases = (max(self.steps(name), 1) for name in ("sparse_phase", "dense_phase"))
        return AlternatingPhases(self.final_sparsity, begin, end, *phases)

    def update(self, step, weights, *, dormant_compete):
        # To rank all of them is to keep all of them at the sparsity 0 of a dense phase.
        return super().update(step, weights, dormant_compete=True)
