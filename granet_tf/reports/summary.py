"""What of a model is pruned, what is not, and why."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from granet_tf.masks.patterns import Element, Pattern
from granet_tf.masks.patterns.coupling import Coupling
from granet_tf.model import SparseModel
from granet_tf.optimization.groups import groups_of
from granet_tf.reports.table import aligned
from granet_tf.wrapping.spared import REASON, outputs_removed
from keras_layers.carrier import carries_masks
from keras_layers.keras_internals import layers_of
from keras_layers.prunable import Weight, weights_of


@dataclasses.dataclass(frozen=True)
class WeightSummary:
    """One weight of a model.

    Attributes:
        path: The weight's path.
        shape: Its shape.
        size: Number of weights in it.
        nonzeros: Number of active ones: those the mask keeps and, in zero mode, any other that is
            not 0; nonzero ones without a mask.
        pruned: Whether it is (or, in a model not wrapped yet, would be) pruned.
        reason: "pruned", or why not.
        pattern: What is pruned as one unit; None if it has no mask.
        units: Number of these, and 0 if it has no mask.
        active_units: Number of those that the mask keeps.
        frozen: Whether it has a mask, but is not trainable now: no optimizer changes either.
    """

    path: str
    shape: tuple[int, ...]
    size: int
    nonzeros: int
    pruned: bool
    reason: str
    pattern: Pattern | None = None
    units: int = 0
    active_units: int = 0
    frozen: bool = False

    @property
    def sparsity(self) -> float:
        """Fraction of zeros."""
        return 1.0 - self.nonzeros / self.size


@dataclasses.dataclass(frozen=True)
class GroupSummary:
    """Weights whose filters only go together, see `granet_tf.Filter(coupled=True)`.

    Attributes:
        paths: The weights' paths.
        units: Number of units of the group.
        active_units: Number of those that the masks keep.
    """

    paths: tuple[str, ...]
    units: int
    active_units: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summarize` found; `print` shows it as a table.

    Attributes:
        rows: A `WeightSummary` for each weight, in the model's order.
        groups: A `GroupSummary` for each dependency group of several weights.
    """

    rows: tuple[WeightSummary, ...]
    groups: tuple[GroupSummary, ...] = ()

    @property
    def size(self) -> int:
        """Number of prunable weights."""
        return sum(row.size for row in self.rows if row.pruned)

    @property
    def nonzeros(self) -> int:
        """Number of active prunable weights."""
        return sum(row.nonzeros for row in self.rows if row.pruned)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the prunable weights."""
        return 1.0 - self.nonzeros / self.size if self.size else 0.0

    def __str__(self) -> str:
        lines = [("weight", "verdict", "shape", "weights", "nonzeros", "sparsity")]
        lines += [
            (
                row.path,
                row.reason + ", frozen" * row.frozen,
                "×".join(map(str, row.shape)),
                *_numbers(row),
            )
            for row in self.rows
        ]
        lines.append(("all prunable", "", "", *_numbers(self)))
        patterns = {row.pattern for row in self.rows if row.pattern is not None}
        if patterns - {Element()}:
            units = [("pattern", "units"), *(_units(row) for row in self.rows), ("", "")]
            lines = [line + extra for line, extra in zip(lines, units, strict=True)]
        together = [
            f"{each.active_units:,} of {each.units:,} units go together in {', '.join(each.paths)}"
            for each in self.groups
        ]
        return "\n".join([aligned(lines, text_columns=3), *together])


def _units(row):
    if row.pattern is None:
        return "", ""
    return str(row.pattern), f"{row.active_units:,} of {row.units:,}"


def _numbers(row):
    return f"{row.size:,}", f"{row.nonzeros:,}", f"{row.sparsity:.4f}"


def summarize(model: keras.Model) -> Summary:
    """Lists every weight of `model`: pruned or not, why, and how sparse it is.

    Args:
        model: A `SparseModel`, a model with PruneLowMagnitude layers, or a plain built model, for
            which it says what `wrap` would prune. What could be pruned and is in no wrapper, in a
            model that has some, is "not wrapped". What a pattern such as "filter" spares is "output
            of the model".

    Returns:
        A `Summary`: prints as a table; has `.rows`, `.sparsity`, `.nonzeros` and `.size`.

    Example:

    >>> import granet_tf
    >>> head = keras.layers.Dense(4, name="head")
    >>> model = keras.Sequential([keras.Input((6,)), head], name="net")
    >>> summary = summarize(granet_tf.wrap(model, granet_tf.StaticSparse(0.75)))
    >>> print(summary)
    weight           verdict        shape  weights  nonzeros  sparsity
    net/head/kernel  pruned         6×4         24         6    0.7500
    net/head/bias    bias or scale  4            4         0    1.0000
    all prunable                                24         6    0.7500
    """
    masks = {
        id(p.variable): (group.active(p), *group.method().patterns_of(p.layout))
        for group in groups_of(model)
        for p in group.pruned
    }
    rows = tuple(_row(weight, masks) for weight in _verdicts(model, masks))
    groups = tuple(each for group in groups_of(model) for each in _dependency_groups(group))
    return Summary(rows, groups)


def _dependency_groups(group):
    coupled = [p for p in group.pruned if p.layout.channels is not None]
    coupling = Coupling.of([p.layout.channels for p in coupled])
    method = group.method()
    own = [method.patterns_of(p.layout)[1].units(tf.constant(group.active(p))) for p in coupled]
    alive = coupling.any([tf.reshape(units, [-1]) for units in own])
    for places, units in zip(coupling.members, alive, strict=True):
        if len(places) > 1:
            paths = tuple(coupled[i].path for i in places)
            yield GroupSummary(paths, units.shape[0], int(np.count_nonzero(units)))


def _verdicts(model, masks) -> list[Weight]:
    if isinstance(model, SparseModel):
        verdicts = list(model.weight_verdicts)
    else:
        verdicts = weights_of(model)
        if masks:  # Some layers are wrapped, so the others are not to be pruned.
            verdicts = _not_wrapped(model, verdicts)
    for layer in layers_of(model, include_self=False):
        if carries_masks(layer):
            verdicts += layer.weight_verdicts
    # A layer that was frozen after it was wrapped still has its masks, and keeps them.
    return [
        dataclasses.replace(w, prunable=True, reason="pruned") if id(w.variable) in masks else w
        for w in verdicts
    ]


def _not_wrapped(model, verdicts):
    """The same, with what is prunable and in no wrapper as not pruned."""
    prunable = [w for w in verdicts if w.prunable]
    patterns = [group.method().pattern for group in groups_of(model)]
    spared = {w.path for each in patterns for w in outputs_removed(model, prunable, each)}
    reasons = {w.path: REASON if w.path in spared else "not wrapped" for w in prunable}
    return [
        dataclasses.replace(w, prunable=False, reason=reasons[w.path]) if w.prunable else w
        for w in verdicts
    ]


def _row(weight, masks):
    shape = tuple(weight.variable.shape)
    row = WeightSummary(weight.path, shape, int(np.prod(shape)), 0, weight.prunable, weight.reason)
    if id(weight.variable) not in masks:
        nonzeros = int(np.count_nonzero(weight.variable.numpy()))
        return dataclasses.replace(row, nonzeros=nonzeros)
    mask, pattern, bound = masks[id(weight.variable)]
    units = bound.units(tf.constant(mask)).numpy()
    return dataclasses.replace(
        row,
        nonzeros=int(np.count_nonzero(mask)),
        pattern=pattern,
        frozen=not weight.variable.trainable,
        units=units.size,
        active_units=int(np.count_nonzero(units)),
    )
