"""Dependency groups: the channels of several layers that can only be removed together.

The channel of an addition is there as long as one of its branches has it. So a channel goes if all
weights that lead to it go, in each layer that has a part in it, as in DepGraph (Fang et al., 2023).
The channels are those of `granet_tf.compact`, from the same rules: what is pruned together is what
can be removed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from granet_tf.compaction.analysis import Plan, completed, followed
from granet_tf.compaction.calls import call_graph
from granet_tf.compaction.channels import Channels, Ties
from granet_tf.compaction.rules import Member, Opaque, Rule
from granet_tf.compaction.values import Substituted


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """Which channels of a model must be removed together, and which can't be.

    Ids are those of channels, one for all that go together.

    Attributes:
        rules: The rule of each call, in order, with its channels.
        channels: The channels of each tensor, by its number.
        outputs: Numbers of the model's outputs.
        entries: The tensors that enter each input layer.
        reasons: {id: why it can't be removed}.
        count: Number of ids.
    """

    rules: Sequence[Rule]
    channels: Mapping[int, Channels | None]
    outputs: Sequence[int]
    entries: Mapping[keras.Layer, list[int]]
    reasons: Mapping[int, str]
    count: int

    def members(self) -> dict[int, Member]:
        """{id of a weight: it, and the channel of each of its outputs}."""
        return self._members

    @functools.cached_property
    def _members(self):
        return {id(m.weight): m for rule in reversed(self.rules) for m in rule.members()}

    def offsets(self) -> dict[int, Member]:
        """The same of vectors that give a channel without weights a value nevertheless."""
        return {id(m.weight): m for rule in reversed(self.rules) for m in rule.offsets()}

    def variances(self) -> dict[int, Member]:
        """The same of the moving variances of batch normalisations."""
        return {id(m.weight): m for rule in reversed(self.rules) for m in rule.variances()}

    def scales(self) -> dict[int, Member]:
        """The same of what batch normalisations multiply by."""
        norms = [rule for rule in reversed(self.rules) if rule.variances()]
        return {id(m.weight): m for rule in norms for m in rule.scales()}

    def normalized(self) -> frozenset[int]:
        """Ids of the weights behind which channels are normalised, at once or farther on."""
        makers = [rule for rule in self.rules if self._is_normed_later(rule)]
        return frozenset(id(m.weight) for rule in makers for m in rule.members())

    def last_scales(self) -> frozenset[int]:
        """Ids of those `scales` behind which no other normalises the channel once more."""
        last: dict[bool, set[int]] = {True: set(), False: set()}
        for rule in self.rules:
            scales = rule.scales() if rule.variances() else []
            last[not self._is_normed_later(rule)].update(id(m.weight) for m in scales)
        return frozenset(last[True] - last[False])

    def _is_normed_later(self, rule):
        return not self._normed.isdisjoint(rule.call.outputs)

    @functools.cached_property
    def _normed(self):
        """Tensors that a batch normalisation reads, at once or channel by channel."""
        found: set[int] = set()
        for rule in reversed(self.rules):
            passes_on = rule.output is not None and not rule.makes_channels
            if rule.variances() or (passes_on and not found.isdisjoint(rule.call.outputs)):
                found.update(rule.call.inputs)
        return found

    def why_not(self, weight: keras.Variable) -> str | None:
        """Why the outputs of a weight can't be removed; None if they can."""
        member = self.members().get(id(weight))
        if member is None:
            return self._unseen(weight)
        found = (self.reasons.get(int(each)) for each in member.ids)
        return next((reason for reason in found if reason is not None), None)

    def _unseen(self, weight):
        for rule in self.rules:
            if any(weight is each for each in getattr(rule.layer, "weights", ())):
                if isinstance(rule, Opaque):
                    return f"'{rule.layer.name}' can't be seen through: {rule.reason}"
                return f"the outputs of '{rule.layer.name}' stay as they are"
        return "no call of its layer is to be seen"

    def without(self, fixed: Mapping[int, str]) -> Dependencies:
        """The same where the channels of some weights stay, too: {id of the weight: why}.

        A weight that keeps one of its channels keeps all.
        """
        reasons, members = dict(self.reasons), self.members()
        open_members, held = dict(members), dict(fixed)
        while held:
            for key, reason in held.items():
                member = open_members.pop(key, None)
                for each in () if member is None else member.ids:
                    reasons.setdefault(int(each), reason)
            held = {key: None for key, m in open_members.items() if reasons.keys() & set(m.ids)}
            held = {key: _first(reasons, open_members[key].ids) for key in held}
        return dataclasses.replace(self, reasons=reasons)

    def plan(self, stays: np.ndarray) -> Plan:
        """What to make of the model where only some ids stay; no tensor loses all channels.

        Args:
            stays: For each id, whether it stays. What can't be removed stays anyway.
        """
        stays = stays.copy()
        stays[list(self.reasons)] = True
        for rule in self.rules:
            # All that goes is 0, so that nothing of it is to be had from another channel.
            rule.needed_inputs = [
                None if x is None else np.zeros(len(x.ids), bool) for x in rule.inputs
            ]
        stays = completed(self.rules, stays)
        return Plan(
            list(self.rules), dict(self.channels), list(self.outputs), dict(self.entries), stays, {}
        )


def _first(reasons, ids):
    return next(reasons[int(each)] for each in ids if int(each) in reasons)


def dependencies(model: keras.Model) -> Dependencies:
    """The dependency groups of a built sequential or functional model.

    Example:

    >>> inputs = keras.Input((4,))
    >>> first = keras.layers.Dense(3, name="first")
    >>> second = keras.layers.Dense(3, name="second")
    >>> outputs = keras.layers.Dense(2, name="head")(first(inputs) + second(inputs))
    >>> found = dependencies(keras.Model(inputs, outputs))
    >>> ids = [found.members()[id(layer.kernel)].ids.tolist() for layer in (first, second)]
    >>> ids[0] == ids[1]
    True
    """
    graph = call_graph(model)
    ties = Ties()
    # With weights that are all 0, whatever reads a channel must read 0, or it would lose something.
    with Substituted(_zero):
        rules, channels, roots = followed(graph, ties, couple=True)
    reasons = dict.fromkeys(
        (int(roots[i]) for ids in ties.pinned for i in ids),
        "it is joined with channels that can't be removed",
    )
    for rule in rules:
        for ids, reason in _obstacles(rule):
            for each in ids:
                reasons.setdefault(int(each), reason)
    for number in graph.outputs:
        for each in () if channels[number] is None else channels[number].ids:
            reasons[int(each)] = "it is an output of the model"
    found = Dependencies(rules, channels, graph.outputs, graph.entries, reasons, len(ties))
    return found.without({})


def _zero(variable):
    return keras.ops.zeros(variable.shape, variable.dtype)


def _obstacles(rule: Rule):
    """Channels of its inputs that a call makes stay, each with the reason."""
    for x in rule.inputs:
        if x is None:
            continue
        if isinstance(rule, Opaque):
            yield x.ids, rule.why(known=False)
        elif rule.makes_channels:
            name = rule.layer.name
            yield (
                x.ids[~x.known | (x.value != 0)],
                f"'{name}' reads it, and it is not 0 without weights",
            )
