"""What is pruned as one unit. Selection ranks units; a pattern says what they are.

Methods and optimizer handle a new pattern without change, as they only ever see units: a subclass
of `Pattern` with `pool`, `units` and `expand`. Counts and sparsities are then those of units. One
that lets only some units be active together also says so in `tiers`, one whose scores say little
across weights in `comparable`, one whose units are outputs of a layer in `removes_outputs`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from granet_tf.masks.patterns.axes import Axes, Matrices, check_rank, checked_axes, positive
from granet_tf.masks.patterns.criteria import CRITERIA, Criterion, Filters
from granet_tf.schedules import PACKAGE
from keras_layers.layouts import Layout


@dataclasses.dataclass(frozen=True)
class Capacity:
    """How many units of a weight there are, and how many of them may be active.

    They differ in N:M sparsity only, where the last group of an input that is no multiple of m is
    filled up with zeros.

    Attributes:
        slots: Units and what fills up: what a sparsity is a fraction of.
        open: Slots that the pattern lets be active.
        fitting: Units that fit into these.
    """

    slots: int
    open: int
    fitting: int

    @property
    def least_sparsity(self) -> float:
        """Where less is asked for, more units than fit have to be active."""
        return 1.0 - self.open / self.slots


class Pattern:
    """Maps a weight tensor to its units and back. A base class; saved as its fields.

    Attributes:
        is_single: Whether each unit is a single weight, in order.
    """

    is_single: ClassVar[bool] = False

    # Whether units of several weights that can only be removed together are one.
    coupled: bool = False
    # Of how many units each weight keeps a multiple.
    round_to: int = 1

    @property
    def judge(self) -> Criterion | None:
        """What ranks units when they are pruned, in place of what the method ranks weights by."""
        return None

    @property
    def needs_gradient(self) -> bool:
        """Whether `judge` looks at dense gradients."""
        return self.judge is not None and self.judge.needs_gradient

    def judged(self, weight: tf.Tensor, gradient: tf.Tensor | None, scale: tf.Tensor | None):
        """The scores of `judge` for the units of one weight."""
        raise NotImplementedError(f"{type(self).__name__} must implement judged()")

    @property
    def is_free(self) -> bool:
        """Whether any units may be active together, so that `tiers` has one tier only."""
        return type(self).tiers is Pattern.tiers

    @property
    def is_comparable(self) -> bool:
        """Whether units of several weights are ranked together by their own scores."""
        return type(self).comparable is Pattern.comparable

    def pool(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units."""
        raise NotImplementedError(f"{type(self).__name__} must implement pool()")

    def units(self, mask: tf.Tensor) -> tf.Tensor:
        """Mask of single weights -> mask of units."""
        raise NotImplementedError(f"{type(self).__name__} must implement units()")

    def expand(self, units: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Mask of units -> mask of the weights of a tensor of `shape`."""
        raise NotImplementedError(f"{type(self).__name__} must implement expand()")

    def tiers(
        self, score: tf.Tensor, eligible: tf.Tensor, kept: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, ...]:
        """The `eligible` units in the order in which they may be chosen; none is in two tiers.

        The first tier fits beside the units that are `kept`. The next is for what the first has no
        room for, where more units have to be active than the pattern lets.

        Args:
            score: Scores of units; the best of them come into the first tier.
            eligible: Which units to choose from.
            kept: Units that are active already, none of them eligible.
        """
        del score, kept
        return (eligible,)

    def comparable(self, score: tf.Tensor, eligible: tf.Tensor) -> tf.Tensor:
        """The scores by which units of several weights are ranked together, in scope "global".

        They say how many units each weight keeps. Which ones, its own scores say.

        Args:
            score: Scores of the units of one weight.
            eligible: Which of them are ranked.
        """
        del eligible
        return score

    def removes_outputs(self, layout: Layout, shape: tuple[int, ...] | None = None) -> bool:
        """Whether a unit holds all weights that lead to an output of the layer.

        Pruning it takes the output away. The weights that lead to the outputs of a model are
        spared then, unless the user names them: a class without weights is never predicted.

        Args:
            layout: Which axes of the weight are inputs and which outputs.
            shape: The weight's shape; None where it is not known yet.
        """
        del layout, shape
        return False

    def capacity(self, shape: tuple[int, ...]) -> Capacity:
        """How many units a weight of `shape` has room for."""
        with tf.init_scope():  # It is a number, and not to be found out at every step.
            units = self.units(tf.ones(shape, tf.bool)).shape.num_elements()
        return Capacity(units, units, units)

    def chosen(self, kind: str) -> Pattern:
        """The pattern of a layer of this kind; see `keras_layers.layouts.KINDS`."""
        del kind
        return self

    def bound(self, layout: Layout) -> Pattern:
        """The pattern with the axes of `layout`, where it was given none."""
        del layout
        return self

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Pattern:
        return cls(**config)


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Element(Pattern):
    """Each weight is its own unit: unstructured sparsity."""

    is_single = True

    def __str__(self):
        return "weights"

    def pool(self, score):
        return score

    def units(self, mask):
        return mask

    def expand(self, units, shape):
        del shape
        return units

    def capacity(self, shape):
        size = math.prod(shape)
        return Capacity(size, size, size)


# {pooling: (reduction over a block, what fills up a block at the edge)}
_POOLINGS: dict[str, tuple[Callable, float]] = {
    "sum": (tf.reduce_sum, 0.0),
    "avg": (tf.reduce_sum, 0.0),
    "max": (tf.reduce_max, -np.inf),
}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Block(Pattern):
    """Blocks of `size` = (inputs, outputs) of a kernel.

    A dense kernel (inputs, outputs) is cut as it is; a convolution's at each position of the window
    for itself. Blocks at the edges may be smaller. Where a block holds all inputs of an output, the
    layers whose outputs are those of the model are spared, as by `Filter`.

    On x86, LiteRT runs dense layers faster where zeros come in blocks of (4, 1) float32 or (16, 1)
    int8 weights; `pattern="litert"` is that. MNN runs them and convolutions faster in blocks of
    (1, 4), `pattern="mnn"`.

    Args:
        size: Inputs and outputs of a block, both > 0.
        pooling: The score of a block: "sum", "avg" or "max" over its weights' scores. tfmot has
            the latter two, and scores of weights are |w| there as here.
        axes: (axes of the inputs, axes of the outputs), each an int or several. None takes those of
            the layer that the weight belongs to, or the last two for a bare tensor.

    Raises:
        ValueError: On a size, pooling or axes that are none; on a weight with one axis only.

    Example:

    >>> block = Block((2, 1))
    >>> block.pool(tf.constant([[1.0, 0.0], [2.0, 4.0], [0.0, 5.0]]))[0].numpy().tolist()
    [[3.0, 4.0], [0.0, 5.0]]
    >>> block.expand(tf.constant([[[True, False], [False, True]]]), (3, 2)).numpy().tolist()
    [[True, False], [True, False], [False, True]]
    """

    size: tuple[int, int]
    pooling: str = "sum"
    axes: tuple[Axes, Axes] | None = None

    def __post_init__(self):
        size = tuple(self.size) if isinstance(self.size, (list, tuple)) else ()
        if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
            raise ValueError(
                f"`size` must be two integers > 0, inputs and outputs. Received: size={self.size}"
            )
        if self.pooling not in _POOLINGS:
            raise ValueError(
                f"`pooling` must be one of {', '.join(_POOLINGS)}. "
                f"Received: pooling={self.pooling!r}"
            )
        object.__setattr__(self, "size", size)  # A list, when it comes from JSON.
        if self.axes is not None:
            axes = tuple(self.axes) if isinstance(self.axes, (list, tuple)) else ()
            if len(axes) != 2:
                raise ValueError(
                    "`axes` must be a pair, the axes of the inputs and of the outputs. "
                    f"Received: axes={self.axes}"
                )
            object.__setattr__(self, "axes", tuple(checked_axes(each, "axes") for each in axes))

    def __str__(self):
        return f"blocks {self.size[0]}×{self.size[1]}"

    def bound(self, layout):
        if self.axes is not None:
            return self
        return dataclasses.replace(self, axes=(layout.inputs, layout.outputs))

    def pool(self, score):
        reduce, filler = _POOLINGS[self.pooling]
        pooled = reduce(self._blocks(score, filler), axis=(2, 4))
        if self.pooling != "avg":
            return pooled
        ones = tf.ones(score.shape, score.dtype)
        return pooled / tf.reduce_sum(self._blocks(ones, 0.0), axis=(2, 4))

    def removes_outputs(self, layout, shape=None):
        if shape is None or len(shape) < 2:
            return False
        block = self.bound(layout)
        matrices = block._matrices(shape)
        one_position = math.prod(shape) == matrices.inputs * matrices.outputs
        whole = one_position and 1 < matrices.inputs <= self.size[0]
        return whole and _are_outputs(block.axes[1], layout, len(shape))

    def units(self, mask):
        return tf.reduce_any(self._blocks(mask, False), axis=(2, 4))

    def expand(self, units, shape):
        matrices = self._matrices(shape)
        weights = tf.repeat(tf.repeat(units, self.size[0], axis=1), self.size[1], axis=2)
        return matrices.back(weights[:, : matrices.inputs, : matrices.outputs])

    def _matrices(self, shape):
        check_rank(shape, "Blocks")
        return Matrices.of(shape, *((-2, -1) if self.axes is None else self.axes))

    def _blocks(self, values, filler):
        """(positions, rows of blocks, inputs of a block, columns of blocks, outputs of a block)."""
        values = self._matrices(values.shape)(values)
        sides = list(zip(values.shape[1:], self.size, strict=True))
        edges = [[0, 0], *([0, -n % size] for n, size in sides)]
        rows, columns = (-(-n // size) for n, size in sides)
        padded = tf.pad(values, edges, constant_values=filler)
        return tf.reshape(padded, (-1, rows, self.size[0], columns, self.size[1]))


def _lamp(score, eligible):
    """s² over the sum of s² of the scores that are at least as large; negative ones mirrored."""
    score = tf.where(eligible, tf.cast(score, tf.float32), 0.0)
    # Only ratios count, and squares of these are in range.
    flat = tf.math.divide_no_nan(tf.reshape(score, [-1]), tf.reduce_max(tf.abs(score)))

    def share(size):
        squares = size**2
        order = tf.argsort(squares, direction="DESCENDING", stable=True)
        ordered = tf.gather(squares, order)
        shares = tf.math.divide_no_nan(ordered, tf.cumsum(ordered))
        return tf.gather(shares, tf.argsort(order, stable=True))

    return tf.reshape(share(tf.nn.relu(flat)) - share(tf.nn.relu(-flat)), score.shape)


_NORMALIZATIONS: dict[str | None, Callable] = {
    "lamp": _lamp,
    None: lambda score, eligible: score,
}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Filter(Pattern):
    """Whole filters and units: all weights that lead to one output.

    The score is the sum over them: of |w| to prune and drop, of |gradient| to grow, as in the
    paper's filter pruning (Appendix A, after Li et al., 2017).

    Sums grow with the size of a filter. In scope "global" they would leave the large filters of
    late layers and nothing of the early ones, so the layers' shares are found by scores relative to
    the layer, as in LAMP (Lee et al., 2021): of a filter with the sum s, s² divided by the sum of
    s² over all filters of its layer with the same sum or more. The best filter of each layer has a
    1, so no layer is emptied while as many filters are kept as there are layers. In each layer it
    is still the largest sums that stay.

    The layers whose outputs are those of the model are not pruned: there is one filter for each
    class. Name them in `prunable`, or in the method's `pinned`, to prune them nevertheless.

    A pruned filter keeps its bias, and its channel the offset and the moving statistics of a batch
    normalisation behind it, so its output is a constant, not always 0. `strip` leaves them, and a
    filter that is grown again finds them there.

    With `coupled`, filters that only go together are one unit, so that all that is pruned can be
    removed: the channel of an addition takes a filter of each branch, a grouped convolution loses a
    filter of each group. Its score is the sum over all weights of these filters. They are the
    dependency groups of DepGraph (Fang et al., 2023), see `granet_tf.structured`. Weights whose
    channels can't be removed are not pruned, and `granet_tf.summarize` says why. What pruned units
    would still put out, the biases and offsets behind them, is held at zero. What a method
    exchanges of the units is rounded to the nearest number, which may be none. A unit that is grown
    before a batch normalisation begins with small random weights and a scale of 0.

    Args:
        axis: The axis of outputs, or several. None takes that of the layer that the weight belongs
            to (-2 in transposed convolutions), or the last one for a bare tensor.
        normalization: What filters of different layers are ranked together by: "lamp", as above,
            or None for the bare sums.
        coupled: Whether filters that can only be removed together are one unit. Needs a sequential
            or functional model.
        criterion: What filters are ranked by when pruned: "l1" or "l2" norm, "taylor", the sum of
            |w · gradient|, "scale", the |γ| of the batch normalisation behind, or a
            `granet_tf.Criterion`. None is the sum of what the method ranks weights by: of |w|.
        round_to: Each layer keeps a multiple of this number of filters, unless it is never pruned,
            and at least as many; hardware likes 8. Of all layers together the number is the
            multiple next to the one asked for.

    Raises:
        ValueError: On an `axis`, `normalization`, `criterion` or `round_to` that is none.

    Example:

    >>> Filter().pool(tf.constant([[1.0, 2.0], [3.0, 4.0]])).numpy().tolist()
    [4.0, 6.0]
    >>> Filter().expand(tf.constant([True, False]), (2, 2)).numpy().tolist()
    [[True, False], [True, False]]
    >>> everything = tf.constant([True, True, True])
    >>> scores = Filter().comparable(tf.constant([1.0, 2.0, 2.0]), everything)
    >>> [round(float(score), 3) for score in scores]
    [0.111, 1.0, 0.5]

    Reference:

    - [Lee et al., 2021](https://arxiv.org/abs/2010.07611)
    """

    axis: Axes | None = None
    normalization: str | None = "lamp"
    coupled: bool = False
    criterion: str | Criterion | None = None
    round_to: int = 1

    def __post_init__(self):
        named = self.criterion is None or self.criterion in CRITERIA
        if not (named or isinstance(self.criterion, Criterion)):
            raise ValueError(
                f"`criterion` must be one of {', '.join(CRITERIA)}, a granet_tf.Criterion, or None "
                f"for what the method ranks by. Received: criterion={self.criterion!r}"
            )
        if not isinstance(self.round_to, int) or self.round_to < 1:
            raise ValueError(
                "`round_to` must be a number of filters, an integer > 0. "
                f"Received: round_to={self.round_to!r}"
            )
        if self.axis is not None:
            object.__setattr__(self, "axis", checked_axes(self.axis, "axis"))
        if self.normalization not in _NORMALIZATIONS:
            raise ValueError(
                '`normalization` must be "lamp", or None for the bare sums. '
                f"Received: normalization={self.normalization!r}"
            )

    def __str__(self):
        return "coupled filters" if self.coupled else "filters"

    @property
    def judge(self):
        return CRITERIA.get(self.criterion) if isinstance(self.criterion, str) else self.criterion

    def judged(self, weight, gradient, scale):
        outputs = positive(-1 if self.axis is None else self.axis, len(weight.shape))
        order = [*self._others(weight.shape), *outputs]
        filters = math.prod(weight.shape[i] for i in outputs)

        def columns(values):
            return tf.reshape(tf.transpose(tf.cast(values, tf.float32), order), (-1, filters))

        gradients = None if gradient is None else columns(gradient)
        return self.judge.score(Filters(columns(weight), gradients, scale))

    def get_config(self):
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return config | {"criterion": keras.saving.serialize_keras_object(self.criterion)}

    def bound(self, layout):
        return self if self.axis is not None else dataclasses.replace(self, axis=layout.outputs)

    def comparable(self, score, eligible):
        return _NORMALIZATIONS[self.normalization](score, eligible)

    def removes_outputs(self, layout, shape=None):
        return self.axis is None or shape is None or _are_outputs(self.axis, layout, len(shape))

    @classmethod
    def from_config(cls, config):
        # Files of version 0.1 go on as they began: with bare sums.
        config = {"normalization": None, **config}
        saved = keras.saving.deserialize_keras_object(config.pop("criterion", None))
        return cls(**config, criterion=saved)

    def pool(self, score):
        return tf.reduce_sum(score, self._others(score.shape))

    def units(self, mask):
        return tf.reduce_any(mask, self._others(mask.shape))

    def expand(self, units, shape):
        others = self._others(shape)
        return tf.broadcast_to(
            tf.reshape(units, [1 if i in others else n for i, n in enumerate(shape)]), shape
        )

    def _others(self, shape):
        outputs = positive(-1 if self.axis is None else self.axis, len(shape))
        return [i for i in range(len(shape)) if i not in outputs]


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class NM(Pattern):
    """N:M sparsity: at most `n` nonzeros in every `m` consecutive inputs, such as 2:4.

    Groups run along the inputs of each output, at each position of a convolution's window, as
    sparse tensor cores want them. tfmot counts zeros instead: its `sparsity_m_by_n=(1, 4)` is
    `NM(3, 4)`.

    Units are single weights. What is chosen, at random, by magnitude or to be grown, is first the
    best `n` of each group; what does not fit comes after all that does. So:

    - From sparsity 1 - n / m on, no group has more than `n` after any update, and at that sparsity
      each has exactly `n`. Growth fills groups that what was dropped has left room in.
    - Below, where a method starts dense or with a small `initial_sparsity`, groups hold more. Only
      what is beyond the best `n` of its group is pruned, until nothing is. Growth fills groups with
      less than `n` first, then goes by gradient anywhere, so that counts hold.

    Where the inputs are no multiple of `m`, the last group is filled up with zeros, which a
    sparsity counts: a convolution of 3 channels keeps 2 of each 3 weights at 2:4 and sparsity 0.5.

    Args:
        n: Nonzeros that a group may keep, 0 < n < m.
        m: Weights in a group.
        axis: The axis of inputs, or several, which then count as one. None takes that of the layer
            that the weight belongs to (-1 in transposed convolutions), or -2 for a bare tensor.

    Raises:
        ValueError: On `n`, `m` and `axis` that are none; on a weight with one axis only.

    Example:

    >>> from granet_tf.masks.selection import select
    >>> weight = tf.constant([[1.0], [4.0], [3.0], [2.0]])
    >>> fitting, others = NM(2, 4).tiers(weight, tf.ones_like(weight, tf.bool))
    >>> fitting.numpy().ravel().tolist()
    [False, True, True, False]
    """

    n: int
    m: int
    axis: Axes | None = None

    def __post_init__(self):
        integers = isinstance(self.n, int) and isinstance(self.m, int)
        if not (integers and 0 < self.n < self.m):
            raise ValueError(
                "`n` and `m` must be integers with 0 < n < m, nonzeros in a group of weights. "
                f"Received: n={self.n}, m={self.m}"
            )
        if self.axis is not None:
            object.__setattr__(self, "axis", checked_axes(self.axis, "axis"))

    def __str__(self):
        return f"{self.n}:{self.m}"

    def bound(self, layout):
        return self if self.axis is not None else NM(self.n, self.m, layout.inputs)

    def pool(self, score):
        return score

    def units(self, mask):
        return mask

    def expand(self, units, shape):
        del shape
        return units

    def tiers(self, score, eligible, kept=None):
        matrices = self._matrices(score.shape)
        # -inf is behind all that is eligible.
        ranked = tf.where(eligible, score, tf.constant(-np.inf, score.dtype))
        groups = self._groups(matrices(ranked), -np.inf)
        earlier = tf.reshape(tf.range(self.m), (-1, 1))
        place = tf.zeros(groups.shape, tf.int32)
        for j in range(self.m):
            other = groups[:, :, j : j + 1]
            # Of equals, the first is the stronger.
            ahead = (other > groups) | ((other == groups) & (earlier > j))
            place += tf.cast(ahead, tf.int32)
        room = self.n
        if kept is not None:
            taken = self._groups(matrices(kept), False)
            room -= tf.reduce_sum(tf.cast(taken, tf.int32), axis=2, keepdims=True)
        shape = (groups.shape[0], -1, groups.shape[3])
        fits = tf.reshape(place < room, shape)[:, : matrices.inputs]
        first = eligible & matrices.back(fits)
        return first, eligible & ~first

    def capacity(self, shape):
        if self.axis == ():  # Nothing to group, as in a depthwise kernel.
            return super().capacity(shape)
        inputs = self._matrices(shape).inputs
        rows = math.prod(shape) // inputs
        whole, rest = divmod(inputs, self.m)
        groups = whole + (rest > 0)
        fitting = whole * self.n + min(self.n, rest)
        return Capacity(rows * groups * self.m, rows * groups * self.n, rows * fitting)

    def _matrices(self, shape):
        check_rank(shape, "N:M groups")
        inputs = positive(-2 if self.axis is None else self.axis, len(shape))
        # What comes before them is a position, which spares moving axes in most kernels.
        outputs = tuple(range(max(inputs, default=-1) + 1, len(shape)))
        return Matrices.of(shape, inputs, outputs)

    def _groups(self, matrices, filler):
        """(1, groups, weights of a group, everything else)."""
        edges = [[0, 0], [0, -matrices.shape[1] % self.m], [0, 0]]
        padded = tf.pad(matrices, edges, constant_values=filler)
        return tf.reshape(padded, (padded.shape[0], -1, self.m, padded.shape[2]))


def _are_outputs(axes, layout, rank):
    return set(positive(axes, rank)) <= set(positive(layout.outputs, rank))
