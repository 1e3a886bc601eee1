"""How long a training is, which wrapped models learn when `fit` begins, and what they say in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from granet_tf.wrapping.compiling import sparse_part
from granet_tf.wrapping.ending import training_steps
from keras_layers.carrier import wrapped_models


class FollowTraining(keras.callbacks.Callback):
    """Tells the model how long training is, and the user when a layer has been emptied."""

    def __init__(self, initial_epoch: int):
        super().__init__()
        self.initial_epoch = initial_epoch

    def on_train_begin(self, logs=None):
        resolve_for(self.model, self.params, self.initial_epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.model.warn_of_emptied()


def resolve_for(trainer: keras.Model, params: Mapping[str, Any], initial_epoch: int = 0) -> None:
    """Tells the SparseModels in `trainer`, or it itself, how long its `fit` is.

    Args:
        trainer: A model that `fit` is called of.
        params: `keras.callbacks.Callback.params`; without "epochs" where there is no `fit`.
        initial_epoch: As `fit` was given it.

    Example:

    >>> layers = [keras.Input((2,)), keras.layers.Dense(2)]
    >>> model = granet_tf.wrap(keras.Sequential(layers), granet_tf.RigL(0.5, frequency=1))
    >>> model.compile("sgd", "mse")
    >>> resolve_for(model, {"epochs": 2, "steps": 10})
    >>> model.method.total_steps
    20
    """
    for sparse in wrapped_models(trainer):
        given, part = sparse.method.total_steps, sparse_part(getattr(trainer, "optimizer", None))
        done = 0 if part is None else part.steps
        if given is None and "epochs" in params:
            sparse.resolve(training_steps(params, trainer.optimizer, done, initial_epoch))
        elif given is not None and done == 0:
            sparse.resolve(given)
