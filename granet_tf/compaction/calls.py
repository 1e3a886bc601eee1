"""The calls that a model makes, in order, with the models inside it laid open."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.models import Functional
from keras.src.ops.node import Node


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or of an operation of `keras.ops`.

    Attributes:
        node: The call in Keras's graph.
        tensors: The tensors that go in, but for masks.
        inputs: A number for each of them.
        outputs: A number for each tensor that comes out.
    """

    node: Node
    tensors: tuple[keras.KerasTensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

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
    def forced_training(self) -> bool:
        """Whether the model calls it as in training, at inference too."""
        return bool(self.node.arguments.kwargs.get("training"))

    @property
    def masked(self) -> bool:
        """Whether a mask says which positions count."""
        return self.node.arguments.kwargs.get("mask") is not None

    def run(self, values: list) -> Any:
        """Calls the operation at inference on these tensors, without a mask."""
        given = {id(x): v for x, v in zip(self.tensors, values, strict=True)}
        args, kwargs = self.node.arguments.fill_in(given)
        # Whatever a layer notes down while it runs is dropped.
        with keras.StatelessScope(collect_losses=True):
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
    kinds = {keras.Sequential.call: "_functional", Functional.call: "_nodes_by_depth"}
    return bool(getattr(operation, kinds.get(type(operation).call, ""), None))


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
    graph.outputs.extend(_walk(_functional(model), given, graph, number))
    return graph


def _functional(model):
    return getattr(model, "_functional", model)


def _walk(model, given: list[int], graph: CallGraph, number: Iterator[int]) -> list[int]:
    """Lists the calls of `model` on these tensors; returns its outputs."""
    numbers = {}
    for tensor, entering in zip(model.inputs, given, strict=True):
        numbers[id(tensor)] = entering
        graph.entries.setdefault(tensor._keras_history.operation, []).append(entering)
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if is_graph(node.operation) and all(map(_plain, node.operation._inbound_nodes)):
                inputs = [numbers[id(x)] for x in node.input_tensors]
                outputs = _walk(_functional(node.operation), inputs, graph, number)
            else:
                outputs = list(itertools.islice(number, len(node.outputs)))
                masks = {id(x) for x in keras.tree.flatten(node.arguments.kwargs.get("mask"))}
                tensors = tuple(x for x in node.input_tensors if id(x) not in masks)
                inputs = tuple(numbers[id(x)] for x in tensors)
                graph.calls.append(Call(node, tensors, inputs, tuple(outputs)))
            numbers |= {id(x): n for x, n in zip(node.outputs, outputs, strict=True)}
    return [numbers[id(tensor)] for tensor in model.outputs]


def _plain(node) -> bool:
    """Whether a model is called on nothing but its inputs, in the order in which it has them."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    if len(args) != 1 or any(x is not None for x in kwargs.values()):
        return False
    return _structure(args[0]) == _structure(_functional(node.operation).input)


def _structure(tensors):
    return keras.tree.lists_to_tuples(keras.tree.map_structure(lambda x: None, tensors))
