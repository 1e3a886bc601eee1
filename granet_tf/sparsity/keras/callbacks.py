"""tfmot's two callbacks: one that `fit` may do without, one that writes for TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from granet_tf.optimization.groups import groups_of
from granet_tf.reports.events import write_scalars
from granet_tf.wrapping.compiling import (
    SparseFit,
    make_optimizers_sparse,
    optimizers_of,
    prune_at_start,
    sparse_part,
    sparse_parts,
)
from granet_tf.wrapping.ending import warn_of_dense_end
from granet_tf.wrapping.following import resolve_for
from granet_tf.wrapping.log_sparsity import log_sparsity
from granet_tf.wrapping.stripping import pruned_weights
from keras_layers.keras_internals import variables_trained_by


class UpdatePruningStep(keras.callbacks.Callback):
    """Makes the model's optimizer update the masks, where it does not yet.

    The optimizer counts the steps. A model from `prune_low_magnitude` needs no callback; one that
    you put together of wrapped layers and compile with a plain optimizer does.

    In a loop of your own, give the model its optimizer and call what tfmot's guide calls:
    `set_model(model)`, `on_train_begin()`, `on_train_batch_begin(batch)` before each step and
    `on_epoch_end(batch)`. Masks are then updated between the steps, whether you train with
    `model.optimizer` or with the plain one that you gave it.

    Raises:
        ValueError: If training begins with wrapped layers in the model and no optimizer.

    Source: `tfmot.sparsity.keras.UpdatePruningStep`.

    Example:

    >>> from granet_tf.sparsity.keras import ConstantSparsity, prune_low_magnitude
    >>> schedule = ConstantSparsity(0.75, 0, frequency=1)
    >>> layer = prune_low_magnitude(keras.layers.Dense(4), schedule)
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> model.compile("sgd", "mse")
    >>> x = keras.random.normal((8, 4))
    >>> history = model.fit(x, x, verbose=0, callbacks=[UpdatePruningStep()])
    >>> int(np.count_nonzero(layer.pruned[0].mask))
    4
    """

    def __init__(self) -> None:
        super().__init__()
        self._caught_up = {}

    def set_model(self, model):
        super().set_model(model)
        self._bind()

    def on_train_begin(self, logs=None):
        # Loops may give the model its optimizer only after set_model().
        self._bind()
        if pruned_weights(self.model) and not optimizers_of(self.model):
            raise ValueError(
                "The model must have an optimizer when training begins: compile it, or set "
                f"model.optimizer. Received: model={self.model}, whose optimizer is None"
            )
        if self.params and self.params.get("epochs"):
            resolve_for(self.model, self.params)
        prune_at_start(self.model)

    def on_train_end(self, logs=None):
        if not isinstance(self.model, SparseFit):  # Whose fit() does it.
            for optimizer in sparse_parts(self.model):
                warn_of_dense_end(optimizer, ended=True)

    def on_train_batch_begin(self, batch, logs=None):
        self._catch_up()

    # tfmot names the first argument `batch`, and loops after its guide do so.
    def on_epoch_end(self, epoch=None, logs=None, *, batch=None):
        self._catch_up()
        log_sparsity(self.model, logs)

    def _bind(self):
        model = self.model
        if not pruned_weights(model):
            return
        with model.distribute_strategy.scope():
            make_optimizers_sparse(model)
            sparse = sparse_part(getattr(model, "optimizer", None))
            if sparse is not None and sparse.trains_all:
                sparse.build(model.trainable_variables)
        parts = sparse_parts(self.model)
        self._caught_up = {id(each): int(each.iterations.numpy()) for each in parts}

    def _catch_up(self):
        """After steps of the plain optimizer, which leave masks as they are."""
        for each in sparse_parts(self.model):
            if each.has_stepped:
                continue
            step = int(each.iterations.numpy())
            if step > self._caught_up.get(id(each), step):
                each.build(variables_trained_by(each.inner_optimizer))
                each.catch_up()
            self._caught_up[id(each)] = step


class _WithoutTensorBoard(keras.callbacks.Callback):
    """In the place of `keras.callbacks.TensorBoard` where its package is not installed."""

    def __init__(self, log_dir: str | Path, update_freq: str | int, **kwargs):
        super().__init__()
        if kwargs:
            raise ImportError(
                "Further arguments go to keras.callbacks.TensorBoard, which needs the package "
                f"tensorboard: pip install tensorboard. Received: {sorted(kwargs)}"
            )
        self.log_dir = log_dir
        self.update_freq = update_freq


_TensorBoard = (
    keras.callbacks.TensorBoard if importlib.util.find_spec("tensorboard") else _WithoutTensorBoard
)


class PruningSummaries(_TensorBoard):
    """Writes the sparsity of each pruned weight, and its smallest active |w|, for TensorBoard.

    Written at the start of each epoch and at the end of training, over optimizer steps, to the
    folder `metrics` in `log_dir`: `sparsity` of the whole, `<path>/sparsity`, `<path>/threshold`.

    The package tensorboard (`pip install tensorboard`) is needed to look at them, and not to write
    them. If it is installed, this is a `keras.callbacks.TensorBoard` and writes its things, too.

    Args:
        log_dir: For `tensorboard --logdir`.
        update_freq: "epoch", or a number of batches after which to write as well. "batch" is 1.
        **kwargs: Further arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ValueError: If `log_dir` is not a folder's name, or `update_freq` none of these.
        ImportError: On further arguments without the package tensorboard.

    Source: `tfmot.sparsity.keras.PruningSummaries`.
    """

    def __init__(self, log_dir: str | Path, update_freq: str | int = "epoch", **kwargs: Any):
        if not isinstance(log_dir, (str, Path)) or not str(log_dir):
            raise ValueError(f"`log_dir` must be a non-empty string. Received: {log_dir!r}")
        named = update_freq in ("epoch", "batch")
        if not named and not (isinstance(update_freq, int) and update_freq > 0):
            raise ValueError(
                "`update_freq` must be 'epoch', 'batch' or a number of batches > 0. "
                f"Received: {update_freq!r}"
            )
        super().__init__(log_dir=str(log_dir), update_freq=update_freq, **kwargs)
        self._batches = {"epoch": None, "batch": 1}.get(update_freq, update_freq)
        self._pruning_writer = tf.summary.create_file_writer(str(Path(log_dir) / "metrics"))

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self._write()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self._batches and (batch + 1) % self._batches == 0:
            self._write()

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        self._write()

    def _write(self):
        step = max(int(each.iterations.numpy()) for each in optimizers_of(self.model).values())
        write_scalars(self._pruning_writer, step, sparsities(self.model))
        self._pruning_writer.flush()


def sparsities(model: keras.Model) -> dict[str, float]:
    """What `PruningSummaries` writes, by tag.

    Example:

    >>> from granet_tf.sparsity.keras import prune_low_magnitude
    >>> layer = keras.layers.Dense(2, kernel_initializer="ones", name="dense")
    >>> model = keras.Sequential([keras.Input((4,)), layer], name="net")
    >>> sparsities(prune_low_magnitude(model))
    {'sparsity': 0.0, 'net/dense/kernel/sparsity': 0.0, 'net/dense/kernel/threshold': 1.0}
    """
    weights = [
        (p.path, group.active(p), np.abs(p.variable.numpy()))
        for group in groups_of(model)
        for p in group.pruned
    ]
    active = sum(int(np.count_nonzero(mask)) for _, mask, _ in weights)
    figures = {"sparsity": 1.0 - active / max(sum(mask.size for _, mask, _ in weights), 1)}
    for path, mask, magnitude in weights:
        figures[f"{path}/sparsity"] = 1.0 - int(np.count_nonzero(mask)) / mask.size
        figures[f"{path}/threshold"] = float(np.min(magnitude, where=mask, initial=np.inf))
    return figures
