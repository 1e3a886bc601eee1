"""`sparsity` in the logs of `fit`, where progress bars, CSV files and dashboards look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from granet_tf.optimization.groups import count_active

KEY = "sparsity"


class LogSparsity(keras.callbacks.Callback):
    """Puts `sparsity` into the logs at the end of each epoch, for the callbacks that come after it.

    `fit` of a model with masks does so by itself, before all callbacks that it is given. So the
    progress bar, `CSVLogger`, `TensorBoard` and whatever else reads logs have it, and
    `ModelCheckpoint` or `EarlyStopping` may monitor it. What `fit` returns has the keys of plain
    Keras in `history`, and the sparsity of each epoch in its attribute `sparsity`.

    List this callback to have `sparsity` among the keys of `history`, too, or where the class of
    your model has a `fit` of its own. A metric of your own that is called "sparsity" stays.

    Example:

    >>> layer = keras.layers.Dense(4)
    >>> model = granet_tf.wrap(keras.Sequential([keras.Input((4,)), layer]), granet_tf.SET(0.75))
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((8, 4))
    >>> model.fit(x, x, verbose=0, callbacks=[LogSparsity()]).history["sparsity"]
    [0.75]
    >>> history = model.fit(x, x, verbose=0)
    >>> list(history.history), history.sparsity
    (['loss'], [0.75])
    """

    has_logged = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.has_logged = log_sparsity(self.model, logs)


class _History(keras.callbacks.History):
    """Keeps the sparsity apart from what plain Keras has in `history`."""

    def __init__(self, log: LogSparsity):
        super().__init__()
        self.sparsity: list[float] = []
        self._log = log

    def on_epoch_end(self, epoch, logs=None):
        logs = dict(logs or {})
        if self._log.has_logged:
            self.sparsity.append(logs.pop(KEY))
        super().on_epoch_end(epoch, logs)


def log_sparsity(model: keras.Model, logs: dict[str, Any] | None) -> bool:
    """Puts the sparsity of a model into `logs`; False if they have one, or the model no masks."""
    active, size = count_active(model)
    if logs is None or KEY in logs or not size:
        return False
    logs[KEY] = 1.0 - active / size
    return True


def with_sparsity(
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[keras.callbacks.Callback]:
    """The same callbacks, with the sparsity in the logs of each, and not in `History.history`.

    Example:

    >>> [type(each).__name__ for each in with_sparsity([keras.callbacks.TerminateOnNaN()])]
    ['LogSparsity', 'TerminateOnNaN', '_History']
    """
    kinds = (LogSparsity, keras.callbacks.History)
    asked, kept = (any(isinstance(each, kind) for each in callbacks) for kind in kinds)
    if asked:
        return list(callbacks)
    log = LogSparsity()
    return [log, *callbacks, *([] if kept else [_History(log)])]
