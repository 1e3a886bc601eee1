"""Gradual magnitude pruning, and GraNet: the same with zero-cost neuroregeneration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import tensorflow as tf

from granet_tf.methods.parameters import parameter
from granet_tf.methods.periodic import Periodic
from granet_tf.methods.replacing import Replacing
from granet_tf.schedules import PACKAGE, ConstantSparsity, GraNetSchedule, as_schedule, check_rise


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GMP(Periodic):
    """Gradual magnitude pruning (Zhu & Gupta, 2017; Gale et al., 2019; the paper's Algorithm 2).

    In the original, all layers are as sparse: `distribution="uniform"`. At high sparsities that
    leaves small layers too few weights to learn, so the default here is "erk", which leaves them
    more; the GraNet paper ranks all weights together, `scope="global"`. As Gale et al. use it, the
    first layer stays dense and the last goes to 0.8 at most:
    `GMP(0.9, distribution="uniform", pinned={0: 0.0}, capped={-1: 0.8})`.

    With "uniform" and `wrap(..., mask_only=True)` it is the original to the bit; without
    mask_only, pruned weights are zero and stay pruned, as in the paper.

    What is due at step 0, as with `end_step=0`, is pruned before the first step.

    Args:
        final_sparsity: s_f, in [0, 1).
        initial_sparsity: s_i, in [0, final_sparsity]. Above 0, masks are random at first.
        begin_step: t_0: optimizer steps (int) or fraction of training (float).
        end_step: t_f: optimizer steps (int) or fraction of training (float).
        frequency: ΔT in optimizer steps; None makes about 50 updates between begin and end.
        power: Exponent of Eq. 1.
        schedule: A schedule of your own, ours or tfmot's, in place of all of the above;
            `final_sparsity` and `initial_sparsity` should still say where it ends and begins.
        **kwargs: See `Method`.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = GMP(0.8, end_step=100, frequency=10)
    >>> should_prune, sparsity = method.make_schedule()(100)
    >>> bool(should_prune), round(float(sparsity), 6)
    (True, 0.8)
    """

    initial_sparsity: float = parameter(
        0.0, "Fraction of zeros before training.", at_least=0, below=1, unit="zeros"
    )
    power: float = parameter(3, "Exponent by which the rise of the sparsity slows down.", above=0)
    schedule: Callable | None = parameter(
        None, "When to prune and how much, in place of a rise from begin to end."
    )

    def __post_init__(self):
        super().__post_init__()
        check_rise(self.initial_sparsity, self.final_sparsity)
        if self.schedule is not None:
            object.__setattr__(self, "schedule", as_schedule(self.schedule))

    @property
    def regenerates(self):
        return self.schedule is not None and self.schedule.regenerates

    def at_start(self):
        with tf.init_scope():
            schedule = self.make_schedule()
            due, sparsity = bool(schedule(0)[0]), float(schedule.exact_sparsity(0))
        if not due or sparsity <= self.initial_sparsity + 1e-9:  # But for rounding.
            return None
        return dataclasses.replace(self, schedule=ConstantSparsity(sparsity, 0))

    def make_schedule(self):
        if self.schedule is not None:
            return self.schedule
        end = self.steps("end_step")
        return self._schedule(self.total_steps or max(end, 1), 0.0, 0.0)

    def _schedule(self, total_steps, drop_fraction, final_drop_fraction):
        return GraNetSchedule(
            self.initial_sparsity,
            self.final_sparsity,
            self.steps("begin_step"),
            self.steps("end_step"),
            total_steps,
            self.period,
            drop_fraction,
            final_drop_fraction,
            self.power,
        )


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GraNet(Replacing, GMP):
    """Gradual pruning with zero-cost neuroregeneration (the paper's Algorithm 1).

    Dense-to-sparse with the default `initial_sparsity=0.0`; sparse-to-sparse with 0.5, say. Each
    update prunes across all layers, then drops in each layer the weakest share of what is left and
    grows as many where the dense gradient is largest, until the end of training.

    Args:
        final_sparsity: s_f, in [0, 1).
        drop_fraction: r of Eq. 2 at the start of training, in [0, 1]; falls by a cosine.
        final_drop_fraction: r at the end of training, in [0, 1].
        **kwargs: See `GMP` and `Method`. `scope` is "global" here.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = GraNet(0.9, end_step=0.5).resolve(total_steps=2000)
    >>> method.make_schedule().frequency
    20
    """

    scope: str = "global"

    @property
    def regenerates(self):
        return super().regenerates or max(self.drop_fraction, self.final_drop_fraction) > 0.0

    def make_schedule(self):
        if self.schedule is not None:
            return self.schedule
        return self._schedule(self.training_length, self.drop_fraction, self.final_drop_fraction)
