"""Which channels of a model can go, and where their constants go then.

Forward, the constants: an output is constant if every input adds a constant to it, most often
because all weights are zero. Backward, the needs: an input is needed if a needed output depends on
it, other than by a constant that fits in a bias. Channels that are tied together go if none of them
is needed anywhere. Both passes see through all layers at once, so that one of each is enough.

Constants that zero padding cuts at the border fit in no bias. But those that are cut alike are
multiples of each other: one channel carries them all, and the others go, too.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import keras
import numpy as np

# Importing these fills the table of rules.
from granet_tf.compaction import attention as _attention  # noqa: F401
from granet_tf.compaction import averaging as _averaging  # noqa: F401
from granet_tf.compaction import channelwise as _channelwise  # noqa: F401
from granet_tf.compaction import convolutions as _convolutions  # noqa: F401
from granet_tf.compaction import einsum as _einsum  # noqa: F401
from granet_tf.compaction import joining as _joining  # noqa: F401
from granet_tf.compaction import mixing as _mixing  # noqa: F401
from granet_tf.compaction import recurrent as _recurrent  # noqa: F401
from granet_tf.compaction import reshaping as _reshaping  # noqa: F401
from granet_tf.compaction import time_distributed as _time_distributed  # noqa: F401
from granet_tf.compaction import transformer_blocks as _transformer_blocks  # noqa: F401
from granet_tf.compaction.calls import CallGraph, call_graph
from granet_tf.compaction.channels import Channels, Ties
from granet_tf.compaction.rules import Rule, rule_of


@dataclasses.dataclass(frozen=True)
class Plan:
    """What stays of a model. Ids are those of `channels`, one for all that are tied together.

    Attributes:
        rules: The rule of each call, in order.
        channels: The channels of each tensor, by its number; None if they all stay.
        outputs: Numbers of the model's outputs.
        entries: The tensors that enter each input layer.
        stays: For each id, whether it stays.
        carriers: The id that carries the constant of another, which goes.
    """

    rules: list[Rule]
    channels: dict[int, Channels | None]
    outputs: list[int]
    entries: dict[keras.Layer, list[int]]
    stays: np.ndarray
    carriers: dict[int, int]

    def kept(self, channels: Channels | None) -> np.ndarray | slice:
        """What to index an axis of channels with."""
        return slice(None) if channels is None else self.stays[channels.ids]

    def carrier(self, channels: Channels, index: int) -> int:
        """Which channel of the tensor carries the constant of the one at `index`."""
        return int(np.flatnonzero(channels.ids == self.carriers[channels.ids[index]])[0])


def planned(model: keras.Model) -> Plan:
    """What stays of a built sequential or functional model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> _ = model.layers[0].kernel.assign([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    >>> plan = planned(model)
    >>> plan.kept(plan.rules[0].output).tolist()
    [True, False, True]
    """
    graph = call_graph(model)
    ties = Ties()
    rules, channels, roots = followed(graph, ties)

    # The last pass leaves its findings with the rules: that must be the strict one.
    merging = _needed(rules, channels, graph.outputs, len(roots), merging=True)
    needed = _needed(rules, channels, graph.outputs, len(roots), merging=False)
    stays = needed.copy()
    for ids in ties.pinned:
        merging[roots[ids]] = stays[roots[ids]] = True
    carriers = _carriers(rules, needed & ~merging)
    stays[list(carriers)] = False
    stays = completed(rules, stays)
    return Plan(rules, channels, graph.outputs, graph.entries, stays, carriers)


def completed(rules: Sequence[Rule], stays: np.ndarray) -> np.ndarray:
    """`stays`, and what must stay besides, so that each layer can be made: for each id whether."""
    stays, more = stays.copy(), np.zeros(0, int)
    while True:
        stays[more] = True
        more = np.concatenate([np.zeros(0, int), *(rule.also_keep(stays) for rule in rules)])
        if not len(more):
            return stays


def followed(
    graph: CallGraph, ties: Ties, *, couple: bool = False
) -> tuple[list[Rule], dict[int, Channels | None], np.ndarray]:
    """Follows channels from the inputs of a model to its outputs.

    Args:
        graph: The calls of the model.
        ties: What is to know which channels go together.
        couple: Whether to tie also what a layer can lose together only, see `Rule.couple`.

    Returns:
        The rule of each call, the channels of each tensor, by its number, and for each id that has
        been made the one for all that are tied together, which rules and channels have.
    """
    rules, channels = _forward(graph, ties)
    for rule in rules if couple else ():
        rule.couple(ties)
    roots = ties.find(np.arange(len(ties)))
    channels, rules = _with_roots(channels, rules, roots)
    return rules, channels, roots


def _forward(graph: CallGraph, ties: Ties) -> tuple[list[Rule], dict[int, Channels | None]]:
    """The rule of each call and the channels of each tensor."""
    channels = defaultdict(lambda: None)
    times = graph.called()
    rules, first = [], {}
    for call in graph.calls:
        inputs = [channels[number] for number in call.inputs]
        rule = rule_of(call, inputs, shared=times[call.operation] > 1)
        rule.output = channels[call.outputs[0]] = rule.forward(ties)
        rules.append(rule)
        other = first.setdefault(call.operation, rule)
        if rule.resizes or other.resizes:
            _alike([rule.output, other.output], ties)
            for pair in zip(rule.inputs, other.inputs, strict=True):
                _alike(pair, ties)
            for name in rule.inside.keys() | other.inside.keys():
                _alike_ids([rule.inside.get(name), other.inside.get(name)], ties)
    for numbers in graph.entries.values():
        _alike([channels[number] for number in numbers], ties)
    return rules, channels


def _alike(several, ties: Ties) -> None:
    """Ties channels of tensors that go through the same layer, at several calls."""
    _alike_ids([None if x is None else x.ids for x in several], ties)


def _alike_ids(several, ties: Ties) -> None:
    known = [ids for ids in several if ids is not None]
    for ids in known[1:]:
        ties.join(known[0], ids)
    if len(known) < len(several):
        for ids in known:
            ties.pin(ids)


def _with_roots(channels, rules, roots):
    """The same, with one id for all that are tied together."""

    def rooted(x):
        return None if x is None else dataclasses.replace(x, ids=roots[x.ids])

    for rule in rules:
        rule.inputs = [rooted(x) for x in rule.inputs]
        rule.output = rooted(rule.output)
        rule.inside = {name: roots[ids] for name, ids in rule.inside.items()}
    return {number: rooted(x) for number, x in channels.items()}, rules


def _needed(rules, channels, outputs: list[int], count: int, merging: bool) -> np.ndarray:
    """Which ids are needed somewhere. Each rule gets to know what it needs, and what is of it."""
    needed = {n: np.zeros(len(x.ids), bool) for n, x in channels.items() if x is not None}
    for number in outputs:
        if number in needed:
            needed[number][:] = True
    inside = []
    for rule in reversed(rules):
        rule.needed_output = of_output = needed.get(rule.call.outputs[0])
        if of_output is not None:
            of_output |= rule.reads_itself(of_output)
        inside += [rule.inside[name][need] for name, need in rule.needs_inside(of_output).items()]
        rule.needed_inputs = rule.needs(of_output, merging)
        for number, need in zip(rule.call.inputs, rule.needed_inputs, strict=True):
            if number in needed:
                needed[number] |= need
    ids = [channels[number].ids[need] for number, need in needed.items()]
    result = np.zeros(count, bool)
    result[np.concatenate([np.zeros(0, int), *ids, *inside])] = True
    return result


def _carriers(rules: list[Rule], movable: np.ndarray) -> dict[int, int]:
    """For ids that are needed only as constants: the one of those needed alike that carries it."""
    where, least = defaultdict(list), defaultdict(lambda: np.inf)
    for index, rule in enumerate(rules):
        if not rule.can_merge:
            continue
        for x, need in zip(rule.inputs, rule.needed_inputs, strict=True):
            if x is None:
                continue
            for i in np.flatnonzero(need & movable[x.ids]):
                where[x.ids[i]].append(index)
                least[x.ids[i]] = min(least[x.ids[i]], abs(x.value[i]))
    alike = defaultdict(list)
    for each, calls in where.items():
        alike[tuple(sorted(set(calls)))].append(each)
    carriers = {}
    for group in alike.values():
        # Dividing by the largest constant loses least.
        carrier = max(group, key=least.__getitem__)
        carriers |= {int(each): int(carrier) for each in group if each != carrier}
    return carriers
