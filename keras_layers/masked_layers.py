"""Single layers of a wrapped model that compute with masked weights, as the whole model does.

For methods of a user's own that call layers by themselves, as a GAN's training step does, and for
functional models made of layers that were taken out, as distillation of features has them.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_layers.keras_internals import Functional, layers_of
from keras_layers.masking import masked_call
from keras_layers.observing import observe

# In which model's own methods this thread is, outside of a call that masks.
_COMPUTING: contextvars.ContextVar = contextvars.ContextVar("computing", default=None)


@contextlib.contextmanager
def computing_masked(model: keras.Model | None) -> Iterator[None]:
    """While it lasts, layers of `model` that are called compute with masked weights.

    Args:
        model: A `SparseModel` that `mask_calls` was called for; None for no model.

    Example:

    >>> import granet_tf
    >>> dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    >>> network = keras.Sequential([keras.Input((4,)), dense])
    >>> model = granet_tf.wrap(network, granet_tf.StaticSparse(0.75), mask_only=True)
    >>> mask_calls(model)
    >>> ones = keras.ops.ones((1, 4))
    >>> with computing_masked(model):
    ...     inside = float(dense(ones)[0, 0])
    >>> inside, float(dense(ones)[0, 0])
    (1.0, 4.0)
    """
    token = _COMPUTING.set(model)
    try:
        yield
    finally:
        _COMPUTING.reset(token)


def mask_calls(model: keras.Model) -> None:
    """Prepares the layers of a `SparseModel` for `computing_masked`.

    Each that has masked weights, also in layers of its own, as some read the weights of those.
    """
    masked = {id(p.variable) for p in model.pruned}
    for layer in layers_of(model.model, include_self=False):
        if any(id(v) in masked for v in layer.variables):
            observe(layer, "call", model, functools.partial(_call, layer))


def _call(layer, model, call, *args, **kwargs):
    if not (_COMPUTING.get() is model or _is_taken_out(layer, model)):
        return call(*args, **kwargs)
    own = {id(v) for v in layer.variables}
    pruned = [p for p in model.pruned if id(p.variable) in own]
    with computing_masked(None):
        return masked_call(
            _Called(layer, call),
            pruned,
            args,
            kwargs,
            straight_through=model.method.straight_through,
        )


def _is_taken_out(layer, model):
    """Whether what is going on is a call of a functional model that has the layer without masks.

    The model that was wrapped, called by itself, is as Keras has it.
    """
    entry = getattr(layer._get_call_context(), "entry_layer", None)
    if not isinstance(entry, Functional) or entry in (model, model.model):
        return False
    parts = {id(part) for part in layers_of(entry)}
    return id(layer) in parts and not {id(model), id(model.model)} & parts


class _Called:
    """A layer whose call is `call`, without what Keras does around that a second time."""

    def __init__(self, layer: keras.Layer, call: Callable):
        self._layer = layer
        self._call = call

    def __call__(self, *args, **kwargs) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)
