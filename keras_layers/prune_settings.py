"""Settings of `PruneLowMagnitude`, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def checked_units(
    block_size: Any, block_pooling_type: str, sparsity_m_by_n: Any, pattern: Any
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """`(block_size, sparsity_m_by_n)` as tuples.

    Raises:
        ValueError: On blocks or groups that are none, and on both of them, or one and a pattern.

    Example:

    >>> checked_units([4, 1], "AVG", None, None)
    ((4, 1), None)
    """
    blocks = _two_integers("block_size", block_size)
    if min(blocks) < 1:
        raise ValueError(f"`block_size` must be two integers > 0. Received: {block_size}")
    if block_pooling_type not in ("AVG", "MAX"):
        raise ValueError(
            f"`block_pooling_type` must be 'AVG' or 'MAX'. Received: {block_pooling_type!r}"
        )
    groups = _two_integers("sparsity_m_by_n", sparsity_m_by_n) if sparsity_m_by_n else None
    if groups and not 0 < groups[0] < groups[1]:
        raise ValueError(
            "`sparsity_m_by_n` must be (m, n) with 0 < m < n, zeros in a group of weights. "
            f"Received: {sparsity_m_by_n}"
        )
    if groups and blocks != (1, 1):
        raise ValueError(
            "`block_size` and `sparsity_m_by_n` can't be combined. "
            f"Received: block_size={block_size}, sparsity_m_by_n={sparsity_m_by_n}"
        )
    if pattern is not None and (groups or blocks != (1, 1)):
        raise ValueError(
            "`pattern` can't be combined with `block_size` or `sparsity_m_by_n`. Received: "
            f"{pattern=}, block_size={block_size}, sparsity_m_by_n={sparsity_m_by_n}"
        )
    return blocks, groups


def check_reselect(
    reselect: bool, sparsity_m_by_n: Any, mask_only: bool, pruning_schedule: Callable
) -> None:
    """Raises ValueError if groups are to be chosen anew where there are none, or nothing to."""
    if reselect and not sparsity_m_by_n:
        raise ValueError(
            "`reselect` is for groups, so `sparsity_m_by_n` must be given. "
            f"Received: reselect={reselect}, sparsity_m_by_n={sparsity_m_by_n}"
        )
    if reselect and not (mask_only or getattr(pruning_schedule, "regenerates", False)):
        raise ValueError(
            "`reselect` needs mask_only=True or a schedule that regenerates, such as "
            "granet_tf.GraNetSchedule: else a pruned weight is 0 and can't be chosen. "
            f"Received: mask_only={mask_only}, pruning_schedule={pruning_schedule}"
        )


def check_are_of_layer(layer: keras.Layer, options: dict[str, Any]) -> None:
    """Takes out of `options` what only the layer inside has, or raises a ValueError."""
    own = {"dtype": layer.dtype_policy, "autocast": layer.autocast}
    given = {name: options.pop(name) for name in own if options.get(name) is not None}
    if "dtype" in given:
        given["dtype"] = keras.dtype_policies.get(given["dtype"])
    for name, value in given.items():
        if value != own[name]:
            raise ValueError(
                f"`{name}` must be given to the layer that is wrapped, as the wrapper computes "
                f"nothing itself. Received: {name}={value}, for a layer with {own[name]}"
            )


def _two_integers(name, value):
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(pair) != 2 or not all(isinstance(n, int) for n in pair):
        raise ValueError(f"`{name}` must be a pair of integers. Received: {name}={value!r}")
    return pair
