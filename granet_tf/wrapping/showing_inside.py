"""What a wrapped model answers as the one inside would: attributes, inputs, layers, summary."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from granet_tf.optimization.groups import count_active
from keras_layers.keras_internals import COMPILED, Functional, functional_of
from keras_layers.masked_layers import mask_calls

# What Keras keeps in a model when it is compiled and trained.
_TRAINING = (
    *COMPILED,
    *("stop_training", "history", "_eval_epoch_iterator"),
)


class ShowsInside:
    """To be mixed into a class of Keras models that have another one, `model`, inside.

    What the wrapper lacks is read from the model inside. What is assigned to an attribute that the
    model inside has, goes there.
    """

    model: keras.Model
    mask_only: bool

    # The attributes of the class that mixes this in.
    _wrapper_names: ClassVar[frozenset[str]]

    # Whether somebody has taken a layer out.
    _gave_layers = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # Not of a class that is made of it and a user's, whose attributes are the model's inside.
        if ShowsInside in cls.__bases__:
            cls._wrapper_names = frozenset((*dir(cls), *cls.__annotations__, *_TRAINING))

    def __getattr__(self, name: str) -> Any:
        return (
            getattr(self.model, name) if self._is_inside(name) else super().__getattribute__(name)
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # Each optimizer is one that knows the masks, which the model inside must not keep.
        is_optimizer = isinstance(value, keras.optimizers.Optimizer)
        if is_optimizer or name in vars(self) or not self._is_inside(name):
            super().__setattr__(name, value)
        elif name in vars(self.model) or hasattr(type(self.model), name):
            setattr(self.model, name, value)
        else:
            super().__setattr__(name, value)

    def _is_inside(self, name):
        """Whether an attribute that this model lacks may be one of the model inside."""
        return (
            "model" in vars(self)
            and name not in type(self)._wrapper_names
            and not name.startswith(("__", "_self_"))
        )

    @property
    def input(self):
        return self._graph.input if self._has_graph else super().input

    @property
    def output(self):
        return self._graph.output if self._has_graph else super().output

    @property
    def _graph(self):
        """A sequential model has no tensors of its own before it is called, but its layers do."""
        return functional_of(self.model) if self._gave_layers else self.model

    @property
    def _has_graph(self):
        """Whether inputs and outputs are those of the graph inside, as plain Keras has it."""
        uncalled = isinstance(self.model, keras.Sequential) and not self._inbound_nodes
        return uncalled or isinstance(self.model, Functional)

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.Layer:
        """The model inside, or the layer of it that has this name."""
        if name in (None, self.model.name):
            return super().get_layer(name=name, index=index)
        # Whoever takes a layer out, as distillation of features does, may make a model of it.
        self._gave_layers = True
        if self.mask_only:
            mask_calls(self)
        return self.model.get_layer(name=name, index=index)

    def summary(self, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.summary`, of the model inside, and a line on nonzeros.

        `granet_tf.summarize` tells them of each weight. With `print_fn` it is Keras's text only.
        """
        keras.Model.summary(self.model, *args, **kwargs)
        if not _has_print_fn(*args, **kwargs):
            active, size = count_active(self)
            share = f"sparsity {1 - active / size:.4f}"
            print(f" Nonzero params: {active:,} of {size:,} prunable ({share})")

    def count_params(self) -> int:
        """Number of parameters of the model inside, without masks."""
        return self.model.count_params()


def _has_print_fn(line_length=None, positions=None, print_fn=None, *args, **kwargs):
    return print_fn is not None
