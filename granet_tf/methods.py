"""GraNet, GMP, RigL, SET and static sparse training: each a schedule and two scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Integral

import keras
import tensorflow as tf

from granet_tf.base_method import DISTRIBUTIONS as DISTRIBUTIONS
from granet_tf.base_method import Method as Method
from granet_tf.schedules import PACKAGE, ConstantSparsity, GraNetSchedule, as_schedule, check_rise

# As many updates as this are made while the sparsity rises, unless `frequency` says otherwise.
_UPDATES = 50


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class GMP(Method):
    """Gradual magnitude pruning (Zhu & Gupta, 2017; Gale et al., 2019; the paper's Algorithm 2).

    As Gale et al. use it, the first layer stays dense and the last goes to 0.8 at most:
    `GMP(0.9, pinned={0: 0.0}, capped={-1: 0.8})`. With `wrap(..., mask_only=True)` it is the
    original to the bit; without, pruned weights are zero and stay pruned, as in the paper.

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

    initial_sparsity: float = 0.0
    begin_step: int | float = 0
    end_step: int | float = 0.5
    frequency: int | None = None
    power: float = 3
    schedule: Callable | None = None
    distribution: str | Callable = "uniform"

    def __post_init__(self):
        super().__post_init__()
        check_rise(self.initial_sparsity, self.final_sparsity)
        _check_durations(self)
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
        begin, end = self.steps("begin_step"), self.steps("end_step")
        frequency = self.frequency or _default_frequency(begin, end)
        return GraNetSchedule(
            self.initial_sparsity,
            self.final_sparsity,
            begin,
            end,
            total_steps,
            frequency,
            drop_fraction,
            final_drop_fraction,
            self.power,
        )


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class GraNet(GMP):
    """Gradual pruning with zero-cost neuroregeneration (the paper's Algorithm 1).

    Dense-to-sparse with the default `initial_sparsity=0.0`; sparse-to-sparse with 0.5, say. Each
    update prunes across all layers, then drops in each layer the weakest share of what is left and
    grows as many where the dense gradient is largest, until the end of training.

    Args:
        final_sparsity: s_f, in [0, 1).
        drop_fraction: r of Eq. 2 at the start of training, in [0, 1]; falls by a cosine.
        final_drop_fraction: r at the end of training, in [0, 1].
        **kwargs: See `GMP` and `Method`. `scope` is "global" and `distribution` "erk" here.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> method = GraNet(0.9, end_step=0.5).resolve(total_steps=2000)
    >>> method.make_schedule().frequency
    20
    """

    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005
    scope: str = "global"
    distribution: str | Callable = "erk"

    def __post_init__(self):
        super().__post_init__()
        _check_fractions(self)

    @property
    def regenerates(self):
        return super().regenerates or max(self.drop_fraction, self.final_drop_fraction) > 0.0

    def make_schedule(self):
        if self.schedule is not None:
            return self.schedule
        return self._schedule(self.training_length, self.drop_fraction, self.final_drop_fraction)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class RigL(Method):
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

    begin_step: int | float = 0
    end_step: int | float = 0.75
    frequency: int | None = 100
    drop_fraction: float = 0.3
    final_drop_fraction: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        _check_durations(self)
        _check_fractions(self)

    def make_schedule(self):
        begin, end, sparsity = self.steps("begin_step"), self.steps("end_step"), self.final_sparsity
        frequency = self.frequency or _default_frequency(begin, end)
        last = self.last_worthwhile(frequency, end)
        rest = (begin, begin, max(end, 1), frequency, self.drop_fraction, self.final_drop_fraction)
        return GraNetSchedule(sparsity, sparsity, *rest, last_step=last)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
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
        # Floats drawn under XLA are others (tensorflow#117644); bits are the same everywhere.
        bits = tf.random.stateless_uniform(weight.shape, seed, None, None, tf.uint32, alg="philox")
        return tf.bitcast((bits & 0x7FFFFF) | 0x3F800000, tf.float32) - 1.0


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class StaticSparse(Method):
    """Random masks, drawn once and never changed: the baseline of all sparse training.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        **kwargs: See `Method`.

    Example:

    >>> masks = StaticSparse(0.75).initial_masks({"kernel": (4, 4)})
    >>> int(tf.math.count_nonzero(masks["kernel"]))
    4
    """

    @property
    def regenerates(self):
        return False

    def make_schedule(self):
        # Due at step 0 only, before the first update there is.
        return GraNetSchedule(self.final_sparsity, self.final_sparsity, 0, 0, 1, 1, 0.0, 0.0)


def _default_frequency(begin, end):
    return max(1, (end - begin) // _UPDATES)


def _check_durations(method):
    for name in ("begin_step", "end_step"):
        value = getattr(method, name)
        if not isinstance(value, Integral) and not 0.0 <= value <= 1.0:
            raise ValueError(
                f"`{name}` must be a number of optimizer steps (int) or a fraction of training in "
                f"[0, 1] (float). Received: {name}={value}"
            )
        if value < 0:
            raise ValueError(f"`{name}` must be >= 0. Received: {name}={value}")
    same_unit = isinstance(method.begin_step, Integral) == isinstance(method.end_step, Integral)
    if same_unit and method.end_step < method.begin_step:
        raise ValueError(
            "`end_step` must be >= `begin_step`. "
            f"Received: begin_step={method.begin_step}, end_step={method.end_step}"
        )
    frequency = method.frequency
    if frequency is not None and not (isinstance(frequency, Integral) and frequency > 0):
        raise ValueError(
            f"`frequency` must be a whole number of steps > 0. Received: frequency={frequency}"
        )


def _check_fractions(method):
    for name in ("drop_fraction", "final_drop_fraction"):
        value = getattr(method, name)
        if not 0.0 <= value <= 1.0 or math.isnan(value):
            raise ValueError(f"`{name}` must be in [0, 1]. Received: {name}={value}")
