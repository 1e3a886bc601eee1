"""DPF: the gradient of the pruned network moves all weights."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras

from granet_tf.methods.gmp import GMP
from granet_tf.schedules import PACKAGE, endless


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DPF(GMP):
    """Dynamic pruning with feedback (Lin et al., 2020).

    The gradient is taken at the pruned weights, and applied to all of them:

        w ← w − η · ∇loss(w · mask)

    So a weight pruned too early grows back. Every `frequency` steps the mask is chosen anew by |w|,
    at the sparsity of Eq. 1 of the GraNet paper, and on at `final_sparsity`, until less than a
    whole period of training is left.
    Weights keep their value behind the mask, as with mask_only=True.

    Args:
        final_sparsity: s_f, in [0, 1).
        frequency: Steps between updates; 16 in the paper.
        **kwargs: See `GMP`. `scope` is "global" here. At high sparsities that can empty layers, as
            dormant weights behind batch normalization may grow fast; scope="layer" gives each
            layer its share.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> should_prune, sparsity = DPF(0.9, end_step=160, total_steps=1000).make_schedule()(800)
    >>> bool(should_prune), round(float(sparsity), 4)
    (True, 0.9)
    """

    frequency: int | None = 16
    scope: str = "global"

    keeps_values: ClassVar[bool] = True

    def gradient_mask(self, mask, state):
        return None

    def dense_gradients(self, steps, updates):
        return steps

    def make_schedule(self):
        made = super().make_schedule()
        return (
            made if made is self.schedule else endless(made, self.last_worthwhile(made.frequency))
        )
