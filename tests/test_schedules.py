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


@pytest.mark.parametrize(("total", "last"), [(100, 70), (110, 90), (111, 90), (30, 10), (29, None)])
def test_granet_regenerates_while_a_whole_period_of_training_is_left(total, last):
    schedule = GraNetSchedule(0.0, 0.9, 10, 25, total_steps=total, frequency=20)
    due = [step for step in range(total + 50) if bool(schedule.regenerate(step)[0])]
    assert due == [step for step in (10, 30, 50, 70, 90) if last and step <= last]
    assert schedule.last_regeneration(total) == last
    assert schedule.final_update == 30


class Staircase(granet_tf.PruningSchedule):
    """As a user writes one: nothing but __call__."""

    def __call__(self, step):
        return self.is_due(step, 3, 300, 100), 0.3


class Restless(Staircase):
    def regenerate(self, step):
        return self.is_due(step, 0, 8, 4), 0.5

    @property
    def regenerates(self):
        return True


@pytest.mark.parametrize(
    "schedule",
    [
        Staircase(),
        Restless(),
        granet_tf.ConstantSparsity(0.5, 2, 11, frequency=4),
        granet_tf.ConstantSparsity(0.5, 2, frequency=4),
        granet_tf.PolynomialDecay(0.0, 0.5, 1, 12, frequency=3),
        granet_tf.Shifted(granet_tf.PolynomialDecay(0.0, 0.5, 1, 12, frequency=3), 5),
        granet_tf.Shifted(Staircase(), 2),
        granet_tf.Shifted(Staircase(), 4),
        as_schedule(lambda step: (step % 5 == 0, 0.5)),
        GraNetSchedule(0.0, 0.9, 1, 7, total_steps=20, frequency=3),
        GraNetSchedule(0.0, 0.9, 1, 7, total_steps=20, frequency=3, drop_fraction=0.0),
        granet_tf.RigL(0.5, end_step=9, frequency=2, total_steps=20).make_schedule(),
        granet_tf.SET(0.5, end_step=0.5, frequency=2, total_steps=20).make_schedule(),
        granet_tf.ACDC(0.9, total_steps=20).make_schedule(),
        granet_tf.DPF(0.9, end_step=6, frequency=2, total_steps=20).make_schedule(),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_when_the_last_updates_are(schedule):
    """As asked step by step."""
    for until in (0, 1, 2, 5, 12, 18, 20):
        prunes = [step for step in range(until + 1) if bool(schedule(step)[0])]
        assert schedule.last_prune(until) == (prunes[-1] if prunes else None)
        grows = [step for step in range(1, until + 1) if bool(schedule.regenerate(step)[0])]
        if schedule.regenerates:
            assert schedule.last_regeneration(until) == (grows[-1] if grows else None)


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
