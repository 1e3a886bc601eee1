"""ITOP: RigL with the patience to try many weights well."""

from __future__ import annotations

import dataclasses

import keras

from granet_tf.methods.rigl import RigL
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ITOP(RigL):
    """In-time over-parameterization (Liu et al., 2021): RigL with a long interval, to the end.

    New weights get time to grow before they are judged, and exploration goes on all through
    training. What counts is how many weights have ever been active: `SparseModel.itop_rate`, with
    `wrap(..., track_explored=True)`, of this or any other method. For the same with random growth,
    give `SET` a long `frequency`.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        frequency: ΔT in optimizer steps; 4000 in the authors' code for RigL, with batches of
            128 (1500 for SET).
        **kwargs: See `RigL` and `Method`.

    Raises:
        ValueError: On a parameter out of range, or a training without a single update.

    Example:

    >>> ITOP(0.9, total_steps=60000).make_schedule().frequency
    4000
    """

    end_step: int | float = 1.0
    frequency: int | None = 4000
    drop_fraction: float = 0.5
    final_drop_fraction: float = 0.005

    def resolve(self, total_steps):
        resolved = super().resolve(total_steps)
        if (self.frequency or 0) > resolved.training_length:
            raise ValueError(
                f"`frequency` must be shorter than training, of {resolved.training_length} steps; "
                f"None makes about 50 updates. Received: frequency={self.frequency}"
            )
        return resolved
