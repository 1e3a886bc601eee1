"""Methods against examples of others' code and laws of their papers, not our reading of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.methods.at_initialization import synflow_saliency
from granet_tf.methods.records import Snapshot


def one_output(weights, method):
    layer = keras.layers.Dense(1, use_bias=False)
    network = keras.Sequential([keras.Input((len(weights),)), layer])
    network.set_weights([np.reshape(weights, (-1, 1))])
    return granet_tf.wrap(network, method), layer


# JaxPruner's examples, from the tests of its algorithms.


def test_magnitude_pruning_across_two_weights():
    weights = [tf.constant([0.1, 0.9, -0.2, 0.5]), tf.constant([0.7, 0.8])]
    schedule = granet_tf.ConstantSparsity(0.5, 0, frequency=1)
    method = granet_tf.GMP(0.5, scope="global", schedule=schedule)
    each = [Snapshot(str(i), w, tf.ones(w.shape, tf.bool)) for i, w in enumerate(weights)]
    new = method.update(tf.constant(1), each, dormant_compete=False)
    found = [u.mask.numpy().astype(int).ravel().tolist() for u in new]
    assert found == [[0, 1, 0, 0], [1, 1]]


def test_saliency_is_weight_times_gradient():
    # Scores 0.5, 0.9, 0.6 and 0.25, of gradients that are the inputs.
    model, _ = one_output([0.1, 0.9, 0.2, 0.5], granet_tf.SNIP(0.5))
    x = np.array([[5.0, 1.0, 3.0, 0.5]], "float32")
    batch = (x, np.zeros((1, 1)))
    model.start([batch], loss=lambda y, output: output)
    assert model.pruned[0].mask.numpy().ravel().astype(int).tolist() == [0, 1, 1, 0]
    fresh, _ = one_output([0.1, 0.9, 0.2, 0.5], granet_tf.SNIP(0.5))
    [scores] = granet_tf.SNIP(0.5).saliency(fresh, [batch], lambda y, output: output).values()
    np.testing.assert_allclose(np.ravel(scores), [0.5, 0.9, 0.6, 0.25], rtol=1e-6)


def test_random_masks_of_four_weights_keep_one_at_75_percent():
    model, _ = one_output([0.1, 0.9, 0.2, 0.5], granet_tf.StaticSparse(0.75))
    assert model.nonzeros == 1


@pytest.mark.parametrize("method", [granet_tf.RigL, granet_tf.SET], ids=lambda each: each.__name__)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 9, 1), (2, 2, 4, 4)], ids=str)
def test_an_update_keeps_the_number(method, sparsity, shape):
    rng = np.random.default_rng(0)
    weight, gradient = (tf.constant(rng.normal(size=shape), tf.float32) for _ in range(2))
    made = method(sparsity, distribution="uniform", frequency=1, total_steps=10)
    mask = made.initial_masks({"w": shape})["w"]
    before = Snapshot("w", weight, mask, gradient)
    [new] = made.update(tf.constant(1), [before], dormant_compete=False)
    assert np.sum(new.mask) == np.sum(mask)


# Laws of the papers.


def test_synflow_is_conserved():
    # Tanaka et al., Theorems 1 and 2: what flows into a hidden unit flows out of it, and through
    # each layer flows as much.
    layers = [keras.layers.Dense(5, "relu"), keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
    model = granet_tf.wrap(keras.Sequential([keras.Input((4,)), *layers]), granet_tf.SynFlow(0.5))
    model = granet_tf.wrap(granet_tf.strip(model), granet_tf.SynFlow(0.5), start=False)
    first, second, third = (np.asarray(s) for s in synflow_saliency(model).values())
    np.testing.assert_allclose(first.sum(0), second.sum(1), rtol=1e-6)
    np.testing.assert_allclose(second.sum(0), third.sum(1), rtol=1e-6)
    assert first.sum() == pytest.approx(third.sum(), rel=1e-6)


def test_dpf_takes_the_gradient_at_what_is_pruned_and_moves_all():
    # Lin et al., Eq. DPF: w ← w − η g(w + e), with e = w · mask − w. Here w = (3, −1), x = (1, 2),
    # and the mean square of the output 3 · 1 + 0 · 2 has the gradient 2 · 3 · (1, 2).
    schedule = granet_tf.ConstantSparsity(0.5, 5, frequency=5)
    model, layer = one_output([3.0, -1.0], granet_tf.DPF(0.5, schedule=schedule, total_steps=9))
    model.set_masks({model.pruned[0].path: np.array([[True], [False]])})
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    model.train_on_batch(np.array([[1.0, 2.0]]), np.zeros((1, 1)))
    np.testing.assert_allclose(layer.kernel.numpy().ravel(), [2.4, -2.2], rtol=1e-6)


def test_top_kast_moves_what_learns_and_computes_with_what_is_used():
    # Jayakumar et al., Section 2: gradients at A, the top 1, applied to B, the top 2 of 3. The
    # output is 3 · 1, its mean square has the gradient 6 x = (6, 12, 18); of B − A the penalty is
    # w² / D, with D a third, here 0.3 / 2 · 3 · w², with the gradient 0.9 w, of A 0.3 w.
    method = granet_tf.TopKAST(
        2 / 3, backward_sparsity=1 / 3, exploration_decay=0.3, frequency=5, total_steps=9
    )
    model, layer = one_output([3.0, -2.0, 1.0], method)
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    model.train_on_batch(np.array([[1.0, 2.0, 3.0]]), np.zeros((1, 1)))
    expected = [3.0 - 0.1 * (6.0 + 0.3 * 3.0), -2.0 - 0.1 * (12.0 - 0.9 * 2.0), 1.0]
    np.testing.assert_allclose(layer.kernel.numpy().ravel(), expected, rtol=1e-5)


def test_momentum_of_snfs_is_that_of_sgd():
    # The authors' code has none of its own: it looks at the buffer of torch.optim.SGD.
    method = granet_tf.SNFS(0.0, growth_momentum=0.9, frequency=50, total_steps=90)
    model, _ = one_output([0.3, -0.2, 0.1], method)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", run_eagerly=True)
    rng = np.random.default_rng(1)
    for _ in range(3):
        model.train_on_batch(rng.normal(size=(4, 3)), rng.normal(size=(4, 1)))
    [velocity] = model.optimizer.inner_optimizer.momentums
    buffer = -velocity.numpy() / 0.1  # Keras has the learning rate in it.
    np.testing.assert_allclose(model.pruned[0].state["momentum"], buffer, rtol=1e-4)


def test_str_moves_weights_where_they_survive_and_the_threshold_by_their_signs():
    """The paper's updates: W by its gradient where S(W, s) is not 0, and s by −g'(s) times the sum
    of gradient · sign(W) there, both with weight decay λ."""
    weights, threshold, rate, decay = np.array([0.5, -0.75, 0.125, -0.25]), -1.0, 0.5, 0.25
    method = granet_tf.STR(threshold_init=threshold, threshold_decay=decay)
    model, layer = one_output(weights, method)
    model.compile(keras.optimizers.SGD(rate), loss=lambda y, output: tf.reduce_sum(output))
    x = np.array([[1.0, 2.0, 4.0, 8.0]], "float32")  # The gradient by S.
    model.train_on_batch(x, np.zeros((1, 1)))

    g = 1 / (1 + np.exp(1.0))  # 0.269, so that two survive.
    survives = np.array([True, True, False, False])
    np.testing.assert_allclose(np.ravel(layer.kernel), weights - rate * x[0] * survives, rtol=1e-6)
    slope = -g * (1 - g) * (1.0 - 2.0)
    [pruned] = model.pruned
    expected = threshold - rate * (slope + decay * threshold)
    np.testing.assert_allclose(pruned.state["threshold"], expected, rtol=1e-6)
