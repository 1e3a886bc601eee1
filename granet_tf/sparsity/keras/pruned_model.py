"""The classes of models that `prune_low_magnitude` returns."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator

import keras

from granet_tf.graphs import rebuilt
from granet_tf.schedules import PACKAGE
from granet_tf.wrapping.compiling import (
    OwnCompile,
    SparseCompile,
    has_masks,
    made_sparse,
    sparse_part,
)
from granet_tf.wrapping.own_classes import (
    Pickled,
    forget_training,
    is_own_class,
    named_in_files_as,
    replaced,
)
from keras_layers.carrier import carries_masks
from keras_layers.keras_internals import Functional, children_of, layers_of
from keras_layers.prune_low_magnitude import PruneLowMagnitude


@keras.saving.register_keras_serializable(PACKAGE)
class PrunedSequential(SparseCompile, keras.Sequential):
    """A sequential model whose `compile` makes its optimizer update the masks."""

    own_class = keras.Sequential

    def build(self, input_shape=None):
        super().build(input_shape)
        # Where only data has told the shape, compile() has come too early.
        waiting = self.compiled and has_masks(self) and sparse_part(self.optimizer) is None
        if waiting and all(layer.built for layer in layers_of(self, include_self=False)):
            with self.distribute_strategy.scope():
                self.optimizer = made_sparse(self.optimizer, self)


@keras.saving.register_keras_serializable(PACKAGE)
class PrunedFunctional(SparseCompile, Functional):
    """A functional model whose `compile` makes its optimizer update the masks."""

    own_class = Functional


@keras.saving.register_keras_serializable(PACKAGE)
class PrunedOwn(OwnCompile, Pickled):
    """Mixed into a user's class: `compile` makes its optimizers update the masks; files hold both.

    Attributes:
        own_class: The user's class.
    """

    own_class: type[keras.Model]

    def compile_from_config(self, config):
        if self.own_class.compile is not keras.Model.compile:
            super().compile_from_config(config)
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def get_config(self):
        # Keras asks a class whether it has a get_config() of its own.
        with _as_class(self, self.own_class):
            model = keras.saving.serialize_keras_object(self)
        model.pop("compile_config", None)
        wrappers = {}
        for path, layer in _places(self):
            if isinstance(layer, PruneLowMagnitude):
                wrappers[path] = layer.get_config()
                del wrappers[path]["layer"]
        return {"model": model, "wrappers": wrappers}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        wrappers = config["wrappers"]
        settings = {id(layer): wrappers.get(path) for path, layer in _places(model)}

        @functools.cache
        def change(layer):
            if isinstance(layer, keras.Model):
                inside = any(settings.get(id(inner)) for _, inner in _places(layer))
                return with_layers(layer, change) if inside else layer
            if settings.get(id(layer)) is None or carries_masks(layer):
                return layer
            return PruneLowMagnitude.around(layer, settings[id(layer)], custom_objects)

        return with_layers(model, change)


def with_layers(model: keras.Model, change: Callable) -> keras.Model:
    """`model`, not compiled, with `change(layer)` in the place of each of its layers.

    One of a user's own class becomes one whose `compile` makes its optimizers update the masks.

    Example:

    >>> class Net(keras.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.dense = keras.layers.Dense(2)
    >>> model = with_layers(Net(), PruneLowMagnitude)
    >>> type(model).__name__, isinstance(model, Net), type(model.dense).__name__
    ('PrunedNet', True, 'PruneLowMagnitude')
    """
    if not is_own_class(model):
        return rebuilt(model, change)
    pruned, _ = replaced(model, change, _pruned_class(type(model)))
    forget_training(pruned)
    if hasattr(pruned, "optimizer"):
        pruned.optimizer = None
    return pruned


@functools.cache
def _pruned_class(kind: type) -> type:
    if issubclass(kind, PrunedOwn):
        return kind
    made = types.new_class(f"Pruned{kind.__name__}", (PrunedOwn, kind))
    made.__module__, made.own_class = PrunedOwn.__module__, kind
    named_in_files_as(made, PrunedOwn)  # Its from_config() makes this class anew.
    return made


@contextlib.contextmanager
def _as_class(model, kind):
    own = type(model)
    model.__class__ = kind
    try:
        yield
    finally:
        model.__class__ = own


def _places(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.Layer]]:
    """The layers of a model and of the models in it, by where they are.

    By position: a model that is made of the config may have other names. A graph's order comes
    first: Keras tracks layers in the order of assignments, which a copy makes in another one.
    """
    layers = model.layers if isinstance(model, Functional) else []
    rest = [layer for layer in children_of(model) if layer not in layers]
    for i, layer in enumerate([*layers, *rest]):
        yield f"{prefix}{i}", layer
        if isinstance(layer, keras.Model):
            yield from _places(layer, f"{prefix}{i}/")
