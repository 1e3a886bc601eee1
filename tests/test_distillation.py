"""`keras.distillation.Distiller` with a wrapped student."""

import keras
import numpy as np
import pytest
from keras import layers as L

import granet_tf
from granet_tf.wrapping.stripping import pruned_weights
from tests.support import models
from tests.support.cases import MODES

X, _ = models.data(models.sequential, 32)
CLASSES = np.arange(32) % 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
logits = keras.distillation.LogitsDistillation
features = keras.distillation.FeatureDistillation


def functional():
    inputs = keras.Input((8,))
    hidden = L.Dense(16, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, L.Dense(4, name="head")(hidden), name="net")


def distiller(student, losses=None, **options):
    return keras.distillation.Distiller(
        teacher=models.sequential(),
        student=student,
        distillation_losses=[logits()] if losses is None else losses,
        **options,
    )


def fit(model, epochs=4, optimizer=None, **options):
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), loss=LOSS)
    model.fit(X, CLASSES, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)
    return model


@MODES
@pytest.mark.parametrize(
    "method", [granet_tf.GraNet(0.75), granet_tf.RigL(0.5, frequency=2)], ids=["granet", "rigl"]
)
def test_without_the_teachers_part_it_is_training_alone(method, mask_only):
    """Masks change at the same steps, by the same gradients."""
    keras.utils.set_random_seed(1)
    alone = fit(granet_tf.wrap(models.sequential(), method, mask_only=mask_only))
    keras.utils.set_random_seed(1)
    student = granet_tf.wrap(models.sequential(), method, mask_only=mask_only)
    fit(distiller(student, student_loss_weight=1.0))
    for ours, theirs in zip(student.pruned, alone.pruned, strict=True):
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        np.testing.assert_allclose(ours.variable, theirs.variable, rtol=1e-5, atol=1e-7)


@MODES
@pytest.mark.parametrize("make", [models.sequential, functional])
def test_features_are_those_of_masked_weights(make, mask_only):
    student = granet_tf.wrap(make(), granet_tf.GraNet(0.75), mask_only=mask_only)
    model = distiller(
        student, [logits(), features(teacher_layer_name="hidden", student_layer_name="hidden")]
    )
    fit(model)
    assert student.nonzeros == 48
    hidden, head = (p.variable.numpy() * p.mask.numpy() for p in student.pruned)
    biases = [student.get_layer(name).bias.numpy() for name in ("hidden", "head")]
    expected = np.maximum(X @ hidden + biases[0], 0)
    found = model._student_feature_extractor(X)
    np.testing.assert_allclose(found["hidden"], expected, atol=1e-5)
    np.testing.assert_allclose(found["final_output"], expected @ head + biases[1], atol=1e-5)
    # The model inside, by itself, is the user's own.
    plain = student.model(X)
    assert np.allclose(plain, found["final_output"], atol=1e-5) is not mask_only
    stripped = granet_tf.strip(student)
    assert not pruned_weights(stripped)
    np.testing.assert_allclose(stripped(X), found["final_output"], atol=1e-5)


def test_the_teacher_may_be_sparse_and_stays_as_it_is():
    teacher = granet_tf.wrap(models.sequential(), granet_tf.StaticSparse(0.5))
    before = teacher.get_weights()
    student = granet_tf.wrap(models.sequential(), granet_tf.GraNet(0.75))
    model = keras.distillation.Distiller(teacher, student, [logits()])
    fit(model)
    assert (student.nonzeros, teacher.nonzeros) == (48, 96)
    for a, b in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_student_is_exported_and_saved(tmp_path):
    student = granet_tf.wrap(models.sequential(), granet_tf.GraNet(0.75))
    model = fit(distiller(student))
    report = granet_tf.export_tflite(model.student, tmp_path / "student.tflite", encoding="sparse")
    assert report.max_error < 1e-5
    model.student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert loaded.nonzeros == 48
    np.testing.assert_array_equal(loaded(X), student(X))


@MODES
@pytest.mark.filterwarnings("ignore:`compile\\(\\)` was not called as part of model loading")
def test_the_distiller_is_saved_and_compiled_anew_as_any(tmp_path, mask_only):
    student = granet_tf.wrap(models.sequential(), granet_tf.GraNet(0.75), mask_only=mask_only)
    losses = [logits(), features(teacher_layer_name="hidden", student_layer_name="hidden")]
    model = fit(distiller(student, losses))
    model.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    for ours, theirs in zip(loaded.student.pruned, student.pruned, strict=True):
        np.testing.assert_array_equal(ours.mask, theirs.mask)
    # Keras drops the optimizer of a Distiller, and with it the steps: the schedule begins anew.
    fit(loaded)
    assert loaded.student.nonzeros == 48
    assert isinstance(loaded.optimizer, granet_tf.SparseOptimizer)


def test_masks_that_are_chosen_by_data_are_drawn_before():
    student = granet_tf.wrap(models.sequential(), granet_tf.SNIP(0.75))
    with pytest.raises(RuntimeError, match=r"call start\(batches\) of the wrapped model once"):
        fit(distiller(student))
    student = granet_tf.wrap(models.sequential(), granet_tf.SNIP(0.75))
    student.start([(X, CLASSES)], loss=LOSS)
    fit(distiller(student))
    assert student.nonzeros == 48


def test_on_several_replicas_with_the_callback(mirrored):
    with mirrored.scope():
        student = granet_tf.wrap(models.sequential(), granet_tf.GraNet(0.75))
        model = distiller(student)
        optimizer = keras.optimizers.SGD(0.1)
    fit(model, optimizer=optimizer, callbacks=[granet_tf.sparsity.keras.UpdatePruningStep()])
    assert student.nonzeros == 48
    for pruned in student.pruned:
        first, second = mirrored.experimental_local_results(pruned.mask.value)
        np.testing.assert_array_equal(first, second)


def test_a_fake_quantized_student_keeps_its_zeros():
    plain = granet_tf.strip(granet_tf.wrap(models.sequential(), granet_tf.StaticSparse(0.75)))
    zeros = [layer.kernel.numpy() == 0 for layer in plain.layers]
    fit(distiller(granet_tf.fake_quantize(plain, representative_data=X)))
    for layer, before in zip(plain.layers, zeros, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy() == 0, before)
