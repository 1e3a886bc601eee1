"""`sparsity` is in the logs of `fit`, so that Keras's own callbacks see it."""

import csv
import re

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf import callbacks

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def network():
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="dense")], name="net")


def wrapped():
    # Updates at steps 0, 4 and 8 of 16: 64 · (1 − s) weights, with s of 0, 0.65625 and 0.75.
    model = granet_tf.wrap(network(), granet_tf.GMP(0.75, end_step=8, frequency=4))
    model.compile("sgd", "mse")
    return model


EACH = [0.65625, 0.75, 0.75, 0.75]


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs, self.batches = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))


def test_callbacks_see_it_and_history_keeps_the_keys_of_keras(tmp_path):
    seen, file = Seen(), tmp_path / "log.csv"
    log = keras.callbacks.CSVLogger(file)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}-{sparsity:.2f}.keras")
    history = wrapped().fit(X, X, batch_size=8, epochs=4, verbose=0, callbacks=[seen, log, best])
    assert [logs["sparsity"] for logs in seen.epochs] == EACH
    assert all("sparsity" not in logs for logs in seen.batches)  # Nothing is counted in a step.
    with open(file, newline="") as rows:
        assert [float(row["sparsity"]) for row in csv.DictReader(rows)] == EACH
    assert (tmp_path / "4-0.75.keras").exists()
    assert list(history.history) == ["loss"] and history.sparsity == EACH


def test_the_progress_bar_shows_it(capsys):
    wrapped().fit(X, X, batch_size=8, epochs=2, verbose=2)
    assert re.findall(r"sparsity: ([\d.]+)", capsys.readouterr().out) == ["0.6562", "0.7500"]


def test_who_asks_for_it_has_it_in_the_history():
    asked = [callbacks.LogSparsity()]
    history = wrapped().fit(X, X, batch_size=8, epochs=4, verbose=0, callbacks=asked)
    assert history.history["sparsity"] == EACH
    own = keras.callbacks.History()
    wrapped().fit(X, X, batch_size=8, epochs=4, verbose=0, callbacks=[own])
    assert own.history["sparsity"] == EACH


def test_a_metric_of_that_name_stays():
    model = wrapped()
    model.compile(
        "sgd", "mse", metrics=[keras.metrics.MeanMetricWrapper(lambda *_: 7.0, "sparsity")]
    )
    history = model.fit(X, X, batch_size=8, verbose=0)
    assert history.history["sparsity"] == [7.0] and history.sparsity == []


@pytest.mark.parametrize("listed", [False, True])
def test_wrapped_layers_have_it_too(listed):
    prune, half = granet_tf.sparsity.keras.prune_low_magnitude, granet_tf.ConstantSparsity(0.5, 0)
    if listed:
        model = keras.Sequential([keras.Input((8,)), prune(keras.layers.Dense(8), half)])
    else:
        model = prune(network(), half)
    model.compile("sgd", "mse")
    seen = Seen()
    given = [callbacks.UpdatePruningStep(), seen] if listed else [seen]
    model.fit(X, X, batch_size=8, verbose=0, callbacks=given)
    assert [logs["sparsity"] for logs in seen.epochs] == [0.5]


def test_a_list_that_is_made_already_stays():
    model = wrapped()
    given = keras.callbacks.CallbackList([], add_history=True, model=model, epochs=1, steps=4)
    assert list(model.fit(X, X, batch_size=8, verbose=0, callbacks=given).history) == ["loss"]


def test_summary_ends_with_nonzeros(capsys):
    model = granet_tf.wrap(network(), granet_tf.StaticSparse(0.75))
    model.summary()
    assert capsys.readouterr().out.endswith(
        "\n Nonzero params: 16 of 64 prunable (sparsity 0.7500)\n"
    )
    lines = []
    model.summary(print_fn=lambda text, **options: lines.append(text))
    assert "Nonzero" not in "".join(lines)
    assert callbacks.PruningSummaries is granet_tf.sparsity.keras.PruningSummaries
