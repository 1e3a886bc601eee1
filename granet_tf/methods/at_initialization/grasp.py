"""GraSP: the weights whose removal lets the most gradient flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from granet_tf.methods.at_initialization.base import FromBatches
from granet_tf.methods.parameters import parameter
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GraSP(FromBatches):
    """Gradient signal preservation: keeps the highest w · (H g), elementwise.

    To first order, removing a weight changes the squared norm of the gradient by -2 · w · (H g), so
    what goes first is what holds the gradient back. H is the Hessian, g the gradient of the loss
    at the weights that the model is wrapped with; their product comes from nested gradient tapes
    and takes about twice the memory of a training step.

    Args:
        final_sparsity: The sparsity, all through training, in (0, 1).
        batches: How many of the first batches to look at. g is their mean gradient, and H their
            mean Hessian. The authors take 10 images of each class.
        temperature: What logits are divided by, above 0. With a cross-entropy of probabilities,
            their logits are. Other losses of Keras need 1.0.
        rounds: 1 is the method of the paper.
        **kwargs: See `AtInitialization` and `Method`.

    Raises:
        ValueError: On a parameter out of range.

    Source: Wang et al. (2020), S(-w) = -w · (H g); the temperature from the authors' code.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    >>> model = granet_tf.wrap(keras_model, GraSP(0.75, batches=2))
    >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> x, y = np.random.rand(64, 8), np.random.randint(0, 10, 64)
    >>> history = model.fit(x, y, batch_size=16, verbose=0)
    >>> model.nonzeros
    20
    """

    temperature: float = parameter(200.0, "What the logits are divided by.", above=0)

    def saliency(self, model, batches=(), loss=None, masks=None):
        return grasp_saliency(model, batches, loss, masks, temperature=self.temperature)


def grasp_saliency(
    model: Any,
    batches: Sequence[Any],
    loss: Any = None,
    masks: Sequence[tf.Tensor] | None = None,
    *,
    temperature: float = 200.0,
) -> dict[str, tf.Tensor]:
    """{path: w · (H g)} of a `SparseModel`.

    Args:
        model: A `SparseModel`.
        batches: `(x, y)` or `(x, y, sample_weight)` each.
        loss: As for `compile`. None is the one that the model was compiled with.
        masks: Of `model.pruned`; None are its own. Masked weights count as 0.
        temperature: What logits are divided by.

    Raises:
        ValueError: If there is no loss, or one to which the temperature cannot apply.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model = granet_tf.wrap(keras_model, GraSP(0.5))
    >>> _ = keras_model.layers[0].kernel.assign([[1.0], [2.0]])
    >>> batch = (np.array([[1.0, 3.0]], "float32"), np.array([[0.0]]))
    >>> [score] = grasp_saliency(model, [batch], "mse", temperature=1.0).values()
    >>> score.numpy().ravel().tolist()  # g = 14 · x, H = 2 · x · x'
    [280.0, 1680.0]
    """
    # Imported here, as `import granet_tf` takes every method in.
    from granet_tf.methods.at_initialization.losses import (
        Objective,
        by_path,
        loss_of,
        masks_of,
        values_of,
    )
    from granet_tf.methods.at_initialization.temperature import at_temperature

    masks, values = masks_of(model, masks), values_of(model, masks)
    compiled = loss_of(model, loss)

    def soft_loss(y, outputs, sample_weight):
        return compiled(y, at_temperature(outputs, temperature, compiled._user_loss), sample_weight)

    objective = Objective(model, batches, soft_loss)
    gradients = objective.gradients(values)
    active = [tf.where(m, g, tf.zeros_like(g)) for m, g in zip(masks, gradients, strict=True)]
    products = objective.hessian_product(values, active)
    return by_path(model, [v * p for v, p in zip(values, products, strict=True)])
