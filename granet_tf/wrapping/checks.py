"""What `wrap` can be given, and the errors where it is given something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from granet_tf.methods import GraNet, Method
from granet_tf.wrapping.own_classes import check_keras, is_built
from keras_layers.carrier import wrapped_models
from keras_layers.masking import PrunedWeight
from keras_layers.prunable import Weight


def checked_method(method: Any) -> Method:
    """`method`, or the default for None.

    Example:

    >>> checked_method(None).final_sparsity
    0.9
    """
    if method is None:
        return GraNet()
    if not isinstance(method, Method):
        raise TypeError(
            "`method` must be a method such as granet_tf.GraNet(0.9), or None. "
            f"Received: method={method!r}"
        )
    return method


def checked_mask_only(method: Method, mask_only: bool) -> bool:
    """Whether dormant weights keep their value, by the user's wish and by the method's."""
    if mask_only and method.keeps_values is False:
        raise ValueError(
            f"{type(method).__name__} sets dormant weights to zero, so `mask_only` must be False. "
            f"Received: mask_only={mask_only}, method={method}"
        )
    return bool(mask_only or method.keeps_values)


def check_model(model: Any) -> None:
    """Raises TypeError or ValueError unless `model` is one that can be wrapped."""
    check_keras(model)
    wrapped = wrapped_models(model)
    if wrapped:
        raise ValueError(
            "`model` is wrapped already, or has a wrapped model inside. To change the method, wrap "
            f"granet_tf.strip(model). Received: model={model}, with {wrapped}"
        )
    if not is_built(model) or not model.weights:
        raise ValueError(
            "`model` must be built before it is wrapped, as masks need the weights' shapes: start "
            "it with keras.Input(shape), or call it once on a batch of data. "
            f"Received: model={model}, which {'has no weights' if model.built else 'is not built'}"
        )


def checked_mask(path: str, mask: Any, pruned: Mapping[str, PrunedWeight]) -> tf.Tensor:
    """The mask of one of these weights, as a tensor."""
    if path not in pruned:
        raise ValueError(
            f"Each key of `masks` must be the path of a pruned weight, one of {list(pruned)}. "
            f"Received: {path!r}"
        )
    mask, shape = tf.convert_to_tensor(mask), tuple(pruned[path].variable.shape)
    if mask.dtype != tf.bool or tuple(mask.shape) != shape:
        raise ValueError(
            f"`masks[{path!r}]` must be a bool array of shape {shape}. "
            f"Received: {mask.dtype.name} of shape {tuple(mask.shape)}"
        )
    return mask


def nothing_to_prune(model: keras.Model, weights: Sequence[Weight]) -> str:
    """What an error says where no weight of `model` is to be pruned."""
    reasons = sorted({f"{w.path}: {w.reason}" for w in weights})
    return (
        "`model` must have a weight to prune. Name some with `prunable`, or let a custom layer "
        f"name them in get_prunable_weights(). Received: model={model}, whose weights are not "
        f"pruned because {reasons}"
    )
