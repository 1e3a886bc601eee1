import numpy as np
import pytest

import granet_tf
from granet_tf.schedules import ConstantSparsity, GraNetSchedule, PolynomialDecay, as_schedule


def pruned_at(schedule, steps):
    return [step for step in steps if bool(schedule(step)[0])]


@pytest.mark.parametrize(
    ("step", "sparsity"),
    [(0, 0.2), (100, 0.2), (102, 0.4928), (105, 0.725), (110, 0.8), (999, 0.8)],
)
def test_polynomial_decay_follows_the_cubic(step, sparsity):
    schedule = PolynomialDecay(0.2, 0.8, 100, 110, power=3)
    assert float(schedule(step)[1]) == pytest.approx(sparsity, abs=1e-6)


@pytest.mark.parametrize(
    ("update", "sparsity"), [(0, 0.5), (1, 0.511841), (2, 0.523366), (37, 0.760980), (74, 0.799999)]
)
def test_gradual_pruning_over_75_updates(update, sparsity):
    schedule = GraNetSchedule(0.5, 0.8, 0, 75_000, total_steps=160_000, frequency=1000)
    assert float(schedule.exact_sparsity(update * 1000)) == pytest.approx(sparsity, abs=1e-6)


@pytest.mark.parametrize("schedule", [ConstantSparsity, PolynomialDecay])
def test_prunes_in_its_range_at_its_frequency_only(schedule):
    sparsities = {ConstantSparsity: (0.5,), PolynomialDecay: (0.2, 0.8)}[schedule]
    made = schedule(*sparsities, begin_step=100, end_step=200, frequency=10)
    asked = [90, 99, 100, 109, 110, 111, 200, 201, 210]
    assert pruned_at(made, asked) == [100, 110, 200]


def test_constant_sparsity_with_end_step_minus_one_never_ends():
    assert pruned_at(ConstantSparsity(0.5, 0), [0, 100, 150, 10**6]) == [0, 100, 10**6]


def test_granet_prunes_up_to_the_first_update_at_or_after_end_step():
    schedule = GraNetSchedule(0.0, 0.9, 0, 25, total_steps=100, frequency=10)
    assert pruned_at(schedule, range(101)) == [0, 10, 20, 30]
    assert float(schedule.exact_sparsity(30)) == 0.9
    assert schedule.final_update == 30


def test_granet_regenerates_until_the_end_of_training():
    schedule = GraNetSchedule(0.0, 0.9, 10, 25, total_steps=100, frequency=20)
    due = [step for step in range(101) if bool(schedule.regenerate(step)[0])]
    assert due == [10, 30, 50, 70, 90]


@pytest.mark.parametrize(
    ("percent", "fraction"), [(0, 0.5), (25, 0.427509), (50, 0.2525), (75, 0.077491), (100, 0.005)]
)
def test_drop_fraction_falls_by_a_cosine(percent, fraction):
    schedule = GraNetSchedule(0.0, 0.9, 0, 50, total_steps=100, frequency=1)
    assert float(schedule.regenerate(percent)[1]) == pytest.approx(fraction, abs=1e-6)


def test_the_exact_final_sparsity_is_not_the_float32_one():
    schedule = GraNetSchedule(0.0, 0.9, 0, 10, total_steps=20, frequency=1)
    assert schedule.exact_sparsity(10).numpy() == 0.9
    assert schedule(10)[1].dtype == "float32"


def test_a_callable_with_a_float32_sparsity_means_the_decimal_that_was_written():
    schedule = as_schedule(lambda step: (True, np.float32(0.9)))
    assert schedule.exact_sparsity(3).numpy() == 0.9


@pytest.mark.parametrize(
    "schedule",
    [
        ConstantSparsity(0.5, 3, frequency=7),
        PolynomialDecay(0.1, 0.9, 2, 20, power=2, frequency=6),
        GraNetSchedule(0.0, 0.9, 0, 10, total_steps=20),
    ],
)
def test_config_round_trip_flat_and_nested(schedule):
    config = schedule.get_config()
    assert type(schedule).from_config(config) == schedule
    nested = {"class_name": type(schedule).__name__, "config": config}
    assert type(schedule).from_config(nested) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConstantSparsity(1.0, 0), r"`target_sparsity` .*\[0, 1\)\. Received: .*=1\.0$"),
        (lambda: ConstantSparsity(-0.1, 0), r"`target_sparsity`.*Received: target_sparsity=-0\.1$"),
        (
            lambda: ConstantSparsity(0.5, -1),
            r"`begin_step` must be >= 0\. Received: begin_step=-1$",
        ),
        (lambda: PolynomialDecay(0.0, 0.5, 0, -1), r"`end_step` must be given.*end_step=-1$"),
        (lambda: PolynomialDecay(0.0, 0.5, 9, 8), r"Received: begin_step=9, end_step=8$"),
        (lambda: PolynomialDecay(0.0, 0.5, 0, 9, frequency=0), r"`frequency`.*frequency=0$"),
        (lambda: PolynomialDecay(0.0, 1.5, 0, 9), r"`final_sparsity`.*final_sparsity=1\.5$"),
        (lambda: GraNetSchedule(0.9, 0.5, 0, 9, 9), r"initial_sparsity=0\.9, final_sparsity=0\.5$"),
        (lambda: GraNetSchedule(0.0, 0.5, 0, 9, 0), r"`total_steps`.*total_steps=0$"),
        (lambda: GraNetSchedule(0, 0.5, 0, 9, 9, drop_fraction=1.1), r"drop_fraction=1\.1$"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_something_that_is_no_schedule_is_refused():
    with pytest.raises(TypeError, match=r"`schedule` must be.*Received: schedule=0\.5$"):
        granet_tf.GMP(schedule=0.5).make_schedule()
