"""What pruning weights to a sparsity at once would leave of them."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from granet_tf.methods import GMP
from granet_tf.methods.records import shaped
from granet_tf.optimization.groups import Group
from granet_tf.schedules import ConstantSparsity
from granet_tf.wrapping.states import snapshot

_SETTINGS = ("scope", "distribution", "pinned", "capped", "pattern")


def masks_at(group: Group, sparsity: float, *, is_final: bool = False) -> list[tf.Tensor]:
    """Masks of a group's weights, pruned by magnitude from what is active now.

    Args:
        group: The weights; their method says how the sparsity is shared out.
        sparsity: Fraction of zeros.
        is_final: Whether training is to end with it; else it is on the way from the method's
            initial sparsity to its final one, where a distribution may share it out otherwise.

    Example:

    >>> import granet_tf
    >>> from granet_tf.optimization.groups import groups_of
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    >>> [group] = groups_of(granet_tf.wrap(model))
    >>> [int(tf.math.count_nonzero(mask)) for mask in masks_at(group, 0.75)]
    [4]
    """
    method = group.method()
    initial, final = method.initial_sparsity, method.final_sparsity
    pruning = GMP(
        schedule=ConstantSparsity(sparsity, 0),
        initial_sparsity=0.0 if is_final else initial,
        final_sparsity=sparsity if is_final else final,
        **{name: getattr(method, name) for name in _SETTINGS},
    )
    before = [
        dataclasses.replace(snapshot(p), mask=tf.convert_to_tensor(group.active(p)))
        for p in group.pruned
    ]
    after = pruning.update(tf.constant(0), before, dormant_compete=False)
    return [each.mask for each in shaped(after, before)]
