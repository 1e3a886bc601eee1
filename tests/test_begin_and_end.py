"""Where sparse training begins and ends: optimizers that have run before, the first step, the last,
the length of training, and a run that is cut short."""

import contextlib
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.wrapping.compiling import sparse_part
from tests.support import models
from tests.support.cases import MODES, uniform_gmp

api = granet_tf.sparsity.keras
L = keras.layers
X, Y = models.data(models.sequential, 16)  # Two batches of eight.


def fit(model, epochs=1, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)


def compiled(model, optimizer="sgd"):
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def nonzeros(model):
    """Of the kernels themselves."""
    return [int(np.count_nonzero(w.numpy())) for w in model.trainable_variables if w.ndim == 2]


@contextlib.contextmanager
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


# An optimizer that has run before.

OPTIMIZERS = [
    keras.optimizers.SGD,
    lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.PiecewiseConstantDecay([9, 12], [0.1, 0.01, 0.001])
    ),
]


@MODES
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_count_from_where_sparse_training_begins(optimizer, mask_only):
    network = compiled(models.sequential(), optimizer())
    fit(network, epochs=4)
    model = granet_tf.wrap(network, uniform_gmp(0.5, frequency=1), mask_only=mask_only)
    compiled(model, network.optimizer)
    fit(model, epochs=2)  # Four steps, of which the first two prune.
    assert model.nonzeros == 96
    assert sparse_part(model.optimizer).steps == 4
    assert int(model.optimizer.iterations) == 12
    rates = {keras.optimizers.SGD: 0.01}
    assert float(model.optimizer.learning_rate) == pytest.approx(rates.get(optimizer, 0.01))


def test_the_same_in_a_compiled_step_and_in_a_loop():
    network = models.sequential()
    network.compile(keras.optimizers.Adam(), "mse")
    fit(network, epochs=2)
    inner = network.optimizer
    model = granet_tf.wrap(network, granet_tf.RigL(0.5, frequency=1))
    model.compile(inner, "mse")
    before = model.pruned[0].mask.numpy()
    fit(model, epochs=2)
    assert model.nonzeros == 96 and np.any(before != model.pruned[0].mask.numpy())

    plain = models.sequential()
    inner = keras.optimizers.Adam()
    inner.build(plain.trainable_variables)
    for _ in range(7):
        inner.apply([tf.ones(v.shape) for v in plain.trainable_variables])
    sparse = granet_tf.wrap(plain, uniform_gmp(0.75, end_step=2, frequency=1))
    optimizer = granet_tf.SparseOptimizer(inner, sparse)

    @tf.function
    def step():
        optimizer.apply([tf.ones(v.shape) for v in sparse.trainable_variables])

    counts = []
    for _ in range(3):
        step()
        counts.append(sparse.nonzeros)
    # Eq. 1: 0.75 · (1 − 1/8) = 0.65625 of 128 and of 64 after one step, then 0.75.
    assert counts == [44 + 22, 48, 48]


def test_prune_low_magnitude_after_dense_training():
    schedule = api.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=2, frequency=1)
    network = compiled(models.sequential(), "adam")
    fit(network, epochs=3)
    optimizer = network.optimizer
    pruned = compiled(api.prune_low_magnitude(network, schedule), optimizer)
    fit(pruned)
    assert nonzeros(pruned) == [32, 16]
    own = keras.Sequential([keras.Input((8,)), api.prune_low_magnitude(L.Dense(4), schedule)])
    compiled(own, "sgd")
    with pytest.warns(UserWarning, match="stays dense"):
        fit(own)
    fit(own, callbacks=[api.UpdatePruningStep()])
    assert nonzeros(own) == [8]


@pytest.mark.parametrize("with_wrapper", [True, False])
def test_a_model_compiled_anew_goes_on_where_it_was(with_wrapper):
    model = granet_tf.wrap(
        models.sequential(), uniform_gmp(0.75, end_step=4, frequency=1, total_steps=6)
    )
    model.compile("adam", "mse")
    fit(model)
    after_two = model.nonzeros
    optimizer = model.optimizer if with_wrapper else model.optimizer.inner_optimizer
    model.compile(optimizer, "mae")
    fit(model)
    assert sparse_part(model.optimizer).steps == 4
    # Eq. 1: 0.75 · (1 − 1/8) after two of four steps.
    assert (after_two, model.nonzeros) == (66, 48)


def test_where_it_began_is_saved(tmp_path):
    network = compiled(models.sequential(), "adam")
    fit(network, epochs=2)
    model = granet_tf.wrap(network, uniform_gmp(0.75, end_step=4, frequency=1, total_steps=6))
    fit(compiled(model, network.optimizer))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (loaded.nonzeros, sparse_part(loaded.optimizer).steps) == (66, 2)
    loaded.run_eagerly = True
    fit(loaded)
    assert (loaded.nonzeros, int(loaded.optimizer.iterations)) == (48, 8)


def test_a_stripped_model_that_is_wrapped_again_begins_anew():
    model = compiled(granet_tf.wrap(models.sequential(), uniform_gmp(0.5, frequency=1)))
    fit(model, epochs=2)
    inner = model.optimizer.inner_optimizer
    again = granet_tf.wrap(granet_tf.strip(model), uniform_gmp(0.75, frequency=1))
    fit(compiled(again, inner), epochs=2)
    assert (again.nonzeros, sparse_part(again.optimizer).steps) == (48, 4)


def test_begun_anew_under_a_strategy(mirrored):
    with mirrored.scope():
        network = models.sequential()
        network.compile("adam", "mse")
        fit(network)
        model = granet_tf.wrap(network, uniform_gmp(0.5, frequency=1))
        model.compile(network.optimizer, "mse")
    fit(model, epochs=2)
    for pruned in model.pruned:
        first, second = mirrored.experimental_local_results(pruned.mask.value)
        np.testing.assert_array_equal(first, second)
    assert model.nonzeros == 96


# What is due before the first step.


def before_first_step(model):
    """Nonzeros of the kernels when the first batch begins."""
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(
            [int(p.mask.numpy().sum()) for p in granet_tf.wrapping.stripping.pruned_weights(model)]
        )
    )
    fit(model, callbacks=[note])
    return seen[0]


@MODES
def test_pruned_before_the_first_step(mask_only):
    one_shot = granet_tf.wrap(
        models.sequential(), uniform_gmp(0.75, end_step=0), mask_only=mask_only
    )
    kernels = [p.variable.numpy() for p in one_shot.pruned]
    assert before_first_step(compiled(one_shot)) == [32, 16]
    for pruned, kernel in zip(one_shot.pruned, kernels, strict=True):
        kept = np.sort(np.abs(kernel).ravel())[-(kernel.size // 4)]
        np.testing.assert_array_equal(pruned.mask.numpy(), np.abs(kernel) >= kept)
    # As tfmot: a constant sparsity holds from its first step on, which is step 0.
    rare = granet_tf.ConstantSparsity(0.5, 0, frequency=100)
    pruned = api.prune_low_magnitude(models.sequential(), rare, mask_only=mask_only)
    assert before_first_step(compiled(pruned)) == [64, 32]
    rising = api.PolynomialDecay(0.25, 0.75, begin_step=0, end_step=4, frequency=4)
    pruned = api.prune_low_magnitude(models.sequential(), rising, mask_only=mask_only)
    assert before_first_step(compiled(pruned)) == [96, 48]
    groups = api.prune_low_magnitude(
        models.sequential(), rare, sparsity_m_by_n=(2, 4), mask_only=mask_only
    )
    assert before_first_step(compiled(groups)) == [64, 32]


@pytest.mark.parametrize("method", [granet_tf.GraNet, granet_tf.DPF])
def test_of_methods_that_regenerate_only_pruning_comes_first(method):
    model = compiled(granet_tf.wrap(models.sequential(), method(0.75, end_step=0)))
    assert sum(before_first_step(model)) == 48
    assert model.nonzeros == 48


def test_a_callback_on_own_layers_prunes_before_the_first_step_too():
    layer = api.prune_low_magnitude(L.Dense(4), granet_tf.ConstantSparsity(0.5, 0, frequency=100))
    model = keras.Sequential([keras.Input((8,)), layer])
    compiled(model)
    fit(model, callbacks=[api.UpdatePruningStep()])
    assert np.count_nonzero(layer.layer.kernel) == 16


def test_a_loop_prunes_at_its_first_step():
    model = granet_tf.wrap(models.sequential(), uniform_gmp(0.75, end_step=0))
    optimizer = granet_tf.SparseOptimizer(keras.optimizers.SGD(), model)

    @tf.function
    def step():
        variables = model.trainable_variables
        optimizer.apply([tf.ones(v.shape) for v in variables], variables)

    step()
    mask = model.pruned[0].mask.numpy()
    step()
    assert model.nonzeros == 48 == sum(nonzeros(model))
    np.testing.assert_array_equal(model.pruned[0].mask.numpy(), mask)


def test_pruned_before_the_first_step_under_a_strategy(mirrored):
    with mirrored.scope():
        model = granet_tf.wrap(models.sequential(), uniform_gmp(0.75, end_step=0))
        model.compile("sgd", "mse")
    assert before_first_step(model) == [32, 16]
    for pruned in model.pruned:
        first, second = mirrored.experimental_local_results(pruned.mask.value)
        np.testing.assert_array_equal(first, second)


def test_what_has_been_trained_is_not_pruned_at_the_start_again():
    model = compiled(granet_tf.wrap(models.sequential(), uniform_gmp(0.75, end_step=0)))
    fit(model)
    before = [p.mask.numpy() for p in model.pruned]
    fit(model)
    for mask, pruned in zip(before, model.pruned, strict=True):
        np.testing.assert_array_equal(mask, pruned.mask.numpy())


# The end.

CHANGING = [
    granet_tf.GraNet(0.5, frequency=2, drop_fraction=0.3),
    granet_tf.RigL(0.5, frequency=2, end_step=1.0, final_drop_fraction=0.3),
    granet_tf.SET(0.5, frequency=2),
    granet_tf.SNFS(0.5, frequency=2, final_drop_fraction=0.3),
    granet_tf.DSR(0.5, frequency=2, prune_threshold=0.3),
    granet_tf.DeepR(0.5, frequency=2, noise_temperature=0.1),
    granet_tf.ITOP(0.5, frequency=2, final_drop_fraction=0.3),
    granet_tf.DPF(0.5, frequency=2, end_step=2),
    granet_tf.TopKAST(0.5, frequency=2),
]


def masks_by_step(model, steps):
    """The masks after each of `steps` steps with gradients that move everything."""
    rng = np.random.default_rng(0)
    optimizer = granet_tf.SparseOptimizer(keras.optimizers.SGD(0.5), model)
    for _ in range(steps):
        gradients = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
        optimizer.apply(list(map(tf.constant, gradients)), model.trainable_variables)
        yield [p.mask.numpy() for p in model.pruned]


@pytest.mark.parametrize("method", CHANGING, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize(("total", "last"), [(10, 8), (11, 8)])
def test_no_connection_is_new_where_less_than_a_period_is_left(method, total, last):
    model = granet_tf.wrap(models.sequential(), method.resolve(total))
    masks = list(masks_by_step(model, total))
    grown = [
        step
        for step, (old, new) in enumerate(itertools.pairwise(masks), start=2)
        if any(np.any(b & ~a) for a, b in zip(old, new, strict=True))
    ]
    assert grown[-1] == last
    assert model.nonzeros == 96


@pytest.mark.parametrize("method", [granet_tf.RigL, granet_tf.SET, granet_tf.SNFS, granet_tf.DSR])
def test_end_step_ends_updates(method):
    options = {"prune_threshold": 0.3} if method is granet_tf.DSR else {}
    options |= {"drop_fraction": 0.3, "final_drop_fraction": 0.3}
    made = method(0.5, frequency=2, end_step=4, total_steps=20, **options)
    masks = list(masks_by_step(granet_tf.wrap(models.sequential(), made), 9))
    changed = [
        step
        for step, (old, new) in enumerate(itertools.pairwise(masks), start=2)
        if any(np.any(a != b) for a, b in zip(old, new, strict=True))
    ]
    assert changed and changed[-1] <= 4
    assert [s for s in range(20) if bool(made.is_due(tf.constant(s)))] == [0, 2, 4]


@pytest.mark.parametrize(
    "method",
    [
        granet_tf.RigL(0.5, frequency=100),
        granet_tf.SET(0.5, frequency=100),
        granet_tf.SNFS(0.5, frequency=100),
        granet_tf.DSR(0.5, frequency=100),
        granet_tf.RigL(0.5, frequency=2, begin_step=3),
    ],
)
def test_a_training_without_an_update_is_told(method):
    model = compiled(granet_tf.wrap(models.sequential(), method))
    before = [p.mask.numpy() for p in model.pruned]
    name = type(method).__name__
    with pytest.warns(UserWarning, match=f"has 4 steps, too few for {name} to change its masks"):
        fit(model, epochs=2)
    for mask, pruned in zip(before, model.pruned, strict=True):
        np.testing.assert_array_equal(mask, pruned.mask.numpy())


# How long training is.


@pytest.mark.parametrize("prefit", [0, 2])
def test_the_length_of_training_is_what_is_left_of_it(prefit):
    """`prefit` epochs by another process, whose checkpoint has been restored."""
    model = compiled(granet_tf.wrap(models.sequential(), uniform_gmp(0.5, frequency=1)))
    if prefit:
        model.optimizer.iterations.assign(2 * prefit)
    with no_warning():
        fit(model, epochs=20, initial_epoch=20 - 4)
    assert model.method.total_steps == 2 * prefit + 8
    assert model.nonzeros == 96


def test_a_schedule_without_steps_in_a_training_that_is_too_short():
    late = api.PolynomialDecay(0.0, 0.9, begin_step=0, end_step=1000, frequency=1)
    model = granet_tf.wrap(models.sequential(), uniform_gmp(schedule=granet_tf.Shifted(late, 5)))
    # Eq. 1 at step 4 + 5: 0.9 · (1 − 0.991³).
    with pytest.warns(UserWarning, match=r"0\.9 is reached at step 995: it will end at 0\.0241"):
        fit(compiled(model), epochs=2)
    assert [int(p.mask.numpy().sum()) for p in model.pruned] == [125, 62]

    class Stairs(granet_tf.PruningSchedule):
        def __call__(self, step):
            return self.is_due(step, 2, 300, 100), 0.5

    model = granet_tf.wrap(models.sequential(), uniform_gmp(schedule=Stairs()))
    with no_warning():
        fit(compiled(model), epochs=2)
    assert model.nonzeros == 96


def test_a_session_that_goes_on_where_another_was_killed(tmp_path):
    def session(*callbacks):
        model = granet_tf.wrap(models.sequential(), uniform_gmp(0.75, frequency=1))
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        fit(compiled(model), epochs=6, callbacks=[backup, *callbacks])
        return model

    def die(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session(keras.callbacks.LambdaCallback(on_epoch_begin=die))
    with no_warning():
        model = session()
    assert (model.method.total_steps, int(model.optimizer.iterations)) == (12, 12)
    assert model.nonzeros == 48


# Cut short.


class Stop(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


@pytest.mark.parametrize("method", [granet_tf.GraNet, granet_tf.GMP, granet_tf.ACDC])
def test_a_run_that_is_stopped_early_is_told(method):
    options = {"sparse_phase": 1, "dense_phase": 1} if method is granet_tf.ACDC else {}
    model = granet_tf.wrap(models.sequential(), method(0.75, begin_step=1, end_step=18, **options))
    with pytest.warns(
        UserWarning, match=r"ended after 4 steps at sparsity 0\.\d+, and was to end at 0\.7500.*"
    ):
        fit(compiled(model), epochs=20, callbacks=[Stop()])


def test_steps_that_loss_scaling_skips_are_missed():
    model = granet_tf.wrap(models.sequential(), uniform_gmp(0.75, frequency=1))
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=float("inf"))
    with pytest.warns(UserWarning, match=r"ended after 0 steps at sparsity 0\.0000"):
        fit(compiled(model, scaled), epochs=2)
    assert model.nonzeros == 192


def test_wrapped_layers_tell_too():
    schedule = api.PolynomialDecay(0.0, 0.75, begin_step=0, end_step=100, frequency=1)
    message = r"after 2 steps at sparsity 0\.04\d+, and was to end at 0\.7500.*at step 100"
    model = compiled(api.prune_low_magnitude(models.sequential(), schedule))
    with pytest.warns(UserWarning, match=message):
        fit(model)
    own = models.subclassed(rate=0.0)
    with pytest.warns(UserWarning, match=message):
        fit(compiled(api.prune_low_magnitude(own, schedule)))
    layers = [api.prune_low_magnitude(L.Dense(n), schedule) for n in (16, 4)]
    with pytest.warns(UserWarning, match=message):
        fit(
            compiled(keras.Sequential([keras.Input((8,)), *layers])),
            callbacks=[api.UpdatePruningStep()],
        )


@MODES
def test_best_weights_from_before_the_end_of_pruning_are_told(mask_only):
    model = granet_tf.wrap(
        models.sequential(), uniform_gmp(0.75, end_step=8, frequency=1), mask_only=mask_only
    )
    compiled(model)
    best = keras.callbacks.EarlyStopping("loss", mode="max", patience=20, restore_best_weights=True)
    with pytest.warns(UserWarning, match=r"at sparsity 0\.\d+, and was to end at 0\.7500"):
        fit(model, epochs=6, callbacks=[best])
    assert best.best_epoch == 0
    for pruned in model.pruned:
        kept = pruned.mask.numpy()
        assert 0.5 < np.mean(kept) < 1.0
        if not mask_only:
            np.testing.assert_array_equal(kept, pruned.variable.numpy() != 0.0)


def test_nothing_is_told_where_all_is_well():
    for method in (
        granet_tf.GraNet(0.75),
        uniform_gmp(0.75, pinned={0: 0.25}, capped={-1: 0.5}),
        uniform_gmp(0.75, end_step=1.0),
        granet_tf.RigL(0.75, frequency=2),
        granet_tf.ACDC(0.75),
        granet_tf.DPF(0.75, frequency=1),
        granet_tf.StaticSparse(0.75),
        granet_tf.MagnitudeAtInit(0.75),
        granet_tf.ST3(0.75),
        granet_tf.STR(),
    ):
        with no_warning():
            fit(compiled(granet_tf.wrap(models.sequential(), method)), epochs=5)
    # In pieces, with the whole length given.
    model = compiled(granet_tf.wrap(models.sequential(), uniform_gmp(0.75, total_steps=8)))
    with no_warning():
        fit(model)
        fit(model, epochs=3)
    assert model.nonzeros == 48
