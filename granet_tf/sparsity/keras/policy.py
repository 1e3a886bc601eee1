"""Pruning policies: which layers of a model are pruned, and whether the model is fit for that."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable

import keras
from keras import layers

from granet_tf.graphs import rebuilt
from keras_layers.keras_internals import (
    Functional,
    functional_of,
    nodes_of,
    operation_of,
    run_through,
)
from keras_layers.prune_low_magnitude import PruneLowMagnitude


class PruningPolicy(abc.ABC):
    """Base class: says what `prune_low_magnitude` wraps.

    Source: `tfmot.sparsity.keras.PruningPolicy`.

    Example:

    >>> class OnlyDense(PruningPolicy):
    ...     def allow_pruning(self, layer):
    ...         return isinstance(layer, layers.Dense)
    ...     def ensure_model_supports_pruning(self, model):
    ...         pass
    >>> OnlyDense().allow_pruning(layers.Conv2D(8, 3))
    False
    """

    @abc.abstractmethod
    def allow_pruning(self, layer: keras.Layer) -> bool:
        """Whether `layer` is to be pruned."""

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model: keras.Model) -> None:
        """Raises ValueError if the policy makes no sense for `model`."""


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes 1×1 convolutions, in models that XNNPACK can run sparse.

    Such a model has a 3×3 convolution of stride 2 on three channels after a `ZeroPadding2D` of 1,
    then only what XNNPACK knows in its sparse layout, up to a `GlobalAveragePooling2D`. Sequential
    and functional models in the model count as what is in them.

    Source: `tfmot.sparsity.keras.PruneForLatencyOnXNNPack`; Elsen et al. (2019), "Fast Sparse
    ConvNets".

    Example:

    >>> policy = PruneForLatencyOnXNNPack()
    >>> policy.allow_pruning(layers.Conv2D(8, 1)), policy.allow_pruning(layers.Conv2D(8, 3))
    (True, False)
    """

    def allow_pruning(self, layer):
        return isinstance(layer, layers.Conv2D) and tuple(layer.kernel_size) == (1, 1)

    def ensure_model_supports_pruning(self, model):
        graph = _Graph.of(model)
        starts = graph.reach(graph.inputs, lambda x: _is_stem(x, graph), graph.consumers)
        if not starts:
            raise ValueError(
                "XNNPACK needs a 3×3 Conv2D of stride 2 with 3 input channels and padding='valid' "
                "after a ZeroPadding2D(1), on each way from an input. "
                f"Received: model={model}, which has none"
            )
        ends = graph.reach(graph.outputs, _is_end, graph.producers)
        if not ends:
            raise ValueError(
                "XNNPACK needs a GlobalAveragePooling2D on each way to an output. "
                f"Received: model={model}, which has none"
            )

        def supported(layer):
            if layer not in ends and not _is_supported(layer, graph):
                raise ValueError(
                    f"XNNPACK must know each layer from the first convolution to the pooling. "
                    f"Received: model={model}, whose {layer} it does not run sparse"
                )
            return layer in ends

        after = [x for start in starts for x in graph.consumers(start)]
        graph.reach(after, supported, graph.consumers)


class _Graph:
    """Who feeds whom in a functional model."""

    def __init__(self, function):
        self.inputs = [operation_of(x) for x in function.inputs]
        self.outputs = [operation_of(x) for x in function.outputs]
        self._producers: dict = {}
        self._consumers: dict = {}
        for node in nodes_of(function):
            for tensor in node.input_tensors:
                source = operation_of(tensor)
                self._producers.setdefault(node.operation, []).append(source)
                self._consumers.setdefault(source, []).append(node.operation)

    @classmethod
    def of(cls, model):
        if not isinstance(model, (keras.Sequential, Functional)):
            raise ValueError(
                f"`model` must be a sequential or functional model. Received: model={model}"
            )
        if not model.built:
            raise ValueError(
                "`model` must be built: start it with keras.Input(shape). "
                f"Received: model={model}, which is not built"
            )
        # A graph of its own, without models in it.
        return cls(rebuilt(functional_of(model), _inlined))

    def producers(self, layer):
        return self._producers.get(layer, [])

    def consumers(self, layer):
        return self._consumers.get(layer, [])

    @staticmethod
    def reach(sources: Iterable, stop: Callable, following: Callable) -> set:
        """Where all ways from `sources` first meet `stop`; nothing, if one of them never does."""
        waiting, seen, found = list(sources), set(sources), set()
        while waiting:
            layer = waiting.pop()
            if stop(layer):
                found.add(layer)
                continue
            following_layers = following(layer)
            if not following_layers:
                return set()
            new = [x for x in following_layers if x not in seen]
            seen.update(new)
            waiting += new
        return found


def _inlined(layer):
    """`layer`, or what calls the layers of a model one by one."""
    if not isinstance(layer, (keras.Sequential, Functional)):
        return layer

    def operation(each):
        return _inlined(each) if isinstance(each, keras.Layer) else each

    return lambda inputs, **_: run_through(functional_of(layer), inputs, operation)


def _is_stem(layer, graph):
    return (
        isinstance(layer, layers.Conv2D)
        and tuple(layer.kernel.shape[:3]) == (3, 3, 3)
        and tuple(layer.strides) == (2, 2)
        and layer.padding == "valid"
        and _padding_before(layer, graph) == 1
    )


def _is_end(layer):
    return isinstance(layer, layers.GlobalAveragePooling2D)


def _padding_before(layer, graph) -> int:
    """The equal zero padding on all sides right before `layer`; 0 if there is none."""
    sources = graph.producers(layer)
    if len(sources) != 1 or not isinstance(sources[0], layers.ZeroPadding2D):
        return 0
    sides = {n for pair in sources[0].padding for n in pair}
    return sides.pop() if len(sides) == 1 else 0


def _depthwise(layer, graph):
    """3×3 or 5×5: padding "same" with stride 1, or padded before by half the window."""
    size = tuple(layer.kernel_size)
    return (
        layer.depth_multiplier == 1
        and tuple(layer.dilation_rate) == (1, 1)
        and size in ((3, 3), (5, 5))
        and (
            (layer.padding == "same" and tuple(layer.strides) == (1, 1))
            or (
                layer.padding == "valid"
                and tuple(layer.strides) in ((1, 1), (2, 2))
                and _padding_before(layer, graph) == size[0] // 2
            )
        )
    )


def _pointwise(layer, graph):
    return (
        layer.groups == 1
        and tuple(layer.dilation_rate) == (1, 1)
        and tuple(layer.kernel_size) == (1, 1)
        and tuple(layer.strides) == (1, 1)
    )


def _always(layer, graph):
    return True


_ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "sigmoid")
# What Keras makes of +, − and · between tensors of a functional model.
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Identity")
_SUPPORTED: dict[type, Callable] = {
    layers.Add: _always,
    layers.Multiply: _always,
    layers.ZeroPadding2D: _always,
    layers.ReLU: _always,
    layers.LeakyReLU: _always,
    layers.ELU: _always,
    layers.Dropout: _always,
    layers.Identity: _always,
    layers.DepthwiseConv2D: _depthwise,
    layers.Conv2D: _pointwise,
    layers.GlobalAveragePooling2D: lambda layer, graph: layer.keepdims,
    layers.BatchNormalization: lambda layer, graph: layer.axis in (3, -1),
    layers.UpSampling2D: lambda layer, graph: layer.interpolation == "bilinear",
    layers.Activation: lambda layer, graph: layer.activation.__name__ in _ACTIVATIONS,
    PruneLowMagnitude: lambda layer, graph: _is_supported(layer.layer, graph),
}


def _is_supported(layer, graph):
    if not isinstance(layer, keras.Layer):
        return type(layer).__name__ in _ARITHMETIC
    kinds = (kind for kind in type(layer).__mro__ if kind in _SUPPORTED)
    rule = next((_SUPPORTED[kind] for kind in kinds), None)
    return rule is not None and rule(layer, graph)
