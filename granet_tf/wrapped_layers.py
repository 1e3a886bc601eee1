"""What the settings of a `PruneLowMagnitude` layer mean, which itself knows no methods."""

from __future__ import annotations

from granet_tf.masks.patterns import NM, Block, Element
from granet_tf.methods import GMP
from granet_tf.schedules import AtSparsity, ConstantSparsity, as_schedule
from keras_layers.prune_low_magnitude import PruneLowMagnitude, register_methods

DEFAULT_SCHEDULE = ConstantSparsity(0.5, 0)  # tfmot's.


def method_of(layer: PruneLowMagnitude) -> GMP:
    """The method that updates the masks of `layer`.

    Example:

    >>> layer = PruneLowMagnitude(keras.layers.Dense(2), DEFAULT_SCHEDULE, block_size=(4, 1))
    >>> method_of(layer).pattern
    Block(size=(4, 1), pooling='avg', axes=None)
    """
    if layer.pattern is not None:
        return _gmp(layer.pruning_schedule, layer.pattern)
    if layer.sparsity_m_by_n:
        zeros, size = layer.sparsity_m_by_n
        schedule = ConstantSparsity(zeros / size, begin_step=0, end_step=0)
        if layer.reselect:
            schedule = AtSparsity(as_schedule(layer.pruning_schedule), zeros / size)
        return _gmp(schedule, NM(size - zeros, size))
    whole = layer.block_size != (1, 1)
    pattern = Block(layer.block_size, layer.block_pooling_type.lower()) if whole else Element()
    return _gmp(layer.pruning_schedule, pattern)


def _gmp(schedule, pattern):
    # As in tfmot, all weights of a layer are as sparse.
    return GMP(schedule=schedule, pattern=pattern, distribution="uniform")


register_methods(method_of, DEFAULT_SCHEDULE)
