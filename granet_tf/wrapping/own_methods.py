"""A wrapped model of a user's own class keeps what that class does: how it trains, for one."""

from __future__ import annotations

import functools
import inspect
import types
import warnings
from typing import Any

import keras

from granet_tf.wrapping.compiling import OwnCompile, SparseCompile
from granet_tf.wrapping.own_classes import named_in_files_as, own_class
from keras_layers.keras_internals import Functional
from keras_layers.masked_layers import computing_masked, mask_calls
from keras_layers.transparent import Transparent

# What the model inside does, by its own class, when the wrapper calls it or saves it.
_INSIDE = (
    *("__new__", "__init__", "__call__", "call", "build", "compute_mask", "quantize", "export"),
    *("compute_output_shape", "compute_output_spec", "symbolic_call", "stateless_call"),
    *("get_config", "from_config", "get_build_config", "build_from_config", "layers"),
    *("save_own_variables", "load_own_variables", "save_assets", "load_assets"),
    *("__getattr__", "__getattribute__", "__setattr__", "__delattr__", "__dir__", "__reduce__"),
)


@functools.cache
def with_methods_of(kind: type[keras.Model], base: type[keras.Model]) -> type[keras.Model]:
    """`base` with the methods of `kind` on top, as if `kind` were derived from `base`.

    The user's `super().train_step(data)` goes on in `base`. Keras's classes of graphs are left out:
    the model inside is one, and the wrapper around it is none. With `mask_only`, layers that these
    methods call compute with masked weights, as they do when the whole model is called.

    Args:
        kind: The class of a model that is to be wrapped.
        base: `SparseModel`.

    Returns:
        `base` itself, where `kind` adds nothing to what Keras's models do.

    Example:

    >>> import granet_tf
    >>> class Own(keras.Sequential):
    ...     def compute_loss(self, **kwargs):
    ...         return 2.0 * super().compute_loss(**kwargs)
    >>> kind = with_methods_of(Own, granet_tf.SparseModel)
    >>> issubclass(kind, Own), issubclass(kind, keras.Sequential)
    (True, False)
    >>> with_methods_of(keras.Sequential, granet_tf.SparseModel) is granet_tf.SparseModel
    True
    """
    names, classes = own_names(kind, base), _own_classes(kind, base)
    if not names:
        return base
    defined = {name: value for each in reversed(classes) for name, value in vars(each).items()}
    # A compile() of the user's own takes what arguments it likes.
    first, last = [], list(base.__mro__)
    if "compile" in defined:
        first, last = [OwnCompile], [each for each in last if each is not SparseCompile]

    class Order(type(kind)):
        def mro(cls):
            return [cls, *first, *_own_classes(kind, base), *last]

    def masked(name):
        @functools.wraps(defined[name], updated=())
        def method(self, *args, **kwargs):
            with computing_masked(self if self.mask_only else None):
                return getattr(super(made, self), name)(*args, **kwargs)

        return method

    @functools.wraps(base.call)
    def call(self, *args, **kwargs):
        with computing_masked(None):  # The whole model masks what is in it.
            return base.call(self, *args, **kwargs)

    def watch_layers(self):
        base.watch_layers(self)
        if self.mask_only:
            mask_calls(self)

    # What a class only begins with, such as `steps = 0`, is what the model inside has made of it.
    values = {name: value for name, value in defined.items() if _is_value(name, value, base)}
    # Files are laid out by attributes: what the user's properties give is saved with the model
    # inside.
    properties = {n for n in names if not callable(defined[n]) and not hasattr(base, n)}

    def attributes(self):
        return [name for name in base.__dir__(self) if name not in properties]

    body = {name: inspect.getattr_static(base, name) for name in _INSIDE if name in defined}
    body |= {name: _Inside(name, value) for name, value in values.items()}
    body |= {name: masked(name) for name in names if _is_method(defined[name])}
    body |= {"call": call, "watch_layers": watch_layers, "__dir__": attributes}
    body["__module__"] = base.__module__
    body["__qualname__"] = f"{base.__name__}[{kind.__name__}]"
    made = types.new_class(
        base.__name__, (base, kind), {"metaclass": Order}, lambda d: d.update(body)
    )
    named_in_files_as(made, base)  # Its constructor makes this class anew.
    return made


def own_names(kind: type, base: type) -> set[str]:
    """The methods and properties that `kind` adds to Keras's models, or overrides.

    Args:
        kind: A class of models.
        base: `SparseModel`.

    Example:

    >>> import granet_tf
    >>> class Own(keras.Model):
    ...     def call(self, inputs):
    ...         return inputs
    ...     def test_step(self, data):
    ...         return {"loss": 0.0}
    >>> own_names(Own, granet_tf.SparseModel)
    {'test_step'}
    """
    return {
        name
        for each in _own_classes(kind, base)
        for name, value in vars(each).items()
        if name not in _INSIDE
        and not name.startswith("__")
        and (callable(value) or hasattr(value, "__get__"))
    }


def taken_names(model: keras.Model, base: type[keras.Model]) -> set[str]:
    """What `model` and `base` both have, and mean different things by.

    Args:
        model: A user's model.
        base: `SparseModel`.

    Example:

    >>> import granet_tf
    >>> class Own(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.model = keras.Sequential()
    >>> taken_names(Own(), granet_tf.SparseModel)
    {'model'}
    """
    ours = {name for name in dir(base) if not hasattr(keras.Model, name)}
    theirs = {*own_names(own_class(model), base), *vars(model)}
    # What all layers have, and the wrapper answers for the model inside, means the same.
    same = {*vars(SparseCompile), *vars(Transparent)}
    return theirs & {*ours, *base.__annotations__} - same


def warn_of_taken_names(model: keras.Model, base: type[keras.Model]) -> None:
    """Warns if `model` can't keep the methods of its class, as `taken_names` has some."""
    kind, taken = own_class(model), taken_names(model, base)
    ignored = [n for n in own_names(kind, base) if taken and hasattr(keras.Model, n)]
    if ignored:
        warnings.warn(
            f"The wrapped model does not use {', '.join(f'{n}()' for n in sorted(ignored))} of "
            f"{kind.__name__}, as {kind.__name__} means something of its own by "
            f"{', '.join(f'`{n}`' for n in sorted(taken))}, which wrapped models have. Rename it, "
            "or compile your model with granet_tf.SparseOptimizer(optimizer, granet_tf.wrap("
            "model)) and fit that.",
            stacklevel=3,
        )


class _Inside:
    """Reads an attribute of the model inside."""

    def __init__(self, name: str, default: Any):
        self.name, self.default = name, default

    def __get__(self, instance, owner=None) -> Any:
        if "model" not in getattr(instance, "__dict__", {}):
            return self.default
        return getattr(instance.model, self.name)


def _is_method(value) -> bool:
    """Whether it is called with the model; a `tf.function` is, too."""
    is_bound = callable(value) and hasattr(value, "__get__")
    return is_bound and not isinstance(value, (staticmethod, classmethod))


def _is_value(name, value, base) -> bool:
    does = callable(value) or hasattr(value, "__get__")
    return not (does or hasattr(base, name) or name.startswith(("__", "_abc_")))


def _own_classes(kind, base) -> list[type]:
    """The classes of a model that are neither Keras's own graphs nor what `base` is made of."""
    keras_own = {*base.__mro__, *Functional.__mro__, keras.Sequential}
    return [each for each in kind.__mro__ if each not in keras_own]
