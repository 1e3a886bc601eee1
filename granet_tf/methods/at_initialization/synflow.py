"""SynFlow: the weights that carry the most synaptic flow, found without data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from granet_tf.methods.at_initialization.base import InRounds
from granet_tf.methods.parameters import parameter
from granet_tf.schedules import PACKAGE
from keras_layers.input_specs import input_specs


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SynFlow(InRounds):
    """Iterative synaptic flow pruning: |w| · dR / d|w| with R = 1ᵀ · |W_L| ··· |W_1| · 1.

    R is what the network returns for an input of ones with all weights positive, activations
    linear and no offsets (see `linearized`). It needs no data, so the masks are there once the
    model is wrapped. In a chain of layers every layer has the same sum of scores, and with enough
    rounds none is pruned away. Beside a branch that carries much more, such as the main path of a
    residual block, a layer can be, and `wrap` warns.

    R grows with the power of the depth, beyond float32 for networks such as ResNet-50. It is
    computed in float64, and scores are divided by one power of two before they are ranked, which
    does not change their order.

    Args:
        final_sparsity: The sparsity, all through training, in (0, 1).
        rounds: In how many rounds to get there.
        input_shape: Shape of one sample where the model does not know it, as for
            `granet_tf.count_flops`.
        **kwargs: See `AtInitialization` and `Method`.

    Raises:
        ValueError: On a parameter out of range; in `wrap`, if the input shape is not known.

    Source: Tanaka et al. (2020), Algorithm 1.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    >>> granet_tf.wrap(keras_model, SynFlow(0.75)).nonzeros
    20
    """

    rounds: int = 100
    input_shape: Any = parameter(None, "Shape of one sample, if the model does not know it.")

    def __post_init__(self):
        super().__post_init__()
        if self.input_shape is not None:  # Tuples come back from JSON as lists.
            shape = keras.tree.map_shape_structure(tuple, self.input_shape)
            object.__setattr__(self, "input_shape", shape)

    def saliency(self, model, batches=(), loss=None, masks=None):
        return synflow_saliency(model, masks, input_shape=self.input_shape)


def synflow_saliency(
    model: Any, masks: Sequence[tf.Tensor] | None = None, *, input_shape: Any = None
) -> dict[str, tf.Tensor]:
    """{path: |w| · dR / d|w|} of a `SparseModel`, in float64.

    Args:
        model: A `SparseModel`.
        masks: Of `model.pruned`; None are its own. Masked weights count as 0.
        input_shape: Shape of one sample where the model does not know it.

    Raises:
        ValueError: If the input shape is not known.

    Example:

    >>> two = [keras.layers.Dense(2, use_bias=False), keras.layers.Dense(1, use_bias=False)]
    >>> keras_model = keras.Sequential([keras.Input((2,)), *two])
    >>> model = granet_tf.wrap(keras_model, granet_tf.SNIP(0.5))
    >>> keras_model.set_weights([np.array([[1.0, -2.0], [3.0, 0.5]]), np.array([[10.0], [-1.0]])])
    >>> first, second = synflow_saliency(model).values()
    >>> first.numpy().tolist(), second.numpy().tolist()
    ([[10.0, 2.0], [30.0, 0.5]], [[40.0], [2.5]])
    """
    # Imported here, as `import granet_tf` takes every method in.
    from granet_tf.methods.at_initialization.linearized import linearized
    from granet_tf.methods.at_initialization.losses import by_path, values_of

    sizes = [tf.cast(tf.abs(v), tf.float64) for v in values_of(model, masks)]
    args, kwargs, _ = input_specs(model.model, input_shape)
    args, kwargs = keras.tree.map_structure(lambda s: tf.ones(s.shape, s.dtype), (args, kwargs))
    with tf.GradientTape() as tape, linearized(model.model) as scope:
        tape.watch(sizes)
        for pruned, size in zip(model.pruned, sizes, strict=True):
            scope.add_update((pruned.variable, size))
        outputs = model.model(*args, training=False, **kwargs)
        flow = tf.add_n([tf.reduce_sum(output) for output in keras.tree.flatten(outputs)])
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(flow, sizes, unconnected_gradients=zero)
    each = zip(sizes, gradients, strict=True)
    return by_path(model, [size * tf.convert_to_tensor(gradient) for size, gradient in each])
