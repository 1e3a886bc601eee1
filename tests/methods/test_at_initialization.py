"""Methods that choose masks before training, against slow NumPy versions from their papers."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.methods.at_initialization import (
    grasp_saliency,
    magnitude_saliency,
    synflow_saliency,
)
from granet_tf.methods.at_initialization.linearized import linearized
from granet_tf.methods.at_initialization.temperature import at_temperature
from granet_tf.wrapping import first_batches
from tests.support import short_runs
from tests.support.processes import environment, free_ports
from tests.support.reference import MLP, keep_count, top_k

layers = keras.layers
ALL = [
    granet_tf.MagnitudeAtInit,
    granet_tf.SNIP,
    granet_tf.GraSP,
    granet_tf.SynFlow,
]


def mlp(sizes=(6, 8, 4), seed=0, **options):
    """Dense layers without biases, ReLU between, weights as `MLP` has them."""
    rng = np.random.default_rng(seed)
    dense = [layers.Dense(n, "relu", use_bias=False, **options) for n in sizes[1:-1]]
    dense.append(layers.Dense(sizes[-1], use_bias=False, **options))
    model = keras.Sequential([keras.Input(sizes[:1]), *dense])
    weights = [rng.normal(size=v.shape).astype("float32") for v in model.weights]
    model.set_weights(weights)
    return model, [w.astype("float64") for w in weights]


def batches(count=1, size=16, seed=1):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(size, 6)).astype("float32"), rng.normal(size=(size, 4)).astype("float32"))
        for _ in range(count)
    ]


def masks_of(model):
    return [p.mask.numpy() for p in model.pruned]


def everything(weights):
    return [np.ones(w.shape, bool) for w in weights]


def assert_masks(model, expected):
    for mask, other in zip(masks_of(model), expected, strict=True):
        np.testing.assert_array_equal(mask, other)


# The saliencies


def mean_gradients(weights, data):
    each = [MLP.gradients(weights, x.astype("float64"), y.astype("float64")) for x, y in data]
    return [np.mean(gradients, axis=0) for gradients in zip(*each, strict=True)]


def test_snip_keeps_what_the_papers_equation_says():
    model, weights = mlp()
    data = batches(count=3)
    sparse = granet_tf.wrap(model, granet_tf.SNIP(0.75, batches=2))
    assert sparse.nonzeros == 80
    sparse.start(data, loss="mse")
    gradients = mean_gradients(weights, data[:2])
    scores = [abs(w * g) for w, g in zip(weights, gradients, strict=True)]
    expected = top_k(scores, everything(weights), keep_count(80, 0.75))
    assert_masks(sparse, expected)
    for pruned, weight, mask in zip(sparse.pruned, weights, expected, strict=True):
        np.testing.assert_array_equal(pruned.variable, np.float32(weight) * mask)


def test_snip_in_rounds_looks_at_the_pruned_network_again():
    model, weights = mlp()
    data = batches()
    sparse = granet_tf.wrap(model, granet_tf.SNIP(0.75, rounds=2))
    sparse.start(data, loss="mse")
    masks = everything(weights)
    for sparsity in (0.5, 0.75):
        masked = [w * m for w, m in zip(weights, masks, strict=True)]
        gradients = mean_gradients(masked, data)
        scores = [abs(w * g) for w, g in zip(masked, gradients, strict=True)]
        masks = top_k(scores, masks, keep_count(80, sparsity))
    assert_masks(sparse, masks)


def test_grasp_is_the_change_of_the_gradient_along_itself():
    model, weights = mlp()
    data = batches(count=2)
    method = granet_tf.GraSP(0.75, batches=2, temperature=1.0)
    sparse = granet_tf.wrap(model, method)
    gradients = mean_gradients(weights, data)
    step = 1e-6

    def moved(sign):
        there = [w + sign * step * g for w, g in zip(weights, gradients, strict=True)]
        return mean_gradients(there, data)

    differences = zip(weights, moved(1), moved(-1), strict=True)
    expected = [w * (up - down) / (2.0 * step) for w, up, down in differences]
    found = grasp_saliency(sparse, data, "mse", temperature=1.0).values()
    for score, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(score, reference, rtol=1e-3, atol=1e-3)
    sparse.start(data, loss="mse")
    # Signed: the highest stay, whatever their size.
    assert_masks(sparse, top_k(expected, everything(weights), 20))


@pytest.mark.parametrize("kind", ["logits", "probabilities", "own"])
def test_grasp_softens_the_logits(kind):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(12, 6)), rng.integers(0, 4, 12)
    weight = rng.normal(size=(6, 4))

    def gradient(w, temperature=5.0):
        logits = x @ w / temperature
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return x.T @ (p - np.eye(4)[y]) / temperature / 12

    g = gradient(weight)
    step = 1e-5
    along = (gradient(weight + step * g) - gradient(weight - step * g)) / (2.0 * step)

    def own(labels, logits):
        return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    activation = "softmax" if kind == "probabilities" else None
    loss = {
        "logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "probabilities": "sparse_categorical_crossentropy",
        "own": own,
    }[kind]
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation)])
    model.layers[0].kernel.assign(weight)
    sparse = granet_tf.wrap(model, granet_tf.GraSP(0.5))
    [score] = grasp_saliency(sparse, [(x, y)], loss, temperature=5.0).values()
    np.testing.assert_allclose(score, weight * along, rtol=2e-3, atol=1e-7)


def test_binary_probabilities_are_softened_as_their_logits():
    logits = np.array([[-3.0], [0.5], [2.0]], np.float32)
    soft = at_temperature(tf.sigmoid(logits), 4.0, keras.losses.BinaryCrossentropy())
    np.testing.assert_allclose(soft, 1.0 / (1.0 + np.exp(-logits / 4.0)), rtol=1e-5)
    pair = {"a": tf.constant(logits), "b": tf.constant(logits)}
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    both = at_temperature(pair, 4.0, {"a": binary, "b": binary})
    np.testing.assert_allclose(both["b"], logits / 4.0)


def flow_scores(weights):
    """|w| ⊙ d (1ᵀ |W_L| ··· |W_1| 1) / d |w| of a chain of matrices."""
    sizes = [abs(w) for w in weights]
    forward = [np.ones(sizes[0].shape[0])]
    for size in sizes:
        forward.append(forward[-1] @ size)
    backward = [np.ones(sizes[-1].shape[1])]
    for size in reversed(sizes):
        backward.append(size @ backward[-1])
    backward.reverse()
    return [s * np.outer(forward[i], backward[i + 1]) for i, s in enumerate(sizes)]


def synflow_masks(weights, sparsity, rounds):
    """Algorithm 1."""
    masks = everything(weights)
    size = sum(w.size for w in weights)
    for k in range(1, rounds + 1):
        kept = keep_count(size, 1.0 - (1.0 - sparsity) ** (k / rounds))
        scores = flow_scores([w * m for w, m in zip(weights, masks, strict=True)])
        masks = top_k(scores, masks, kept)
    return masks


def test_synflow_prunes_as_its_algorithm_does():
    model, weights = mlp((6, 8, 8, 4))
    sparse = granet_tf.wrap(model, granet_tf.SynFlow(0.8, rounds=10))
    assert_masks(sparse, synflow_masks(weights, 0.8, 10))


def test_synflow_sees_neither_activations_nor_biases_nor_statistics():
    weights = [np.random.default_rng(7).normal(size=s) for s in ((6, 8), (8, 4))]
    options = {"bias_initializer": "random_normal"}
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="one", **options)(inputs)
    x = layers.BatchNormalization(epsilon=0.25, beta_initializer="ones", name="norm")(x)
    x = layers.Activation("tanh")(x)
    x = keras.ops.sigmoid(layers.ReLU(max_value=6.0)(x))
    x = layers.Dense(4, "softmax", name="two", **options)(x)
    model = keras.Model(inputs, layers.LayerNormalization()(x))
    for name, weight in zip(("one", "two"), weights, strict=True):
        model.get_layer(name).kernel.assign(weight)
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.full(8, 5.0))
    norm.moving_variance.assign(np.full(8, 3.75))
    norm.gamma.assign(np.full(8, -3.0))
    data = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    before = model(data)
    scores = synflow_saliency(granet_tf.wrap(model, granet_tf.SNIP(0.5))).values()
    # Batch normalization multiplies by 3 / sqrt(3.75 + 0.25).
    expected = [1.5 * s for s in flow_scores([w.astype("float32") for w in weights])]
    for score, reference in zip(scores, expected, strict=True):
        assert score.dtype == tf.float64
        np.testing.assert_allclose(score, reference, rtol=1e-6)
    np.testing.assert_array_equal(model(data), before)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


def test_an_embedding_is_the_matrix_of_all_its_rows():
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(5, 2), layers.Flatten()]
    )
    with linearized(model):
        outputs = model(np.zeros((1, 3), "int32"))
    rows = abs(model.layers[0].embeddings.numpy()).sum(0)
    np.testing.assert_allclose(outputs, np.tile(rows, 3)[np.newaxis], rtol=1e-6)


def test_synflow_leaves_no_layer_empty_where_magnitude_does():
    model, weights = mlp((8, 16, 16, 4))
    scaled = [w * s for w, s in zip(weights, (1.0, 0.01, 1.0), strict=True)]
    model.set_weights(scaled)
    copy = keras.models.clone_model(model)
    copy.set_weights(scaled)
    sparse = granet_tf.wrap(model, granet_tf.SynFlow(0.99))
    counts = [int(m.sum()) for m in masks_of(sparse)]
    assert sum(counts) == keep_count(448, 0.99) == 4
    assert min(counts) == 1
    # What is left is connected, from the input to the output.
    assert np.all(flow_scores([p.variable.numpy() for p in sparse.pruned])[0].sum() > 0.0)
    with pytest.warns(UserWarning, match="All of .* has been pruned"):
        magnitude = granet_tf.wrap(copy, granet_tf.MagnitudeAtInit(0.9))
    assert 0 in [int(m.sum()) for m in masks_of(magnitude)]


def test_synflow_of_a_network_whose_flow_float32_cannot_hold():
    """25 layers that each multiply by about 1600: R is about 1e80."""
    model, weights = mlp((16,) * 26)
    weights = [100.0 + w for w in weights]
    model.set_weights(weights)
    method = granet_tf.SynFlow(0.5, rounds=1)
    sparse = granet_tf.wrap(model, method)
    scores = flow_scores([w.astype("float32").astype("float64") for w in weights])
    assert scores[0].max() > np.finfo(np.float32).max
    assert_masks(sparse, top_k(scores, everything(weights), 25 * 128))


def test_magnitude_ranks_all_layers_together():
    model, weights = mlp()
    sparse = granet_tf.wrap(model, granet_tf.MagnitudeAtInit(0.75))
    assert_masks(sparse, top_k([abs(w) for w in weights], everything(weights), 20))
    scores = magnitude_saliency(sparse).values()
    assert sum(int(np.count_nonzero(s)) for s in scores) == 20


# Counts, scopes, patterns


@pytest.mark.filterwarnings("ignore:All of")
@pytest.mark.parametrize("of", ALL)
def test_counts_are_exact_in_every_scope(of):
    def nonzeros(**options):
        model, _ = mlp((6, 8, 8, 4))
        if "rounds" not in options and of is granet_tf.SynFlow:
            options["rounds"] = 5
        # Given as such, it prunes filters that are outputs, too.
        sparse = granet_tf.wrap(model, of(0.7, **options), prunable=granet_tf.default_prunable)
        if sparse.method.needs_data:
            cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True)
            x, _ = batches()[0]
            sparse.start([(x, np.eye(4)[np.arange(16) % 4])], cross_entropy)
        return [int(m.sum()) for m in masks_of(sparse)]

    assert sum(nonzeros()) == keep_count(144, 0.7) == 43
    assert nonzeros(scope="layer") == [keep_count(n, 0.7) for n in (48, 64, 32)]
    assert nonzeros(scope="layer", pinned={0: 0.0}, capped={-1: 0.5}) == [48, 19, 16]
    pinned = nonzeros(pinned={0: 0.5})
    assert (pinned[0], sum(pinned)) == (24, 43)
    filters = zip(nonzeros(pattern=granet_tf.Filter()), (6, 8, 8), strict=True)
    assert sum(n // size for n, size in filters) == keep_count(20, 0.7) == 6
    assert nonzeros(pattern=granet_tf.Block((2, 2)), scope="layer") == [16, 20, 8]


def test_mask_only_keeps_the_values():
    model, weights = mlp()
    sparse = granet_tf.wrap(model, granet_tf.SNIP(0.75), mask_only=True)
    sparse.start(batches(), "mse")
    assert sparse.nonzeros == 20
    for pruned, weight in zip(sparse.pruned, weights, strict=True):
        np.testing.assert_array_equal(pruned.variable, np.float32(weight))
    x, _ = batches()[0]
    masked = [p.variable.numpy() * p.mask.numpy() for p in sparse.pruned]
    np.testing.assert_allclose(
        sparse(x), np.maximum(x @ masked[0], 0.0) @ masked[1], rtol=1e-4, atol=1e-5
    )


# Where the data comes from


class Batches(keras.utils.PyDataset):
    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i]


def seen_by_training(x, model, **options):
    """The first input of every batch that training gets."""
    seen = []

    class Spy(layers.Layer):
        def call(self, inputs, training=None):
            if training:
                tf.py_function(lambda first: seen.append(float(first)), [inputs[0, 0]], [])
            return inputs

    spied = keras.Sequential([keras.Input((6,)), Spy(), *model.layers])
    sparse = granet_tf.wrap(spied, granet_tf.SNIP(0.75, batches=2))
    sparse.compile("sgd", "mse")
    sparse.fit(x, shuffle=False, verbose=0, **options)
    return sparse, seen


@pytest.mark.parametrize("kind", ["generator", "dataset", "PyDataset"])
def test_fit_draws_from_its_first_batches_and_loses_none(kind):
    data = batches(count=4)
    x = {
        "generator": lambda: (batch for batch in data),
        "dataset": lambda: tf.data.Dataset.from_generator(
            lambda: iter(data),
            output_signature=(tf.TensorSpec((16, 6)), tf.TensorSpec((16, 4))),
        ),
        "PyDataset": lambda: Batches(data),
    }[kind]()
    model, _ = mlp()
    sparse, seen = seen_by_training(x, model, steps_per_epoch=None if kind == "PyDataset" else 4)
    expected = granet_tf.wrap(mlp()[0], granet_tf.SNIP(0.75, batches=2))
    expected.start(data, "mse")
    assert_masks(sparse, masks_of(expected))
    # Two to draw from, then all four to train on.
    firsts = [float(inputs[0, 0]) for inputs, _ in data]
    np.testing.assert_allclose(seen[-4:], firsts)
    assert len(seen) == 6


def test_arrays_give_a_random_sample_without_what_validation_gets():
    x, y = np.arange(100.0)[:, np.newaxis], np.arange(100) // 50
    arguments = {"x": x, "y": y, "batch_size": 8, "validation_split": 0.25}
    [one, two], after = first_batches.of_fit(arguments, 2, seed=3)
    assert after["x"] is x
    assert len(one) == 3 and one[2] is None
    chosen = np.concatenate([one[0], two[0]]).ravel()
    assert len(set(chosen)) == 16 and chosen.max() < 75 and chosen.min() >= 0
    assert set(np.concatenate([one[1], two[1]])) == {0, 1}  # not the first 16, of one class
    [again, _], _ = first_batches.of_fit(arguments, 2, seed=3)
    np.testing.assert_array_equal(again[0], one[0])


def test_class_weights_count_as_in_training():
    x, y = np.ones((4, 6)), np.array([0, 1, 1, 0])
    [batch], _ = first_batches.of_fit({"x": x, "y": y, "class_weight": {1: 3.0}}, 1, seed=0)
    np.testing.assert_array_equal(batch[2], np.where(batch[1] == 1, 3.0, 1.0))


def test_a_regularizer_and_random_states_have_no_part_in_it():
    def network(regularizer=None):
        keras.utils.set_random_seed(5)
        return keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(8, kernel_regularizer=regularizer),
                layers.BatchNormalization(),
                layers.Dropout(0.5, seed=2),
                layers.Dense(4),
            ]
        )

    model, other = network(), network(keras.regularizers.L2(10.0))
    before = [v.numpy() for v in model.non_trainable_variables]
    for each in (model, other):
        sparse = granet_tf.wrap(each, granet_tf.SNIP(0.75))
        sparse.start(batches(), "mse")
    for a, b in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_scores_of_a_float16_model_are_those_of_float32():
    plain = granet_tf.wrap(mlp()[0], granet_tf.SNIP(0.75))
    half = granet_tf.wrap(mlp(dtype="mixed_float16")[0], granet_tf.SNIP(0.75))
    tiny = [(x * 1e-4, y * 1e-4) for x, y in batches()]  # gradients of 1e-8: 0 in float16
    for model in (plain, half):
        model.start(tiny, "mse")
    assert_masks(half, masks_of(plain))
    assert half.model.layers[0].compute_dtype == "float16"


# Training, saving, going on


def fitted(method, **options):
    model, _ = mlp()
    sparse = granet_tf.wrap(model, method)
    sparse.compile(keras.optimizers.Adam(0.01), "mse")
    sparse.fit(tf.data.Dataset.from_tensor_slices(batches()[0]).batch(4), verbose=0, **options)
    return sparse


METHODS = [
    granet_tf.MagnitudeAtInit(0.75),
    granet_tf.SNIP(0.75, rounds=3),
    granet_tf.GraSP(0.75, temperature=1.0),
    granet_tf.SynFlow(0.75, rounds=3),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_masks_never_change_and_a_loaded_model_has_them(tmp_path, method):
    sparse = fitted(method, epochs=2)
    drawn = masks_of(sparse)
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method == sparse.method
    assert_masks(loaded, drawn)
    loaded.fit(*batches(seed=9)[0], verbose=0)  # Other data: nothing is drawn from it.
    assert_masks(loaded, drawn)
    assert int(loaded.optimizer.iterations) > int(sparse.optimizer.iterations)
    for pruned in loaded.pruned:
        assert np.count_nonzero(pruned.variable) == np.count_nonzero(pruned.mask)

    path = tf.train.Checkpoint(model=sparse).save(tmp_path / "checkpoint")
    other = granet_tf.wrap(mlp(seed=4)[0], method, start=False)
    assert other.nonzeros == 80
    tf.train.Checkpoint(model=other).restore(path).expect_partial()
    assert other.has_drawn
    assert_masks(other, drawn)


def test_a_model_saved_before_training_does_not_draw_again(tmp_path):
    sparse = granet_tf.wrap(mlp()[0], granet_tf.SNIP(0.75))
    sparse.compile("sgd", "mse")
    sparse.start(batches())
    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(*batches(seed=9)[0], verbose=0)
    assert_masks(loaded, masks_of(sparse))


def test_a_custom_loop_must_start_first():
    sparse = granet_tf.wrap(mlp()[0], granet_tf.SNIP(0.75))
    optimizer = granet_tf.SparseOptimizer(keras.optimizers.SGD(0.01), sparse)
    x, y = batches()[0]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((sparse(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, sparse.trainable_variables)
        optimizer.apply(gradients, sparse.trainable_variables)

    with pytest.raises(RuntimeError, match=r"masks of SNIP must be drawn.*start\(batches\)"):
        step()
    sparse.start(batches(), keras.losses.MeanSquaredError())
    step()
    assert int(optimizer.iterations) == 1 and sparse.nonzeros == 20


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("method", "distributed"),
    [
        (granet_tf.SNIP(0.75, batches=2), False),
        (granet_tf.SNIP(0.75, batches=2), True),
        (granet_tf.GraSP(0.75, batches=2, temperature=1.0), False),
        (granet_tf.SynFlow(0.75, rounds=3), False),
    ],
    ids=["snip", "snip-distributed", "grasp", "synflow"],
)
def test_two_replicas_draw_the_masks_of_one_device(mirrored, method, distributed):
    x, y = batches(size=32)[0]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    alone = granet_tf.wrap(mlp()[0], method)
    if method.needs_data:
        alone.start(data, "mse")
    with mirrored.scope():
        sparse = granet_tf.wrap(mlp()[0], method)
    sparse.compile("sgd", "mse")
    if distributed:
        sparse.start(mirrored.experimental_distribute_dataset(data))
    sparse.fit(data, verbose=0)
    assert_masks(sparse, masks_of(alone))
    assert sparse.nonzeros == 20
    for pruned in sparse.pruned:
        for variable in (pruned.mask, pruned.variable):
            first, second = mirrored.experimental_local_results(variable.value)
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("of", ALL)
def test_config_round_trip(of):
    made = of(0.8, pinned={0: 0.0}, capped={-1: 0.5}, seed=3, pattern=granet_tf.Filter())
    own = {"rounds": 7, "batches": 2, "temperature": 3.0, "input_shape": (8, 8, 3)}
    names = {field.name for field in dataclasses.fields(made)}
    made = dataclasses.replace(made, **{k: v for k, v in own.items() if k in names})
    config = keras.saving.serialize_keras_object(made)
    assert keras.saving.deserialize_keras_object(config) == made


# The training binary


def test_the_binary_draws_once_and_goes_on_from_the_checkpoint(tmp_path, monkeypatch):
    method = ("--method=grasp", "--final_sparsity=0.95", "--score_batches=2", "--rounds=2")
    options = ("--epochs=1", f"--workdir={tmp_path}")
    command = (*short_runs.SHORT, *short_runs.QUIET, *method, *options)
    short_runs.run(*command)

    def kept():
        model = keras.models.load_model(tmp_path / "sparse.keras")
        assert model.method.rounds == 2 and model.nonzeros == keep_count(93_728, 0.95)
        return masks_of(model)

    first, line = kept(), short_runs.table(tmp_path / "updates.csv")[0]
    assert (line["step"], line["nonzeros"]) == ("0", "4686")

    (tmp_path / "summary.json").unlink()  # As if stopped after the last checkpoint.
    monkeypatch.setattr(granet_tf.SparseModel, "start", lambda *args: pytest.fail("drawn again"))
    short_runs.run(*command)
    for mask, again in zip(first, kept(), strict=True):
        np.testing.assert_array_equal(mask, again)


# Several hosts

WORKER = """
import json, sys
import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras, numpy as np, granet_tf

index, data, weight = json.loads(sys.argv[1])
with strategy.scope():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False)])
    model.layers[0].kernel.assign(weight)
    sparse = granet_tf.wrap(model, granet_tf.SNIP(0.5))
mine = np.array(data[index], "float32")
sparse.start([(mine[:, :6], mine[:, 6:])], "mse")
print(json.dumps(sparse.pruned[0].mask.numpy().tolist()))
"""


@pytest.mark.slow
def test_two_hosts_draw_the_same_masks_by_the_data_of_both():
    rng = np.random.default_rng(1)
    data, weight = rng.normal(size=(2, 8, 10)).round(3), rng.normal(size=(6, 4)).round(3)
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        argument = json.dumps([index, data.tolist(), weight.tolist()])
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, argument],
                env=environment() | {"TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        ended = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    masks = [json.loads(printed or error) for printed, error in ended]

    def mask(samples):
        x, y = samples[:, :6], samples[:, 6:]
        score = abs(weight * (x.T @ (x @ weight - y)))
        return top_k([score], [np.ones((6, 4), bool)], 12)[0].tolist()

    assert masks == [mask(data.reshape(16, 10))] * 2
    assert mask(data[0]) != masks[0]  # One host's data alone would not have given it.


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: granet_tf.SNIP(0.0), r"`final_sparsity` must be in \(0, 1\).*=0\.0$"),
        (lambda: granet_tf.SynFlow(1.0), r"`final_sparsity`.*Received: final_sparsity=1\.0$"),
        (lambda: granet_tf.SynFlow(0.5, rounds=0), r"`rounds` must be a whole.*rounds=0$"),
        (lambda: granet_tf.SNIP(0.5, batches=1.5), r"`batches` must be a whole.*batches=1\.5$"),
        (lambda: granet_tf.GraSP(0.5, temperature=0), r"`temperature` must be above 0.*=0$"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def start(method, data, loss="mse", model=None):
    sparse = granet_tf.wrap(model or mlp()[0], method)
    sparse.start(data, loss)
    return sparse


def dead():
    model, _ = mlp()
    model.layers[1].kernel.assign(np.zeros((8, 4)))
    return model


def cut_off():
    inputs = keras.Input((6,))
    layers.Dense(4)(inputs)
    unused = layers.Dense(4, name="unused")
    outputs = layers.Dense(4)(inputs) + 0.0 * unused(inputs)
    return keras.Model(inputs, outputs)


NAN = [(np.full((4, 6), np.nan, "float32"), np.ones((4, 4), "float32"))]
SNIP = granet_tf.SNIP(0.75)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: start(SNIP, batches(), loss=None), r"`loss` must be given.*compile the model"),
        (lambda: start(SNIP, []), r"`batches` must be 1 or more.*Received: 0 batches$"),
        (lambda: start(granet_tf.SNIP(0.5, batches=3), batches(2)), r"Received: 2 batches$"),
        (lambda: start(SNIP, NAN), r"must be finite.*NaN or infinity in \['sequential/dense/"),
        (lambda: start(granet_tf.GraSP(0.5), batches()), r"`temperature` must be 1\.0 unless"),
        (lambda: start(granet_tf.SNIP(0.001), batches()), r"`final_sparsity` must be high enough"),
        (lambda: start(granet_tf.GMP(0.5), batches()), r"`start` is for methods.*drawn already"),
        (lambda: start(SNIP, batches()).start(batches()), r"to be called once.*sparsity 0\.75"),
        (lambda: start(granet_tf.SynFlow(0.5, rounds=1), ()), r"to be called once"),
        (
            lambda: granet_tf.wrap(dead(), granet_tf.SynFlow(0.5)),
            r"must tell weights apart.*nothing but 0 in",
        ),
        (
            lambda: granet_tf.wrap(
                keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)]),
                granet_tf.SynFlow(0.5),
            ),
            r"`input_shape` must be given",
        ),
        (
            lambda: granet_tf.wrap(mlp()[0], granet_tf.SNIP(0.5)).fit(*batches()[0]),
            r"call `compile\(\)` before",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_failed_start_leaves_the_model_dense():
    model, weights = mlp()
    sparse = granet_tf.wrap(model, SNIP)
    with pytest.raises(ValueError, match="must be finite"):
        sparse.start(NAN, "mse")
    assert sparse.nonzeros == 80
    np.testing.assert_array_equal(model.layers[0].kernel, np.float32(weights[0]))


def test_a_layer_that_the_loss_does_not_reach_is_pruned_away_with_a_warning():
    with pytest.warns(UserWarning, match="All of .*unused/kernel has been pruned"):
        sparse = start(SNIP, batches(), model=cut_off())
    assert sparse.nonzeros == 12
