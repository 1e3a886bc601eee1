"""When to update masks, how sparse to be, and what fraction to regenerate.

Every schedule is a pure function of the step. The contract is that of
`tfmot.sparsity.keras.PruningSchedule`: `schedule(step)` returns the pair
`(should_prune, sparsity)`. A tfmot schedule object works wherever one of these does, and these work
inside tfmot.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

PACKAGE = "granet_tf"


class PruningSchedule(abc.ABC):
    """Base class: says at each step whether to prune and how sparse to be.

    A custom schedule implements `__call__`, and `get_config` if it is to be saved.

    Example:

    >>> class Staircase(PruningSchedule):
    ...     def __call__(self, step):
    ...         return self.is_due(step, 0, 300, 100), 0.3 * tf.cast(step // 100, tf.float32)
    >>> should_prune, sparsity = Staircase()(200)
    >>> bool(should_prune), round(float(sparsity), 3)
    (True, 0.6)
    """

    @abc.abstractmethod
    def __call__(self, step: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `(should_prune, sparsity)`: a bool and a float32 scalar.

        Args:
            step: Number of finished optimizer updates.
        """

    def exact_sparsity(self, step: int | tf.Tensor) -> tf.Tensor:
        """The sparsity in float64, from which counts are made.

        Seven decimals are what a float32 holds in [0, 1): rounding to them makes 0.9 mean 0.9.
        """
        _, sparsity = self(step)
        return tf.round(tf.cast(sparsity, tf.float64) * 1e7) / 1e7

    def regenerate(self, step: int | tf.Tensor) -> tuple[tf.Tensor | bool, tf.Tensor | float]:
        """Returns `(should_regenerate, drop_fraction)`; a plain pruning schedule never does."""
        del step
        return False, 0.0

    @property
    def regenerates(self) -> bool:
        """Whether any step regenerates, so whether the dense gradient is needed at all."""
        return False

    @property
    def final_update(self) -> int | None:
        """The first step that prunes to the sparsity it ends with, where the schedule knows one."""
        return None

    def last_prune(self, until: int) -> int | None:
        """The last step in [0, until] that prunes, or None. Looked for step by step, if need be."""
        return _last_step(lambda step: self(step)[0], until)

    def last_regeneration(self, until: int) -> int | None:
        """The last step in [1, until] that regenerates, or None."""
        step = _last_step(lambda step: self.regenerate(step)[0], until)
        return step or None

    @staticmethod
    def is_due(step: int | tf.Tensor, begin_step: int, end_step: int, frequency: int) -> tf.Tensor:
        """True every `frequency` steps in [begin_step, end_step]; `end_step=-1` never ends."""
        return _is_due(step, begin_step, None if end_step == -1 else end_step, frequency)

    # tfmot's names: schedules of one's own that are made after its own call them.
    _should_prune_in_step = is_due

    @staticmethod
    def _validate_step(begin_step, end_step, frequency, allow_negative_1):
        check_steps(begin_step, end_step, frequency, endless=allow_negative_1)

    @staticmethod
    def _validate_sparsity(sparsity, variable_name):
        check_sparsity(sparsity, variable_name)

    def get_config(self) -> dict[str, Any]:
        if dataclasses.is_dataclass(self):
            return dataclasses.asdict(self)
        raise NotImplementedError(
            f"{type(self).__name__} must implement get_config() to be saved. Received: {self}"
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PruningSchedule:
        """Accepts Keras's flat form and tfmot's nested `{"class_name", "config"}`."""
        return cls(**config.get("config", config))


def _last_step(is_due: Callable, until: int) -> int | None:
    """The last step in [0, until] at which `is_due(step)`, asked from the end, in one graph."""

    # Graph code: asked step by step from Python, a long training takes minutes.
    @tf.function(autograph=False)
    def search():
        return tf.while_loop(
            lambda step: (step >= 0) & ~tf.cast(is_due(step), tf.bool),
            lambda step: (step - 1,),
            [tf.constant(until, tf.int64)],
        )[0]

    step = int(search())
    return step if step >= 0 else None


def _is_due(step, begin, end, frequency):
    """As `PruningSchedule.is_due`; an end of None never comes."""
    step = tf.cast(step, tf.int64)
    in_range = step >= begin
    if end is not None:
        in_range &= step <= end
    return in_range & ((step - begin) % frequency == 0)


def last_multiple(begin_step: int, end_step: int, frequency: int) -> int | None:
    """The last of begin_step, begin_step + frequency, ... that is not after `end_step`, or None."""
    if end_step < begin_step:
        return None
    return end_step - (end_step - begin_step) % frequency


def check_steps(begin_step: int, end_step: int, frequency: int, *, endless: bool) -> None:
    """Raises ValueError unless 0 <= begin_step <= end_step and frequency > 0."""
    if begin_step < 0:
        raise ValueError(f"`begin_step` must be >= 0. Received: begin_step={begin_step}")
    if end_step == -1 and not endless:
        raise ValueError(
            "`end_step` must be given, as the sparsity rises until then. Received: end_step=-1"
        )
    if end_step != -1 and end_step < begin_step:
        raise ValueError(
            f"`end_step` must be >= `begin_step`. "
            f"Received: begin_step={begin_step}, end_step={end_step}"
        )
    if frequency <= 0:
        raise ValueError(f"`frequency` must be > 0 steps. Received: frequency={frequency}")


def check_sparsity(value: float, name: str) -> None:
    """Raises ValueError unless `value` is a fraction of zeros in [0, 1)."""
    if not 0.0 <= value < 1.0:
        raise ValueError(
            f"`{name}` is the fraction of zeros and must be in [0, 1). Received: {name}={value}"
        )


def check_rise(initial_sparsity: float, final_sparsity: float) -> None:
    """Raises ValueError unless both are sparsities and the second is not below the first."""
    check_sparsity(initial_sparsity, "initial_sparsity")
    check_sparsity(final_sparsity, "final_sparsity")
    if initial_sparsity > final_sparsity:
        raise ValueError(
            "`initial_sparsity` must not be above `final_sparsity`: pruning only removes. "
            f"Received: initial_sparsity={initial_sparsity}, final_sparsity={final_sparsity}"
        )


class _Regular(PruningSchedule):
    """Base class: prunes every `frequency` steps, from `begin_step` to `last_step_to_prune`.

    A subclass also has `exact_sparsity`.
    """

    begin_step: int
    frequency: int

    @property
    @abc.abstractmethod
    def last_step_to_prune(self) -> int | None:
        """The last step that may prune; None is no end."""

    def __call__(self, step):
        due = _is_due(step, self.begin_step, self.last_step_to_prune, self.frequency)
        return due, tf.cast(self.exact_sparsity(step), tf.float32)

    def last_prune(self, until):
        last = self.last_step_to_prune
        return last_multiple(
            self.begin_step, until if last is None else min(last, until), self.frequency
        )


def _polynomial(schedule: PolynomialDecay | GraNetSchedule, step: int | tf.Tensor) -> tf.Tensor:
    """Eq. 1 of the paper in float64; exactly the final sparsity from `end_step` on."""
    begin, end = schedule.begin_step, schedule.end_step
    elapsed = tf.cast(tf.cast(step, tf.int64) - begin, tf.float64)
    progress = tf.clip_by_value(elapsed / max(end - begin, 1), 0.0, 1.0) if end > begin else 1.0
    rest = (1.0 - progress) ** tf.constant(schedule.power, tf.float64)
    return schedule.final_sparsity + (schedule.initial_sparsity - schedule.final_sparsity) * rest


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class ConstantSparsity(_Regular):
    """The same sparsity at every update.

    Args:
        target_sparsity: Fraction of zeros in [0, 1).
        begin_step: First step that may prune.
        end_step: Last step that may prune; -1 (tfmot's convention) never ends.
        frequency: Steps between updates.

    Raises:
        ValueError: On a sparsity outside [0, 1) or impossible steps.

    Source: `tfmot.sparsity.keras.ConstantSparsity`.

    Example:

    >>> should_prune, sparsity = ConstantSparsity(0.5, begin_step=100)(200)
    >>> bool(should_prune), float(sparsity)
    (True, 0.5)
    """

    target_sparsity: float
    begin_step: int
    end_step: int = -1
    frequency: int = 100

    def __post_init__(self):
        check_steps(self.begin_step, self.end_step, self.frequency, endless=True)
        check_sparsity(self.target_sparsity, "target_sparsity")

    def exact_sparsity(self, step):
        return tf.constant(self.target_sparsity, tf.float64)

    @property
    def final_update(self):
        return self.begin_step

    @property
    def last_step_to_prune(self):
        return None if self.end_step == -1 else self.end_step


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class PolynomialDecay(_Regular):
    """Sparsity that rises fast at first and levels off (Zhu & Gupta, 2017).

        s_t = s_f + (s_i - s_f) · (1 - (t - t_0) / (t_f - t_0)) ** power

    As in tfmot, nothing is pruned after `end_step`: where `end_step - begin_step` is not a multiple
    of `frequency`, the last update comes before the final sparsity. `GraNetSchedule` goes on to it.

    Args:
        initial_sparsity: s_i, fraction of zeros in [0, 1).
        final_sparsity: s_f, fraction of zeros in [0, 1).
        begin_step: t_0, in optimizer steps.
        end_step: t_f, in optimizer steps.
        power: Exponent of the decay.
        frequency: Steps between updates.

    Raises:
        ValueError: On a sparsity outside [0, 1) or impossible steps.

    Example:

    >>> should_prune, sparsity = PolynomialDecay(0.2, 0.8, 100, 110, frequency=5)(105)
    >>> bool(should_prune), round(float(sparsity), 4)
    (True, 0.725)
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    power: float = 3
    frequency: int = 100

    def __post_init__(self):
        check_steps(self.begin_step, self.end_step, self.frequency, endless=False)
        check_sparsity(self.initial_sparsity, "initial_sparsity")
        check_sparsity(self.final_sparsity, "final_sparsity")

    def exact_sparsity(self, step):
        return _polynomial(self, step)

    @property
    def final_update(self):
        return self.last_prune(self.end_step)

    @property
    def last_step_to_prune(self):
        return self.end_step


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class GraNetSchedule(_Regular):
    """Gradual pruning, then as much regeneration as a cosine allows.

    Pruning is due every `frequency` steps from `begin_step` up to the first such step at or after
    `end_step`, where the sparsity is exactly `final_sparsity` (Eq. 1). Regeneration is due at the
    same steps and goes on after `end_step`, as long as a whole period of training is left for what
    it grows; the fraction of active weights it replaces falls from `drop_fraction` to
    `final_drop_fraction` over `total_steps` by a cosine (Section 4.2, Table 7).

    To tfmot, or to anything that only calls it, this is a plain pruning schedule.

    Args:
        initial_sparsity: s_i, fraction of zeros in [0, 1).
        final_sparsity: s_f, fraction of zeros in [0, 1), not below `initial_sparsity`.
        begin_step: t_0, in optimizer steps.
        end_step: t_f, in optimizer steps.
        total_steps: Length of training in optimizer steps, over which the cosine runs.
        frequency: ΔT, steps between updates.
        drop_fraction: r of Eq. 2 at the start, in [0, 1]. 0 regenerates nothing: plain GMP.
        final_drop_fraction: r at the end of training, in [0, 1].
        power: Exponent of the sparsity's decay.
        last_step: No update comes after this step. None limits regeneration only, to
            `total_steps - frequency`, the last step that leaves a whole period.

    Raises:
        ValueError: On fractions or steps out of range.

    Example:

    >>> schedule = GraNetSchedule(0.0, 0.9, 0, 1000, total_steps=2000, frequency=100)
    >>> should_prune, sparsity = schedule(500)
    >>> bool(should_prune), float(sparsity)
    (True, 0.7875000238418579)
    >>> should_regenerate, drop_fraction = schedule.regenerate(1000)
    >>> bool(should_regenerate), round(float(drop_fraction), 4)
    (True, 0.2525)
    """

    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    total_steps: int
    frequency: int = 1000
    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005
    power: float = 3
    last_step: int | None = None

    def __post_init__(self):
        check_steps(self.begin_step, self.end_step, self.frequency, endless=False)
        check_rise(self.initial_sparsity, self.final_sparsity)
        if self.total_steps <= 0:
            raise ValueError(
                f"`total_steps` must be > 0 steps. Received: total_steps={self.total_steps}"
            )
        for name in ("drop_fraction", "final_drop_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"`{name}` must be in [0, 1]. Received: {name}={getattr(self, name)}"
                )

    def exact_sparsity(self, step):
        return _polynomial(self, step)

    def regenerate(self, step):
        due = _is_due(step, self.begin_step, self._last_regeneration, self.frequency)
        progress = tf.minimum(tf.cast(step, tf.float64) / self.total_steps, 1.0)
        cosine = 0.5 * (1.0 + tf.cos(math.pi * progress))
        span = self.drop_fraction - self.final_drop_fraction
        return due, self.final_drop_fraction + span * cosine

    @property
    def regenerates(self):
        return max(self.drop_fraction, self.final_drop_fraction) > 0.0

    @property
    def _last_regeneration(self):
        """The last step that may regenerate."""
        return self.total_steps - self.frequency if self.last_step is None else self.last_step

    @property
    def final_update(self):
        updates = math.ceil((self.end_step - self.begin_step) / self.frequency)
        return self.begin_step + updates * self.frequency

    @property
    def last_step_to_prune(self):
        final = self.final_update
        return final if self.last_step is None else min(final, self.last_step)

    def last_regeneration(self, until):
        if not self.regenerates:
            return None
        end = min(self._last_regeneration, until)
        return last_multiple(self.begin_step, end, self.frequency) or None


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class EndlessSchedule(GraNetSchedule):
    """A `GraNetSchedule` whose pruning goes on after `end_step`, at the final sparsity.

    It ends with `last_step`, where that is given: masks that are chosen when too little training
    is left do not pay. What gets to the final sparsity is never left out.

    Example:

    >>> schedule = EndlessSchedule(0.0, 0.9, 0, 32, 1, 16, 0.0, 0.0)
    >>> [step for step in range(1, 100) if schedule(step)[0]]
    [16, 32, 48, 64, 80, 96]
    """

    @property
    def last_step_to_prune(self):
        return None if self.last_step is None else max(self.last_step, self.final_update)


def endless(schedule: GraNetSchedule, last_step: int | None) -> EndlessSchedule:
    """`schedule`, pruning on after its end, up to `last_step`.

    Example:

    >>> endless(GraNetSchedule(0.0, 0.9, 0, 100, 200), last_step=190).end_step
    100
    """
    return EndlessSchedule(**{**dataclasses.asdict(schedule), "last_step": last_step})


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


@dataclasses.dataclass(frozen=True)
class RoundsBeforeTraining(PruningSchedule):
    """Sparsity that rises exponentially over rounds, all of them before the first step.

    With n rounds they are steps 1 − n to 0. Of the weights that are left, each round keeps the same
    share: after round k, s_k = 1 − (1 − s)^(k / n).

    Args:
        final_sparsity: s, after the last round.
        rounds: n.

    Source: Tanaka et al. (2020), Algorithm 1.

    Example:

    >>> schedule = RoundsBeforeTraining(0.75, rounds=2)
    >>> [round(float(schedule(step)[1]), 6) for step in (-1, 0)]
    [0.5, 0.75]
    >>> [bool(schedule(step)[0]) for step in (-2, -1, 0, 1)]
    [False, True, True, False]
    """

    final_sparsity: float
    rounds: int

    def __call__(self, step):
        due = self.is_due(step, 1 - self.rounds, 0, 1)
        return due, tf.cast(self.exact_sparsity(step), tf.float32)

    def exact_sparsity(self, step):
        share = (tf.cast(step, tf.float64) + self.rounds) / self.rounds
        return 1.0 - (1.0 - self.final_sparsity) ** tf.clip_by_value(share, 0.0, 1.0)

    @property
    def final_update(self):
        return 0

    def last_prune(self, until):
        return 0


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Shifted(PruningSchedule):
    """Another schedule, begun `steps` steps ago.

    For a training that goes on with a new optimizer, which counts from 0: at its step t, this is
    `schedule` at t + `steps`.

    Args:
        schedule: A pruning schedule.
        steps: Steps that were made before, >= 0.

    Raises:
        ValueError: If `steps` is negative.

    Example:

    >>> schedule = Shifted(PolynomialDecay(0.2, 0.8, 100, 110, frequency=5), 100)
    >>> should_prune, sparsity = schedule(5)
    >>> bool(should_prune), round(float(sparsity), 4)
    (True, 0.725)
    """

    schedule: PruningSchedule
    steps: int

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"`steps` must be >= 0. Received: steps={self.steps}")

    def __call__(self, step):
        return self.schedule(step + self.steps)

    def exact_sparsity(self, step):
        return self.schedule.exact_sparsity(step + self.steps)

    def regenerate(self, step):
        return self.schedule.regenerate(step + self.steps)

    @property
    def regenerates(self):
        return self.schedule.regenerates

    @property
    def final_update(self):
        final = self.schedule.final_update
        return None if final is None else max(final - self.steps, 0)

    def last_prune(self, until):
        return self._shifted(self.schedule.last_prune(until + self.steps))

    def last_regeneration(self, until):
        return self._shifted(self.schedule.last_regeneration(until + self.steps)) or None

    def _shifted(self, step):
        """`step` of the schedule as a step here; None if it was before."""
        return None if step is None or step < self.steps else step - self.steps

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["steps"])


@dataclasses.dataclass(frozen=True)
class AtSparsity(PruningSchedule):
    """Updates when `schedule` does, each at the same `sparsity` whatever it says.

    Example:

    >>> rising = PolynomialDecay(0.0, 0.9, begin_step=0, end_step=100, frequency=10)
    >>> due, sparsity = AtSparsity(rising, 0.5)(10)
    >>> bool(due), float(sparsity)
    (True, 0.5)
    """

    schedule: PruningSchedule
    sparsity: float

    def __call__(self, step):
        return self.schedule(step)[0], tf.constant(self.sparsity, tf.float32)

    def exact_sparsity(self, step):
        return tf.constant(self.sparsity, tf.float64)

    def regenerate(self, step):
        return self.schedule.regenerate(step)

    @property
    def regenerates(self):
        return self.schedule.regenerates

    def last_prune(self, until):
        return self.schedule.last_prune(until)

    def last_regeneration(self, until):
        return self.schedule.last_regeneration(until)


@dataclasses.dataclass(frozen=True)
class _Foreign(PruningSchedule):
    """Any callable of the step with a schedule's return values."""

    schedule: Callable

    def __call__(self, step):
        # tfmot subtracts and divides with the dtypes it is given: int64 steps meet int32 bounds.
        return self.schedule(tf.cast(step, tf.int32))

    def get_config(self):
        raise NotImplementedError(
            "A schedule that is a mere callable can't be saved: make it a subclass of "
            f"granet_tf.PruningSchedule with get_config(). Received: schedule={self.schedule!r}"
        )


# What tfmot's schedules call themselves in their configuration.
TFMOT_SCHEDULES = {"ConstantSparsity": ConstantSparsity, "PolynomialDecay": PolynomialDecay}


def as_schedule(schedule: Callable) -> PruningSchedule:
    """`schedule` itself, ours for a tfmot schedule, or a callable in our base class.

    Raises:
        TypeError: If `schedule` can't be called.
    """
    if isinstance(schedule, PruningSchedule):
        return schedule
    if not callable(schedule):
        raise TypeError(
            "`schedule` must be a PruningSchedule (ours or tfmot's) or a callable "
            f"step -> (should_prune, sparsity). Received: schedule={schedule!r}"
        )
    if type(schedule).__module__.startswith("tensorflow_model_optimization."):
        config = schedule.get_config()
        if config["class_name"] in TFMOT_SCHEDULES:
            return TFMOT_SCHEDULES[config["class_name"]].from_config(config)
    return _Foreign(schedule)
