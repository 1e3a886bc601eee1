"""What belongs to channels: held where they are pruned, begun where they are grown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from granet_tf.methods.draws import normal
from granet_tf.methods.records import Snapshot, Updated
from granet_tf.optimization.groups import Group
from granet_tf.optimization.replicas import replicas
from granet_tf.optimization.variables import assign, read

# Size of the weights of a filter that begins, relative to those that go on.
_BEGINS_WITH = 0.1


def begin_channels(
    group: Group,
    own: Callable,
    seeded: Sequence[tuple[Snapshot, tf.Tensor]],
    updates: Sequence[Updated],
) -> None:
    """What channels begin with that have just been grown.

    Args:
        group: The weights, whose new masks are assigned.
        own: From a distributed value to that of one replica.
        seeded: The weights as they were before the update, each with a seed of its own.
        updates: What the update has made of them.
    """
    fresh = {}
    for pruned, (old, seed), new in zip(group.pruned, seeded, updates, strict=True):
        mask, survivors = (tf.reshape(each, old.mask.shape) for each in (new.mask, new.survivors))
        fresh[id(pruned.variable)] = grown = mask & ~(old.mask if group.mask_only else survivors)
        if id(pruned.variable) in group.held.normalized and not group.mask_only:
            # Not 0, by whose variance the batch normalisation behind would divide; but small, so
            # that what has just been grown is dropped before what is established.
            seed += tf.constant([0, 2**29])
            size = _BEGINS_WITH * _root_mean_square(old.weight, survivors)
            drawn = normal(old.weight, seed) * size
            variable = own(pruned.variable.value)
            assign(variable, tf.where(grown, drawn, read(variable)))
    group.held.begin(own, fresh, rescale=not group.mask_only)


def _root_mean_square(values, chosen):
    chosen = tf.cast(chosen, values.dtype)
    return tf.sqrt(tf.math.divide_no_nan(tf.reduce_sum(values**2 * chosen), tf.reduce_sum(chosen)))


def hold_channels(strategy: tf.distribute.Strategy, group: Group) -> None:
    """Holds what belongs to channels that are pruned, at nearly zero while they may be grown.

    Example:

    >>> from granet_tf.optimization.groups import groups_of
    >>> layers = [keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)]
    >>> model = granet_tf.wrap(
    ...     keras.Sequential(layers), granet_tf.StaticSparse(0.5, pattern="coupled_filter")
    ... )
    >>> bias = model.model.layers[0].bias
    >>> _ = bias.assign([1.0, 1.0])
    >>> [group] = groups_of(model)
    >>> hold_channels(tf.distribute.get_strategy(), group)
    >>> [round(float(value), 6) for value in sorted(bias.numpy())]
    [1e-06, 1.0]
    """
    for own in replicas(strategy, group.pruned[0].variable.value) if group.held else ():
        group.held.hold(own)
