"""`Shrink`: a Keras callback that removes during `fit` what coupled filters have pruned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path

import keras

from granet_tf.structured.history import Shrunk
from granet_tf.wrapping.compiling import sparse_part
from granet_tf.writing import replacing
from keras_layers.carrier import CarriesMasks


class Shrink(keras.callbacks.Callback):
    """Makes the model that `fit` trains smaller: `SparseModel.shrink`, at points of the training.

    `fit` goes on in the smaller model. It works with `steps_per_execution` (after the execution
    that reaches the point), `jit_compile` and strategies; each shrink compiles the training step
    anew, which takes as long as at the beginning.

    Args:
        at: When: optimizer steps (int), or fractions of training in (0, 1) (float); one or several.
        path: A file, JSON, that tells what is left after each shrink. If it is there when training
            begins, the model is given that shape first. So a session that was interrupted goes on
            from a checkpoint of the smaller model: put `Shrink` before
            `keras.callbacks.BackupAndRestore` in the list of callbacks. None writes no file.

    Raises:
        ValueError: If `at` is no point of training; when training begins, if the model is not one
            of `granet_tf.wrap` with coupled filters.

    Example:

    >>> import numpy as np
    >>> import granet_tf
    >>> layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    >>> method = granet_tf.GMP(0.5, frequency=1, pattern="coupled_filter")
    >>> model = granet_tf.wrap(keras.Sequential(layers), method)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.random.rand(32, 4), np.random.rand(32, 2)
    >>> history = model.fit(x, y, batch_size=4, verbose=0, callbacks=[Shrink(at=0.9)])
    >>> model.shape_history[-1].step, granet_tf.strip(model).layers[0].units
    (7, 4)
    """

    def __init__(self, at: float | Sequence[float], path: str | Path | None = None):
        super().__init__()
        self.at = tuple(at) if isinstance(at, (list, tuple)) else (at,)
        if not self.at or not all(map(_is_point, self.at)):
            raise ValueError(
                "`at` must be optimizer steps, integers > 0, or fractions of training, floats in "
                f"(0, 1). Received: at={at!r}"
            )
        self.path = None if path is None else Path(path)
        self._points: list[int] = []

    def on_train_begin(self, logs=None):
        model = self.model
        if not (isinstance(model, CarriesMasks) and hasattr(model, "shrink")):
            raise ValueError(
                "Shrink is for a model from granet_tf.wrap(model, method, "
                f"pattern='coupled_filter'). Received: model={model}"
            )
        if self.path is not None and self.path.exists():
            history = json.loads(self.path.read_text(encoding="utf-8"))
            for each in map(Shrunk.from_config, history[len(model.shape_history) :]):
                model.shrink(kept=each.kept, step=each.step)
        length = model.method.total_steps
        points = [at if isinstance(at, Integral) else round(at * length) for at in self.at]
        # Those of an earlier session have had their effect.
        last = max((each.step for each in model.shape_history), default=-1)
        self._points = sorted(point for point in points if point > last)

    def on_train_batch_end(self, batch, logs=None):
        if not self._points:
            return
        steps = sparse_part(self.model.optimizer).steps
        if steps < self._points[0]:
            return
        self._points = [point for point in self._points if point > steps]
        if self.model.shrink() is not None and self.path is not None:
            history = [each.get_config() for each in self.model.shape_history]
            with replacing(self.path) as beside:
                beside.write_text(json.dumps(history), encoding="utf-8")


def _is_point(at) -> bool:
    if isinstance(at, bool) or not isinstance(at, Real):
        return False
    return at > 0 if isinstance(at, Integral) else 0.0 < at < 1.0
