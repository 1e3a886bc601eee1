"""What methods have in common that update the masks by the clock, from one step to another."""

from __future__ import annotations

import dataclasses
from numbers import Integral

from granet_tf.methods.base import Method
from granet_tf.methods.parameters import parameter
from granet_tf.schedules import check_steps

# As many updates as this are made from begin to end, unless `frequency` says otherwise.
_UPDATES = 50


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Periodic(Method):
    """Base class: an update every `frequency` steps, from `begin_step` to `end_step`.

    Args:
        begin_step: First update: optimizer steps (int) or fraction of training (float).
        end_step: When pruning ends, or what falls is down: optimizer steps or fraction.
        frequency: ΔT in optimizer steps; None makes about 50 updates between begin and end.
        **kwargs: See `Method`.

    Raises:
        ValueError: On a parameter out of range, or an end before the begin.
    """

    begin_step: int | float = parameter(
        0, "First update of the masks.", at_least=0, unit="duration"
    )
    end_step: int | float = parameter(
        0.5, "When pruning ends, or drop_fraction is down.", at_least=0, unit="duration"
    )
    frequency: int | None = parameter(
        None, "Time between updates; by default about 50 are made.", above=0, unit="period"
    )

    def __post_init__(self):
        super().__post_init__()
        # Steps and a fraction can only be compared once the length of training is known.
        if isinstance(self.begin_step, Integral) == isinstance(self.end_step, Integral):
            check_steps(self.begin_step, self.end_step, self.frequency or 1, endless=False)

    @property
    def period(self) -> int:
        """Steps between updates.

        Example:

        >>> granet_tf.GMP(0.5, end_step=1000).period
        20
        """
        span = self.steps("end_step") - self.steps("begin_step")
        return self.frequency or max(1, span // _UPDATES)
