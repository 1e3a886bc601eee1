"""`Transparent`: a layer around another one that leaves no trace in what is computed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import keras

from keras_layers.keras_internals import get_global_attribute, set_global_attribute


def _of_inside(name: str) -> property:
    """An attribute that is the one of the layer inside."""

    def read(self):
        inside = self._inside
        return vars(self).get(name) if inside is None else getattr(inside, name)

    def write(self, value):
        inside = self._inside
        if inside is None:  # Keras's constructors set it before there is a layer inside.
            vars(self)[name] = value
        else:
            setattr(inside, name, value)

    return property(read, write)


class Transparent:
    """Mixed into a Keras layer that has another one do its work.

    `keras.Layer.__call__` casts and checks inputs, sets masks and hands arguments down as the
    layer's attributes tell it to. Here these are the attributes of the layer inside, so that inputs
    reach it as they came and it is the only one to do something to them.
    """

    # The attribute that holds the layer inside.
    inside_name: ClassVar[str]

    dtype_policy = _of_inside("dtype_policy")
    compute_dtype = _of_inside("compute_dtype")
    variable_dtype = _of_inside("variable_dtype")
    input_dtype = _of_inside("input_dtype")
    autocast = _of_inside("autocast")
    input_spec = _of_inside("input_spec")
    supports_masking = _of_inside("supports_masking")
    _convert_input_args = _of_inside("_convert_input_args")
    _allow_non_tensor_positional_args = _of_inside("_allow_non_tensor_positional_args")
    _call_context_args = _of_inside("_call_context_args")
    _call_has_context_arg = _of_inside("_call_has_context_arg")

    @property
    def _inside(self) -> keras.Layer | None:
        return vars(self).get(self.inside_name)

    @property
    def quantization_mode(self) -> None:
        """None: the layer inside is called as always, and computes with integers by itself."""
        return None

    @property
    def _remat_mode(self) -> None:
        # The layer inside has its own; else all would be computed once more.
        return None

    @_remat_mode.setter
    def _remat_mode(self, value):
        del value

    def compute_output_shape(self, *args, **kwargs):
        return self._inside.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self._inside.compute_output_spec(*args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        return self._inside.compute_mask(*args, **kwargs)


@contextlib.contextmanager
def keras_global(name: str, value: Any) -> Iterator[None]:
    """Gives one of Keras's global attributes, which are those of the thread, another value."""
    before = get_global_attribute(name)
    set_global_attribute(name, value)
    try:
        yield
    finally:
        set_global_attribute(name, before)


def scope_outside(layer: keras.Layer) -> contextlib.AbstractContextManager:
    """The scope in which `call` of a wrapper around `layer` is to call it.

    Keras casts the weights of a layer of mixed precision that is called outermost, also if it has
    autocast=False, and not if it is called by another layer. The wrapper must not be that other.
    """
    scope = get_global_attribute("autocast_scope")
    # Only a layer that is outermost has been given a dtype against its will.
    opened = not layer.autocast and scope is not None and scope.dtype is not None
    return keras_global("autocast_scope", None) if opened else contextlib.nullcontext()


def with_signature(function: Callable, other: Callable) -> Callable:
    """`function` with the signature of `other`: Keras reads off it what to hand over.

    Example:

    >>> import inspect
    >>> str(inspect.signature(with_signature(print, lambda inputs, training: None)))
    '(inputs, training)'
    """
    return functools.wraps(other)(lambda *args, **kwargs: function(*args, **kwargs))
