"""A functional model that rounds where an int8 file rounds, made of a plain one's graph.

LiteRT fuses a normalization and a ReLU into the operation before them, keeps one scale through
pooling and reshaping, and one for all that is concatenated. Here the same is rounded, and as often.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable

import keras
from keras import layers

from granet_tf.compaction.calls import Call, CallGraph, call_graph
from granet_tf.int8.activations import RANGES, activation_name, function_name
from granet_tf.int8.kernels import KERNELS, kernel_of
from granet_tf.int8.layers import FUSED, FakeQuantized, FakeQuantizedNormalization
from granet_tf.int8.ranges import FakeQuantize
from keras_layers.keras_internals import (
    Relu,
    Relu6,
    functional_of,
    numpy_operations,
    operation_of,
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of a call.

    Attributes:
        emit: (simulation, call): makes the layers, and tells the simulation what comes out.
        obstacle: call -> why it cannot be, or None.
        keeps_scale: Whether outputs are some of the values that go in.
    """

    emit: Callable[[Simulation, Call], None]
    obstacle: Callable[[Call], str | None] = lambda call: None
    keeps_scale: bool = False


class Simulation:
    """The new graph while it is being made.

    Args:
        graph: The calls of the plain model.
        momentum: Of each `FakeQuantize`.

    Attributes:
        tensors: {number in `graph`: the tensor in the new graph}.
        ranges: {the same number: what has rounded it}.
    """

    def __init__(self, graph: CallGraph, momentum: float):
        self.graph = graph
        self.momentum = momentum
        self.tensors: dict[int, keras.KerasTensor] = {}
        self.ranges: dict[int, FakeQuantize] = {}
        self._names: set[str] = set()
        self._readers: dict[int, list[Call]] = defaultdict(list)
        for call in graph.calls:
            for number in call.inputs:
                self._readers[number].append(call)

    def inputs(self, call: Call) -> list[keras.KerasTensor]:
        """What goes into `call`, in the new graph."""
        return [self.tensors[number] for number in call.inputs]

    def only_reader(self, number: int) -> Call | None:
        """The call that reads a tensor, if nothing else does and it is no output of the model."""
        readers = self._readers[number]
        return readers[0] if len(readers) == 1 and number not in self.graph.outputs else None

    def fused_activation(self, number: int) -> tuple[str, int]:
        """A ReLU that nothing separates from a tensor, by name, and the tensor behind it."""
        reader = self.only_reader(number)
        name = reader and activation_name(reader.operation)
        return (name, reader.outputs[0]) if name in FUSED else ("linear", number)

    def name(self, wanted: str) -> str:
        """`wanted`, or that with a number: layers of models inside may be called alike."""
        taken = sum(name == wanted or name.startswith(f"{wanted}__") for name in self._names)
        name = f"{wanted}__{taken + 1}" if taken else wanted
        self._names.add(name)
        return name

    def own(self, layer: keras.Layer) -> keras.Layer:
        """A layer without weights for the new graph: the same, or a copy where its name is taken.

        Layers keep their graphs, so that one that is called twice here would be shared.
        """
        name = self.name(layer.name)
        if name == layer.name:
            return layer
        return type(layer).from_config(layer.get_config() | {"name": name})

    def round(
        self,
        number: int,
        tensor: keras.KerasTensor,
        source: str,
        fixed: tuple[float, float] | None = None,
    ) -> None:
        """Makes `tensor`, rounded, what `number` is; not rounded if what reads it rounds instead.

        Args:
            number: In the plain graph.
            tensor: In the new one.
            source: Name of what it comes from.
            fixed: Its range, where that is given.
        """
        self.tensors[number] = tensor
        if fixed is None and self._is_joined(number):
            return
        layer = FakeQuantize(self.momentum, fixed, name=self.name(f"range_{source}"))
        self.ranges[number] = layer
        self.tensors[number] = layer(tensor)

    def activate(self, number: int, tensor: keras.KerasTensor, name: str, source: str) -> None:
        """Rounds `tensor`, and what an activation that is not fused makes of it."""
        before = FakeQuantize(self.momentum, name=self.name(f"range_{source}"))(tensor)
        after = layers.Activation(name, name=self.name(f"{source}_{name}"))(before)
        self.round(number, after, f"{source}_{name}", RANGES[name])

    def fuse(self, *numbers: int) -> None:
        """Says that these tensors are inside of one operation."""
        self.tensors |= dict.fromkeys(numbers)

    def _is_joined(self, number: int) -> bool:
        """Whether a tensor goes nowhere but into a concatenation, which has one scale for all."""
        reader = self.only_reader(number)
        if reader is None:
            return False
        rule = RULES.get(type(reader.operation))
        return rule is _JOIN or (
            rule is not None and rule.keeps_scale and self._is_joined(reader.outputs[0])
        )


def simulated(model: keras.Model, momentum: float = 0.99) -> keras.Model:
    """A functional model with the weights of `model`, which rounds as an int8 file does.

    Args:
        model: A built sequential or functional model.
        momentum: See `FakeQuantize`.

    Raises:
        ValueError: If a layer is none of those that can be rounded; all are named.

    Example:

    >>> layers = [keras.Input((8,), name="x"), keras.layers.Dense(4, name="dense")]
    >>> [layer.name for layer in simulated(keras.Sequential(layers)).layers]
    ['x', 'range_x', 'fake_quantized_dense', 'range_dense']
    """
    check_known(model)
    graph = call_graph(model)
    simulation = Simulation(graph, momentum)
    plain = functional_of(model)
    inputs = [_input(tensor, simulation.name) for tensor in plain.inputs]
    for number, (given, tensor) in enumerate(zip(plain.inputs, inputs, strict=True)):
        simulation.round(number, tensor, operation_of(given).name)
    for call in graph.calls:
        # What was fused into an earlier call is there already.
        if call.outputs[0] not in simulation.tensors:
            _rule_of(call).emit(simulation, call)
    outputs = [simulation.tensors[number] for number in graph.outputs]
    return keras.Model(
        keras.tree.pack_sequence_as(plain.input, inputs),
        keras.tree.pack_sequence_as(plain.output, outputs),
        name=model.name,
    )


def _input(tensor, name):
    own = name(operation_of(tensor).name)
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=own)


def check_known(model: keras.Model) -> None:
    """Raises a ValueError that names all in `model` that cannot be rounded.

    Args:
        model: A built sequential or functional model.

    Example:

    >>> layers = [keras.Input((2, 3)), keras.layers.GRU(4, name="gru")]
    >>> try:
    ...     check_known(keras.Sequential(layers))
    ... except ValueError as error:
    ...     print(str(error).partition("Received: ")[2])
    'gru' (GRU): not known
    """
    graph = call_graph(model)
    reasons = [
        f"input {operation_of(tensor).name!r} of {tensor.dtype}"
        for tensor in functional_of(model).inputs
        if tensor.dtype != "float32"
    ]
    times = graph.called()
    for call in graph.calls:
        reason = _why_not(call, times[call.operation])
        if reason is not None:
            operation = call.operation
            reasons.append(f"{operation.name!r} ({type(operation).__name__}): {reason}")
    if reasons:
        kinds = sorted({kind.__name__ for kind in RULES if issubclass(kind, keras.Layer)})
        raise ValueError(
            "Each layer must be one that is known to compute in int8 as it is simulated: "
            f"{', '.join(kinds)}. Received: {'; '.join(dict.fromkeys(reasons))}"
        )


def _why_not(call: Call, times: int) -> str | None:
    rule = RULES.get(type(call.operation))
    if rule is None:
        return "not known"
    if call.closed is not None:
        return call.closed
    if call.forced_training:
        return "called with training=True"
    if call.masked or call.on_masked_tensors:
        return "called with a mask"
    if times > 1 and getattr(call.operation, "weights", ()):
        return f"called {times} times"
    return rule.obstacle(call)


def _rule_of(call: Call) -> Rule:
    return RULES[type(call.operation)]


# What may not be.


def _kernel_obstacle(call):
    layer = call.operation
    name = function_name(layer.activation)
    if name not in RANGES:
        return f"activation {layer.activation!r}"
    return kernel_of(layer).obstacle(layer, call.input_shapes)


def _normalization_obstacle(call):
    axis, rank = call.operation.axis, len(call.output_shape)
    if axis not in (-1, rank - 1):
        return f"axis={axis}"
    if getattr(call.operation, "renorm", False):  # Keras has it from 3.14 on.
        return "renorm=True"
    return None if rank <= 4 else f"on inputs of {rank} axes"


def _activation_obstacle(call):
    return None if activation_name(call.operation) else "an activation that is not known"


def _sum_obstacle(call):
    shapes = call.input_shapes
    alike = len(shapes) == 2 and len(shapes[0]) == len(shapes[1])
    if not alike or any(a != b and 1 not in (a, b) for a, b in zip(*shapes, strict=True)):
        return f"of other than two tensors of shapes that fit: {shapes}"
    return None


def _channels_last(call):
    last = getattr(call.operation, "data_format", "channels_last") == "channels_last"
    return None if last else "data_format='channels_first'"


# What becomes of it.


def _kernel(simulation, call):
    layer, number = call.operation, call.outputs[0]
    activation, normalization = function_name(layer.activation), None
    if activation == "linear":
        reader = simulation.only_reader(number)
        if reader is not None and _rule_of(reader) is _NORMALIZATION:
            simulation.fuse(number)
            normalization, number = reader.operation, reader.outputs[0]
        activation, after = simulation.fused_activation(number)
        simulation.fuse(number)
        number = after
    fused = activation if activation in FUSED else "linear"
    name = simulation.name(f"fake_quantized_{layer.name}")
    [x] = simulation.inputs(call)
    y = FakeQuantized(layer, normalization, fused, name=name)(x)
    if activation == fused:
        simulation.round(number, y, layer.name)
    else:
        simulation.activate(number, y, activation, layer.name)


def _normalization(simulation, call):
    layer = call.operation
    activation, number = simulation.fused_activation(call.outputs[0])
    simulation.fuse(call.outputs[0])
    name = simulation.name(f"fake_quantized_{layer.name}")
    [x] = simulation.inputs(call)
    y = FakeQuantizedNormalization(layer, activation, name=name)(x)
    simulation.round(number, y, layer.name)


def _activation(simulation, call):
    [x], name = simulation.inputs(call), activation_name(call.operation)
    if name == "linear":
        return _kept(simulation, call)
    source = call.operation.name
    layer = layers.Activation(name, name=simulation.name(source))
    return simulation.round(call.outputs[0], layer(x), source, RANGES[name])


def _kept(simulation, call):
    [x], number = simulation.inputs(call), call.outputs[0]
    simulation.tensors[number] = simulation.own(call.operation)(x)
    if call.inputs[0] in simulation.ranges:
        simulation.ranges[number] = simulation.ranges[call.inputs[0]]


def _averaged(simulation, call):
    _kept(simulation, call)
    number = call.outputs[0]
    again = simulation.ranges[number]
    simulation.tensors[number] = again(simulation.tensors[number], follow=False)


def _measured(simulation, call):
    [x] = simulation.inputs(call)
    layer = simulation.own(call.operation)
    simulation.round(call.outputs[0], layer(x), layer.name)


def _sum_by(kind):
    def emit(simulation, call):
        source = call.operation.name
        y = kind(name=simulation.name(source))(simulation.inputs(call))
        activation, number = simulation.fused_activation(call.outputs[0])
        simulation.fuse(call.outputs[0])
        if activation != "linear":
            y = layers.Activation(activation, name=simulation.name(f"{source}_{activation}"))(y)
        simulation.round(number, y, source)

    return Rule(emit, _sum_obstacle)


def _joined(simulation, call):
    layer = simulation.own(call.operation)
    simulation.round(call.outputs[0], layer(simulation.inputs(call)), layer.name)


_KERNEL = Rule(_kernel, _kernel_obstacle)
_NORMALIZATION = Rule(_normalization, _normalization_obstacle)
_ACTIVATION = Rule(_activation, _activation_obstacle)
_KEEP = Rule(_kept, _channels_last, keeps_scale=True)
_AVERAGE = Rule(_averaged, _channels_last)
_MEASURE = Rule(_measured, _channels_last)
_JOIN = Rule(_joined)

RULES: dict[type, Rule] = {
    **dict.fromkeys((kind for row in KERNELS for kind in row.classes), _KERNEL),
    layers.BatchNormalization: _NORMALIZATION,
    **dict.fromkeys(
        (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.Softmax, Relu, Relu6),
        _ACTIVATION,
    ),
    **dict.fromkeys(
        (
            *(layers.MaxPooling1D, layers.MaxPooling2D),
            *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D),
            *(layers.Flatten, layers.Reshape, layers.Permute, layers.Identity),
            *(layers.ZeroPadding1D, layers.ZeroPadding2D),
            *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D),
        ),
        _KEEP,
    ),
    **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D), _AVERAGE),
    **dict.fromkeys((layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D), _MEASURE),
    **dict.fromkeys((layers.Add, numpy_operations.Add), _sum_by(layers.Add)),
    **dict.fromkeys((layers.Subtract, numpy_operations.Subtract), _sum_by(layers.Subtract)),
    **dict.fromkeys((layers.Multiply, numpy_operations.Multiply), _sum_by(layers.Multiply)),
    layers.Concatenate: _JOIN,
}
"""By the very class: a subclass may compute something else."""
