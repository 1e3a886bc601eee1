"""All that the library uses of Keras and that Keras does not export.

Nothing else imports from `keras.src`: a new version of Keras has to be compared with this file
only. It lies beside the layers because they need it, too, and import nothing of `granet_tf`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

__all__ = [
    "COMPILED",
    "KNOWN_TO_WORK",
    "PRIVATE_ATTRIBUTES",
    "READ_IN",
    "CompileLoss",
    "ConvLSTMCell",
    "Dot",
    "Einsum",
    "Functional",
    "Gelu",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "LogSigmoid",
    "LogSoftmax",
    "LossFunctionWrapper",
    "Matmul",
    "Mean",
    "Multiply",
    "Node",
    "Relu",
    "Relu6",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sum",
    "Tanh",
    "Tensordot",
    "Vdot",
    "can_convert_arrays",
    "children_of",
    "class_weight_to_sample_weights",
    "functional_of",
    "get_global_attribute",
    "get_input_signature",
    "get_keras_mask",
    "given_learning_rate",
    "in_stateless_scope",
    "initialize_all_variables",
    "is_called_in_training",
    "is_default",
    "layers_of",
    "nn_operations",
    "nodes_of",
    "numpy_operations",
    "operation_of",
    "run_through",
    "set_global_attribute",
    "variables_trained_by",
    "without_variable",
]

# The version whose source was read, and those that are known to have all this; `setup.py` asks for
# the same ones. Raise the limit there and here once the tests pass on the next series.
READ_IN = "3.15.1"
KNOWN_TO_WORK = ">=3.13,<3.16"

try:
    # Public scopes set the thread's globals, but none can be read, nor stepped out of for a while.
    from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute

    # The mask that is attached to a tensor: there is no public way to see it.
    from keras.src.backend.common.masking import get_keras_mask

    # `keras.StatelessScope` opens a scope, but does not tell whether one is open.
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    # Variables that are made in a scope wait until it closes; a call in it may need them at once.
    from keras.src.backend.common.variables import initialize_all_variables

    # How Keras's own export finds the inputs of a model, subclassed ones included.
    from keras.src.export.export_utils import get_input_signature

    # The only cell that is not in `keras.layers`.
    from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

    # What says which function a loss computes, and with which options.
    from keras.src.losses.losses import LossFunctionWrapper

    # The class of functional models, which `keras.Model(inputs, outputs)` makes without naming it.
    from keras.src.models import Functional

    # The operations in graphs are objects; `keras.ops` has the functions that make them. The
    # modules are for those that not every version has.
    from keras.src.ops import nn as nn_operations
    from keras.src.ops import numpy as numpy_operations
    from keras.src.ops.nn import (
        Gelu,
        HardSigmoid,
        HardSilu,
        HardTanh,
        LogSigmoid,
        LogSoftmax,
        Relu,
        Relu6,
        Sigmoid,
        Silu,
        Softmax,
        Softplus,
        Softsign,
    )

    # A call in a graph.
    from keras.src.ops.node import Node
    from keras.src.ops.numpy import (
        Dot,
        Einsum,
        Matmul,
        Mean,
        Multiply,
        Sum,
        Tanh,
        Tensordot,
        Vdot,
    )

    # The loss of a model as `compile` makes it of names, lists and dicts.
    from keras.src.trainers.compile_utils import CompileLoss

    # What of the arguments of `fit` Keras takes for arrays, and weights of classes as of samples.
    from keras.src.trainers.data_adapters.array_data_adapter import can_convert_arrays
    from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights

    # Whether a method is the one that Keras has put in where a class has none.
    from keras.src.utils.python_utils import is_default
except ImportError as error:
    raise ImportError(
        f"granet_tf uses internals of Keras, and one is not where Keras {READ_IN} has it: {error}. "
        f"Keras {KNOWN_TO_WORK} is known to work. Install such a version: "
        f'pip install "keras{KNOWN_TO_WORK}". '
        f"Received: keras.__version__={keras.__version__!r}"
    ) from error

# What `compile` sets in a model, beside what every model has.
COMPILED = ("optimizer", "_compile_config", "_compiled_trainable_state")

# The private attributes of Keras's objects that the library reads, sets or overrides, here and
# elsewhere: (class, name). What is used in several places has a function below; a class that
# overrides one of Keras's hooks has to have its name.
PRIVATE_ATTRIBUTES: tuple[tuple[type, str], ...] = (
    (keras.Layer, "_allow_non_tensor_positional_args"),
    (keras.Layer, "_call_context_args"),
    (keras.Layer, "_call_has_context_arg"),
    (keras.Layer, "_convert_input_args"),
    (keras.Layer, "_flatten_layers"),
    (keras.Layer, "_get_call_context"),
    (keras.Layer, "_get_regularization_losses"),
    (keras.Layer, "_inbound_nodes"),
    (keras.Layer, "_input_shape_arg"),
    (keras.Layer, "_layers"),
    (keras.Layer, "_loss_ids"),
    (keras.Layer, "_maybe_build"),
    (keras.Layer, "_metrics"),
    (keras.Layer, "_non_trainable_variables"),
    (keras.Layer, "_open_name_scope"),
    (keras.Layer, "_remat_mode"),
    (keras.Layer, "_tracker"),
    (keras.Layer, "_trainable"),
    (keras.Layer, "_trainable_variables"),
    (keras.Layer, "_untrack_variable"),
    (keras.Model, "_assert_compile_called"),
    (keras.Model, "_compile_config"),
    (keras.Model, "_compile_loss"),
    (keras.Model, "_compiled_trainable_state"),
    (keras.Model, "_eval_epoch_iterator"),
    (keras.Model, "_unpickle_model"),
    (keras.Sequential, "_functional"),
    (Functional, "_nodes_by_depth"),
    (Functional, "_run_through_graph"),
    (keras.KerasTensor, "_keras_history"),
    (keras.Variable, "_value"),
    (keras.optimizers.Optimizer, "_learning_rate"),
    (keras.optimizers.Optimizer, "_model_variables_moving_average"),
    (keras.optimizers.Optimizer, "_trainable_variables"),
    (CompileLoss, "_user_loss"),
    (LossFunctionWrapper, "_fn_kwargs"),
)


def layers_of(layer: keras.Layer, *, include_self: bool = True) -> list[keras.Layer]:
    """`layer` and all layers inside it, at any depth; one that is in two places may come twice.

    (`keras.Model.layers` has those of the first level only, and other layers have no such list.)

    Example:

    >>> inner = keras.Sequential([keras.layers.ReLU(name="relu")], name="inner")
    >>> [layer.name for layer in layers_of(keras.Sequential([inner], name="outer"))]
    ['outer', 'inner', 'relu']
    """
    return layer._flatten_layers(include_self=include_self)


def children_of(layer: keras.Layer) -> list[keras.Layer]:
    """The layers that `layer` itself holds, in the order in which it came to them.

    (`keras.Model.layers` leaves out inputs, and sorts them by the graph, if there is one.)

    Example:

    >>> children_of(keras.layers.Bidirectional(keras.layers.GRU(2, name="gru")))[0].name
    'forward_gru'
    """
    return list(layer._layers)


def functional_of(model: keras.Model) -> Functional | None:
    """What a sequential model has inside, None until it is built; any other model is its own.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> isinstance(functional_of(model), Functional)
    True
    """
    return getattr(model, "_functional", model)


def nodes_of(function: Functional) -> Iterator[Node]:
    """The calls in a functional model, in an order in which they can be made, without its inputs.

    Example:

    >>> inputs = keras.Input((2,))
    >>> model = keras.Model(inputs, keras.layers.Dense(3, name="dense")(keras.ops.relu(inputs)))
    >>> [node.operation.name for node in nodes_of(model)][1]
    'dense'
    """
    for depth in sorted(function._nodes_by_depth, reverse=True):
        yield from (node for node in function._nodes_by_depth[depth] if not node.is_input)


def operation_of(tensor: keras.KerasTensor) -> Any:
    """The layer or operation that a tensor of a graph comes from.

    Example:

    >>> operation_of(keras.layers.Dense(3, name="dense")(keras.Input((2,)))).name
    'dense'
    """
    return tensor._keras_history.operation


def run_through(function: Functional, inputs: Any, change: Callable[[Any], Callable]) -> Any:
    """The outputs of a functional model for `inputs`, if it called `change(operation)` for each.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.ReLU()])
    >>> run_through(functional_of(model), keras.ops.ones((1, 1)), lambda each: abs).shape
    TensorShape([1, 1])
    """
    return function._run_through_graph(inputs, operation_fn=change)


def is_called_in_training(layer: keras.Layer) -> bool | None:
    """Whether what is going on is a call for training; to be asked in `call` of `layer`.

    Example:

    >>> class Asking(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return -inputs if is_called_in_training(self) else inputs
    >>> layer, x = Asking(), keras.ops.ones(1)
    >>> float(layer(x, training=True)[0]), float(layer(x)[0])
    (-1.0, 1.0)
    """
    return getattr(layer._get_call_context(), "training", False)


def without_variable(layer: keras.Layer, name: str) -> None:
    """Takes the attribute `name`, a variable, from a layer, as `del` does, but collects no garbage.

    Keras would do that for each variable, which takes half a second in a large program.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> layer.mask = layer.add_weight(shape=(3,))
    >>> without_variable(layer, "mask")
    >>> hasattr(layer, "mask"), layer.weights
    (False, [])
    """
    layer._untrack_variable(getattr(layer, name))
    super(keras.Layer, layer).__delattr__(name)


def variables_trained_by(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that a built optimizer has been given to train, in order.

    Example:

    >>> optimizer, weight = keras.optimizers.SGD(), keras.Variable([1.0])
    >>> optimizer.build([weight])
    >>> variables_trained_by(optimizer)[0] is weight
    True
    """
    return optimizer._trainable_variables


def given_learning_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """What an optimizer was made with: a variable, or a schedule.

    (`optimizer.learning_rate` is the schedule's value at the present step.)

    Example:

    >>> schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    >>> given_learning_rate(keras.optimizers.SGD(schedule)) is schedule
    True
    """
    return optimizer._learning_rate
