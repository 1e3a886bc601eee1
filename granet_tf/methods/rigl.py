"""RigL and SET: a constant sparsity, whose connections move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras

from granet_tf.methods.draws import uniform
from granet_tf.methods.periodic import Periodic
from granet_tf.methods.replacing import Replacing
from granet_tf.schedules import PACKAGE, GraNetSchedule


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RigL(Replacing, Periodic):
    """Rigging the lottery (Evci et al., 2020): drop by magnitude, grow by gradient.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        begin_step: First update: optimizer steps (int) or fraction of training (float).
        end_step: T_end, where the cosine reaches `final_drop_fraction` and updates end: optimizer
            steps or fraction of training. None comes where less than a whole period is left.
        frequency: ΔT in optimizer steps; None makes about 50 updates.
        drop_fraction: α, the fraction of active weights replaced at first, in [0, 1].
        final_drop_fraction: The fraction at `end_step`, in [0, 1].
        **kwargs: See `Method`.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> should_regenerate, fraction = RigL(0.9, end_step=1000).make_schedule().regenerate(500)
    >>> bool(should_regenerate), round(float(fraction), 4)
    (True, 0.15)
    """

    end_step: int | float = 0.75
    frequency: int | None = 100
    drop_fraction: float = 0.3
    final_drop_fraction: float = 0.0

    def make_schedule(self):
        begin, end, sparsity = self.steps("begin_step"), self.steps("end_step"), self.final_sparsity
        last = self.last_worthwhile(self.period, end)
        steps = (begin, begin, max(end, 1), self.period)
        fractions = (self.drop_fraction, self.final_drop_fraction)
        return GraNetSchedule(sparsity, sparsity, *steps, *fractions, last_step=last)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SET(RigL):
    """Sparse evolutionary training (Mocanu et al., 2018): drop by magnitude, grow at random.

    The fraction is constant, about 50 times in all, to the last update that leaves a whole period
    of training.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        **kwargs: See `RigL` and `Method`. `distribution` is "er" here.

    Example:

    >>> float(SET(0.9, end_step=1000).make_schedule().regenerate(800)[1])
    0.3
    """

    end_step: int | float = 1.0
    frequency: int | None = None
    final_drop_fraction: float = 0.3
    distribution: str | Callable = "er"

    @property
    def needs_gradient(self):
        return False

    def grow_score(self, weight, gradient, seed):
        return uniform(weight, seed)
