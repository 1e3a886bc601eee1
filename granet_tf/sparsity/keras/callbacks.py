"""tfmot's two callbacks: one that `fit` may do without, one that writes for TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from granet_tf.compiling import make_optimizers_sparse, optimizers_of, sparse_part
from granet_tf.events import write_scalars
from granet_tf.model import pruned_weights


class UpdatePruningStep(keras.callbacks.Callback):
    """Makes the model's optimizer update the masks, where it does not yet.

    The optimizer counts the steps. A model from `prune_low_magnitude` needs no callback; one that
    you put together of wrapped layers and compile with a plain optimizer does.

    In a loop of your own, call `set_model(model)` and train with `model.optimizer` from then on.

    Raises:
        ValueError: If the model has wrapped layers and no optimizer; at the end of an epoch, if it
            was trained by another optimizer, which would leave it dense.

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

    def set_model(self, model):
        super().set_model(model)
        if not pruned_weights(model):
            return
        if not optimizers_of(model):
            raise ValueError(
                "The model must have an optimizer before UpdatePruningStep gets it: compile it, or "
                f"set model.optimizer. Received: model={model}, whose optimizer is None"
            )
        with model.distribute_strategy.scope():
            make_optimizers_sparse(model)
            sparse = sparse_part(getattr(model, "optimizer", None))
            if sparse is not None and sparse.updates_all:
                sparse.build(model.trainable_variables)

    # tfmot names the first argument `batch`, and loops after its guide do so.
    def on_epoch_end(self, epoch=None, logs=None, *, batch=None):
        sparse = [sparse_part(x) for x in optimizers_of(self.model).values()]
        if any(sparse) and not any(each is not None and each.has_stepped for each in sparse):
            raise ValueError(
                "The masks were not updated, as model.optimizer has not been used: train with "
                "optimizer = model.optimizer, taken after UpdatePruningStep.set_model(model). "
                f"Received: model={self.model}"
            )


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

    def __init__(self, log_dir: str | Path, update_freq: str | int = "epoch", **kwargs):
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
    weights = [(p.path, p.mask.numpy(), np.abs(p.variable.numpy())) for p in pruned_weights(model)]
    active = sum(int(np.count_nonzero(mask)) for _, mask, _ in weights)
    figures = {"sparsity": 1.0 - active / max(sum(mask.size for _, mask, _ in weights), 1)}
    for path, mask, magnitude in weights:
        figures[f"{path}/sparsity"] = 1.0 - int(np.count_nonzero(mask)) / mask.size
        figures[f"{path}/threshold"] = float(np.min(magnitude, where=mask, initial=np.inf))
    return figures
