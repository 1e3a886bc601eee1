"""SNIP: the weights to whose removal the loss is most sensitive."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from granet_tf.methods.at_initialization.base import FromBatches
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SNIP(FromBatches):
    """Single-shot network pruning by connection sensitivity, |w · d loss / d w|.

    Args:
        final_sparsity: The sparsity, all through training, in (0, 1).
        batches: How many of the first batches to look at: the mean of their gradients.
        rounds: 1 is the method of the paper; more are iterative SNIP (de Jorge et al., 2020).
        **kwargs: See `AtInitialization` and `Method`.

    Raises:
        ValueError: On a parameter out of range.

    Source: Lee et al. (2019), connection sensitivity. The loss is that of the data: regularizers of
    weights do not count.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    >>> model = granet_tf.wrap(keras_model, SNIP(0.75))
    >>> model.compile("sgd", "mse")
    >>> x, y = np.random.rand(64, 8), np.random.rand(64, 10)
    >>> history = model.fit(x, y, batch_size=16, verbose=0)
    >>> model.nonzeros
    20
    """

    def saliency(self, model, batches=(), loss=None, masks=None):
        return snip_saliency(model, batches, loss, masks)


def snip_saliency(
    model: Any,
    batches: Sequence[Any],
    loss: Any = None,
    masks: Sequence[tf.Tensor] | None = None,
) -> dict[str, tf.Tensor]:
    """{path: |w · d loss / d w|} of a `SparseModel`.

    Args:
        model: A `SparseModel`.
        batches: `(x, y)` or `(x, y, sample_weight)` each.
        loss: As for `compile`. None is the one that the model was compiled with.
        masks: Of `model.pruned`; None are its own. Masked weights count as 0.

    Raises:
        ValueError: If there is no loss.

    Example:

    >>> keras_model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model = granet_tf.wrap(keras_model, SNIP(0.5))
    >>> _ = keras_model.layers[0].kernel.assign([[1.0], [2.0]])
    >>> batch = (np.array([[1.0, 3.0]], "float32"), np.array([[0.0]]))
    >>> [score] = snip_saliency(model, [batch], "mse").values()  # The output is 7.
    >>> score.numpy().ravel().tolist()
    [14.0, 84.0]
    """
    from granet_tf.methods.at_initialization.losses import Objective, by_path, loss_of, values_of

    values = values_of(model, masks)
    gradients = Objective(model, batches, loss_of(model, loss)).gradients(values)
    return by_path(model, [tf.abs(v * g) for v, g in zip(values, gradients, strict=True)])
