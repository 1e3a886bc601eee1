"""What becomes of masks when Keras changes a layer for good: it quantizes it, or adds adapters.

Then masks are settled: dormant weights are 0, and the layer computes with what it has.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_layers.keras_internals import layers_of
from keras_layers.masking import PrunedWeight, masked_value
from keras_layers.observing import is_observed, observe, stop_observing

# Those in which a weight keeps its shape and 0 stays 0.
MODES = ("int8", "float8")


def settled(pruned: PrunedWeight, variable: keras.Variable) -> PrunedWeight:
    """`pruned`, whose mask has been put for good into `variable`, which has taken its place.

    Example:

    >>> weight, mask = keras.Variable([3.0, 4.0]), keras.Variable([True, False], dtype="bool")
    >>> pruned = PrunedWeight("kernel", weight, mask)
    >>> masked_value(pruned).numpy().tolist()
    [3.0, 0.0]
    >>> masked_value(settled(pruned, weight)).numpy().tolist()
    [3.0, 4.0]
    """
    return dataclasses.replace(pruned, variable=variable, transform=_as_it_is)


def is_settled(pruned: PrunedWeight) -> bool:
    """Whether what the weight's layer computes with is the weight as it is."""
    return pruned.transform is _as_it_is


def settle_when_changed(owner: keras.Layer, layers: Iterable[keras.Layer]) -> None:
    """Keeps the masks of `owner` true when `quantize` or `enable_lora` of a layer is called.

    Args:
        owner: What has the masks, in `pruned`. Without it, layers are as they were.
        layers: The layers that have the masked weights.
    """
    for layer in layers:
        for name, change in (("quantize", _quantize), ("enable_lora", _enable_lora)):
            if hasattr(layer, name):
                observe(layer, name, owner, functools.partial(change, layer))


def is_watched(owner: keras.Layer) -> bool:
    """Whether layers of `owner` are, by `settle_when_changed`."""
    return any(is_observed(layer, owner) for layer in layers_of(owner, include_self=False))


def leave_alone(owner: keras.Layer) -> None:
    """Ends what `settle_when_changed` began."""
    for layer in layers_of(owner, include_self=False):
        stop_observing(layer, owner)


def check_mode(mode: str | None, config: Any = None) -> None:
    """Raises a `ValueError` where masks would not outlast quantization.

    Example:

    >>> check_mode("int8")
    """
    mode = getattr(config, "mode", config) if mode is None else mode
    if mode not in MODES:
        raise ValueError(
            f"`mode` must be one of {MODES} for a model with masks: others pack several weights "
            "into one or change zeros. Quantize granet_tf.strip(model) instead. "
            f"Received: mode={mode!r}"
        )


def check_trains(owner: keras.Layer) -> None:
    """Raises a `ValueError` if settled masks would not hold while `owner` is trained.

    Adapters are trained beside a kernel that is frozen; no mask holds for one that is not.
    """
    lost = [
        p.path
        for p in owner.pruned
        if not keras.backend.is_float_dtype(p.variable.dtype)
        or (owner.mask_only and is_settled(p) and p.variable.trainable)
    ]
    if lost:
        raise ValueError(
            "Masked weights can't be trained any more once they are quantized, or unfrozen in a "
            "layer that had adapters. To train what is left, take granet_tf.strip(model). "
            f"Received: {owner}, with masks of {lost}"
        )


def _quantize(layer, owner, quantize, *args, **kwargs):
    mode, config = (*args, None, None)[:2]
    check_mode(kwargs.get("mode", mode), kwargs.get("config", config))
    return _changed(layer, owner, functools.partial(quantize, *args, **kwargs), _replaced_by)


def _enable_lora(layer, owner, enable, *args, **kwargs):
    return _changed(layer, owner, functools.partial(enable, *args, **kwargs), _frozen_as)


def _changed(layer, owner, change: Callable, becomes: Callable):
    """Calls `change` on masked weights; `becomes(layer, pruned)` is what has become of each."""
    own = {id(v) for v in layer.variables}
    here = {id(p): p for p in owner.pruned if id(p.variable) in own}
    kept = [(p.variable, tf.convert_to_tensor(p.variable)) for p in here.values()]
    for pruned in here.values():
        pruned.variable.assign(masked_value(pruned))
    try:
        result = change()
        new: Mapping[int, PrunedWeight] = {key: becomes(layer, p) for key, p in here.items()}
    except Exception:  # Such as NotImplementedError, after which Keras goes on with other layers.
        new = here
        raise
    finally:
        for key, (variable, value) in zip(here, kept, strict=True):
            if not is_settled(new[key]):
                variable.assign(value)
    owner.pruned = tuple(new.get(id(p), p) for p in owner.pruned)
    if isinstance(owner, keras.Model):  # What it has compiled has the old weights in it.
        owner.train_function = owner.test_function = owner.predict_function = None
    return result


def _replaced_by(layer, pruned):
    if any(v is pruned.variable for v in layer.variables):
        return pruned  # As in float8, which rounds in the forward pass.
    new = next(v for v in layer.variables if v.name == pruned.variable.name)
    pruned.mask.assign(np.not_equal(new.numpy(), 0))
    return settled(pruned, new)


def _frozen_as(layer, pruned):
    del layer
    return settled(pruned, pruned.variable)


def _as_it_is(value, state):
    del state
    return value
