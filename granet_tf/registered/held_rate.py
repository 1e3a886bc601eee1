"""A learning rate that can be held as it is at some step."""

from __future__ import annotations

import keras
import tensorflow as tf

from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class HeldRate(keras.optimizers.schedules.LearningRateSchedule):
    """Follows `schedule` up to the step `hold_at`, and stays at the rate of that step.

    Args:
        schedule: A Keras learning rate schedule.
        hold_at: Optimizer step, from 0. None: none yet.

    Attributes:
        hold_at: A `tf.Variable`: what is assigned to it holds from the next step on, also in
            training steps that are compiled already. It is no part of the optimizer's state.

    Source: a_t of the paper's Section 3.1, the rate at which a network is pruned.

    Example:

    >>> drop = keras.optimizers.schedules.PiecewiseConstantDecay([99], [0.125, 0.25])
    >>> rate = HeldRate(drop, hold_at=80)
    >>> float(rate(50)), float(rate(150))
    (0.125, 0.125)
    >>> rate.hold_at.assign(120)  # doctest: +ELLIPSIS
    <tf.Variable ...>
    >>> float(rate(150))
    0.25
    """

    def __init__(
        self,
        schedule: keras.optimizers.schedules.LearningRateSchedule,
        hold_at: int | None = None,
    ):
        self.schedule = schedule
        last = tf.int64.max if hold_at is None else hold_at
        self.hold_at = tf.Variable(last, dtype=tf.int64, trainable=False)

    def __call__(self, step):
        return self.schedule(tf.minimum(tf.cast(step, tf.int64), self.hold_at))

    def get_config(self):
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "hold_at": int(self.hold_at.numpy()),
        }

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["hold_at"])
