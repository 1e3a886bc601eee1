"""GraNet, GMP, RigL, SET and static sparse training: each a schedule and two scores.

A method is a frozen record of parameters. It says how sparse each weight starts (`initial_masks`)
and what its masks become when an update is due (`update_masks`); `SparseOptimizer` asks and does
the rest.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import keras
import tensorflow as tf

from granet_tf import distributions
from granet_tf.patterns import Element, Pattern
from granet_tf.schedules import (
    PACKAGE,
    GraNetSchedule,
    PruningSchedule,
    as_schedule,
    check_rise,
    check_sparsity,
)
from granet_tf.scopes import SCOPES, keep_count, match
from granet_tf.selection import count, rank, select, top

DISTRIBUTIONS: dict[str, Callable] = {
    "erk": distributions.erdos_renyi_kernel,
    "er": distributions.erdos_renyi,
    "uniform": distributions.uniform,
}
# As many updates as this are made while the sparsity rises, unless `frequency` says otherwise.
_UPDATES = 50


@dataclasses.dataclass(frozen=True)
class Method:
    """Base class of all methods. Fields are parameters; three short methods are the algorithm.

    A new method overrides `make_schedule`, and `drop_score` or `grow_score` where it ranks
    otherwise; see `RigL` and `SET`.

    Args:
        final_sparsity: s_f, fraction of zeros among all prunable weights, in [0, 1).
        scope: "global" ranks all prunable weights together, "layer" each tensor for itself.
        distribution: How a sparsity is spread over layers where a method needs that: for initial
            masks, and for pruning in scope "layer". "erk", "er", "uniform", or a callable
            `(shapes, sparsity, pinned) -> {path: sparsity}` (see `granet_tf.distributions`).
        pinned: {weight: sparsity} of weights that go to a sparsity of their own, such as
            `{0: 0.0}` to keep the first dense. A key is a position in the order of the model
            (negative from the end) or a pattern for the weight's path.
        capped: {weight: sparsity} of weights that go no higher than this, such as `{-1: 0.8}`.
        pattern: What is pruned as one unit: `Element()`, `Block((4, 1))`, `Filter()` or
            `NM(2, 4)`. Counts, sparsities and drop fractions are then those of units.
        seed: Seeds initial masks and random growth, together with each weight's path and the step.
        total_steps: Length of training in optimizer steps; None takes it from `fit`.

    Raises:
        ValueError: On a parameter out of range.
    """

    final_sparsity: float = 0.9
    _: dataclasses.KW_ONLY
    scope: str = "layer"
    distribution: str | Callable = "erk"
    pinned: Mapping[str | int, float] = dataclasses.field(default_factory=dict)
    capped: Mapping[str | int, float] = dataclasses.field(default_factory=dict)
    pattern: Pattern = dataclasses.field(default_factory=Element)
    seed: int = 0
    total_steps: int | None = None

    def __post_init__(self):
        check_sparsity(self.final_sparsity, "final_sparsity")
        _check_choice("scope", self.scope, SCOPES)
        if not callable(self.distribution):
            _check_choice("distribution", self.distribution, DISTRIBUTIONS)
        for name in ("pinned", "capped"):
            for key, value in getattr(self, name).items():
                check_sparsity(value, f"{name}[{key!r}]")
        if self.total_steps is not None and self.total_steps <= 0:
            raise ValueError(
                f"`total_steps` must be > 0 steps. Received: total_steps={self.total_steps}"
            )

    # The algorithm.

    def make_schedule(self) -> PruningSchedule:
        """When and how much to prune and regenerate, all durations in optimizer steps."""
        raise NotImplementedError(f"{type(self).__name__} must implement make_schedule()")

    def drop_score(self, weight: tf.Tensor, gradient: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What prune and drop rank: the lowest goes first. |w|, as in Eq. 2.

        Args as for `grow_score`; `gradient` is None in a method that does not `regenerate`.
        """
        del gradient, seed
        return tf.abs(weight)

    def grow_score(self, weight: tf.Tensor, gradient: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What grow ranks: the highest comes first. |dense gradient|, as in Eq. 3.

        Args:
            weight: The weight tensor.
            gradient: d loss / d (w · mask), summed over replicas, of the weight's shape.
            seed: int32 tensor of shape (2,), another one for each weight and step.
        """
        del weight, seed
        return tf.abs(gradient)

    @property
    def initial_sparsity(self) -> float:
        """Fraction of zeros before training."""
        return self.final_sparsity

    @property
    def regenerates(self) -> bool:
        """Whether masks can grow, so that the dense gradient is needed; True if in doubt."""
        return True

    @property
    def needs_gradient(self) -> bool:
        """Whether growth ranks the dense gradient, which costs FLOPs; True if in doubt."""
        return self.regenerates

    @property
    def needs_data(self) -> bool:
        """Whether masks are drawn from data before the first step; see `granet_tf.SNIP`."""
        return False

    # What the optimizer and the model ask.

    def check_drawn(self, pruned: Sequence[Any]) -> None:
        """Raises RuntimeError if masks are still to be drawn; see `AtInitialization.draw_masks`."""

    def resolve(self, total_steps: int) -> Method:
        """The same method for a training of `total_steps`; a length given before stays."""
        if self.total_steps is not None:
            return self
        return dataclasses.replace(self, total_steps=total_steps)

    def steps(self, name: str) -> int:
        """The duration `name` in optimizer steps; a float is a fraction of training."""
        value = getattr(self, name)
        return int(value) if isinstance(value, Integral) else round(value * self.training_length)

    @property
    def training_length(self) -> int:
        """`total_steps`, where something depends on it."""
        if self.total_steps is None:
            raise ValueError(
                "The length of training is not known yet, and durations given as fractions, or the "
                "drop fraction's cosine, depend on it: call fit(), or give the method "
                f"`total_steps`. Received: {self}"
            )
        return self.total_steps

    def initial_masks(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tf.Tensor]:
        """Random masks at `initial_sparsity`: exact counts, the same in every process."""
        self.check_fits(shapes)
        sparsities = self.distribute(shapes, self.initial_sparsity)
        masks = {}
        for (path, shape), seed in zip(shapes.items(), self._seeds(shapes, 0), strict=True):
            everything = tf.ones(shape, tf.bool)
            units = self.pattern.units(everything)
            score = tf.random.stateless_uniform(units.shape, seed, alg="philox")
            kept = keep_count(units.shape.num_elements(), sparsities[path])
            [chosen] = select([score], [units], kept)
            masks[path] = self.pattern.expand(chosen, shape)
        return masks

    def update_masks(
        self,
        step: tf.Tensor,
        paths: Sequence[str],
        weights: Sequence[tf.Tensor],
        masks: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        *,
        dormant_compete: bool = False,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """One update: prune, then regenerate (Algorithm 1, lines 5 and 6).

        Args:
            step: Number of finished optimizer updates.
            paths: Names of the weights.
            weights: Their values.
            masks: Their masks.
            gradients: Dense gradients, summed over replicas; None unless the method regenerates.
            dormant_compete: Whether dormant weights are ranked too when pruning, as in the
                original gradual magnitude pruning, where they keep their value.

        Returns:
            `(new_masks, survivors)`. Survivors are the entries that were active all along, or that
            this update itself dropped and grew again: they keep value and optimizer slots, where
            every other entry starts afresh.
        """
        schedule = self.make_schedule()
        should_prune, _ = schedule(step)
        should_regenerate, drop_fraction = schedule.regenerate(step)
        candidates = list(zip(weights, gradients, self._seeds(paths, step), strict=True))
        units = [self.pattern.units(mask) for mask in masks]

        eligible = [u | should_prune for u in units] if dormant_compete else units
        scores = [self.pattern.pool(self.drop_score(*c)) for c in candidates]
        # Ranked once, to prune and to drop: what is left is the top of its tensor.
        rankings = [rank(s, e) for s, e in zip(scores, eligible, strict=True)]

        def prune():
            sparsity = schedule.exact_sparsity(step)
            shapes = {p: tuple(w.shape) for p, w in zip(paths, weights, strict=True)}
            return SCOPES[self.scope](self, shapes, scores, eligible, rankings, sparsity)

        pruned = tf.cond(should_prune, prune, lambda: units)

        def regenerate():
            return [
                self._regenerate(*each, drop_fraction)
                for each in zip(candidates, rankings, pruned, strict=True)
            ]

        new = pruned
        if schedule.regenerates:
            new = tf.cond(should_regenerate, regenerate, lambda: pruned)
        new_masks = [self.pattern.expand(u, w.shape) for u, w in zip(new, weights, strict=True)]
        active_before = (
            self.pattern.expand(u, w.shape) for u, w in zip(pruned, weights, strict=True)
        )
        survivors = [n & a for n, a in zip(new_masks, active_before, strict=True)]
        if dormant_compete:  # Else what pruning leaves was active before.
            survivors = [s & m for s, m in zip(survivors, masks, strict=True)]
        return new_masks, survivors

    def is_due(self, step: tf.Tensor) -> tf.Tensor:
        """Whether masks change at `step`."""
        schedule = self.make_schedule()
        should_prune, _ = schedule(step)
        if schedule.regenerates:
            should_prune |= schedule.regenerate(step)[0]
        return should_prune

    def _regenerate(self, candidate, ranking, active, drop_fraction):
        """Eq. 2 and 3: drop the weakest share of the active, grow as many of the inactive."""
        alive = count(active)
        # What rounding adds to a whole number is not a reason to drop one more.
        dropped = tf.cast(tf.math.ceil(drop_fraction * tf.cast(alive, tf.float64) - 1e-9), tf.int64)
        [kept] = top([ranking], alive - dropped)
        grow_score = self.pattern.pool(self.grow_score(*candidate))
        [grown] = select([grow_score], [~kept], dropped)
        return kept | grown

    def _seeds(self, paths, step):
        """A seed for each weight, from `seed`, its path and the step."""
        # The odd factor keeps neighbouring seeds from sharing streams.
        keys = [
            zlib.crc32(name.encode()) ^ (self.seed * 0x9E3779B1 % 2**32) for name in _lasting(paths)
        ]
        return [tf.stack([tf.constant(k - 2**31, tf.int32), tf.cast(step, tf.int32)]) for k in keys]

    def check_fits(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ValueError if the pattern, pins or caps do not suit weights of these shapes."""
        self._check_pattern()
        self._check_feasible(shapes)

    def _check_pattern(self):
        """A pattern that can't be drawn or grown needs a method that only prunes from dense."""
        if getattr(self.pattern, "prunes_only", False) and (
            self.initial_sparsity > 0.0 or self.regenerates
        ):
            raise ValueError(
                f"`pattern` {self.pattern} can only be pruned to, from dense: use GMP with "
                f"initial_sparsity=0.0 and a schedule that does not regenerate. Received: {self}"
            )

    def _check_feasible(self, shapes):
        """What pins and caps keep must fit into what the final sparsity leaves."""
        sizes = {path: math.prod(shape) for path, shape in shapes.items()}
        most = {**match(self.capped, sizes, "capped"), **match(self.pinned, sizes, "pinned")}
        needed = sum(sizes[path] * (1.0 - sparsity) for path, sparsity in most.items())
        left = sum(sizes.values()) * (1.0 - self.final_sparsity)
        if self.scope == "global" and needed > left + 1.0:
            raise ValueError(
                "`pinned` and `capped` must leave weights to prune: they keep at least "
                f"{needed:.0f} of the {left:.0f} weights that final_sparsity={self.final_sparsity} "
                f"leaves. Received: pinned={self.pinned}, capped={self.capped}"
            )

    def distribute(
        self, shapes: Mapping[str, tuple[int, ...]], sparsity: float
    ) -> dict[str, float]:
        """Sparsity of each weight when the whole has `sparsity`, pins and caps obeyed."""
        if sparsity == 0.0:
            return dict.fromkeys(shapes, 0.0)
        spread = DISTRIBUTIONS.get(self.distribution, self.distribution)
        pinned = match(self.pinned, shapes, "pinned")
        wanted = spread(shapes, sparsity, pinned)
        capped = match(self.capped, shapes, "capped")
        over = {path: cap for path, cap in capped.items() if wanted[path] > cap}
        return spread(shapes, sparsity, {**pinned, **over}) if over else wanted

    def get_config(self) -> dict[str, Any]:
        fields = (f.name for f in dataclasses.fields(self))
        config = {name: getattr(self, name) for name in fields}
        # JSON has no integer keys, so that maps travel as lists of pairs.
        for name in ("pinned", "capped"):
            config[name] = [list(pair) for pair in config[name].items()]
        return {k: keras.saving.serialize_keras_object(v) for k, v in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Method:
        config = {k: keras.saving.deserialize_keras_object(v) for k, v in config.items()}
        for name in ("pinned", "capped"):
            config[name] = dict(config[name])
        return cls(**config)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class GMP(Method):
    """Gradual magnitude pruning (Zhu & Gupta, 2017; Gale et al., 2019; the paper's Algorithm 2).

    As Gale et al. use it, the first layer stays dense and the last goes to 0.8 at most:
    `GMP(0.9, pinned={0: 0.0}, capped={-1: 0.8})`. With `wrap(..., mask_only=True)` it is the
    original to the bit; without, pruned weights are zero and stay pruned, as in the paper.

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
        end_step: T_end, where the cosine reaches 0: optimizer steps or fraction of training.
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
        fractions = (self.drop_fraction, self.final_drop_fraction)
        return GraNetSchedule(sparsity, sparsity, begin, begin, max(end, 1), frequency, *fractions)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class SET(RigL):
    """Sparse evolutionary training (Mocanu et al., 2018): drop by magnitude, grow at random.

    The fraction is constant to the end of training, about 50 times in all.

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


def _lasting(paths):
    """Names for `paths` that stay when Keras numbers the same layers differently: the order counts,
    not that this dense layer is the seventh of the process."""
    seen = {}
    for path in paths:
        name = re.sub(r"_\d+(?=/|$)", "", path)
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}#{seen[name]}"


def _default_frequency(begin, end):
    return max(1, (end - begin) // _UPDATES)


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {sorted(choices)}. Received: {name}={value!r}")


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
