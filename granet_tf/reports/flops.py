"""How many floating point operations a model costs, dense and with its sparse weights skipped."""

import collections
import contextlib
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from granet_tf.int8 import FakeQuantized
from granet_tf.optimization.groups import groups_of
from granet_tf.reports.table import aligned
from keras_layers.carrier import carries_masks
from keras_layers.input_specs import input_specs
from keras_layers.keras_internals import layers_of
from keras_layers.known_layers import BY_CLASS
from keras_layers.masking import PrunedWeight
from keras_layers.multiply_adds import LayerCall as LayerCall
from keras_layers.multiply_adds import MultiplyAdds


@dataclasses.dataclass(frozen=True)
class WeightFlops:
    """What one weight of a layer costs, over all calls of the layer.

    Attributes:
        path: Path of the weight; `None` for FLOPs that involve no weight.
        dense: FLOPs for one sample if the weight had no zeros.
        size: Number of elements of the weight; 1 where there is none.
        nonzeros: How many of them are not zero.
    """

    path: str | None
    dense: int
    size: int = 1
    nonzeros: int = 1

    @property
    def sparse(self) -> int:
        """FLOPs for one sample that involve a nonzero element."""
        return self.dense * self.nonzeros // self.size


@dataclasses.dataclass(frozen=True)
class LayerFlops:
    """One line of a `FlopsReport`: a layer, over all of its calls.

    Attributes:
        layer: Path of the layer.
        calls: How often the model calls the layer.
        costs: A `WeightFlops` for each weight that is multiplied with, and one for the rest.
    """

    layer: str
    calls: int
    costs: tuple[WeightFlops, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """Paths of the weights that are multiplied with."""
        return tuple(cost.path for cost in self.costs if cost.path is not None)

    @property
    def dense(self) -> int:
        """FLOPs for one sample if no weight were zero."""
        return sum(cost.dense for cost in self.costs)

    @property
    def sparse(self) -> int:
        """FLOPs for one sample that involve a nonzero weight, or no weight at all."""
        return sum(cost.sparse for cost in self.costs)


@dataclasses.dataclass(frozen=True)
class FlopsReport:
    """What `count_flops` found; `print` shows it as a table.

    Attributes:
        rows: A `LayerFlops` for each layer that costs anything, in the order in which
            the layers finish.
    """

    rows: tuple[LayerFlops, ...]

    @property
    def dense(self) -> int:
        """FLOPs of the model for one sample if no weight were zero."""
        return sum(row.dense for row in self.rows)

    @property
    def sparse(self) -> int:
        """FLOPs of the model for one sample when zero weights are skipped."""
        return sum(row.sparse for row in self.rows)

    @property
    def ratio(self) -> float:
        """Sparse FLOPs as a fraction of the dense ones."""
        return self.sparse / self.dense if self.dense else 1.0

    def __str__(self) -> str:
        table = [("layer", "weights", "calls", "dense FLOPs", "sparse FLOPs", "ratio")]
        for row in self.rows:
            names = ", ".join(path.removeprefix(f"{row.layer}/") for path in row.weights)
            ratio = row.sparse / row.dense if row.dense else 1.0
            table.append(_cells(row.layer, names, row.calls, row.dense, row.sparse, ratio))
        table.append(_cells("total", "", "", self.dense, self.sparse, self.ratio))
        return aligned(table, text_columns=2)


def _cells(layer, weights, calls, dense, sparse, ratio) -> tuple[str, ...]:
    return layer, weights, str(calls), f"{dense:,}", f"{sparse:,}", f"{ratio:.4f}"


def count_flops(model: keras.Model, input_shape: Any = None) -> FlopsReport:
    """Counts the floating point operations of inference on one sample.

    FLOPs are 2 × multiply-adds, as in Table 10 of the paper. The sparse count of a layer is its
    dense count times the fraction of its kernel that is nonzero, with the mask applied.

    Counted are dense, convolution (transposed, depthwise and separable ones too) and einsum
    layers, recurrent layers, average pooling (2 for each element that a window reads), and
    attention with its two matrix products. Padding counts like data. Not counted are biases,
    activations, normalization, max pooling, embedding look-ups, and what a model computes outside
    of layers, in `keras.ops` for example. A layer of another type with weight matrices of its own
    warns; to have it counted, add it to `layer_flops`. A layer called in a loop inside TensorFlow
    (`tf.while_loop`) counts once.

    For training, the backward pass costs about twice the forward pass (Appendix B.3):
    `3 × FLOPs × samples`.

    The model is only traced, at inference, so no weight or other state changes. A model that is
    not built yet gets built.

    Args:
        model: A Keras model of any kind, or a `SparseModel`.
        input_shape: Shape of one sample, without the batch dimension: a tuple, or for several
            inputs a list or dict of tuples (a dict may also name the arguments of `call`). Only
            needed if the model does not know it.

    Returns:
        A `FlopsReport`.

    Raises:
        ValueError: If the input shape is not known, or if the shapes inside the model depend on
            the data.

    Example:

    >>> import keras
    >>> from granet_tf.reports import flops
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="dense")])
    >>> kernel = model.layers[0].kernel
    >>> _ = kernel.assign(keras.ops.eye(8, 4))
    >>> report = flops.count_flops(model)
    >>> report.dense, report.sparse, report.ratio
    (64, 8, 0.125)

    Reference:

    - [Liu et al., 2021, Appendix B.3 and Table 10](https://arxiv.org/abs/2106.10404)
    """
    # A SparseModel holds the user's model; masks live on the outside.
    inner = model.model if carries_masks(model) else model
    args, kwargs, batch = input_specs(inner, input_shape)
    if not inner.built:
        _trace(inner, args, kwargs)
    with _recorded_calls(inner) as calls:
        _trace(inner, args, kwargs)

    # By identity, as different layers and weights may have the same path.
    objects, called = {}, collections.Counter()
    dense = collections.defaultdict(collections.Counter)
    for call in calls:
        objects[id(call.layer)] = call.layer
        called[id(call.layer)] += 1
        for weight, cost in layer_flops(call.layer, call):
            objects[id(weight)] = weight
            dense[id(call.layer)][id(weight)] += cost

    masks = {
        id(p.variable): (p, group.mask_only) for group in groups_of(model) for p in group.pruned
    }
    rows = []
    for layer, costs in dense.items():
        weights = tuple(
            _weight_flops(objects[weight], cost // batch, *masks.get(weight, (None, False)))
            for weight, cost in costs.items()
        )
        rows.append(LayerFlops(_path(objects[layer]), called[layer], weights))
    return FlopsReport(tuple(rows))


def _weight_flops(weight, dense: int, pruned: PrunedWeight | None, mask_only: bool) -> WeightFlops:
    if weight is None:
        return WeightFlops(None, dense)
    nonzero = keras.ops.convert_to_numpy(weight) != 0
    if mask_only:
        nonzero &= keras.ops.convert_to_numpy(pruned.mask)
    # Not every weight is a variable: LoRA computes one from some.
    path = pruned.path if pruned else getattr(weight, "path", "computed")
    return WeightFlops(path, dense, nonzero.size, int(np.count_nonzero(nonzero)))


def _path(layer: keras.Layer) -> str:
    return layer.path or layer.name


# What one layer costs

Costs = list[tuple[keras.Variable | None, int]]


@functools.singledispatch
def layer_flops(layer: keras.Layer, call: LayerCall) -> Costs:
    """The FLOPs of one call of one layer, without those of its sublayers.

    Add a layer type of your own with `layer_flops.register`.

    Args:
        layer: The layer, on whose type the rule is chosen.
        call: Shapes of the call, batch dimension included.

    Returns:
        A list of `(weight, FLOPs)`, where the weight is `None` for FLOPs that do not go away when
        weights are zero.

    Example:

    >>> from granet_tf.reports import flops
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=input_shape[1:], name="scale")
    ...     def call(self, inputs):
    ...         return inputs * self.scale
    >>> @flops.layer_flops.register
    ... def _(layer: Scale, call):
    ...     return [(layer.scale, call.size(call.output))]
    >>> flops.count_flops(keras.Sequential([keras.Input((4, 4)), Scale()])).dense
    16
    """
    inside = {id(w) for sublayer in layers_of(layer, include_self=False) for w in sublayer.weights}
    for weight in layer.weights:
        if id(weight) not in inside and weight.trainable and len(weight.shape) > 1:
            warnings.warn(
                f"Layer '{_path(layer)}' counts as 0 FLOPs: there is no rule for a "
                f"{type(layer).__name__}. Add one with `layer_flops.register`.",
                stacklevel=4,
            )
            break
    return []


def _twice(multiply_adds: MultiplyAdds) -> Callable[[keras.Layer, LayerCall], Costs]:
    return lambda layer, call: [(weight, 2 * n) for weight, n in multiply_adds(layer, call)]


for _class, _row in BY_CLASS.items():
    if _row.multiply_adds is not None:
        layer_flops.register(_class, _twice(_row.multiply_adds))


@layer_flops.register
def _(layer: FakeQuantized, call: LayerCall):
    """It computes for the layer inside, which is not called."""
    return layer_flops(layer.layer, dataclasses.replace(call, layer=layer.layer))


# Which layers a model calls, and with what shapes


@contextlib.contextmanager
def _recorded_calls(model: keras.Model) -> Iterator[list[LayerCall]]:
    """Lists the calls of the model and all its sublayers while the context is open."""
    calls: list[LayerCall] = []

    def recording(layer, call):
        signature = inspect.signature(call)

        @functools.wraps(call)
        def recorded(*args, **kwargs):
            arguments = signature.bind(*args, **kwargs).arguments
            output = call(*args, **kwargs)
            calls.append(LayerCall(layer, _shapes(arguments), _shapes(output)))
            return output

        return recorded

    # In the layers' dictionaries, because Keras tracks what is set as an attribute. A quantized
    # layer runs its `quantized_call` instead.
    saved = [
        (layer, name, vars(layer).get(name))
        for layer in dict.fromkeys(layers_of(model))
        for name in ("call", "quantized_call")
    ]
    try:
        for layer, name, _ in saved:
            vars(layer)[name] = recording(layer, getattr(layer, name))
        yield calls
    finally:
        for layer, name, own in saved:
            if own is None:
                vars(layer).pop(name, None)
            else:
                vars(layer)[name] = own


def _shapes(structure):
    return keras.tree.map_structure(lambda x: tuple(x.shape) if tf.is_tensor(x) else x, structure)


def _trace(model: keras.Model, args, kwargs) -> None:
    """Calls the model symbolically, at inference, leaving no trace of the call."""
    eager = tf.config.functions_run_eagerly()

    def call(*args, **kwargs):
        # A `tf.function` inside the model that was traced before would not run its Python again.
        tf.config.run_functions_eagerly(True)
        model(*args, training=False, **kwargs)

    try:
        tf.config.run_functions_eagerly(False)
        with keras.StatelessScope():
            tf.function(call, autograph=False).get_concrete_function(*args, **kwargs)
    finally:
        tf.config.run_functions_eagerly(eager)
