"""Models of a user's own class with some of their layers replaced: no call of their `__init__`."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras

from granet_tf.graphs import rebuilt
from granet_tf.schedules import PACKAGE
from keras_layers.keras_internals import COMPILED, Functional, children_of, is_default, layers_of

Change = Callable[[keras.Layer], keras.Layer]


def own_class(model: keras.Layer) -> type:
    """The user's or Keras's class of a layer, whose class may be one that is made of it.

    Example:

    >>> own_class(keras.Sequential()).__name__
    'Sequential'
    """
    return getattr(type(model), "own_class", type(model))


def is_own_class(model: keras.Layer) -> bool:
    """Whether `model` is more than a graph of layers: of a class that is not Keras's.

    Example:

    >>> class Own(keras.Model):
    ...     pass
    >>> is_own_class(Own()), is_own_class(keras.Sequential())
    (True, False)
    """
    return isinstance(model, keras.Model) and own_class(model) not in (keras.Sequential, Functional)


def is_built(model: keras.Model) -> bool:
    """Whether `model` has all of its weights. One without build() and call(), such as a GAN, has
    them when its layers do.

    Example:

    >>> class Pair(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> Pair().built, is_built(Pair())
    (False, True)
    """
    has_build = not is_default(model.build)
    parts = layers_of(model, include_self=False)
    return model.built or (not has_build and all(layer.built for layer in parts))


def check_keras(model: keras.Model) -> None:
    """Raises a `TypeError` on anything but a Keras 3 model."""
    if isinstance(model, keras.Model):
        return
    if type(model).__module__.startswith(("tf_keras", "keras.src.engine")) or any(
        base.__module__.startswith("tf_keras") for base in type(model).__mro__
    ):
        raise TypeError(
            "`model` must be a Keras 3 model, and this is a tf_keras (Keras 2) one. Build it with "
            "`import keras`, and unset TF_USE_LEGACY_KERAS (importing tfmot sets it). "
            f"Received: model={model} of {type(model)}"
        )
    raise TypeError(f"`model` must be a Keras model. Received: model={model!r} of {type(model)}")


def named_in_files_as(made: type, base: type) -> None:
    """Makes files name `base`, which every process has, for what is of class `made`.

    `base` is to make `made` anew when it is loaded.

    Example:

    >>> class Base(keras.Model):
    ...     pass
    >>> class Made(Base):
    ...     pass
    >>> named_in_files_as(Made, Base)
    >>> name = keras.saving.get_registered_name(Made)
    >>> name, keras.saving.get_registered_object(name).__name__
    ('granet_tf>Base', 'Base')
    """
    register = keras.saving.register_keras_serializable(PACKAGE, base.__name__)
    register(made)
    register(base)


class Pickled:
    """To be mixed into a class of models that `pickle` can't find, as it is made when needed."""

    def __reduce__(self):
        return keras.Model._unpickle_model, super().__reduce__()[1]


def replaced(model: keras.Layer, change: Change, kind: type) -> tuple[keras.Layer, Callable]:
    """`model` as a `kind`, with `change(layer)` for each layer that it holds; and how to undo it.

    A sequential or functional model is copied, with its attributes. Any other is changed in place:
    in attributes, and in lists, tuples, dicts and sets of layers in them.

    Args:
        model: A model or layer.
        change: What takes a layer's place.
        kind: A class derived from the model's, or one that it derives from.

    Example:

    >>> class Own(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.blocks = [keras.layers.ReLU(), keras.layers.Dense(2)]
    >>> model = Own()
    >>> same, undo = replaced(model, lambda layer: keras.layers.Softmax(), Own)
    >>> same is model, [type(block).__name__ for block in model.blocks]
    (True, ['Softmax', 'Softmax'])
    >>> undo()
    >>> [type(block).__name__ for block in model.blocks]
    ['ReLU', 'Dense']
    """
    if isinstance(model, (keras.Sequential, Functional)):
        return _copied(model, change, kind), lambda: None
    before, new = type(model), {id(layer): change(layer) for layer in children_of(model)}
    kept = children_of(model)
    _replace(model, kept, new)
    model.__class__ = kind

    def undo():
        model.__class__ = before
        _replace(model, children_of(model), {id(new[id(old)]): old for old in kept})

    return model, undo


def forget_training(model: keras.Model) -> None:
    """Makes `model` as if it had not been compiled: its compiled steps have other layers in them.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> model.compile("sgd", "mse")
    >>> forget_training(model)
    >>> model.compiled
    False
    """
    model.compiled = False
    model.train_function = model.test_function = model.predict_function = None


def _replace(model, layers, new):
    """Where Keras tracks them, and in the attributes. `new`: {id of a layer: what takes its place}.

    Keras's list comes first, so that assignments find nothing new to track.
    """
    for layer in layers:
        if new[id(layer)] is not layer:
            model._tracker.replace_tracked_value("layers", layer, new[id(layer)])
    for name, value in list(vars(model).items()):
        if name == "_layers" or name.startswith("_self_"):
            continue
        swapped = _swap(value, new)
        if swapped is not value:
            setattr(model, name, swapped)


def _copied(model, change, kind):
    change = functools.cache(change)  # Attributes must have the very layers of the graph.

    def sequential(layers, **options):
        copy = kind.__new__(kind)
        keras.Sequential.__init__(copy, layers, **options)
        return copy

    def functional(inputs, outputs, **options):
        copy = kind.__new__(kind)
        Functional.__init__(copy, inputs, outputs, **options)
        return copy

    copy = rebuilt(model, change, sequential=sequential, functional=functional)
    new = {id(layer): change(layer) for layer in children_of(model)}
    for name, value in vars(model).items():
        if name not in vars(copy) and name not in COMPILED and not name.startswith("_self_"):
            setattr(copy, name, _swap(value, new))
    return copy


@functools.singledispatch
def _swap(value: Any, new: Mapping[int, keras.Layer]) -> Any:
    """`value` with `new[id(layer)]` for each layer in it; itself, if there is none."""
    return new.get(id(value), value)


@_swap.register
def _(value: list, new):
    return _if_changed(value, value, list, new)


@_swap.register
def _(value: set, new):
    return _if_changed(value, value, set, new)


@_swap.register
def _(value: tuple, new):
    # TensorFlow's wrapper of tuples says what it wraps.
    return _if_changed(value, value, getattr(value.__class__, "_make", tuple), new)


@_swap.register
def _(value: dict, new):
    make = collections.OrderedDict if isinstance(value, collections.OrderedDict) else dict
    return _if_changed(
        value, value.values(), lambda swapped: make(zip(value, swapped, strict=True)), new
    )


def _if_changed(value, members, make, new):
    swapped = [_swap(each, new) for each in members]
    same = all(a is b for a, b in zip(members, swapped, strict=True))
    return value if same else make(swapped)
