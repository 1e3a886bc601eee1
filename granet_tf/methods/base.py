"""`Method`, the base class: how masks start, and what an update makes of them.

A method is a frozen record of parameters. It says how sparse each weight starts (`initial_masks`)
and what its masks become when an update is due (`update_masks`); `SparseOptimizer` asks and does
the rest.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from granet_tf.masks.patterns import Capacity, Element, Pattern
from granet_tf.masks.patterns.names import as_pattern
from granet_tf.masks.scopes import SCOPES, match
from granet_tf.masks.units import Units
from granet_tf.methods import sparsities
from granet_tf.methods.draws import seeds_of
from granet_tf.methods.parameters import check, parameter
from granet_tf.methods.random_masks import random_masks
from granet_tf.methods.records import Needed, Snapshot, State, Updated, shaped, updated
from granet_tf.methods.saving import Record
from granet_tf.methods.timed import Timed
from granet_tf.methods.updating import prune_and_regenerate
from granet_tf.schedules import PruningSchedule
from keras_layers.layouts import Layout


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Method(Record, Timed):
    """Base class of all methods. Fields are parameters; three short methods are the algorithm.

    A new method overrides `make_schedule`, and `drop_score` or `grow_score` where it ranks
    otherwise; see `RigL` and `SET`. One that needs more than masks overrides more of what is asked.

    In the order of a training step:

    1. Forward: the model computes with `reparameterize(weight, state)` where that is given, or with
       what `transform` has for the weight's axes; else with the weight (zero mode) or w · mask
       (mask_only). `penalty` adds to the loss.
    2. Backward: with `straight_through`, w gets d loss / d (w · mask) as it is, in mask_only.
    3. What the optimizer gets of it is masked by `gradient_mask`.
    4. After the optimizer's step, `after_step` may change weights and states, if `follows_steps`.
    5. When the schedule says so, `update` gives new masks and states.

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
        pattern: What is pruned as one unit: `Element()`, `Block((4, 1))`, `Filter()`, `NM(2, 4)`,
            `ByKind({"dense": Block((4, 1))})` for one in each kind of layer, or a name, such as
            "litert" or "mnn"; see `granet_tf.masks.patterns.names.PATTERNS`. Counts, sparsities and
            drop fractions are then those of units.
        seed: Seeds initial masks and random growth, together with each weight's path and the step;
            `keras.utils.set_random_seed` does not change them.
        total_steps: Length of training in optimizer steps; None takes it from `fit`.

    Raises:
        ValueError: On a parameter out of range, or a pattern's name that is none.
        TypeError: On a pattern that is none.

    Attributes:
        command_name: What the commands call it, if that is not the class's name in lower case.
        keeps_values: Whether dormant weights keep their value: True makes `wrap` mean
            mask_only=True, False makes it refuse that, None leaves it to the user.
        follows_steps: Whether `after_step` is called after each step.
        follows_gradients: Whether the dense gradient is needed at each step, summed over replicas.
        is_continuous: Whether masks change at nearly every step, too often to note each time.
    """

    command_name: ClassVar[str | None] = None
    keeps_values: ClassVar[bool | None] = None
    follows_steps: ClassVar[bool] = False
    follows_gradients: ClassVar[bool] = False
    is_continuous: ClassVar[bool] = False
    # (weight, {name: state, "mask": mask}) -> the value to compute with; None is w or w · mask.
    reparameterize: ClassVar[Callable | None] = None

    final_sparsity: float = parameter(
        0.9, "Fraction of zeros at the end.", at_least=0, below=1, unit="zeros"
    )
    _: dataclasses.KW_ONLY
    scope: str = parameter(
        "layer",
        "Whether pruning ranks all weights together or each layer for itself.",
        choices=sorted(SCOPES),
    )
    distribution: str | Callable = parameter(
        "erk",
        "How a sparsity is spread over the layers, for random masks and in scope layer.",
        choices=sorted(sparsities.DISTRIBUTIONS),
    )
    pinned: Mapping[str | int, float] = parameter(
        help="Weights of a sparsity of their own.",
        default_factory=dict,
        at_least=0,
        below=1,
        unit="zeros",
    )
    capped: Mapping[str | int, float] = parameter(
        help="Weights with a highest sparsity.",
        default_factory=dict,
        at_least=0,
        below=1,
        unit="zeros",
    )
    pattern: str | Pattern = parameter(
        help="What is pruned as one: single weights, whole filters, 2 of every 4 inputs, or blocks "
        "that LiteRT computes sparsely in dense layers, of float32 or int8, or that MNN does.",
        default_factory=Element,
    )
    seed: int = parameter(0, "Seed of random masks and random growth.")
    total_steps: int | None = parameter(
        None, "Length of training; by default as long as fit trains.", above=0, unit="steps"
    )

    def __post_init__(self):
        check(self)
        object.__setattr__(self, "pattern", as_pattern(self.pattern))

    # The algorithm.

    def make_schedule(self) -> PruningSchedule:
        """When and how much to prune and regenerate, all durations in optimizer steps."""
        raise NotImplementedError(f"{type(self).__name__} must implement make_schedule()")

    def drop_score(self, weight: tf.Tensor, gradient: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What prune and drop rank: the lowest goes first. |w|, as in Eq. 2.

        Args as for `grow_score`; `gradient` is None in a method that looks at none.
        """
        del gradient, seed
        return tf.abs(weight)

    drop_score.magnitude_of = "weight"

    def grow_score(self, weight: tf.Tensor, gradient: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """What grow ranks: the highest comes first. |dense gradient|, as in Eq. 3.

        Args:
            weight: The weight tensor.
            gradient: d loss / d (w · mask), summed over replicas, of the weight's shape.
            seed: int32 tensor of shape (2,), another one for each weight and step.
        """
        del weight, seed
        return tf.abs(gradient)

    grow_score.magnitude_of = "gradient"

    @property
    def initial_sparsity(self) -> float:
        """Fraction of zeros before training."""
        return self.final_sparsity

    @property
    def regenerates(self) -> bool:
        """Whether masks can grow; True if in doubt. Regularizers then spare values behind them."""
        return True

    @property
    def needs_gradient(self) -> bool:
        """Whether a score ranks the dense gradient, which costs FLOPs; True if in doubt."""
        return self.regenerates

    @property
    def dense_gradient(self) -> Needed:
        """When it looks at the dense gradient: what `follows_gradients` and `needs_gradient` say.

        Example:

        >>> [m(0.9).dense_gradient.value for m in (granet_tf.GMP, granet_tf.RigL, granet_tf.SNFS)]
        ['never', 'at updates', 'at every step']
        """
        if self.follows_gradients:
            return Needed.AT_EVERY_STEP
        looks = self.needs_gradient or self.pattern.needs_gradient
        return Needed.AT_UPDATES if looks else Needed.NEVER

    @property
    def needs_data(self) -> bool:
        """Whether masks are drawn from data before the first step; see `granet_tf.SNIP`."""
        return False

    # What it may ask for beyond masks; what is not asked for is not in the graph of the step.

    @property
    def states(self) -> tuple[State, ...]:
        """The variables that it keeps for each weight."""
        return ()

    @property
    def straight_through(self) -> bool:
        """Whether dormant weights get a gradient in mask_only, which then masks none by itself.

        So that it can be looked at, or reach the optimizer by way of `gradient_mask`; and where
        masks can grow, as the optimizer masks it with less to trace than the chain rule does.
        """
        lets_through = type(self).gradient_mask is not Method.gradient_mask
        looks = self.dense_gradient is not Needed.NEVER
        return lets_through or looks or self.regenerates

    def transform(self, layout: Layout) -> Callable | None:
        """`reparameterize` for a weight of this layout."""
        del layout
        return self.reparameterize

    def gradient_mask(self, mask: tf.Tensor, state: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """Which entries of the gradient reach the optimizer; None is all."""
        del state
        return mask

    def penalty(
        self, weight: tf.Tensor, mask: tf.Tensor, state: Mapping[str, tf.Tensor]
    ) -> tf.Tensor | None:
        """A scalar that one weight adds to the loss."""
        del weight, mask, state

    @property
    def has_penalty(self) -> bool:
        """Whether there is a `penalty` to ask for."""
        return type(self).penalty is not Method.penalty

    def initial_state(self, weights: Sequence[Snapshot]) -> Sequence[Updated]:
        """The masks and states to begin with.

        Args:
            weights: At their first values, with all-True masks.
        """
        shapes = {w.path: tuple(w.weight.shape) for w in weights}
        masks = self.initial_masks(shapes, {w.path: w.layout for w in weights})
        return [Updated(masks[w.path], masks[w.path]) for w in weights]

    def after_step(
        self, step: tf.Tensor, weights: Sequence[Snapshot], learning_rate: tf.Tensor
    ) -> Sequence[Snapshot]:
        """The same with other values and states; those that are returned as they came stay.

        Args:
            step: Number of finished optimizer updates.
            weights: As they are after the optimizer's step.
            learning_rate: That of the step.
        """
        del step, learning_rate
        return weights

    def update(
        self, step: tf.Tensor, weights: Sequence[Snapshot], *, dormant_compete: bool
    ) -> Sequence[Updated]:
        """What becomes of the weights when an update is due.

        Prunes, then regenerates (Algorithm 1, lines 5 and 6).

        Args:
            step: Number of finished optimizer updates.
            weights: As they are after the optimizer's step.
            dormant_compete: Whether dormant weights are ranked too when pruning, as in the
                original gradual magnitude pruning, where they keep their value.
        """
        if type(self).update_masks is not Method.update_masks:
            return self._updated_by_lists(step, weights, dormant_compete)
        return prune_and_regenerate(self, step, weights, dormant_compete=dormant_compete)

    def _updated_by_lists(self, step, weights, dormant_compete):
        """What an `update_masks` of one's own makes of the weights."""
        return updated(
            *self.update_masks(
                step,
                [w.path for w in weights],
                [w.weight for w in weights],
                [w.mask for w in weights],
                [w.gradient for w in weights],
                dormant_compete=dormant_compete,
                layouts={w.path: w.layout for w in weights},
            )
        )

    def dense_gradients(self, steps: int, updates: int) -> float:
        """In how many of `steps` training steps a dense gradient was computed, to count FLOPs.

        Args:
            steps: Number of steps.
            updates: How many of them ended with an update.
        """
        counts = {Needed.NEVER: 0, Needed.AT_UPDATES: updates, Needed.AT_EVERY_STEP: steps}
        return counts[self.dense_gradient]

    # What the optimizer and the model ask.

    def at_start(self) -> Method | None:
        """What prunes before the first step, if the schedule asks for that; see `GMP`."""
        return None

    def among(self, every: Sequence[str], some: Sequence[str]) -> Method:
        """The same method for `some` of the weights only: pins and caps mean the same ones.

        Args:
            every: Paths of all weights that it is for, in the model's order.
            some: Paths of those that are left.
        """
        left = {}
        for name in ("pinned", "capped"):
            found = match(getattr(self, name), dict.fromkeys(every), name)
            left[name] = {glob.escape(path): v for path, v in found.items() if path in some}
        return dataclasses.replace(self, **left) if self.pinned or self.capped else self

    def check_drawn(self, pruned: Sequence[Any]) -> None:
        """Raises RuntimeError if masks are still to be drawn; see `AtInitialization.draw_masks`."""
        del pruned  # AutoGraph warns of a function that has no statement.

    def initial_masks(
        self, shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout] | None = None
    ) -> dict[str, tf.Tensor]:
        """Random masks at `initial_sparsity`: exact counts, the same in every process.

        Args:
            shapes: Shapes of the weights by path.
            layouts: Which axes of them are inputs and outputs; what is left out has inputs in the
                last axis but one and outputs in the last.
        """
        self.check_fits(shapes, layouts)
        return random_masks(self, shapes, layouts or {})

    def update_masks(
        self,
        step: tf.Tensor,
        paths: Sequence[str],
        weights: Sequence[tf.Tensor],
        masks: Sequence[tf.Tensor],
        gradients: Sequence[tf.Tensor],
        *,
        dormant_compete: bool = False,
        layouts: Mapping[str, Layout] | None = None,
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """`update`, of plain lists. A method that overrides this one is updated by it.

        Args:
            step: Number of finished optimizer updates.
            paths: Names of the weights.
            weights: Their values.
            masks: Their masks.
            gradients: Dense gradients, summed over replicas; None where the method looks at none.
            dormant_compete: Whether dormant weights are ranked too when pruning, as in the
                original gradual magnitude pruning, where they keep their value.
            layouts: As for `initial_masks`.

        Returns:
            `(new_masks, survivors)`. Survivors are the entries that were active all along, or that
            this update itself dropped and grew again: they keep value and optimizer slots, where
            every other entry starts afresh.
        """
        layouts = layouts or {}
        each = zip(paths, weights, masks, gradients, strict=True)
        snapshots = [
            Snapshot(path, *values, layout=layouts.get(path, Layout())) for path, *values in each
        ]
        new = prune_and_regenerate(self, step, snapshots, dormant_compete=dormant_compete)
        new = shaped(new, snapshots)
        return [n.mask for n in new], [n.survivors for n in new]

    def is_due(self, step: tf.Tensor) -> tf.Tensor:
        """Whether masks change at `step`."""
        schedule = self.make_schedule()
        should_prune, _ = schedule(step)
        if schedule.regenerates:
            should_prune |= schedule.regenerate(step)[0]
        return should_prune

    def capacities(
        self, shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout] | None = None
    ) -> dict[str, Capacity]:
        """How many units there are in each weight, and how many the pattern has room for."""
        return {
            path: self._pattern(path, layouts)[1].capacity(shape) for path, shape in shapes.items()
        }

    def patterns_of(self, layout: Layout) -> tuple[Pattern, Pattern]:
        """The pattern of a weight of this layout, as it was given and with its axes."""
        pattern = self.pattern.chosen(layout.kind)
        return pattern, pattern.bound(layout)

    def _pattern(self, path, layouts):
        return self.patterns_of((layouts or {}).get(path, Layout()))

    def units_of(self, weights: Sequence[Snapshot]) -> list[Units]:
        """The units of all weights, by the pattern."""
        return Units.of(
            [w.path for w in weights],
            [self.patterns_of(w.layout) for w in weights],
            [w.mask for w in weights],
            [w.layout for w in weights],
        )

    def seeded(
        self, weights: Sequence[Snapshot], step: tf.Tensor
    ) -> list[tuple[Snapshot, tf.Tensor]]:
        """Each weight with a seed of its own at this step."""
        seeds = seeds_of([w.path for w in weights], self.seed, step)
        return list(zip(weights, seeds, strict=True))

    def check_fits(
        self, shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout] | None = None
    ) -> None:
        """Raises ValueError if the pattern, pins or caps do not suit weights of these shapes."""
        sparsities.check_fits(self, shapes, layouts)

    def distribute(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        sparsity: float,
        floors: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Sparsity of each weight when the whole has `sparsity`, pins and caps obeyed.

        Args:
            shapes: Shapes of the weights by path.
            sparsity: That of all weights together.
            floors: The least sparsity of a weight, as an N:M pattern has one. It holds at the final
                sparsity. Before, it holds from there on: a method may start denser.
        """
        return sparsities.distribute(self, shapes, sparsity, floors or {})
