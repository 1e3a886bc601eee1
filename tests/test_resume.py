"""Saving in the middle of the schedule and going on gives the run that was never interrupted."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf

METHOD = granet_tf.GraNet(0.8, initial_sparsity=0.2, frequency=3)


def network():
    keras.utils.set_random_seed(11)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(12, name="hidden", kernel_regularizer="l2")(inputs)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = keras.layers.Dropout(0.2, seed=1, name="drop")(keras.layers.ReLU()(hidden))
    return keras.Model(inputs, keras.layers.Dense(4, name="out")(hidden))


def compiled(mask_only):
    model = granet_tf.wrap(network(), METHOD, mask_only=mask_only)
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(0.01, 48), weight_decay=0.1, use_ema=True
    )
    model.compile(optimizer, "mse")
    return model


def fit(model, **options):
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model.fit(x, x[:, :4], batch_size=8, epochs=6, shuffle=False, verbose=0, **options)


class AtEpoch(keras.callbacks.Callback):
    def __init__(self, epoch, save):
        super().__init__()
        self.epoch, self.save = epoch, save

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.save(self.model)


def assert_same_state(one, other):
    assert int(one.optimizer.iterations) == int(other.optimizer.iterations) == 48
    for kind in ("weights", "non_trainable_variables"):
        for a, b in zip(getattr(one, kind), getattr(other, kind), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=a.path)
    for a, b in zip(one.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)


@pytest.mark.parametrize("mask_only", [False, True])
# The schedule prunes up to step 24: in its middle, and after its end.
@pytest.mark.parametrize("epoch", [0, 3])
def test_keras_file(tmp_path, mask_only, epoch):
    path = tmp_path / "middle.keras"
    uninterrupted = compiled(mask_only)
    fit(uninterrupted, callbacks=[AtEpoch(epoch, lambda model: model.save(path))])

    resumed = keras.models.load_model(path)
    assert resumed.method == uninterrupted.method
    assert int(resumed.optimizer.iterations) == 8 * (epoch + 1)
    fit(resumed, initial_epoch=epoch + 1)
    assert_same_state(uninterrupted, resumed)


@pytest.mark.parametrize("mask_only", [False, True])
def test_tensorflow_checkpoint(tmp_path, mask_only):
    def checkpoint(model):
        return tf.train.Checkpoint(model=model, optimizer=model.optimizer)

    paths = []
    save = AtEpoch(1, lambda model: paths.append(checkpoint(model).save(tmp_path / "middle")))
    uninterrupted = compiled(mask_only)
    fit(uninterrupted, callbacks=[save])

    resumed = compiled(mask_only)
    resumed.optimizer.build(resumed.trainable_variables)
    checkpoint(resumed).restore(paths[0]).assert_existing_objects_matched()
    assert int(resumed.optimizer.iterations) == 16
    fit(resumed, initial_epoch=2)
    assert_same_state(uninterrupted, resumed)


def test_every_file_saved_in_zero_mode_is_sparse(tmp_path):
    fractions = []

    def save(model):
        path = tmp_path / f"{int(model.optimizer.iterations)}.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        kernels = [loaded.model.get_layer(name).kernel.numpy() for name in ("hidden", "out")]
        nonzero = sum(int(np.count_nonzero(k)) for k in kernels)
        assert nonzero <= model.nonzeros
        fractions.append(model.nonzeros / 120)

    fit(compiled(False), callbacks=[AtEpoch(epoch, save) for epoch in (0, 2, 5)])
    # 8, 24 and 48 steps: Eq. 1 at step 6, and the end.
    assert fractions == [pytest.approx(1 - (0.8 - 0.6 * 0.75**3), abs=1 / 120), 0.2, 0.2]


def test_ema_swapping_keeps_the_model_sparse():
    model = compiled(False)
    fit(model, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    for pruned in model.pruned:
        assert np.all(pruned.variable.numpy()[~pruned.mask.numpy()] == 0.0)
