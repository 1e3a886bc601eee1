"""The calls that a model makes, in order, with the models inside it laid open."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from granet_tf.compaction.values import Substituted
from keras_layers.keras_internals import (
    Functional,
    Node,
    functional_of,
    get_keras_mask,
    nodes_of,
    operation_of,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or of an operation of `keras.ops`.

    Attributes:
        node: The call in Keras's graph.
        tensors: The tensors that go in, but for masks.
        inputs: A number for each of them.
        outputs: A number for each tensor that comes out.
        forced_training: Whether the model calls it as in training, at inference too.
        closed: Why a model that is called here is not laid open; None for anything else.
    """

    node: Node
    tensors: tuple[keras.KerasTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    forced_training: bool = False
    closed: str | None = None

    @property
    def operation(self) -> Any:
        """The layer, or operation."""
        return self.node.operation

    @property
    def input_shapes(self) -> list[tuple]:
        """Shapes of the inputs, with the batch dimension."""
        return [tuple(tensor.shape) for tensor in self.tensors]

    @property
    def output_shape(self) -> tuple:
        """Shape of the first output, with the batch dimension."""
        return tuple(self.node.outputs[0].shape)

    @property
    def masked(self) -> bool:
        """Whether a mask says which positions count."""
        return self.node.arguments.kwargs.get("mask") is not None

    @property
    def on_masked_tensors(self) -> bool:
        """Whether a mask is attached to a tensor that goes in, which some layers look for there."""
        return any(get_keras_mask(x) is not None for x in self.tensors)

    def run(self, values: list) -> Any:
        """Calls the operation at inference on these tensors, without a mask."""
        given = {id(x): v for x, v in zip(self.tensors, values, strict=True)}
        args, kwargs = self.node.arguments.fill_in(given)
        kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        with Substituted():  # Whatever a layer notes down while it runs is dropped.
            return self.operation(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class CallGraph:
    """All calls of a model.

    Attributes:
        calls: In an order in which they can be made.
        outputs: Numbers of the model's outputs.
        entries: For each input layer of each model inside, the tensors that enter there: one for
            each call of that model.
    """

    calls: list[Call]
    outputs: list[int]
    entries: dict[keras.Layer, list[int]]

    def called(self) -> Counter:
        """How often each operation is called."""
        return Counter(call.operation for call in self.calls)


def is_graph(operation: Any) -> bool:
    """Whether this is a sequential or functional model, and computes as Keras has it.

    Example:

    >>> is_graph(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    True
    >>> is_graph(keras.layers.Dense(1))
    False
    """
    as_keras_has_it = type(operation).call in (keras.Sequential.call, Functional.call)
    return as_keras_has_it and functional_of(operation) is not None


def call_graph(model: keras.Model) -> CallGraph:
    """The calls of a sequential or functional model.

    Example:

    >>> inner = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="inner")])
    >>> model = keras.Sequential([keras.Input((2,)), inner, keras.layers.ReLU(name="relu")])
    >>> [call.operation.name for call in call_graph(model).calls]
    ['inner', 'relu']
    """
    graph, number = CallGraph([], [], {}), itertools.count()
    given = list(itertools.islice(number, len(model.inputs)))
    walk = _Walk(graph, number, _closed(model))
    graph.outputs.extend(walk.through(model, given, training=None))
    return graph


@dataclasses.dataclass(frozen=True)
class _Walk:
    """Lists calls.

    Attributes:
        graph: Where they go.
        number: Numbers for tensors.
        closed: Which models inside stay closed, and why.
    """

    graph: CallGraph
    number: Iterator[int]
    closed: Mapping[Any, str]

    def through(self, model: Any, given: list[int], training: bool | None) -> list[int]:
        """Lists the calls of `model` on these tensors; returns its outputs.

        `training` is what `model` is called with, which Keras passes on to all that it calls.
        """
        model, numbers = functional_of(model), {}
        for tensor, entering in zip(model.inputs, given, strict=True):
            numbers[id(tensor)] = entering
            self.graph.entries.setdefault(operation_of(tensor), []).append(entering)
        for node in nodes_of(model):
            flag = node.arguments.kwargs.get("training") if training is None else training
            if is_graph(node.operation) and node.operation not in self.closed:
                inputs = [numbers[id(x)] for x in node.input_tensors]
                outputs = self.through(node.operation, inputs, flag)
            else:
                outputs = self._listed(node, numbers, flag)
            numbers |= {id(x): n for x, n in zip(node.outputs, outputs, strict=True)}
        return [numbers[id(tensor)] for tensor in model.outputs]

    def _listed(self, node, numbers: dict[int, int], training: bool | None) -> list[int]:
        outputs = list(itertools.islice(self.number, len(node.outputs)))
        masks = {id(x) for x in keras.tree.flatten(node.arguments.kwargs.get("mask"))}
        tensors = tuple(x for x in node.input_tensors if id(x) not in masks)
        inputs = tuple(numbers[id(x)] for x in tensors)
        closed = self.closed.get(node.operation)
        self.graph.calls.append(Call(node, tensors, inputs, tuple(outputs), bool(training), closed))
        return outputs


def _closed(model) -> dict[Any, str]:
    """{model inside: why it cannot be laid open}, by all calls that `model` makes of it."""
    found = {}
    for node in nodes_of(functional_of(model)):
        if is_graph(node.operation):
            found |= _closed(node.operation)
            reason = _why_closed(node)
            if reason is not None:
                found[node.operation] = reason
    return found


def _why_closed(node) -> str | None:
    """Why a model that is called here cannot be laid open; None if it can.

    It must be called on nothing but its inputs, as it has them. Keywords that are None say nothing,
    and `training` is for the layers inside.
    """
    bound = inspect.signature(node.operation.call).bind(
        *node.arguments.args, **node.arguments.kwargs
    )
    given = {**bound.arguments, **bound.arguments.get("kwargs", {})}
    inputs = given["inputs"]
    for name in sorted(given.keys() - {"inputs", "training", "kwargs"}):
        if any(x is not None for x in keras.tree.flatten(given[name])):
            return f"it is called with `{name}`"
    if _structure(inputs) != _structure(functional_of(node.operation).input):
        return "it is called on its inputs in another structure than it has them in"
    return None


def _structure(tensors):
    """Where the tensors are; an input that is left out is none."""
    where = keras.tree.map_structure(lambda x: x is not None, tensors)
    return keras.tree.lists_to_tuples(where)
