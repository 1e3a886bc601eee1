"""Models whose `compile` puts a `SparseOptimizer` around the optimizer it is given."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from granet_tf.optimizer import SparseOptimizer
from keras_layers.prunable import carries_masks


class SparseCompile:
    """To be mixed into a class of Keras models with masks."""

    def compile(self, optimizer="rmsprop", *args, **kwargs):
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


class OwnCompile:
    """To be mixed into a user's class with a `compile` of its own and masks."""

    def compile(self, *args, **kwargs):
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
    return any(carries_masks(layer) and layer.pruned for layer in model._flatten_layers())


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
    optimizers = {}
    if carries_masks(model):
        optimizers = optimizers_of(model.model)
        optimizers.pop("optimizer", None)  # What compile() of the model inside was given.
    if has_masks(model):
        optimizers |= optimizers_of(model)
    for name, optimizer in optimizers.items():
        if sparse_part(optimizer) is None:
            setattr(model, name, made_sparse(optimizer, model, partly=len(optimizers) > 1))
            model.train_function = None  # It has the optimizer of before in it.


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
    sparse = SparseOptimizer(innermost(optimizer), model)
    sparse.updates_all = not partly
    if partly and sparse.inner_optimizer.built:
        sparse.build(sparse.inner_optimizer._trainable_variables)
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
