"""What methods have in common that replace a share of the active weights at each update."""

from __future__ import annotations

import dataclasses

from granet_tf.methods.parameters import parameter


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Replacing:
    """Goes before the base class of a method that drops some active weights and grows as many.

    Args:
        drop_fraction: The share of the active weights at first, in [0, 1]; falls by a cosine.
        final_drop_fraction: The share at last, in [0, 1].
    """

    drop_fraction: float = parameter(
        0.5,
        "Fraction of the active weights that an update replaces at first; falls by a cosine.",
        at_least=0,
        at_most=1,
    )
    final_drop_fraction: float = parameter(
        0.005,
        "Fraction of the active weights that an update replaces at last.",
        at_least=0,
        at_most=1,
    )
