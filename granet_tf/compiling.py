"""Models whose `compile` puts a `SparseOptimizer` around the optimizer it is given."""

from __future__ import annotations

import keras

from granet_tf.optimizer import SparseOptimizer


class SparseCompile:
    """To be mixed into a class of Keras models with masks."""

    def compile(self, optimizer="rmsprop", *args, **kwargs):
        """As `keras.Model.compile`; wraps the optimizer in a `SparseOptimizer`.

        Raises:
            ValueError: On options that TensorFlow cannot combine with the model's strategy.
        """
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        _check_strategy_options(self.distribute_strategy, innermost(optimizer), kwargs)
        with self.distribute_strategy.scope():
            # Without weights yet, there are no masks to keep.
            optimizer = made_sparse(optimizer, self) if self.built else optimizer
            super().compile(optimizer, *args, **kwargs)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            config["optimizer"] = keras.saving.serialize_keras_object(innermost(self.optimizer))
        return config

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        if self.built:
            self.optimizer.build(self.trainable_variables)


def made_sparse(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> keras.optimizers.Optimizer:
    """`optimizer` with a `SparseOptimizer` for `model` in it, inside of loss scaling.

    Example:

    >>> import granet_tf
    >>> model = granet_tf.wrap(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]))
    >>> scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    >>> type(made_sparse(scaled, model).inner_optimizer).__name__
    'SparseOptimizer'
    """
    sparse = SparseOptimizer(innermost(optimizer), model)
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


def _check_strategy_options(strategy, optimizer, options):
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
