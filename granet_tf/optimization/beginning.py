"""Where sparse training begins: at which iteration of an optimizer that may have trained before."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence

import keras
import tensorflow as tf

from granet_tf.optimization.groups import Group
from keras_layers.masking import some_are_dormant


@dataclasses.dataclass(frozen=True)
class _Begun:
    """Where sparse training began with an optimizer: at which iteration, and of which model.

    No model is one from a file, which is to be bound to the model that it trains.
    """

    iteration: int
    model: weakref.ref | None


# By the user's optimizer, which may be compiled anew with the same model, with or without the
# SparseOptimizer around it, and goes on then.
_BEGUN: weakref.WeakKeyDictionary[keras.optimizers.Optimizer, _Begun] = weakref.WeakKeyDictionary()


def begin_of(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, groups: Sequence[Group]
) -> int:
    """The iteration of `optimizer` at which sparse training of `model` began, or begins now.

    Args:
        optimizer: The user's own.
        model: What it trains.
        groups: The masks of `model`.

    Example:

    >>> sgd, model = keras.optimizers.SGD(), keras.Sequential()
    >>> _ = sgd.iterations.assign(7)
    >>> begin_of(sgd, model, [])
    7
    """
    begun = _BEGUN.get(optimizer)
    if begun is not None and (begun.model is None or begun.model() is model):
        iteration = begun.iteration
    else:
        # One that has been restored before it came here has pruned already.
        iteration = 0 if any(map(_has_pruned, groups)) else count_of(optimizer)
    _BEGUN[optimizer] = _Begun(iteration, weakref.ref(model))
    return iteration


def _has_pruned(group: Group) -> bool:
    """Whether masks that are dense at first are not any more."""
    return group.method().initial_sparsity == 0.0 and some_are_dormant(group.pruned)


def begin_as_saved(optimizer: keras.optimizers.Optimizer, iteration: int) -> None:
    """Lets sparse training with `optimizer`, which is from a file, have begun at `iteration`."""
    _BEGUN[optimizer] = _Begun(iteration, None)


def count_of(optimizer: keras.optimizers.Optimizer) -> int:
    """Number of finished updates, also while a graph is traced."""
    with tf.init_scope():
        return int(optimizer.iterations.numpy())
