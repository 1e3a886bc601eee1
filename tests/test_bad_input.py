"""What is wrong is told, with what to do and what was received; nothing goes wrong in silence."""

import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from tests.support import models
from tests.support.cases import uniform_gmp
from tests.support.processes import run_python

L = keras.layers
G = granet_tf


def raises(error, text):
    return pytest.raises(error, match=text)


def fit(sparse, optimizer="sgd", epochs=1, **options):
    sparse.compile(optimizer, "mse", run_eagerly=True)
    x, y = models.data(models.sequential, 16)
    sparse.fit(x, y, batch_size=4, epochs=epochs, verbose=0, **options)
    return sparse


# Parameters.

FRACTION = r"`{0}` is the fraction of zeros and must be in \[0, 1\)\. Received: {0}={1}$"
PARAMETERS = [
    (lambda: G.GMP(1.0), FRACTION.format("final_sparsity", r"1\.0")),
    (lambda: G.GraNet(90), FRACTION.format("final_sparsity", "90")),
    (lambda: G.RigL(-0.1), FRACTION.format("final_sparsity", r"-0\.1")),
    (lambda: G.SET(float("nan")), FRACTION.format("final_sparsity", "nan")),
    (lambda: G.GMP(0.5, initial_sparsity=-1), FRACTION.format("initial_sparsity", "-1")),
    (lambda: G.ConstantSparsity(1.2, 0), FRACTION.format("target_sparsity", r"1\.2")),
    (lambda: G.PolynomialDecay(0.0, 1.0, 0, 9), FRACTION.format("final_sparsity", r"1\.0")),
    (lambda: G.GraNetSchedule(-0.1, 0.5, 0, 5, 9), FRACTION.format("initial_sparsity", r"-0\.1")),
    (lambda: G.GMP(0.5, pinned={0: 1.5}), FRACTION.format(r"pinned\[0\]", r"1\.5")),
    (lambda: G.GMP(0.5, capped={"a*": -0.5}), FRACTION.format(r"capped\['a\*'\]", r"-0\.5")),
    (
        lambda: G.GMP(0.5, initial_sparsity=0.6),
        r"`initial_sparsity` must not be above `final_sparsity`: pruning only removes\. "
        r"Received: initial_sparsity=0\.6, final_sparsity=0\.5$",
    ),
    (
        lambda: G.GraNetSchedule(0.6, 0.5, 0, 5, 9),
        r"`initial_sparsity` must not be above `final_sparsity`.*0\.6, final_sparsity=0\.5$",
    ),
    (
        lambda: G.GMP(0.5, begin_step=10, end_step=5),
        r"`end_step` must be >= `begin_step`\. Received: begin_step=10, end_step=5$",
    ),
    (
        lambda: G.GraNet(0.5, begin_step=0.5, end_step=0.2),
        r"`end_step` must be >= `begin_step`\. Received: begin_step=0\.5, end_step=0\.2$",
    ),
    (
        lambda: G.PolynomialDecay(0.0, 0.5, 10, 5),
        r"`end_step` must be >= `begin_step`\. Received: begin_step=10, end_step=5$",
    ),
    (
        lambda: G.ConstantSparsity(0.2, 5, 3),
        r"`end_step` must be >= `begin_step`\. Received: begin_step=5, end_step=3$",
    ),
    (
        lambda: G.PolynomialDecay(0.0, 0.5, 0, -1),
        r"`end_step` must be given, as the sparsity rises until then\. Received: end_step=-1$",
    ),
    (lambda: G.GMP(0.5, begin_step=-1), r"`begin_step` must be >= 0\. Received: begin_step=-1$"),
    (
        lambda: G.PolynomialDecay(0.0, 0.5, -3, 5),
        r"`begin_step` must be >= 0\. Received: begin_step=-3$",
    ),
    (
        lambda: G.GMP(0.5, end_step=1.5),
        r"`end_step` must be a number of optimizer steps \(int\) or a fraction of training in "
        r"\[0, 1\] \(float\)\. Received: end_step=1\.5$",
    ),
    (lambda: G.GMP(0.5, frequency=0), r"`frequency`.*whole number.*Received: frequency=0$"),
    (lambda: G.RigL(0.5, frequency=-5), r"`frequency`.*whole number.*Received: frequency=-5$"),
    (lambda: G.GMP(0.5, frequency=0.5), r"`frequency`.*whole number.*Received: frequency=0\.5$"),
    (
        lambda: G.ConstantSparsity(0.5, 0, frequency=0),
        r"`frequency` must be > 0 steps\. Received: frequency=0$",
    ),
    (lambda: G.GMP(total_steps=0), r"`total_steps` must be > 0 steps\. Received: total_steps=0$"),
    (
        lambda: G.GraNet(drop_fraction=1.5),
        r"`drop_fraction` must be in \[0, 1\]\. Received: drop_fraction=1\.5$",
    ),
    (
        lambda: G.RigL(final_drop_fraction=-0.1),
        r"`final_drop_fraction` must be in \[0, 1\]\. Received: final_drop_fraction=-0\.1$",
    ),
    (
        lambda: G.GMP(scope="model"),
        r"`scope` must be one of \['global', 'layer'\]\. Received: scope='model'$",
    ),
    (
        lambda: G.GMP(distribution="erdos"),
        r"`distribution` must be one of \['er', 'erk', 'uniform'\]\. "
        r"Received: distribution='erdos'$",
    ),
]


@pytest.mark.parametrize(("make", "text"), PARAMETERS)
def test_parameters_out_of_range(make, text):
    with raises(ValueError, text):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: G.GMP(0.0),
        lambda: G.GMP(0.5, initial_sparsity=0.5),
        lambda: G.GraNet(0.999, drop_fraction=0.0, final_drop_fraction=1),
        lambda: G.GMP(0.5, begin_step=0, end_step=0),
        lambda: G.GMP(0.5, begin_step=1.0, end_step=1.0),
        lambda: G.ConstantSparsity(0.0, 0, -1, 1),
        lambda: G.PolynomialDecay(0.8, 0.2, 5, 5),
    ],
)
def test_the_limits_themselves_are_allowed(make):
    make()


# Models.


class Unbuilt(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("make", [Unbuilt, lambda: keras.Sequential([L.Dense(3)])])
def test_an_unbuilt_model_is_told_how_to_build(make):
    with raises(
        ValueError,
        r"must be built before it is wrapped.*start it with keras\.Input\(shape\), or call it once "
        r"on a batch of data\. Received: model=<.*>, which is not built$",
    ):
        granet_tf.wrap(make())
    model = make()
    model(np.ones((1, 4)))
    assert granet_tf.wrap(model).nonzeros == 12


def test_a_model_with_nothing_to_prune():
    model = keras.Sequential([keras.Input((3,)), L.BatchNormalization(name="norm")], name="net")
    with raises(
        ValueError,
        r"`model` must have a weight to prune\. Name some with `prunable`, or let a custom layer "
        r"name them in get_prunable_weights\(\)\. Received: model=<Sequential name=net, built=True>"
        r", whose weights are not pruned because \['net/norm/beta: bias or scale', "
        r"'net/norm/gamma: bias or scale', 'net/norm/moving_mean: not trainable', "
        r"'net/norm/moving_variance: not trainable'\]$",
    ):
        granet_tf.wrap(model)
    with raises(ValueError, r"which has no weights$"):
        granet_tf.wrap(keras.Sequential([keras.Input((3,)), L.ReLU()]))


def test_a_frozen_model_says_that_it_is_frozen():
    model = models.sequential()
    model.trainable = False
    with raises(ValueError, r"net/head/kernel: frozen', 'net/hidden/bias: not trainable'"):
        granet_tf.wrap(model)


def test_wrapping_twice():
    sparse = granet_tf.wrap(models.sequential())
    text = (
        r"`model` is wrapped already, or has a wrapped model inside\. To change the method, wrap "
        r"granet_tf\.strip\(model\)\. Received: model=<.*>, with \[<SparseModel name=sparse_net"
    )
    with raises(ValueError, text):
        granet_tf.wrap(sparse)
    with raises(ValueError, text):
        granet_tf.wrap(keras.Sequential([keras.Input((8,)), sparse, L.Dense(2)]))
    again = granet_tf.wrap(granet_tf.strip(sparse), granet_tf.StaticSparse(0.5))
    assert again.nonzeros == 96


@pytest.mark.parametrize("function", [granet_tf.wrap, granet_tf.strip])
@pytest.mark.parametrize(
    ("model", "received"),
    [
        (None, "None of <class 'NoneType'>"),
        (L.Dense(3, name="d"), "<Dense name=d, built=False> of"),
    ],
)
def test_what_is_no_model(function, model, received):
    with raises(TypeError, rf"`model` must be a Keras model\. Received: model={received}"):
        function(model)


def test_strip_and_sparse_optimizer_need_masks():
    model = models.sequential()
    with raises(
        ValueError,
        r"`model` must be a model from granet_tf\.wrap\(\), or have PruneLowMagnitude layers\. "
        r"Received: model=<Sequential name=net, built=True>$",
    ):
        granet_tf.strip(model)
    with raises(
        ValueError,
        r"`model` must have masks: wrap it with granet_tf\.wrap\(model\), or build a model that "
        r"has PruneLowMagnitude layers before giving it here\. Received: model=<Sequential ",
    ):
        granet_tf.SparseOptimizer("sgd", model)


def test_a_tf_keras_model_is_told_apart_and_harms_nothing():
    tf_keras = pytest.importorskip("tf_keras")
    theirs = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])
    for function in (granet_tf.wrap, granet_tf.strip):
        with raises(
            TypeError,
            r"`model` must be a Keras 3 model, and this is a tf_keras \(Keras 2\) one\. Build it "
            r"with `import keras`, and unset TF_USE_LEGACY_KERAS \(importing tfmot sets it\)\. "
            r"Received: model=<.*> of <class 'tf_keras\.",
        ):
            function(theirs)
    layer = tf_keras.layers.Dense(3)
    with raises(ValueError, r"`layer` must be a Keras 3 layer\. Received: .*tf_keras"):
        granet_tf.PruneLowMagnitude(layer, granet_tf.ConstantSparsity(0.5, 0))
    assert fit(granet_tf.wrap(models.sequential())).nonzeros == 19


def test_another_backend_is_told_at_import():
    # Only the check is tested here, as other backends need not be installed.
    script = """
import keras

keras.backend.backend = lambda: "jax"
try:
    import granet_tf
except ImportError as error:
    print(error)
"""
    assert run_python(script).strip().splitlines()[-1] == (
        "granet_tf needs Keras on the TensorFlow backend: set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported. "
        "Received: keras.backend.backend()='jax'"
    )


# Arguments of wrap.


@pytest.mark.parametrize(
    "method", ["gmp", granet_tf.GMP, granet_tf.ConstantSparsity(0.5, 0), 0.9], ids=type
)
def test_what_is_no_method(method):
    with raises(
        TypeError,
        r"`method` must be a method such as granet_tf\.GraNet\(0\.9\), or None\. Received: method=",
    ):
        granet_tf.wrap(models.sequential(), method)


@pytest.mark.parametrize("prunable", ["*/kernel", 3, [1], {"*/kernel"}, b"kernel"])
def test_what_is_no_rule(prunable):
    with raises(
        TypeError,
        r"`prunable` must be None, a callable \(layer, weight\) -> bool or a list of path "
        rf"patterns\. Received: prunable={re.escape(repr(prunable))}$",
    ):
        granet_tf.wrap(models.sequential(), prunable=prunable)


def test_a_pattern_that_matches_nothing():
    with raises(
        ValueError,
        r"Each pattern of `prunable` must match a weight's path, such as \['net/hidden/kernel', "
        r"'net/hidden/bias', 'net/head/kernel'\]\. Received: prunable=\['\*/kernel', 'kernel'\], "
        r"of which 'kernel' matches nothing$",
    ):
        granet_tf.wrap(models.sequential(), prunable=["*/kernel", "kernel"])
    with raises(ValueError, r"must have a weight to prune.*no pattern of `prunable` fits"):
        granet_tf.wrap(models.sequential(), prunable=[])
    with raises(ValueError, r"must have a weight to prune.*not chosen by `prunable`"):
        granet_tf.wrap(models.sequential(), prunable=lambda layer, weight: False)


@pytest.mark.parametrize("name", ["pinned", "capped"])
@pytest.mark.parametrize("key", ["hidden", 2, -3])
@pytest.mark.parametrize("method", [granet_tf.GMP, granet_tf.GraNet, granet_tf.StaticSparse])
def test_pins_and_caps_that_mean_no_weight(method, name, key):
    with raises(
        ValueError,
        rf"Each key of `{name}` must be a position or a pattern of one of the 2 prunable weights, "
        rf"\['net/hidden/kernel', 'net/head/kernel'\]\. Received: {name}=\{{{key!r}: 0\.25\}}$",
    ):
        granet_tf.wrap(models.sequential(), method(0.5, **{name: {key: 0.25}}))


def test_pins_that_make_the_whole_impossible():
    with raises(
        ValueError,
        r"`pinned` makes the overall sparsity impossible: the layers that are not pinned have 64 "
        r"weights, and -108 of them would have to be nonzero\. Received: sparsity=0\.9, "
        r"pinned=\{'net/hidden/kernel': 0\.0\}$",
    ):
        granet_tf.wrap(models.sequential(), granet_tf.StaticSparse(0.9, pinned={0: 0.0}))


# Training.

TOO_SHORT = (
    "Training has {0} steps, but the final sparsity 0.8 is reached at step {1}: it will end at "
    "{2}. Train longer, or lower the method's `end_step` or `frequency`."
)


@pytest.mark.parametrize(
    ("method", "text", "nonzeros"),
    [
        # Eight steps. The last update that is made is at step 6: 0.8 · (1 − 0.4³) = 0.7488.
        (uniform_gmp(0.8, end_step=10, frequency=3), TOO_SHORT.format(8, 12, "0.7488"), 32 + 16),
        # The first update would be at step 100.
        (uniform_gmp(0.8, frequency=100), TOO_SHORT.format(8, 100, "0.0000"), 192),
        (uniform_gmp(0.8, begin_step=20, end_step=30), TOO_SHORT.format(8, 30, "0.0000"), 192),
        (
            uniform_gmp(0.8, initial_sparsity=0.5, begin_step=9, end_step=9),
            TOO_SHORT.format(8, 9, "0.5000"),
            96,
        ),
        # The same where the length is the user's.
        (
            uniform_gmp(0.8, end_step=10, frequency=3, total_steps=8),
            TOO_SHORT.format(8, 12, "0.7488"),
            48,
        ),
    ],
)
def test_a_run_too_short_says_so_in_numbers(method, text, nonzeros):
    sparse = granet_tf.wrap(models.sequential(), method)
    with pytest.warns(UserWarning) as caught:
        fit(sparse, epochs=2)
    messages = [str(w.message) for w in caught]
    assert [m for m in messages if m.startswith("Training has")] == [text]
    assert sparse.nonzeros == nonzeros


def test_a_run_long_enough_does_not_warn():
    for end in (8, 0.5, 1.0):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            sparse = fit(granet_tf.wrap(models.sequential(), uniform_gmp(end_step=end)), epochs=2)
        assert sparse.nonzeros == 13 + 6


def test_an_optimizer_whose_state_cannot_be_reset():
    with raises(
        ValueError,
        r"Adafactor keeps variables that are not one value for each weight, so those of a pruned "
        r"weight can't be reset\. Use an optimizer such as SGD, AdamW or Lion, or mask_only=True, "
        r"which resets nothing; with it, Adafactor needs epsilon_1=1e-16, as Keras's default of "
        r"1e-30 gives NaN where gradients stay 0\. Received: optimizer=<.*Adafactor object at .*"
        r"kernel'",
    ):
        fit(granet_tf.wrap(models.sequential()), optimizer="adafactor")
    fit(granet_tf.wrap(models.sequential(), mask_only=True), optimizer="adafactor")


@pytest.mark.parametrize(
    ("options", "accumulate", "received"),
    [
        ({"jit_compile": True}, None, "jit_compile=True"),
        ({"steps_per_execution": 2}, None, "steps_per_execution=2"),
        ({}, 4, "gradient_accumulation_steps=4"),
    ],
)
def test_what_tensorflow_cannot_do_under_a_strategy(mirrored, options, accumulate, received):
    name = received.split("=")[0]
    with mirrored.scope():
        sparse = granet_tf.wrap(models.sequential())
        optimizer = keras.optimizers.SGD(gradient_accumulation_steps=accumulate)
    with raises(
        ValueError,
        rf"TensorFlow cannot do `{name}` under MirroredStrategy\. Leave it out, or train on one "
        rf"device\. Received: {received}$",
    ):
        sparse.compile(optimizer, "mse", **options)
    # The same is fine on one device.
    with tf.device("CPU:0"):
        granet_tf.wrap(models.sequential()).compile(
            keras.optimizers.SGD(gradient_accumulation_steps=accumulate), "mse", **options
        )


def test_the_first_apply_needs_variables():
    sparse = granet_tf.wrap(models.sequential())
    optimizer = granet_tf.SparseOptimizer("sgd", sparse)
    gradients = [tf.zeros(v.shape) for v in sparse.trainable_variables]
    with raises(
        ValueError, r"first apply\(\) must be given `trainable_variables`, or build\(\) be"
    ):
        optimizer.apply(gradients)
