"""Learning rates against their definitions in plain Python, step by step."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from granet_tf.registered.linear_warmup import LinearWarmup
from granet_train import learning_rates, optimizers
from granet_train.learning_rates import Course, make


def constant(step, highest, steps, milestones):
    return highest


def tenths(step, highest, steps, milestones):
    """PyTorch's MultiStepLR: from the step of a milestone on, a tenth."""
    for milestone in milestones:
        if step >= milestone:
            highest *= 0.1
    return highest


def cosine(step, highest, steps, milestones):
    return highest / 2 * (1 + math.cos(math.pi * step / steps))


def reference(name, step, highest, steps, warmup, milestones):
    if step < warmup:
        ramp = tenths(step, highest, steps, milestones) if name == "step" else highest
        return ramp * step / warmup
    if name == "cosine":  # The cosine begins when the warm-up is over.
        return cosine(step - warmup, highest, steps - warmup, milestones)
    return {"step": tenths, "constant": constant}[name](step, highest, steps, milestones)


def value(schedule, step):
    return float(schedule(step)) if callable(schedule) else schedule


@pytest.mark.parametrize("warmup", [0, 1, 7, 20])
@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_every_step(name, warmup):
    steps, milestones = 40, (16, 24, 39)
    schedule = make(name, Course(0.4, steps, warmup, milestones))
    found = [value(schedule, step) for step in range(steps + 1)]
    expected = [reference(name, s, 0.4, steps, warmup, milestones) for s in range(steps + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)


def test_the_step_that_begins_an_epoch_has_the_rate_of_that_epoch():
    rate = make("step", Course(0.1, 62_400, milestones=(80 * 390, 120 * 390)))
    at = [0, 31_199, 31_200, 31_201, 46_799, 46_800, 62_399]
    expected = [0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001]
    np.testing.assert_allclose([float(rate(step)) for step in at], expected, rtol=1e-6)


def test_boundaries_of_a_long_warm_up():
    rate = make("step", Course(0.1, 2_001_800, 100_090, (600_540, 1_201_080, 1_801_620)))
    at = [0, 1, 50_045, 100_089, 100_090, 100_091, 600_539, 600_540]
    expected = [0.0, 0.1 / 100_090, 0.05, 0.1 * 100_089 / 100_090, 0.1, 0.1, 0.1, 0.01]
    np.testing.assert_allclose([float(rate(step)) for step in at], expected, rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_the_optimizer_takes_the_rate_of_its_step(name, jit_compile):
    """Moves a weight by a gradient of 1, so that each move is the rate."""
    steps, warmup, milestones = 12, 3, (6, 9)
    schedule = make(name, Course(0.5, steps, warmup, milestones))
    optimizer = optimizers.make("sgd", schedule, {})
    weight = keras.Variable(0.0)
    optimizer.build([weight])

    @tf.function(jit_compile=jit_compile)
    def move():
        optimizer.apply([tf.constant(1.0)], [weight])

    places = [0.0]
    for _ in range(steps):
        move()
        places.append(float(weight.numpy()))
    expected = [reference(name, s, 0.5, steps, warmup, milestones) for s in range(steps)]
    np.testing.assert_allclose(-np.diff(places), expected, atol=1e-6)


def test_a_constant_rate_is_a_number_that_can_be_changed():
    assert make("constant", Course(0.3, 10)) == 0.3


def test_the_warm_up_survives_saving():
    schedule = make("step", Course(0.4, 40, 8, (16, 24)))
    assert isinstance(schedule, LinearWarmup)
    optimizer = keras.optimizers.SGD(schedule)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for step in (0, 3, 8, 15, 16, 24):
        assert float(again._learning_rate(step)) == float(schedule(step))


@pytest.mark.parametrize(
    ("rate", "batch", "per", "expected"),
    [(0.1, 512, 256, 0.2), (0.1, 64, 256, 0.025), (0.1, 512, None, 0.1), (0.3, 8, 8, 0.3)],
)
def test_scaling_with_the_batch(rate, batch, per, expected):
    assert learning_rates.scaled(rate, batch, per) == pytest.approx(expected)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_optimizers(name):
    options = {"momentum": 0.5, "nesterov": True}
    made = optimizers.make(name, 0.1, options)
    assert float(made.learning_rate) == pytest.approx(0.1)
    for option, wanted in options.items():
        # The table says what Keras's class has, no more and no less.
        assert hasattr(made, option) == (option in optimizers.OPTIONS[name])
        assert getattr(made, option, wanted) == wanted
    assert type(optimizers.make(name, 0.1, dict.fromkeys(options))) is type(made)
