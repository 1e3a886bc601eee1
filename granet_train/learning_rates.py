"""Learning rate schedules by name: Keras's, each with a linear warm-up from 0.

A schedule gives the rate of the step that comes after so many finished ones, so that step 0 is the
first of training. All durations are optimizer steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Course:
    """What a schedule needs to know.

    Attributes:
        highest: The learning rate after the warm-up.
        steps: Length of training in optimizer steps.
        warmup: Length of the warm-up in optimizer steps, below `steps`; 0 for none.
        milestones: Steps from which on the rate is a tenth of what it was before, ascending; only
            "step" heeds them.
    """

    highest: float
    steps: int
    warmup: int = 0
    milestones: tuple[int, ...] = ()


def make(name: str, course: Course) -> Any:
    """The schedule `name`: a Keras `LearningRateSchedule`, or a number where nothing changes.

    Example: the paper's CIFAR runs, 160 epochs of 390 steps, a tenth from epochs 80 and 120 on.

    >>> rate = make("step", Course(0.1, 62_400, milestones=(31_200, 46_800)))
    >>> [round(float(rate(step)), 6) for step in (31_199, 31_200, 46_800)]
    [0.1, 0.01, 0.001]
    """
    return SCHEDULES[name](course)


def scaled(learning_rate: float, batch_size: int, per: int | None) -> float:
    """The rate for `batch_size` when `learning_rate` is meant for batches of `per` samples.

    Linear scaling ([Goyal et al., 2017, section 2.1](https://arxiv.org/abs/1706.02677)); unchanged
    if `per` is None.

    Example:

    >>> scaled(0.1, batch_size=1024, per=256)
    0.4
    """
    return learning_rate if per is None else learning_rate * batch_size / per


def _cosine(course: Course) -> Any:
    """From `highest` to 0 at the end of training, by half a cosine that begins after warm-up."""
    from keras.optimizers.schedules import CosineDecay

    if not course.warmup:
        return CosineDecay(course.highest, course.steps)
    return CosineDecay(
        0.0,
        course.steps - course.warmup,
        warmup_target=course.highest,
        warmup_steps=course.warmup,
    )


def _step(course: Course) -> Any:
    """A tenth from each milestone on, as PyTorch's MultiStepLR."""
    from keras.optimizers.schedules import PiecewiseConstantDecay

    # Keras gives the old rate to the step at the boundary itself: the boundary is the last such.
    boundaries = [milestone - 1 for milestone in course.milestones]
    rates = [course.highest / 10**drops for drops in range(len(boundaries) + 1)]
    schedule = PiecewiseConstantDecay(boundaries, rates)
    if not course.warmup:
        return schedule
    from granet_tf.registered.linear_warmup import LinearWarmup

    return LinearWarmup(schedule, course.warmup)


def _constant(course: Course) -> Any:
    """Always `highest`."""
    if not course.warmup:
        return course.highest
    from keras.optimizers.schedules import PolynomialDecay

    return PolynomialDecay(0.0, course.warmup, end_learning_rate=course.highest, power=1.0)


SCHEDULES: dict[str, Callable[[Course], Any]] = {
    "cosine": _cosine,
    "step": _step,
    "constant": _constant,
}
