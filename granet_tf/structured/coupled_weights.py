"""Which weights of a model are pruned by coupled filters, and what else a method needs to know."""

from __future__ import annotations

import dataclasses
import glob
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras

from granet_tf.masks.patterns import Pattern
from granet_tf.masks.patterns.coupling import Coupling
from granet_tf.masks.scopes import match
from granet_tf.methods import Method
from keras_layers.held import ChannelVectors, HeldVectors, held_vectors
from keras_layers.known_layers import layout_of
from keras_layers.masking import PrunedWeight
from keras_layers.prunable import Weight

if TYPE_CHECKING:
    from granet_tf.structured.dependency_groups import Dependencies


@dataclasses.dataclass(frozen=True)
class CoupledWeights:
    """What coupled filters, and criteria that look at scales, need to know of a model.

    Attributes:
        weights: Verdicts on the model's weights: those that can't be removed are not pruned.
        method: The method, with pins and caps of the first weight of each dependency group.
        channels: {id of a weight: the channel of each output}, of coupled weights.
        scales: {id of a weight: what scales its outputs}.
        vectors: Vectors with an entry for each channel.
    """

    weights: Sequence[Weight]
    method: Method
    channels: Mapping[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    scales: Mapping[int, keras.Variable] = dataclasses.field(default_factory=dict)
    vectors: ChannelVectors = dataclasses.field(default_factory=ChannelVectors)

    def applied(self, pruned: Iterable[PrunedWeight]) -> tuple[PrunedWeight, ...]:
        """Masked weights that know their channels and scales."""
        return tuple(
            dataclasses.replace(
                p,
                layout=dataclasses.replace(p.layout, channels=self.channels.get(id(p.variable))),
                scale=self.scales.get(id(p.variable)),
            )
            for p in pruned
        )

    def held(self, pruned: Sequence[PrunedWeight]) -> HeldVectors | None:
        """The vectors to hold, by these masks."""
        return held_vectors(self.vectors, pruned)


def coupled_weights(
    model: keras.Model, weights: Sequence[Weight], method: Method, *, asked_for: bool = False
) -> CoupledWeights:
    """Finds the dependency groups among the prunable weights, where the pattern couples filters.

    Args:
        model: A built model.
        weights: Verdicts on its weights.
        method: The method.
        asked_for: Whether the user has named the weights that are prunable.

    Raises:
        ValueError: If the model's graph can't be seen, or a scale is missing that the pattern's
            criterion ranks by.

    Warns:
        UserWarning: If a weight that was asked for can't be removed.

    Example:

    >>> import granet_tf
    >>> from keras_layers.prunable import weights_of
    >>> layers = [keras.layers.Dense(n, name=name) for n, name in ((4, "hidden"), (2, "head"))]
    >>> model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    >>> method = granet_tf.GMP(0.5, pattern=granet_tf.Filter(coupled=True))
    >>> found = coupled_weights(model, weights_of(model), method)
    >>> [(w.path, w.reason) for w in found.weights if "kernel" in w.path]
    [('net/hidden/kernel', 'pruned'), ('net/head/kernel', 'it is an output of the model')]
    """
    patterns = {id(w.variable): _pattern(method, w) for w in weights if w.prunable}
    coupled = {key for key, pattern in patterns.items() if pattern.coupled}
    scaled = {key for key, p in patterns.items() if p.judge is not None and p.judge.needs_scale}
    if not coupled and not scaled:
        return CoupledWeights(weights, method)
    # What most programs have no use for takes time to import.
    from granet_tf.structured.dependency_groups import dependencies

    _check_seen(model, method)
    found = dependencies(model)
    scales = {key: scale for key, scale in _scales(found).items() if key in scaled}
    channels: dict[int, tuple[int, ...]] = {}
    vectors = ChannelVectors()
    if coupled:
        found = found.without(_fixed(weights, coupled))
        before = [w.path for w in weights if w.prunable]
        weights = [_judged(w, found) if id(w.variable) in coupled else w for w in weights]
        if asked_for:
            _warn([w for w in weights if not w.prunable and w.path in before])
        members = found.members()
        channels = {
            id(w.variable): tuple(map(int, members[id(w.variable)].ids))
            for w in weights
            if w.prunable and id(w.variable) in coupled
        }
        method = _pinned_by_group(
            method, before, [w for w in weights if id(w.variable) in channels], channels
        )
        kinds = (found.offsets(), found.variances(), found.scales())
        vectors = ChannelVectors(
            *([(m.weight, [int(i) for i in m.ids]) for m in kind.values()] for kind in kinds),
            last_scales=found.last_scales(),
            normalized=found.normalized(),
        )
    without = [w.path for w in weights if w.prunable and id(w.variable) in scaled - scales.keys()]
    if without:
        raise ValueError(
            "`criterion` ranks by the scale of a batch normalisation right behind each layer; "
            f"{without} have none: leave them out of `prunable`, or choose another criterion. "
            f"Received: pattern={method.pattern!r}"
        )
    return CoupledWeights(weights, method, channels, scales, vectors)


def removable(model: keras.Model, weights: Sequence[Weight], method: Method) -> Dependencies:
    """The dependency groups of `model`, of which those can be removed that are pruned.

    Args:
        model: A model of which `coupled_weights` has judged the weights.
        weights: The verdicts.
        method: The method.

    Example:

    >>> import granet_tf
    >>> layers = [keras.layers.Dense(4), keras.layers.Dense(2)]
    >>> model = keras.Sequential([keras.Input((3,)), *layers])
    >>> sparse = granet_tf.wrap(model, granet_tf.GMP(0.5), pattern="coupled_filter")
    >>> len(removable(model, sparse.weight_verdicts, sparse.method).reasons)  # The outputs.
    2
    """
    from granet_tf.structured.dependency_groups import dependencies

    coupled = {id(w.variable) for w in weights if w.prunable and _pattern(method, w).coupled}
    return dependencies(model).without(_fixed(weights, coupled))


def _pattern(method: Method, weight: Weight) -> Pattern:
    return method.patterns_of(layout_of(weight.layer, weight.variable))[0]


def _check_seen(model, method):
    from granet_tf.compaction.calls import is_graph

    if not is_graph(model):
        raise ValueError(
            "`pattern` needs to see how the layers of `model` are connected, so it must be "
            "sequential or functional: wrap the functional models inside a subclassed one, or "
            f"choose Filter() without `coupled`. Received: model={model} of {type(model)}, "
            f"pattern={method.pattern!r}"
        )


def _fixed(weights, coupled) -> dict[int, str]:
    """{id of a weight whose channels all stay, as it is not pruned by coupled filters: why}."""
    return {
        id(w.variable): f"{w.path} goes with it, which is not pruned: {w.reason}"
        if not w.prunable
        else f"{w.path} goes with it, which has another pattern"
        for w in weights
        if id(w.variable) not in coupled and not _only_passes_on(w)
    }


def _only_passes_on(weight):
    # Channels begin elsewhere, and end there for this one, too.
    return layout_of(weight.layer, weight.variable).kind == "depthwise"


def _judged(weight: Weight, found: Dependencies) -> Weight:
    reason = found.why_not(weight.variable)
    return weight if reason is None else dataclasses.replace(weight, prunable=False, reason=reason)


def _warn(left_out):
    if left_out:
        listed = "; ".join(f"{w.path}: {w.reason}" for w in left_out)
        warnings.warn(
            f"These weights are not pruned, as their channels can't be removed: {listed}.",
            stacklevel=4,
        )


def _scales(found: Dependencies) -> dict[int, keras.Variable]:
    """{id of a weight: γ of the batch normalisation that its outputs go to at once}."""
    behind = {rule.call.inputs[0]: scale.weight for rule in found.rules for scale in rule.scales()}
    return {
        id(m.weight): behind[rule.call.outputs[0]]
        for rule in found.rules
        if rule.call.outputs and rule.call.outputs[0] in behind
        for m in rule.members()
    }


def _pinned_by_group(method, before, weights, channels) -> Method:
    """Pins and caps of a weight hold for its group, and go by the path of the first weight."""
    if not (method.pinned or method.capped):
        return method
    paths = [w.path for w in weights]
    coupling = Coupling.of([channels[id(w.variable)] for w in weights])
    first = {paths[i]: paths[places[0]] for places in coupling.members for i in places}
    left = {}
    for name in ("pinned", "capped"):
        by_group: dict[str, float] = {}
        for path, value in match(getattr(method, name), dict.fromkeys(before), name).items():
            leader = glob.escape(first.get(path, path))
            by_group[leader] = min(value, by_group.get(leader, value))
        left[name] = by_group
    return dataclasses.replace(method, **left)
