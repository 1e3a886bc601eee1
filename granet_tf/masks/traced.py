"""Functions of TensorFlow that are traced once, and that the step around them does not look into.

What is in the graph of a training step is traced, inferred and optimised before the first step is
done, and a user waits for it. So what a mask update does stands in functions of its own: traced
once for all weights that are alike, and optimised when they first run.

The private parts of TensorFlow that this needs were read in version 2.21.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

_NOT_INLINED = {"_noinline": True}


def is_compiled() -> bool:
    """Whether what is traced now is for XLA."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def shared(*signature) -> Callable:
    """Makes a function one that is traced once for all, and once more for XLA.

    Args:
        *signature: (shape, type) of each argument, a tensor. The shape None is any.

    Example:

    >>> @shared(([None], tf.float32))
    ... def doubled(values):
    ...     return 2.0 * values
    >>> doubled(tf.constant([1.0, 3.0])).numpy().tolist()
    [2.0, 6.0]
    """

    def make(function):
        @functools.cache
        def traced_once(compiled):
            del compiled
            return tf.function(
                function,
                input_signature=[tf.TensorSpec(shape, dtype) for shape, dtype in signature],
                autograph=False,
                experimental_attributes=_NOT_INLINED,
            )

        @functools.wraps(function)
        def call(*args):
            with _closed():
                return traced_once(is_compiled())(*args)

        return call

    return make


def by_itself(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, in graphs one that is optimised when it first runs, not with the step around it.

    Example:

    >>> by_itself(print)("now")
    now
    """

    def call(*args):
        if tf.executing_eagerly() or is_compiled():  # XLA compiles the step as a whole.
            return function(*args)
        traced = tf.function(
            lambda: function(*args), autograph=False, experimental_attributes=_NOT_INLINED
        )
        with _closed():
            return traced()

    return call


@contextlib.contextmanager
def _closed() -> Iterator[None]:
    """Shapes are not inferred through calls that are made here, anew for each call and pass."""
    if tf.executing_eagerly():
        yield
        return
    graph = tf.compat.v1.get_default_graph()
    with graph._attr_scope({"_disable_call_shape_inference": AttrValue(b=True)}):
        yield
