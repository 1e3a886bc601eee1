"""AC/DC: dense and sparse phases take turns."""

from __future__ import annotations

import dataclasses

import keras
import tensorflow as tf

from granet_tf.methods.base import Method
from granet_tf.methods.checks import check_duration, check_point
from granet_tf.schedules import PACKAGE, PruningSchedule, check_sparsity, check_steps


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class AlternatingPhases(PruningSchedule):
    """Sparse and dense phases by turns from `begin_step` on, sparse for good from `end_step` on.

    Before `begin_step` it is dense. A sparse phase only begins if it and the dense phase after it
    are over by `end_step`; where there is no time for both, the dense phase before is longer.

    Args:
        sparsity: Fraction of zeros in sparse phases, in [0, 1).
        begin_step: Begin of the first sparse phase, in optimizer steps.
        end_step: Begin of the last, which never ends.
        sparse_steps: Length of the other sparse phases.
        dense_steps: Least length of the dense phases between.

    Raises:
        ValueError: On a sparsity outside [0, 1) or impossible steps.

    Source: Peste et al. (2021), Section 3.

    Example:

    >>> phases = AlternatingPhases(0.9, 10, 85, sparse_steps=5, dense_steps=5)
    >>> [step for step in range(1, 101) if phases(step)[0]][-4:]
    [65, 70, 75, 85]
    >>> [round(float(phases(step)[1]), 1) for step in (9, 10, 75, 84, 85)]
    [0.0, 0.9, 0.0, 0.0, 0.9]
    """

    sparsity: float
    begin_step: int
    end_step: int
    sparse_steps: int
    dense_steps: int
    frequency: int = dataclasses.field(default=1, init=False)

    def __post_init__(self):
        check_steps(self.begin_step, self.end_step, self.sparse_steps, endless=False)
        check_steps(self.begin_step, self.end_step, self.dense_steps, endless=False)
        check_sparsity(self.sparsity, "sparsity")

    def __call__(self, step):
        due = tf.not_equal(self.is_sparse(step), self.is_sparse(step - 1))
        return due, tf.cast(self.exact_sparsity(step), tf.float32)

    def exact_sparsity(self, step):
        sparsity = tf.constant(self.sparsity, tf.float64)
        return tf.where(self.is_sparse(step), sparsity, tf.zeros_like(sparsity))

    def is_sparse(self, step: int | tf.Tensor) -> tf.Tensor:
        """Whether the step after update `step` is in a sparse phase."""
        step = tf.cast(step, tf.int64)
        both = self.sparse_steps + self.dense_steps
        last_turn = self.begin_step + (self.end_step - self.begin_step) // both * both
        since = step - self.begin_step
        turn = (since >= 0) & (step < last_turn) & (since % both < self.sparse_steps)
        # Before the first update, it is dense.
        return (step >= 1) & (turn | (step >= self.end_step))

    @property
    def final_update(self):
        return self.end_step

    def get_config(self):
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
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

    begin_step: int | float = 0.1
    end_step: int | float = 0.85
    sparse_phase: int | float = 0.05
    dense_phase: int | float = 0.05
    scope: str = "global"
    distribution: str = "uniform"

    def __post_init__(self):
        super().__post_init__()
        check_point(self, "begin_step", "end_step")
        check_duration(self, "sparse_phase", "dense_phase")

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

    def update(self, step, tensors, *, dormant_compete):
        # To rank all of them is to keep all of them at the sparsity 0 of a dense phase.
        return super().update(step, tensors, dormant_compete=True)
