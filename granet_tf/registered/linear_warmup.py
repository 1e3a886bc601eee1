"""A learning rate schedule that begins with a linear warm-up, for those of Keras without one."""

from __future__ import annotations

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule


@keras.saving.register_keras_serializable("granet_tf")
class LinearWarmup(LearningRateSchedule):
    """`schedule`, times step / warmup_steps before that: linear from 0 at step 0.

    Args:
        schedule: A `LearningRateSchedule` of Keras; its own steps count from the
            beginning of training, not from the end of the warm-up.
        warmup_steps: Length of the warm-up in optimizer steps, above 0.

    Example:

    >>> tenth = keras.optimizers.schedules.PiecewiseConstantDecay([9], [1.0, 0.1])
    >>> rate = LinearWarmup(tenth, warmup_steps=4)
    >>> [round(float(rate(step)), 4) for step in (0, 1, 4, 9, 10)]
    [0.0, 0.25, 1.0, 1.0, 0.1]

    Reference:

    - [Goyal et al., 2017, section 2.2](https://arxiv.org/abs/1706.02677)
    """

    def __init__(self, schedule: LearningRateSchedule, warmup_steps: int):
        super().__init__()
        self.schedule = schedule
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        rate = self.schedule(step)
        return rate * ops.minimum(1.0, ops.cast(step, rate.dtype) / self.warmup_steps)

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["warmup_steps"])
