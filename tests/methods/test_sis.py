"""SIS against scikit-learn's Lasso, a fine descent in NumPy, and what its inclusions mean."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import Lasso

import granet_tf
from granet_tf.methods.sis import sis_solution
from granet_tf.methods.sis.inclusion import RESIDUALS, Inclusion, of_a_bijection, of_relu
from granet_tf.methods.sis.problems import Problem, problems_of, rows_of
from granet_tf.methods.sis.recording import uses_of
from granet_tf.methods.sis.splitting import _solver, sparsest
from tests.support import haugazeau

SAMPLES, INPUTS, OUTPUTS = 200, 20, 5


def problem(offset=0.0):
    """Inputs, weights, and outputs before the activation, which have a mean of `offset`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, INPUTS))
    w = rng.normal(size=(INPUTS, OUTPUTS))
    return x, w, x @ w + offset


def square(off):
    return (off**2).sum() / len(off)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_without_an_activation_it_is_the_lasso(alpha):
    x, w, u = problem()
    lasso = Lasso(alpha, fit_intercept=False, tol=1e-10, max_iter=100_000)
    expected = np.stack([lasso.fit(x, column).coef_ for column in u.T], 1)
    bound = tf.constant(square(x @ expected - u), tf.float64)
    found = sparsest(tf.constant(w), [Inclusion(x, u)], [bound], iterations=100).numpy()
    np.testing.assert_array_equal(found != 0.0, expected != 0.0)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert 0.2 < np.mean(expected == 0.0) < 0.5 or alpha == 0.1


def test_a_bias_is_not_penalized():
    x, w, u = problem(offset=3.0)
    lasso = Lasso(0.4, tol=1e-10, max_iter=100_000)
    fits = [(lasso.fit(x, column).coef_, lasso.intercept_) for column in u.T]
    expected, bias = np.stack([f[0] for f in fits], 1), np.array([f[1] for f in fits])
    rows = np.concatenate([x, np.ones((SAMPLES, 1))], 1)
    start = np.concatenate([w, np.full((1, OUTPUTS), 3.0)])
    bound = tf.constant(square(x @ expected + bias - u), tf.float64)
    penalized = tf.constant([[1.0]] * INPUTS + [[0.0]], tf.float64)
    found = sparsest(
        tf.constant(start), [Inclusion(rows, u)], [bound], penalized=penalized, iterations=100
    ).numpy()
    np.testing.assert_array_equal(found[:-1] != 0.0, expected != 0.0)
    np.testing.assert_allclose(found, [*expected, bias], atol=0.01)


def test_with_relu_it_is_what_a_fine_descent_comes_to():
    x, w, u = problem(offset=-1.0)
    rows = np.concatenate([x, np.ones((SAMPLES, 1))], 1)
    start = np.concatenate([w, np.full((1, OUTPUTS), -1.0)])
    alpha, rate = 0.4, 0.05
    expected = start.copy()
    for _ in range(20_000):  # Proximal gradient steps on alpha · Σ |w| + half the distance.
        v = rows @ expected
        off = np.where(u > 0, v - u, np.maximum(v, 0.0))
        expected = expected - rate * rows.T @ off / SAMPLES
        kernel = expected[:-1]
        expected[:-1] = np.sign(kernel) * np.maximum(abs(kernel) - rate * alpha, 0.0)
    v = rows @ expected
    bound = tf.constant(square(np.where(u > 0, v - u, np.maximum(v, 0.0))), tf.float64)
    penalized = tf.constant([[1.0]] * INPUTS + [[0.0]], tf.float64)
    found = sparsest(
        tf.constant(start),
        [Inclusion(rows, u, of_relu)],
        [bound],
        penalized=penalized,
        iterations=200,
    ).numpy()
    norm = abs(expected[:-1]).sum()
    assert abs(found[:-1]).sum() == pytest.approx(norm, rel=1e-3)
    np.testing.assert_array_equal(found[:-1] != 0.0, expected[:-1] != 0.0)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert 0.1 < np.mean(expected == 0.0) < 0.7


def test_each_batch_has_a_bound_of_its_own():
    x, w, u = problem()
    inclusions = [Inclusion(x[:50], u[:50]), Inclusion(x[50:], u[50:])]
    bounds = [tf.constant(2.0, tf.float64), tf.constant(8.0, tf.float64)]
    found = sparsest(tf.constant(w), inclusions, bounds, iterations=100)
    reached = [float(each.distance(found)) for each in inclusions]
    assert reached[0] == pytest.approx(2.0, rel=0.01)
    assert reached[1] <= 8.0 * 1.01


def test_the_solver_of_the_paper_comes_to_the_same():
    x, w, u = problem(offset=-0.5)
    scale, shift = np.linspace(0.5, 2.0, OUTPUTS), np.linspace(-0.5, 0.5, OUTPUTS)
    u = u * scale + shift

    def off(v, u):
        return np.where(u > 0, v - u, np.maximum(v, 0.0))

    batches = [(x[part], u[part]) for part in (slice(80), slice(80, 200))]
    inclusions = [Inclusion(*batch, off, scale, shift) for batch in batches]
    bounds = [0.4 * haugazeau.distance(each, np.zeros_like(w)) for each in inclusions]
    expected = haugazeau.sparsest(
        w, inclusions, bounds, threshold=0.2, iterations=200, projections=100
    )
    inclusions = [Inclusion(*batch, of_relu, scale, shift) for batch in batches]
    found = sparsest(tf.constant(w), inclusions, [tf.constant(b) for b in bounds]).numpy()
    assert abs(found).sum() == pytest.approx(abs(expected).sum(), rel=1e-3)
    np.testing.assert_array_equal(found != 0.0, expected != 0.0)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert 0.3 < np.mean(expected == 0.0) < 0.9
    for inclusion, bound in zip(inclusions, bounds, strict=True):
        assert haugazeau.distance(inclusion, found) <= bound * 1.001


def test_the_solver_of_the_paper_projects_onto_an_ellipse():
    # 4 a² + b² ≤ 1 from (2, 2): at the nearest point (2, 2) − p is λ (4 a, b), λ by Newton.
    x = np.sqrt(2.0) * np.diag([2.0, 1.0])
    inclusion = Inclusion(x, np.zeros((2, 1)))
    found = haugazeau.projected(np.array([[2.0], [2.0]]), [inclusion], [1.0], 500)
    lam = 1.0
    for _ in range(100):
        f = 4 * (2 / (1 + 4 * lam)) ** 2 + (2 / (1 + lam)) ** 2 - 1
        slope = -32 * 4 / (1 + 4 * lam) ** 3 - 8 / (1 + lam) ** 3
        lam -= f / slope
    expected = [2 / (1 + 4 * lam), 2 / (1 + lam)]
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-3)


def test_the_solution_meets_its_conditions_whatever_normalization_scales_by():
    # Of an output that batch normalization scales by 0, no weight is needed.
    x, w, u = problem()
    scale = np.array([1.0, -2.0, 1e-3, 0.0, 5.0])
    inclusion = Inclusion(x, u * scale, scale=scale)
    bound = 0.1 * haugazeau.distance(inclusion, np.zeros_like(w))
    found = sparsest(tf.constant(w), [inclusion], [tf.constant(bound)]).numpy()
    assert haugazeau.distance(inclusion, found) == pytest.approx(bound, rel=1e-3)
    assert not found[:, 3].any()
    # Its conditions: where a weight is active, the gradient is the same but for its sign.
    slope = haugazeau.gradient(inclusion, found)
    active = found != 0.0
    most = abs(slope[active]).mean()
    np.testing.assert_allclose(slope[active], -most * np.sign(found[active]), rtol=0.02)
    assert abs(slope[~active]).max() <= 1.02 * most
    assert 0.1 < np.mean(active) < 0.6


@pytest.mark.parametrize("activation", RESIDUALS, ids=lambda each: each.__name__)
def test_less_the_residual_the_output_is_the_same(activation):
    # v − y − r is in ∂f(y) if and only if y = R(v − r).
    rng = np.random.default_rng(1)
    u, v = (tf.constant(4.0 * rng.normal(size=(50, 3))) for _ in range(2))
    off = RESIDUALS[activation](v, u)
    np.testing.assert_allclose(activation(v - off), activation(u), atol=1e-6)
    # And no shorter one does: along the segment to 0 it does not, unless it is 0.
    shorter = activation(v - 0.9 * off)
    changed = np.any(abs(shorter - activation(u)) > 1e-9, -1)
    assert np.all(changed | (np.max(abs(off.numpy()), -1) < 1e-9))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2},
        {"padding": "same"},
        {"padding": "same", "strides": (2, 1)},
        {"dilation_rate": 2},
    ],
    ids=str,
)
def test_patches_meet_the_kernel_as_a_convolution_does(options):
    layer = keras.layers.Conv2D(4, (3, 2), use_bias=False, **options)
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype("float32")
    expected = layer(x).numpy()
    found = rows_of(layer, tf.constant(x)) @ tf.reshape(layer.kernel, (-1, 4))
    np.testing.assert_allclose(found, expected.reshape(-1, 4), atol=1e-5)


def test_samples_are_rows_of_all_images_in_their_order():
    layer = keras.layers.Conv2D(4, 3, use_bias=False)
    model = keras.Sequential([keras.Input((6, 6, 2)), layer])
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 2)).astype("float32")
    sparse = granet_tf.wrap(model, granet_tf.SIS(0.5))

    def inputs(samples):
        [problem] = problems_of(sparse, [(x,)], samples, seed=3)
        return np.asarray(problem.inclusions[0].inputs)

    rows = np.stack([x[n, i : i + 3, j : j + 3].ravel() for n, i, j in np.ndindex(5, 4, 4)])
    np.testing.assert_array_equal(inputs(80), rows)
    some = inputs(30)
    places = [int(np.flatnonzero((rows == row).all(1))[0]) for row in some]
    assert len(places) == 30 and places == sorted(set(places)) and places[-1] - places[0] > 48
    np.testing.assert_array_equal(inputs(30), some)


def network():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="normalized")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv2D(8, 3, padding="same", name="added")(x)
    x = layers.ReLU(6.0)(layers.Conv2D(8, 1, name="six")(layers.Add()([x, y])))
    x = layers.Dense(6, "sigmoid", name="within")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Softmax()(layers.Dense(4, name="logits")(x)))
    rng = np.random.default_rng(2)
    norm = model.get_layer("norm")
    norm.set_weights([*rng.normal(size=(3, 8)), np.full(8, 2.0)])
    return model


def test_what_follows_a_layer_is_found():
    model, x = network(), np.random.default_rng(3).normal(size=(5, 8, 8, 3)).astype("float32")
    names = ["normalized", "added", "six", "within", "logits"]
    uses = uses_of(model, [model.get_layer(name) for name in names], [x, x])
    assert [use.residual.__name__ for use in uses] == [
        "of_relu", "of_a_bijection", "of_relu6", "of_a_bijection", "of_softmax",
    ]  # fmt: skip
    assert [use.normalization is not None for use in uses] == [True, False, False, False, False]
    assert [len(use.inputs) for use in uses] == [2] * 5
    # The layers are as they were.
    assert "call" not in vars(model.get_layer("added"))
    sparse = granet_tf.wrap(model, granet_tf.SIS(0.5))
    first = problems_of(sparse, [(x,)], 10_000, 0)[0]
    part = keras.Model(model.input, model.get_layer("norm").output)
    [inclusion] = first.inclusions
    np.testing.assert_allclose(inclusion.outputs, part(x).numpy().reshape(-1, 8), atol=1e-4)
    assert float(inclusion.distance(first.start)) == 0.0


def test_gradients_of_the_solver_of_the_paper_are_those_of_the_distance():
    rng = np.random.default_rng(4)
    x, u, w = (rng.normal(size=size) for size in ((30, 4), (30, 3), (4, 3)))
    scale, shift = tf.constant([0.5, -2.0, 1.0], tf.float64), tf.constant([0.1, 0, 0], tf.float64)
    for residual in RESIDUALS.values():
        inclusion = Inclusion(tf.constant(x), tf.constant(u), residual, scale, shift)
        with tf.GradientTape() as tape:
            variable = tf.Variable(w)
            distance = inclusion.distance(variable)
        expected = tape.gradient(distance, variable)
        np.testing.assert_allclose(haugazeau.gradient(inclusion, w), expected, atol=1e-12)


def test_masks_are_those_of_the_solution_and_stay(float64):
    x, w, u = problem()
    layer = keras.layers.Dense(OUTPUTS, use_bias=False)
    model = keras.Sequential([keras.Input((INPUTS,)), layer])
    model.set_weights([w])
    sparse = granet_tf.wrap(model, granet_tf.SIS(0.5, iterations=100))
    sparse.start([(x, u)])
    assert sparse.nonzeros == 50
    mask = sparse.pruned[0].mask.numpy()
    # The largest of a Lasso that leaves about as many; its path of solutions has the others.
    left = {}
    for alpha in np.linspace(0.3, 1.2, 46):
        lasso = Lasso(alpha, fit_intercept=False, tol=1e-8, max_iter=100_000)
        kernel = np.stack([lasso.fit(x, column).coef_ for column in u.T], 1)
        left[abs(np.count_nonzero(kernel) - 50)] = kernel != 0.0
    nearest = min(left)
    assert nearest <= 2 and np.count_nonzero(mask ^ left[nearest]) <= 2
    # The network's own weights, where they are active.
    np.testing.assert_allclose(layer.kernel.numpy(), np.where(mask, w, 0.0))
    sparse.compile("sgd", "mse")
    sparse.fit(x, u, epochs=2, verbose=0)
    np.testing.assert_array_equal(sparse.pruned[0].mask, mask)


def test_a_network_of_all_that_is_known():
    model, x = network(), np.random.default_rng(3).normal(size=(20, 8, 8, 3)).astype("float32")
    sparse = granet_tf.wrap(model, granet_tf.SIS(0.75, batches=2, samples=50, iterations=10))
    size = sum(p.variable.shape.num_elements() for p in sparse.pruned)
    sparse.start([(x, None), (x[::-1], None)])
    assert sparse.nonzeros == round(size / 4)
    loose, tight = (
        sum(int(np.count_nonzero(v)) for v in kernels.values())
        for kernels in (
            sis_solution(granet_tf.wrap(network(), granet_tf.SIS()), [(x,)], eta, samples=50)
            for eta in (0.5, 0.01)
        )
    )
    assert loose < tight < size


def test_a_layer_that_is_off_by_nothing_when_it_is_0_goes():
    x = tf.constant(np.random.default_rng(0).normal(size=(30, 4)))
    start = tf.constant(np.eye(4))
    inclusion = Inclusion(x, -1.0 - abs(x @ start), of_relu)  # Never on.
    assert not np.any(Problem("w", start, start, (inclusion,)).solved(0.1, 60))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([keras.layers.Dense(3, "gelu")], r"must be one of \['linear', 'relu'.*activation=gelu"),
        ([keras.layers.LSTM(3)], r"kernels of Dense and Conv2D layers.*Received: .*lstm"),
    ],
)
def test_what_is_not_known_is_named(layers, message):
    model = keras.Sequential([keras.Input((4, 2)), *layers])
    sparse = granet_tf.wrap(model, granet_tf.SIS(0.5))
    with pytest.raises(ValueError, match=message):
        sparse.start([(np.zeros((8, 4, 2)), None)])


def test_eta_is_a_share():
    sparse = granet_tf.wrap(network(), granet_tf.SIS())
    with pytest.raises(ValueError, match=r"`eta` must be in \[0, 1\]. Received: eta=1.5"):
        sis_solution(sparse, [], 1.5)


def test_no_batches_are_named():
    sparse = granet_tf.wrap(network(), granet_tf.SIS())
    with pytest.raises(ValueError, match=r"`batches` must be one or more.*Received: none"):
        sis_solution(sparse, [], 0.2)


def test_the_solver_is_traced_once_for_layers_of_all_sizes():
    _solver.cache_clear()
    for size in ((30, 4, 3), (30, 4, 2), (20, 6, 3), (20, 5, 7)):
        samples, inputs, outputs = size
        x, w = tf.ones((samples, inputs)), tf.ones((inputs, outputs))
        sparsest(w, [Inclusion(x, x @ w)], [tf.constant(0.1)])
    solver = _solver(of_a_bijection, 1, tf.float32)
    assert _solver.cache_info().currsize == 1 and solver.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_in_scope_layer_each_layer_has_an_eta_of_its_own(float64, scope):
    # Two layers of the same size, of which one needs fewer weights for the same η.
    rng = np.random.default_rng(6)
    x, size = rng.normal(size=(SAMPLES, INPUTS)), (INPUTS, OUTPUTS)
    kernels = {"even": rng.uniform(-2.0, 2.0, size), "uneven": rng.normal(size=size) ** 5}
    inputs = keras.Input((INPUTS,))
    layers = [keras.layers.Dense(OUTPUTS, use_bias=False, name=name) for name in kernels]
    model = keras.Model(inputs, [layer(inputs) for layer in layers])
    model.set_weights(list(kernels.values()))
    sparse = granet_tf.wrap(model, granet_tf.SIS(0.6, scope=scope))
    sparse.start([(x, None)])
    masks = {p.path.split("/")[0]: np.asarray(p.mask) for p in sparse.pruned}
    left = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    assert sum(left.values()) == 80
    assert left["even"] == 40 if scope == "layer" else left["even"] > 45
    for name, kernel in kernels.items():  # As the Lasso that leaves about as many has it.
        found = {}
        for alpha in np.geomspace(1e-2, 100.0, 200):
            lasso = Lasso(alpha, fit_intercept=False, tol=1e-6, max_iter=100_000)
            columns = (x @ kernel).T
            expected = np.stack([lasso.fit(x, column).coef_ for column in columns], 1) != 0.0
            found[abs(int(np.count_nonzero(expected)) - left[name])] = expected
        assert min(found) <= 2 and np.count_nonzero(masks[name] ^ found[min(found)]) <= 3
