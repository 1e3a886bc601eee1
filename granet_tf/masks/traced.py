"""Functions of TensorFlow that are traced once, and that the step around them does not look into.

What is in the graph of a training step is traced, inferred and optimised before the first step is
done, and a user waits for it. So what a mask update does stands in functions of its own: traced
once for all weights that are alike, and optimised when they first run.

The private parts of TensorFlow that this needs were read in version 2.21.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue, NameAttrList
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.function.polymorphism.function_type import FunctionType
from tensorflow.python.eager.context import context
from tensorflow.python.eager.polymorphic_function.atomic_function import (
    AtomicFunction,
    from_func_graph,
)
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph, func_graph_from_py_func
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

NOT_INLINED = {"_noinline": True}


def is_compiled() -> bool:
    """Whether what is traced now is for XLA."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def shared(*signature) -> Callable:
    """Makes a function one that is traced once for all. It is not for XLA, see `bisection`.

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
        def traced_once():
            return tf.function(
                function,
                input_signature=[tf.TensorSpec(shape, dtype) for shape, dtype in signature],
                autograph=False,
                experimental_attributes=NOT_INLINED,
            )

        @functools.wraps(function)
        def call(*args):
            with _closed():
                return traced_once()(*args)

        return call

    return make


def by_itself(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, in graphs one that is optimised when it first runs, not with the step around it.

    Example:

    >>> by_itself(print)("now")
    now
    """

    def call(*args):
        # XLA compiles the step as a whole.
        if tf.executing_eagerly() or is_compiled() or _is_apart():
            return function(*args)
        traced = tf.function(
            lambda: function(*args), autograph=False, experimental_attributes=NOT_INLINED
        )
        with _closed():
            return traced()

    return call


def when(condition: tf.Tensor, function: Callable[[], object], *, apart: bool) -> None:
    """Calls `function` if the condition holds, a boolean scalar.

    Args:
        condition: The condition.
        function: Takes nothing.
        apart: Whether all that it uses is on one device. In graphs, the condition is then one
            operation; else it is `tf.cond`, which is taken apart into one for each tensor used.

    Example:

    >>> when(tf.constant(True), lambda: print("now"), apart=True)
    now
    """

    def run():
        function()  # And nothing that it returns.

    if tf.executing_eagerly() or is_compiled() or not apart:
        tf.cond(condition, run, lambda: None)
        return
    graph = func_graph_from_py_func("", run, (), {}, func_graph=FuncGraph(_APART))
    inputs = [outer for outer, _ in graph.captures]
    attributes = {name: AttrValue(b=value) for name, value in NOT_INLINED.items()}
    called = from_func_graph(f"__{_APART}_{ops.uid()}", graph, attributes)
    branches = {"then_branch": _branch(inputs, called), "else_branch": _branch(inputs)}
    with _closed():
        tf.raw_ops.If(cond=condition, input=inputs, Tout=[], **branches)


_APART = "granet_tf_apart"


def _is_apart():
    return getattr(tf.compat.v1.get_default_graph(), "name", None) == _APART


def _branch(inputs: Sequence[tf.Tensor], called: AtomicFunction | None = None) -> NameAttrList:
    """A function of these inputs, added to the graph: it calls another with them, or does nothing.

    Written, as tracing takes long for each of the inputs.
    """
    definition = FunctionDef()
    signature = definition.signature
    signature.name = f"__{_APART}_branch_{ops.uid()}"
    types = [tensor.dtype.as_datatype_enum for tensor in inputs]
    for i, type in enumerate(types):
        signature.input_arg.add(name=f"x{i}", type=type)
    if called is not None:
        signature.is_stateful = True
        signature.control_output.append("call")
        definition.control_ret["call"] = "call"
        call = definition.node_def.add(name="call", op="StatefulPartitionedCall")
        call.input.extend(f"x{i}" for i in range(len(inputs)))
        call.attr["Tin"].list.type.extend(types)
        call.attr["Tout"].list.SetInParent()
        call.attr["f"].func.name = called.name.decode()
        options = context().function_call_options
        call.attr["config_proto"].s = options.config_proto_serialized
    context().add_function_def(definition)
    branch = AtomicFunction(signature.name, context(), FunctionType([]), [called] if called else [])
    ops.get_default_graph()._add_function_recursive(branch)
    return NameAttrList(name=signature.name)


@contextlib.contextmanager
def _closed() -> Iterator[None]:
    """Shapes are not inferred through calls that are made here, anew for each call and pass."""
    if tf.executing_eagerly():
        yield
        return
    graph = tf.compat.v1.get_default_graph()
    with graph._attr_scope({"_disable_call_shape_inference": AttrValue(b=True)}):
        yield
