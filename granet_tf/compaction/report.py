"""What compaction removed, what it left, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from granet_tf.compaction.analysis import Plan
from granet_tf.compaction.rules import Opaque, Rule
from granet_tf.reports.table import aligned


@dataclasses.dataclass(frozen=True)
class LayerSize:
    """One line of a `CompactionReport`.

    Attributes:
        layer: Name of the layer; with what is counted, if that is inside: "attention (heads)".
        channels: Its output channels (filters, units) before.
        kept: Its output channels after.
    """

    layer: str
    channels: int
    kept: int


@dataclasses.dataclass(frozen=True)
class LeftChannels:
    """Dead channels of a layer that stay, all for the same reason.

    Attributes:
        layer: Name of the layer that makes them.
        channels: How many.
        reason: Why they stay.
    """

    layer: str
    channels: int
    reason: str


@dataclasses.dataclass(frozen=True)
class CompactionReport:
    """What `compact` does with a model; `print` shows it.

    Attributes:
        rows: A `LayerSize` for each layer with filters or units, in order.
        left: A `LeftChannels` for each layer and reason that dead channels stay.
        opaque: Name and reason of each layer that can't be seen through, so that all channels
            before it stay, and all in it.
    """

    rows: tuple[LayerSize, ...]
    left: tuple[LeftChannels, ...]
    opaque: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        table = [("layer", "channels", "kept")]
        table += [(row.layer, f"{row.channels:,}", f"{row.kept:,}") for row in self.rows]
        parts = [aligned(table, text_columns=1)]
        parts += [f"left in '{x.layer}': {x.channels:,}, because {x.reason}" for x in self.left]
        parts += [f"not seen through: '{name}', because {reason}" for name, reason in self.opaque]
        return "\n".join(parts)


def report_of(plan: Plan) -> CompactionReport:
    """Tells a plan in words.

    Example:

    >>> import keras
    >>> from granet_tf.compaction.analysis import planned
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="only")])
    >>> _ = model.layers[0].kernel.assign([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    >>> print(report_of(planned(model)))
    layer  channels  kept
    only          3     3
    left in 'only': 1, because it is an output of the model
    """
    rows, left, seen = [], Counter(), set()
    for rule in plan.rules:
        if rule.layer in seen or not (rule.makes_channels or rule.inside):
            continue
        seen.add(rule.layer)
        rows += [
            LayerSize(f"{rule.layer.name} ({name})", len(ids), int(plan.stays[ids].sum()))
            for name, ids in rule.inside.items()
        ]
        if not rule.makes_channels:
            continue
        count = rule.call.output_shape[-1 if rule.output is None else rule.output.axis]
        kept = count if rule.output is None else int(np.count_nonzero(plan.kept(rule.output)))
        rows.append(LayerSize(rule.layer.name, count, kept))
        if rule.output is None:
            continue
        dead = (rule.output.known | ~rule.needed_output) & plan.kept(rule.output)
        left.update((rule.layer.name, _reason(each, plan)) for each in rule.output.ids[dead])
    opaque = dict.fromkeys(
        (rule.layer.name, rule.reason)
        for rule in plan.rules
        if isinstance(rule, Opaque) and (any(x is not None for x in rule.inputs) or _mixes(rule))
    )
    return CompactionReport(
        tuple(rows),
        tuple(LeftChannels(name, count, reason) for (name, reason), count in left.items()),
        tuple(opaque),
    )


def _mixes(rule: Rule) -> bool:
    """Whether the layer has weights that lead from channels to channels."""
    return any(len(weight.shape) > 1 for weight in getattr(rule.layer, "weights", ()))


def _reason(each: int, plan: Plan) -> str:
    """Why an id stays: where its constant is lost, or else who reads what it is tied to."""
    if any(each in x.ids for x in map(plan.channels.get, plan.outputs) if x is not None):
        return "it is an output of the model"
    reasons = [
        (not known, place, rule.why(bool(known)))
        for place, rule in enumerate(plan.rules)
        for x, need in zip(rule.inputs, rule.needed_inputs, strict=True)
        if x is not None
        for known in x.known[need & (x.ids == each)]
        if _ends(rule, each, known)
    ]
    if not reasons:
        return "no tensor can be without channels, and groups must have equally many"
    return min(reasons)[-1]


def _ends(rule: Rule, each: int, known: bool) -> bool:
    """Whether an id does not go through this call, or its constant does not."""
    if rule.makes_channels or rule.output is None or each not in rule.output.ids:
        return True
    return known and not rule.output.known[rule.output.ids == each].all()
