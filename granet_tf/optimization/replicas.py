"""The replicas of a strategy: what is each one's own, and what is summed over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from granet_tf.methods.records import Snapshot
from granet_tf.optimization.groups import Group
from granet_tf.optimization.variables import read


def replicas(strategy: tf.distribute.Strategy, variable: tf.Variable) -> list[Callable]:
    """A function for each replica that runs here, from a distributed value to the replica's own.

    Example:

    >>> variable = tf.Variable(1.0)
    >>> [own(variable) is variable for own in replicas(tf.distribute.get_strategy(), variable)]
    [True]
    """
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return [lambda value: value]  # One program, which every core runs.
    local = strategy.experimental_local_results
    return [lambda value, i=i: local(value)[i] for i in range(len(local(variable)))]


def summed(
    strategy: tf.distribute.Strategy, group: Group, gradients: Mapping[int, tf.Tensor]
) -> dict[int, tf.Tensor]:
    """{id of a weight: its gradient}, summed over replicas; nothing of nothing."""
    if not gradients:
        return {}
    pairs = [(gradients[id(p.variable)], p.variable.value) for p in group.pruned]
    totals = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
    return {id(p.variable): total for p, total in zip(group.pruned, totals, strict=True)}


def snapshots(group: Group, own: Callable, gradients: Mapping[int, tf.Tensor]) -> list[Snapshot]:
    """One replica's weights and what belongs to them."""
    return [
        Snapshot(
            p.path,
            read(own(p.variable.value)),
            read(own(p.mask.value)),
            own(gradients[id(p.variable)]) if gradients else None,
            {name: read(own(v.value)) for name, v in p.state.items()},
            p.layout,
            None if p.scale is None else read(own(p.scale.value)),
        )
        for p in group.pruned
    ]
