"""The random masks that training begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from granet_tf.masks.counts import units_of_each_to_keep
from granet_tf.masks.scopes import whole
from granet_tf.masks.units import Units, expanded, paths_of
from granet_tf.methods import sparsities
from granet_tf.methods.draws import seeds_of
from keras_layers.layouts import Layout

if TYPE_CHECKING:
    from granet_tf.methods.base import Method


def random_masks(
    method: Method, shapes: Mapping[str, tuple[int, ...]], layouts: Mapping[str, Layout]
) -> dict[str, tf.Tensor]:
    """See `Method.initial_masks`.

    Example:

    >>> masks = random_masks(granet_tf.RigL(0.75), {"kernel": (4, 4)}, {})
    >>> int(tf.math.count_nonzero(masks["kernel"]))
    4
    """
    own = [layouts.get(path, Layout()) for path in shapes]
    everything = [tf.ones(shape, tf.bool) for shape in shapes.values()]
    groups = Units.of(list(shapes), list(map(method.patterns_of, own)), everything, own)
    initial = sparsities.initial(method, {path: shapes[path] for path in paths_of(groups)}, layouts)
    if not any(initial.values()):
        return dict(zip(shapes, everything, strict=True))
    seeds = seeds_of(shapes, method.seed, 0)
    masks = []
    for units in groups:
        drawn = [
            tf.random.stateless_uniform(shape, seeds[entry.place], alg="philox")
            for entry, shape in zip(units.entries, units.parts.shapes, strict=True)
        ]
        wanted = tf.constant([initial[path] for path in units.paths], tf.float64)
        kept = whole(units, units_of_each_to_keep(units.capacities, wanted))
        masks.append(units.choose(units.parts.join(drawn), kept, units.active))
    return dict(zip(shapes, expanded(groups, masks), strict=True))
