"""A model that is shrunk goes on training as the larger one would have."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_train.networks.resnet import resnet20
from tests.support.cases import uniform_gmp
from tests.support.random_graphs import RandomAttention, RandomGraph, RandomRecurrence
from tests.support.replicas import assert_replicas_agree

layers = keras.layers
COUPLED = granet_tf.Filter(coupled=True)


def residual(channels=8, blocks=2):
    """Blocks with an addition each; 24 coupled units at 8 channels, if there are two."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))

    def block(x, name):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization()(x)

    x = layers.ReLU()(block(inputs, "stem"))
    for i in range(blocks):
        y = layers.ReLU()(block(x, f"first{i}"))
        x = layers.ReLU()(layers.Add()([x, block(y, f"second{i}")]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def one_block():
    return residual(blocks=1)


def data(size=32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, 4, 4, 3)).astype("float32"), rng.integers(0, 3, size)


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def wrapped(method=None, optimizer=None, build=residual, **options):
    method = method or granet_tf.StaticSparse(0.5, distribution="uniform")
    model = granet_tf.wrap(build(), method, pattern=COUPLED, **options)
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), LOSS)
    return model


def trained(model, steps, batch=8):
    """Losses of some steps."""
    x, y = data()
    losses = []
    for i in range(steps):
        rows = slice(i * batch % len(x), i * batch % len(x) + batch)
        losses.append(float(model.train_on_batch(x[rows], y[rows])))
        model.reset_metrics()
    return losses


def filters(model):
    return [layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)]


class MostlyRemovable(RandomGraph):
    """Most of its activations leave 0 as it is, else nothing could be removed."""

    def activation(self):
        return self.choice([None, "relu", "tanh", "gelu", "relu6", "leaky_relu"])


class WithoutDropout(RandomAttention):
    dropouts = (0.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        *((MostlyRemovable, seed) for seed in range(10)),
        *((WithoutDropout, seed) for seed in range(4)),
        *((RandomRecurrence, seed) for seed in range(3)),
    ],
)
def test_the_next_step_of_random_graphs(kind, seed):
    def make():
        keras.utils.set_random_seed(seed)
        model, x = kind(seed).model()
        for layer in model._flatten_layers(include_self=False):
            if isinstance(layer, layers.Dropout):
                layer.rate = 0.0  # It draws for each channel, and others for fewer of them.
        method = granet_tf.StaticSparse(0.5, distribution="uniform", pattern=COUPLED)
        try:
            sparse = granet_tf.wrap(model, method)
        except ValueError as error:
            assert "must have a weight to prune" in str(error)
            pytest.skip("nothing of this graph can be removed")
        sparse.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse")
        return sparse, x

    (large, x), (small, _) = make(), make()
    targets = [np.ones(out.shape, "float32") for out in keras.tree.flatten(large(x))]
    targets = targets if len(targets) > 1 else targets[0]
    before = large.model.count_params()
    for model in (large, small):
        model.train_on_batch(x, targets)
        model.reset_metrics()
    shrunk = small.shrink()
    assert shrunk.parameters == (before, small.model.count_params())
    assert small.model.count_params() < before
    # Nothing is left that could be removed.
    assert small.shrink() is None
    np.testing.assert_allclose(_flat(small, x), _flat(large, x), rtol=0, atol=_tolerance(large, x))
    losses = [
        model.train_on_batch(x, targets, return_dict=True)["loss"] for model in (large, small)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(_flat(small, x), _flat(large, x), rtol=0, atol=_tolerance(large, x))


def _flat(model, x):
    return np.concatenate([np.ravel(out) for out in keras.tree.flatten(model(x, training=False))])


def _tolerance(model, x):
    return 2e-4 * abs(_flat(model, x)).max()


def test_the_next_step_of_encoders_of_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")

    def make():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((5, 16))
        x = inputs
        for i in range(2):
            x = keras_hub.layers.TransformerEncoder(24, 4, name=f"block{i}")(x)
        model = keras.Model(inputs, layers.Dense(2)(x))
        method = granet_tf.StaticSparse(0.5, distribution="uniform", pattern=COUPLED)
        model = granet_tf.wrap(model, method)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5, 16)), rng.normal(size=(8, 5, 2))
    large, small = make(), make()
    for model in (large, small):
        model.train_on_batch(x, y)
    small.shrink()
    for i in range(2):
        block = small.model.get_layer(f"block{i}")
        assert (block.num_heads, block.intermediate_dim) == (2, 12)
    for _ in range(3):
        losses = [model.train_on_batch(x, y) for model in (large, small)]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(_flat(small, x), _flat(large, x), rtol=0, atol=_tolerance(large, x))


OPTIMIZERS = {
    "nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam_ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=5),
    "schedule": lambda: keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.01, 20)),
    "accumulation": lambda: keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
}


@pytest.mark.parametrize(
    ("name", "mask_only"),
    [
        *(("nesterov", False), ("nesterov", True), ("adam_ema", False), ("schedule", True)),
        ("accumulation", False),
    ],
)
def test_optimizers_go_on(name, mask_only):
    large, small = (
        wrapped(optimizer=OPTIMIZERS[name](), build=one_block, mask_only=mask_only)
        for _ in range(2)
    )
    inner = small.optimizer.inner_optimizer
    assert trained(large, 3) == trained(small, 3)
    assert small.shrink().step == 3 // (inner.gradient_accumulation_steps or 1)
    assert filters(small.model) == [4] * 3
    assert small.optimizer.inner_optimizer is inner
    np.testing.assert_allclose(trained(small, 6), trained(large, 6), rtol=2e-4)
    assert int(inner.iterations) == int(large.optimizer.iterations)


def test_a_schedule_ends_with_the_same_number_of_units():
    method = uniform_gmp(0.5, frequency=2, end_step=16, total_steps=20, scope="global")
    large, small = (wrapped(method) for _ in range(2))
    trained(large, 20)
    trained(small, 6)
    small.shrink()
    before = small.model.count_params()
    trained(small, 6)
    small.shrink()
    trained(small, 8)
    assert small.model.count_params() < before
    units = [[int(p.mask.numpy().any((0, 1, 2)).sum()) for p in m.pruned] for m in (large, small)]
    # GMP ranks by magnitude alone: the same units, in the same layers.
    assert units[0] == units[1]
    # Of the 24 units, stem and the second convolutions of the blocks share theirs.
    assert sum(units[1][i] for i in (0, 1, 3)) == 12
    first, second = small.shape_history
    assert (first.step, second.step) == (6, 12)
    assert set(second.kept["stem/kernel"]) <= set(first.kept["stem/kernel"])
    kept = large.pruned[0].mask.numpy().any((0, 1, 2)).nonzero()[0]
    assert set(kept) <= set(second.kept["stem/kernel"])


def test_strip_returns_the_small_model_and_compact_finds_nothing_more():
    model = wrapped(granet_tf.GraNet(0.5, frequency=2, total_steps=16), build=one_block)
    trained(model, 16)
    model.shrink()
    x, _ = data()
    outputs = model(x)
    stripped = granet_tf.strip(model)
    assert stripped.count_params() == model.shape_history[-1].parameters[1]
    np.testing.assert_allclose(stripped(x), outputs, atol=1e-5)


def test_files_hold_the_small_model_and_its_history(tmp_path):
    method = uniform_gmp(0.5, frequency=2, end_step=12, total_steps=20)
    model = wrapped(method, build=one_block)
    trained(model, 6)
    model.shrink()
    model.save(tmp_path / "small.keras")
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    assert loaded.shape_history == model.shape_history
    x, _ = data()
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    np.testing.assert_allclose(trained(loaded, 8), trained(model, 8), rtol=1e-4)
    units = [[int(p.mask.numpy().any((0, 1, 2)).sum()) for p in m.pruned] for m in (loaded, model)]
    assert units[0] == units[1] == [4] * 3


def test_fit_goes_on_in_the_smaller_model(tmp_path):
    x, y = data(64)
    method = uniform_gmp(0.5, frequency=2, end_step=0.5)
    model = wrapped(method, build=one_block)
    path = tmp_path / "shape.json"
    callbacks = [granet_tf.Shrink([0.125, 12], path=path)]
    history = model.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=callbacks)
    assert len(history.history["loss"]) == 4 and np.isfinite(history.history["loss"]).all()
    assert [each.step for each in model.shape_history] == [4, 12]
    assert int(model.optimizer.iterations) == 32
    saved = json.loads(path.read_text())
    assert [each["step"] for each in saved] == [4, 12]
    model.evaluate(x, y, verbose=0)
    assert model.predict(x, verbose=0).shape == (64, 3)


@pytest.mark.parametrize("options", [{"steps_per_execution": 4}, {"jit_compile": True}], ids=str)
def test_compiled_steps_are_made_anew(options):
    x, y = data(64)
    method = uniform_gmp(0.5, frequency=2, end_step=0.5)
    model = granet_tf.wrap(one_block(), method, pattern=COUPLED)
    model.compile(keras.optimizers.SGD(0.1), LOSS, **options)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[granet_tf.Shrink(10)])
    # After the execution that reaches step 10.
    assert model.shape_history[-1].step == (12 if "steps_per_execution" in options else 10)
    assert filters(model.model) == [4] * 3


def test_a_session_goes_on_across_a_shrink(tmp_path):
    x, y = data(64)

    def session(epochs, stop_at=None):
        class Interrupt(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == stop_at:
                    raise KeyboardInterrupt

        keras.utils.set_random_seed(0)
        model = wrapped(uniform_gmp(0.5, frequency=2, end_step=0.5), build=one_block)
        callbacks = [
            granet_tf.Shrink(0.5, path=tmp_path / "shape.json"),
            keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False),
            Interrupt(),
        ]
        model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
        return model

    with pytest.raises(KeyboardInterrupt):
        session(4, stop_at=3)
    resumed = session(4)
    assert int(resumed.optimizer.iterations) == 32
    assert [each.step for each in resumed.shape_history] == [16]
    assert filters(resumed.model) == [4] * 3
    whole = wrapped(uniform_gmp(0.5, frequency=2, end_step=0.5), build=one_block)
    whole.fit(
        x, y, batch_size=8, epochs=4, shuffle=False, verbose=0, callbacks=[granet_tf.Shrink(0.5)]
    )
    np.testing.assert_allclose(resumed(x), whole(x), rtol=0, atol=1e-4)


def test_custom_loops_go_on_with_the_same_optimizer():
    x, y = data()
    method = uniform_gmp(0.5, frequency=2, end_step=4, total_steps=12)
    model = granet_tf.wrap(one_block(), method, pattern=COUPLED)
    optimizer = granet_tf.SparseOptimizer(keras.optimizers.Adam(0.01), model)

    def step():
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return float(loss)

    first = [step() for _ in range(6)]
    assert model.shrink(optimizer).step == 6
    rest = [step() for _ in range(6)]
    assert optimizer.steps == 12 and rest[-1] < first[0]
    assert filters(model.model) == [4] * 3


def test_replicas_agree_after_a_shrink(mirrored):
    x, y = data(64)
    with mirrored.scope():
        model = wrapped(granet_tf.GraNet(0.5, frequency=2, end_step=0.5), build=one_block)
    model.fit(x, y, batch_size=8, epochs=4, verbose=0, callbacks=[granet_tf.Shrink(0.5)])
    assert model.shape_history[-1].step == 16
    assert_replicas_agree(mirrored, model.pruned)
    for variable in model.trainable_variables:
        first, second = mirrored.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy())


def test_random_states_go_on():
    def build():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((4, 4, 3))
        x = layers.Conv2D(8, 3, name="conv")(layers.Dropout(0.5, seed=3)(inputs))
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))

    large, small = (wrapped(build=build) for _ in range(2))
    trained(large, 3), trained(small, 3)
    assert small.shrink() is not None
    np.testing.assert_allclose(trained(small, 3), trained(large, 3), rtol=1e-4)


def test_what_a_method_keeps_is_cut_with_the_weights():
    method = granet_tf.SNFS(0.5, frequency=2, total_steps=12)
    model = wrapped(method, build=one_block, track_explored=True)
    trained(model, 5)
    momentum = {p.path: p.state["momentum"].numpy() for p in model.pruned}
    alive = model.pruned[1].mask.numpy().any((0, 1, 2))
    stem = model.pruned[0].mask.numpy().any((0, 1, 2))
    model.shrink()
    after = model.pruned[1]
    expected = momentum[after.path][:, :, stem][..., alive]
    np.testing.assert_array_equal(after.state["momentum"].numpy(), expected)
    assert after.explored.numpy().all() or model.itop_rate <= 1.0
    trained(model, 5)


@pytest.mark.slow
def test_resnet20_loses_what_half_of_its_channels_cost():
    keras.utils.set_random_seed(0)
    network = resnet20((32, 32, 3), 10)
    dense = granet_tf.count_flops(network).dense
    method = granet_tf.StaticSparse(0.5, distribution="uniform", pattern=COUPLED)
    model = granet_tf.wrap(network, method)
    before = network.count_params()
    model.shrink()
    assert model.model.count_params() <= 0.3 * before
    assert granet_tf.count_flops(model.model).dense <= 0.3 * dense
    compact = granet_tf.compact(model)
    assert compact.count_params() == model.model.count_params()


def held_by_another():
    model = wrapped()
    keras.Sequential([keras.Input((4, 4, 3)), model])
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: granet_tf.wrap(residual(), uniform_gmp(0.5)).shrink(),
            "must be pruned by coupled filters.*Received: pattern=Element",
        ),
        (lambda: wrapped().shrink(kept={"nothing": [0]}), "`kept` must be.*Received: 'nothing'"),
        (lambda: held_by_another().shrink(), "part of another one"),
        (lambda: granet_tf.Shrink(1.5), r"`at` must be.*Received: at=1\.5"),
        (lambda: granet_tf.Shrink([]), r"`at` must be.*Received: at=\[\]"),
        (lambda: granet_tf.Shrink(0), "`at` must be.*Received: at=0"),
    ],
)
def test_bad_calls_are_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_callback_wants_a_wrapped_model():
    model = residual()
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"Shrink is for a model from granet_tf\.wrap"):
        model.fit(*data(), verbose=0, callbacks=[granet_tf.Shrink(0.5)])
