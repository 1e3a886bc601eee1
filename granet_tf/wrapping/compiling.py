"""Models whose `compile` puts a `SparseOptimizer` around the optimizer it is given."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from granet_tf.optimizer import SparseOptimizer
from granet_tf.wrapping.ending import warn_of_dense_end
from granet_tf.wrapping.log_sparsity import with_sparsity
from keras_layers.carrier import carries_masks
from keras_layers.keras_internals import layers_of


class SparseFit:
    """To be mixed into a class of Keras models with masks, whose optimizers update them."""

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; prunes what is due before the first step.

        Warns:
            UserWarning: If training ends less sparse than the schedule was to make it.
        """
        open_end = any(g.method().total_steps is None for p in sparse_parts(self) for g in p.groups)
        if getattr(super().fit, "__func__", None) is keras.Model.fit:
            arguments = arguments_of_fit(*args, **kwargs)
            callbacks = with_callback(arguments.pop("callbacks", None), _PruneAtStart(), self)
            if isinstance(callbacks, list):
                callbacks = with_sparsity(callbacks)
            history = super().fit(callbacks=callbacks, **arguments)
        else:  # One of the user's own, which takes what it likes.
            history = super().fit(*args, **kwargs)
        for optimizer in sparse_parts(self):
            warn_of_dense_end(optimizer, ended=open_end or self.stop_training)
        return history


class _PruneAtStart(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        build_optimizer(self.model)
        prune_at_start(self.model)


def build_optimizer(model: keras.Model) -> None:
    """Builds the optimizer of a model that is built, if it updates all masks of the model.

    `tf.function` traces a step twice in which variables are made. Keras leaves slots to the step.

    Example:

    >>> import granet_tf
    >>> model = granet_tf.wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]))
    >>> model.compile("adam", "mse")
    >>> build_optimizer(model)
    >>> model.optimizer.built
    True
    """
    optimizer = getattr(model, "optimizer", None)
    sparse = sparse_part(optimizer)
    if sparse is None or optimizer.built or not (sparse.trains_all and model.built):
        return
    with model.distribute_strategy.scope(), keras.name_scope(sparse.name):
        optimizer.build(model.trainable_variables)


def prune_at_start(model: keras.Model) -> None:
    """Prunes what is due at step 0, if `model` has not been trained yet.

    Example:

    >>> import granet_tf
    >>> model = granet_tf.wrap(
    ...     keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]),
    ...     granet_tf.GMP(0.75, end_step=0),
    ... )
    >>> model.compile("sgd", "mse")
    >>> prune_at_start(model)
    >>> model.nonzeros
    4
    """
    for optimizer in sparse_parts(model):
        if optimizer.steps > 0 or all(g.method().at_start() is None for g in optimizer.groups):
            continue
        with model.distribute_strategy.scope():
            # Those of several optimizers that are not built do not know yet what they train.
            if optimizer.trains_all:
                optimizer.build(model.trainable_variables)
            if optimizer.built:
                optimizer.prune_at_start()


def arguments_of_fit(*args, **kwargs) -> dict[str, Any]:
    """{name: value} of arguments for `keras.Model.fit`.

    Example:

    >>> arguments_of_fit([0.0], [1.0], 32, epochs=2)
    {'x': [0.0], 'y': [1.0], 'batch_size': 32, 'epochs': 2}
    """
    bound = inspect.signature(keras.Model.fit).bind(None, *args, **kwargs).arguments
    return {name: value for name, value in bound.items() if name != "self"}


def with_callback(
    callbacks, callback: keras.callbacks.Callback, model: keras.Model, *, first: bool = False
):
    """What `fit` is given as `callbacks`, and `callback` as the last or the first of them.

    Example:

    >>> one, other = keras.callbacks.Callback(), keras.callbacks.TerminateOnNaN()
    >>> with_callback(one, other, keras.Sequential()) == [one, other]
    True
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callback.set_params(callbacks.params)
        callback.set_model(model)
        callbacks.callbacks.append(callback)
        return callbacks
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    given = [c for c in given if c is not None]
    return [callback, *given] if first else [*given, callback]


class SparseCompile(SparseFit):
    """To be mixed into a class of Keras models with masks."""

    def compile(self, optimizer: Any = "rmsprop", *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.compile`; wraps the optimizer in a `SparseOptimizer`.

        Raises:
            ValueError: On options that TensorFlow cannot combine with the model's strategy.
        """
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        check_strategy_options(self.distribute_strategy, innermost(optimizer), kwargs)
        with self.distribute_strategy.scope():
            # Without weights yet, or with nothing to prune, there are no masks to keep.
            optimizer = made_sparse(optimizer, self) if has_masks(self) else optimizer
            super().compile(optimizer, *args, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            # As it is, with the loss scaling that Keras adds under mixed_float16 and forgets.
            config["optimizer"] = keras.saving.serialize_keras_object(self.optimizer)
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)


class OwnCompile(SparseFit):
    """To be mixed into a user's class with a `compile` of its own and masks."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As the user's class; then puts a `SparseOptimizer` in each optimizer's place.

        Raises:
            ValueError: On options that TensorFlow cannot combine with the model's strategy.
        """
        with self.distribute_strategy.scope():
            super().compile(*args, **kwargs)
            make_optimizers_sparse(self)
        for optimizer in optimizers_of(self).values():
            check_strategy_options(self.distribute_strategy, innermost(optimizer), kwargs)


def has_masks(model: keras.Model) -> bool:
    """Whether any layer of `model` has masks by now.

    Example:

    >>> has_masks(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]))
    False
    """
    return any(carries_masks(layer) and layer.pruned for layer in layers_of(model))


def optimizers_of(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """{attribute: optimizer} of a model, which may train its parts by optimizers of their own.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    >>> model.compile("sgd", "mse")
    >>> list(optimizers_of(model))
    ['optimizer']
    """
    return {
        name: value
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer)
    }


def make_optimizers_sparse(model: keras.Model) -> None:
    """Puts a `SparseOptimizer` in the place of each optimizer of `model` that has none.

    One of several updates the masks of the weights that it is given to train. A wrapped model gets
    its own in the place of those that the model inside has from its constructor.
    """
    if put_sparse_optimizers(model):
        model.train_function = None  # It has the optimizer of before in it.


def put_sparse_optimizers(model: keras.Model) -> bool:
    """As `make_optimizers_sparse`, in the middle of its step; returns whether there was one."""
    optimizers = {}
    if carries_masks(model):
        optimizers = optimizers_of(model.model)
        optimizers.pop("optimizer", None)  # What compile() of the model inside was given.
    if has_masks(model):
        optimizers |= optimizers_of(model)
    plain = {n: optimizer for n, optimizer in optimizers.items() if sparse_part(optimizer) is None}
    for name, optimizer in plain.items():
        setattr(model, name, made_sparse(optimizer, model, partly=len(optimizers) > 1))
    return bool(plain)


def made_sparse(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, *, partly: bool = False
) -> keras.optimizers.Optimizer:
    """`optimizer` with a `SparseOptimizer` for `model` in it, inside of loss scaling.

    `partly`: for those weights only that it will train.

    Raises:
        ValueError: If model or optimizer were not made in the scope of the model's strategy.

    Example:

    >>> import granet_tf
    >>> model = granet_tf.wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]))
    >>> scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    >>> type(made_sparse(scaled, model).inner_optimizer).__name__
    'SparseOptimizer'
    """
    _check_scope(model, innermost(optimizer))
    sparse = SparseOptimizer(innermost(optimizer), model, trains_all=not partly)
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return sparse
    optimizer.inner_optimizer = sparse
    return optimizer


def sparse_part(optimizer: keras.optimizers.Optimizer | None) -> SparseOptimizer | None:
    """The SparseOptimizer with masks to update that is `optimizer` or inside it."""
    while optimizer is not None:
        if isinstance(optimizer, SparseOptimizer) and optimizer.has_masks:
            return optimizer
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return None


def sparse_parts(model: keras.Model) -> list[SparseOptimizer]:
    """The SparseOptimizers of `model` that have masks to update."""
    parts = map(sparse_part, optimizers_of(model).values())
    return [part for part in parts if part is not None]


def innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The user's optimizer inside loss scaling and SparseOptimizer."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def check_strategy_options(
    strategy: tf.distribute.Strategy, optimizer: keras.optimizers.Optimizer, options: Mapping
) -> None:
    """Raises ValueError on options of `compile` that TensorFlow cannot combine with `strategy`."""
    if not strategy.extended._in_multi_worker_mode() and strategy.num_replicas_in_sync == 1:
        return
    asked = {
        "jit_compile": options.get("jit_compile") is True,
        "steps_per_execution": options.get("steps_per_execution", 1) > 1,
        "gradient_accumulation_steps": bool(optimizer.gradient_accumulation_steps),
    }
    for name, is_asked in asked.items():
        if is_asked:
            value = options.get(name, getattr(optimizer, name, None))
            raise ValueError(
                f"TensorFlow cannot do `{name}` under {type(strategy).__name__}. Leave it out, or "
                f"train on one device. Received: {name}={value}"
            )


def _check_scope(model, optimizer):
    # Else each replica counts its steps into one variable, and schedules run ahead.
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return
    parts = {optimizer: [optimizer.iterations], model: model.trainable_variables}
    for part, variables in parts.items():
        if not all(strategy.extended.variable_created_in_scope(v.value) for v in variables):
            raise ValueError(
                "Model and optimizer must be made in the scope of the strategy that trains them. "
                f"Received: {part}, not made in the scope of {type(strategy).__name__}"
            )
