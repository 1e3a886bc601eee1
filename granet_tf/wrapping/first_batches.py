"""The first batches of what `fit` is given, and arguments for `fit` that lack none of them."""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_layers.keras_internals import can_convert_arrays, class_weight_to_sample_weights

_DISTRIBUTED = (tf.distribute.DistributedDataset, tf.distribute.DistributedIterator)


class First(NamedTuple):
    """The first batches of `x`, and what gives all of `x` again."""

    batches: list[Any]
    x: Any


def of_fit(arguments: Mapping[str, Any], count: int, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """The batches by which a method chooses its masks, and arguments for `fit` as good as new.

    A data set, a PyDataset or a data loader begins anew for `fit`; a generator does not, so its
    batches are put in front of it. Of arrays, the batches are a random sample, as arrays are often
    sorted, without what `validation_split` sets aside.

    Args:
        arguments: {name: value} of the arguments of `keras.Model.fit`.
        count: How many batches; fewer come back where there are fewer.
        seed: Decides the sample.

    Returns:
        `(x, y, sample_weight)` tuples, with class weights in the sample weights; the arguments.

    Example:

    >>> def generator():
    ...     yield np.zeros((1, 4)), np.zeros(1)
    ...     yield np.ones((1, 4)), np.ones(1)
    >>> batches, arguments = of_fit({"x": generator(), "epochs": 1}, count=1, seed=0)
    >>> len(batches), [float(y[0]) for _, y in arguments["x"]]
    (1, [0.0, 1.0])
    """
    x, y, weights = (arguments.get(name) for name in ("x", "y", "sample_weight"))
    if can_convert_arrays((x, y, weights)):
        size = arguments.get("batch_size") or 32
        split = arguments.get("validation_split", 0.0)
        batches = _sample((x, y, weights), count, size, split, seed)
    else:
        batches, x = first(x, count)
    batches = [_weighted(batch, arguments.get("class_weight")) for batch in batches]
    return batches, {**arguments, "x": x}


@functools.singledispatch
def first(x: Any, count: int) -> First:
    """The first `count` batches of `x`, which can be iterated over more than once."""
    return First(list(itertools.islice(iter(x), count)), x)


@first.register
def _(x: types.GeneratorType, count):
    taken = list(itertools.islice(x, count))

    def again():  # Keras wants a generator.
        yield from taken
        yield from x

    return First(taken, again())


@first.register
def _(x: keras.utils.PyDataset, count):
    known = x.num_batches
    return First([x[i] for i in range(count if known is None else min(count, known))], x)


@first.register
def _(x: tf.distribute.DistributedDataset, count):
    return First(list(itertools.islice(merged(x), count)), x)


def merged(batches: Iterable[Any]) -> Iterator[Any]:
    """Batches of a distributed data set as one for all replicas here; others as they are.

    Under a strategy, to be called in its scope.
    """

    def whole(value):
        parts = tf.distribute.get_strategy().experimental_local_results(value)
        return tf.concat(parts, axis=0) if len(parts) > 1 else parts[0]

    distributed = isinstance(batches, _DISTRIBUTED)
    for batch in batches:
        yield tf.nest.map_structure(whole, batch) if distributed else batch


def _sample(arrays, count, batch_size, validation_split, seed):
    flat = [a for a in keras.tree.flatten(arrays) if a is not None]
    size = int(len(flat[0]) * (1.0 - validation_split))
    order = np.random.default_rng(seed).permutation(size)[: count * batch_size]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield keras.tree.map_structure(
            lambda a, chosen=chosen: None if a is None else np.asarray(a)[chosen], arrays
        )


def _weighted(batch, class_weight):
    batch = keras.tree.map_structure(_as_array, batch)
    if not class_weight:
        return batch
    x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    return x, y, class_weight_to_sample_weights(y, class_weight)


def _as_array(value):
    return value if value is None or tf.is_tensor(value) else np.asarray(value)
