"""Static sparse training: random masks that never change."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from granet_tf.methods.base import Method
from granet_tf.schedules import PACKAGE, ConstantSparsity


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StaticSparse(Method):
    """Random masks, drawn once and never changed: the baseline of all sparse training.

    Args:
        final_sparsity: The sparsity, all through training, in [0, 1).
        **kwargs: See `Method`.

    Example:

    >>> masks = StaticSparse(0.75).initial_masks({"kernel": (4, 4)})
    >>> int(tf.math.count_nonzero(masks["kernel"]))
    4
    """

    command_name: ClassVar[str] = "static"

    @property
    def regenerates(self):
        return False

    def make_schedule(self):
        # Due at step 0 only, before the first update there is.
        return ConstantSparsity(self.final_sparsity, 0, 0)
