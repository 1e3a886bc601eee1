"""The loss of a model as a function of its prunable weights, and its gradients before training."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from granet_tf.wrapping.own_classes import own_class
from keras_layers.keras_internals import CompileLoss, layers_of
from keras_layers.masking import masked_value


def masks_of(model: Any, masks: Sequence[tf.Tensor] | None = None) -> list[tf.Tensor]:
    """`masks`, or those that `model` has."""
    return [tf.convert_to_tensor(p.mask) for p in model.pruned] if masks is None else list(masks)


def values_of(model: Any, masks: Sequence[tf.Tensor] | None = None) -> list[tf.Tensor]:
    """The model's prunable weights, dormant ones 0."""
    masked = zip(model.pruned, masks_of(model, masks), strict=True)
    return [masked_value(dataclasses.replace(p, mask=mask)) for p, mask in masked]


def by_path(model: Any, scores: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
    """{path: score} of the prunable weights."""
    return {p.path: score for p, score in zip(model.pruned, scores, strict=True)}


@dataclasses.dataclass(frozen=True)
class Objective:
    """The mean loss over batches, without weight regularizers, in training mode.

    Nothing that a step leaves behind happens: no state of the model changes, random states and
    moving statistics included. All is computed in float32 at least, as small gradients are 0 in
    float16.

    Args:
        model: A `SparseModel`.
        batches: As `fit` takes them from a data set.
        loss: `(y, outputs, sample_weight) -> scalar`.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model = granet_tf.wrap(keras_model, granet_tf.SNIP(0.5))
    >>> _ = keras_model.layers[0].kernel.assign([[1.0], [2.0]])
    >>> batch = (np.array([[1.0, 3.0]], "float32"), np.array([[0.0]]))
    >>> objective = Objective(model, [batch], loss_of(model, "mse"))
    >>> [gradient] = objective.gradients(values_of(model))  # 2 · 7 · x
    >>> gradient.numpy().ravel().tolist()
    [14.0, 42.0]
    """

    model: Any
    batches: Sequence[Any]
    loss: Callable[[Any, Any, Any], tf.Tensor]

    def gradients(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """d loss / d value of each prunable weight, where these have the given values."""
        return self._mean(lambda batch: self._gradients(batch, values)[1])

    def hessian_product(
        self, values: Sequence[tf.Tensor], vectors: Sequence[tf.Tensor]
    ) -> list[tf.Tensor]:
        """The Hessian of the loss times `vectors`, which have the shapes of the weights."""

        def product(batch):
            with tf.GradientTape() as tape:
                tape.watch(values)
                _, gradients = self._gradients(batch, values)
                along = tf.add_n(
                    [
                        tf.reduce_sum(tf.stop_gradient(v) * g)
                        for v, g in zip(vectors, gradients, strict=True)
                    ]
                )
            return _dense(tape, along, values)

        return self._mean(product)

    def _gradients(self, batch, values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            value = self._value(batch, values)
        return value, _dense(tape, value, values)

    def _value(self, batch, values):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        network = self.model.model
        mapping = [(p.variable, v) for p, v in zip(self.model.pruned, values, strict=True)]
        with (
            computing_in("float32", network, instead_of=("float16", "bfloat16")),
            keras.StatelessScope(mapping, collect_losses=True) as scope,
        ):
            outputs = network(x, training=True)
        added = [tf.cast(loss, tf.float32) for loss in scope.losses]
        return tf.add_n([tf.cast(self.loss(y, outputs, sample_weight), tf.float32), *added])

    def _mean(self, of_batch):
        """The mean over batches, and over the hosts that train together, which have others."""
        of_batches = zip(*(of_batch(batch) for batch in self.batches), strict=True)
        means = [tf.add_n(each) / len(each) for each in of_batches]
        return _mean_over_hosts(self.model.distribute_strategy, means)


def loss_of(model: keras.Model, loss: Any = None) -> CompileLoss:
    """A function `(y, outputs, sample_weight) -> scalar`.

    Args:
        model: A Keras model, compiled where `loss` is None.
        loss: As for `compile`.

    Raises:
        ValueError: If there is no loss.

    Warns:
        UserWarning: If the model's class has a `compute_loss` of its own, which may do more.
    """
    if loss is not None:
        return CompileLoss(loss, output_names=getattr(model, "output_names", None))
    compiled = getattr(model, "_compile_loss", None)
    if type(model).compute_loss is not keras.Model.compute_loss:
        warnings.warn(
            f"The masks are chosen by the loss that compile() was given, not by compute_loss() of "
            f"{own_class(model.model).__name__}. To choose them by another, call start(batches, "
            "loss=...) of the wrapped model before fit().",
            stacklevel=2,
        )
    if compiled is None:
        raise ValueError(
            "`loss` must be given to choose masks by the gradients of a loss: compile the model "
            "with a loss first, or pass one to start(batches, loss=...). "
            f"Received: loss=None, and model={model} compiled with none"
        )
    return compiled


@contextlib.contextmanager
def computing_in(
    dtype: str, model: keras.Model, instead_of: Sequence[str] | None = None
) -> Iterator[None]:
    """Makes all layers of `model` compute in `dtype`, whatever their policies say.

    Args:
        dtype: Of what layers compute; variables keep theirs.
        model: The model.
        instead_of: Only layers that compute in one of these; None is all.
    """
    layers = [
        layer
        for layer in dict.fromkeys(layers_of(model))
        if instead_of is None or layer.compute_dtype in instead_of
    ]
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = dtype
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy


def _dense(tape, target, values):
    """Gradients, also where they come as slices (embeddings) or not at all."""
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(target, values, unconnected_gradients=zero)
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def _mean_over_hosts(strategy, tensors):
    if not strategy.extended._in_multi_worker_mode():
        return tensors
    # Every replica of a host says what the host has, so their mean is that of the hosts.
    return [
        strategy.reduce(
            tf.distribute.ReduceOp.MEAN,
            strategy.experimental_distribute_values_from_function(lambda context, t=tensor: t),
            axis=None,
        )
        for tensor in tensors
    ]
