"""Durations of a method, in optimizer steps or as fractions of training."""

from __future__ import annotations

import dataclasses
from numbers import Integral
from typing import Self

from granet_tf.schedules import ConstantSparsity, PruningSchedule


class Timed:
    """To be mixed into a dataclass with durations.

    Attributes:
        final_sparsity: What it goes to.
        total_steps: Length of training in optimizer steps; None where it is not known yet.
    """

    final_sparsity: float
    total_steps: int | None

    def resolve(self, total_steps: int) -> Self:
        """The same method for a training of `total_steps`; a length given before stays."""
        if self.total_steps is not None:
            return self
        return dataclasses.replace(self, total_steps=total_steps)

    def steps(self, name: str) -> int:
        """The duration `name` in optimizer steps; a float is a fraction of training."""
        value = getattr(self, name)
        return int(value) if isinstance(value, Integral) else round(value * self.training_length)

    def last_worthwhile(self, frequency: int, end_step: int | None = None) -> int | None:
        """The last step, up to `end_step`, that leaves a whole period for what it grows to train.

        A connection that is new at the very end has a trained one's place. None is no limit, where
        the length of training is not known.
        """
        limits = [end_step] if end_step is not None else []
        limits += [self.total_steps - frequency] if self.total_steps is not None else []
        return min(limits, default=None)

    def throughout(self, frequency: int, begin_step: int = 0) -> PruningSchedule:
        """The final sparsity from `begin_step` on, as long as a whole period is left to train."""
        last = self.last_worthwhile(frequency)
        end = -1 if last is None else max(last, begin_step)
        return ConstantSparsity(self.final_sparsity, begin_step, end, frequency)

    @property
    def training_length(self) -> int:
        """`total_steps`, where something depends on it."""
        if self.total_steps is None:
            raise ValueError(
                "The length of training is not known yet, and durations given as fractions, or the "
                "drop fraction's cosine, depend on it: call fit(), or give the method "
                f"`total_steps`. Received: {self}"
            )
        return self.total_steps
