"""How many weights each layer grows, when what is dropped anywhere is shared out among all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from granet_tf.masks.counts import units_of_each_to_keep
from granet_tf.masks.joined import Joined
from granet_tf.masks.scopes import match
from granet_tf.masks.selection import count_all, count_each
from granet_tf.masks.units import Units, paths_of

if TYPE_CHECKING:
    from granet_tf.methods.base import Method


def allocate(total: tf.Tensor, shares: tf.Tensor, room: tf.Tensor) -> tf.Tensor:
    """Whole numbers in proportion to `shares` that add up to `total`, none above its `room`.

    What is too much for one layer goes to the others, in proportion to their shares. What is left
    by rounding down goes to the largest remainders, the first of equals.

    Args:
        total: Integer scalar, at most the sum of `room`.
        shares: Float tensor of shape (layers,), not negative. Where those that have room left are
            all 0, room counts as the share.
        room: Integer tensor of shape (layers,).

    Returns:
        int64 tensor of shape (layers,).

    Example:

    >>> allocate(10, tf.constant([3.0, 1.0, 1.0]), tf.constant([4, 9, 9])).numpy().tolist()
    [4, 3, 3]
    """
    total, room = tf.cast(total, tf.int64), tf.cast(room, tf.int64)
    shares, space = tf.cast(shares, tf.float64), tf.cast(room, tf.float64)
    nothing = tf.zeros_like(space)

    def quotas(full):
        """What each would get, the full ones all of their room."""
        left = tf.cast(total, tf.float64) - tf.reduce_sum(tf.where(full, space, nothing))
        open_shares = tf.where(full, nothing, shares)
        by_room = tf.where(full, nothing, space)
        weights = tf.where(tf.reduce_sum(open_shares) > 0.0, open_shares, by_room)
        quota = left * weights / tf.maximum(tf.reduce_sum(weights), 1e-300)
        # Steps of 2**-20, so that the order of a sum does not decide on what is rounded.
        return tf.where(full, space, tf.round(quota * 2.0**20) / 2.0**20)

    def fill(full, _):
        over = ~full & (quotas(full) >= space)
        return full | over, tf.reduce_any(over)

    full, _ = tf.while_loop(lambda full, more: more, fill, [room == 0, tf.constant(True)])
    quota = quotas(full)
    whole = tf.cast(tf.floor(quota), tf.int64)
    remainders = tf.where(full, nothing - 1.0, quota - tf.floor(quota))
    place = tf.argsort(tf.argsort(-remainders, stable=True), stable=True)
    missing = total - tf.reduce_sum(whole)
    return whole + tf.cast(tf.cast(place, tf.int64) < missing, tf.int64)


def share_out(
    method: Method,
    groups: Sequence[Units],
    kept: Sequence[Joined],
    shares: Sequence[tf.Tensor],
) -> list[tf.Tensor]:
    """How many units each weight grows, where all that was dropped is shared out.

    Weights of equal patterns share what these weights lost, so each pattern keeps its number.

    Args:
        method: Its pins and caps are obeyed.
        groups: The units of all weights, by pattern.
        kept: Which of these are left.
        shares: As for `allocate`, of each group.

    Returns:
        An int64 vector for each group.

    Example:

    >>> from granet_tf.masks.patterns import Element
    >>> method, patterns = granet_tf.Method(0.5, pinned={1: 0.5}), [(Element(), Element())] * 3
    >>> groups = Units.of("abc", patterns, [tf.constant([True, True, False, False])] * 3)
    >>> first = [[True, True, False, False], *[[True, False, False, False]] * 2]
    >>> kept = [groups[0].parts.join(first)]
    >>> share_out(method, groups, kept, [tf.constant([9, 9, 0])])[0].numpy().tolist()
    [1, 1, 0]
    """
    numbers = []
    for units, k, of_group, (own, is_pinned) in zip(
        groups, kept, shares, owed(method, groups, kept), strict=True
    ):
        room = units.room(k) - own
        room = tf.where(is_pinned, tf.zeros_like(room), room)
        rest = count_all(units.active) - count_all(k) - tf.reduce_sum(own)
        numbers.append(own + allocate(rest, of_group, room))
    return numbers


def grown(
    groups: Sequence[Units],
    kept: Sequence[Joined],
    scores: Sequence[Joined],
    numbers: Sequence[tf.Tensor],
) -> list[Joined]:
    """What is kept, and of the highest scores as many as `share_out` says, by group."""
    each = zip(groups, kept, scores, numbers, strict=True)
    return [units.add(score, n, k) for units, k, score, n in each]


def owed(
    method: Method, groups: Sequence[Units], kept: Sequence[Joined]
) -> list[tuple[tf.Tensor, list[bool]]]:
    """How many units each weight must grow itself, and whether it may grow no others, by group.

    One that is pinned grows what it lost, one that is capped what its cap demands.
    """
    by_path = dict.fromkeys(paths_of(groups))
    pinned = match(method.pinned, by_path, "pinned")
    capped = match(method.capped, by_path, "capped")
    found = []
    for units, k in zip(groups, kept, strict=True):
        is_pinned, is_capped = ([p in these for p in units.paths] for these in (pinned, capped))
        left = count_each(k)
        lost = count_each(units.active) - left
        demanded = units_of_each_to_keep(
            units.capacities, tf.constant([capped.get(p, 0.0) for p in units.paths], tf.float64)
        )
        least = tf.clip_by_value(demanded - left, 0, lost)
        least = tf.where(is_capped, least, tf.zeros_like(least))
        found.append((tf.where(is_pinned, lost, least), is_pinned))
    return found


def drop_count(units: Units, fraction: tf.Tensor, alive: tf.Tensor) -> tf.Tensor:
    """As `Units.exchanged`, but never all: a layer without weights never grows any.

    Args:
        units: The units.
        fraction: float64 scalar in [0, 1].
        alive: int64 tensor of numbers of active weights.

    Example:

    >>> from granet_tf.masks.patterns import Element
    >>> [units] = Units.of(["kernel"], [(Element(), Element())], [tf.ones(3, tf.bool)])
    >>> fraction = tf.constant(0.3, tf.float64)
    >>> drop_count(units, fraction, tf.constant([10, 11, 1], tf.int64)).numpy().tolist()
    [3, 4, 0]
    """
    return tf.minimum(
        units.exchanged(tf.cast(fraction, tf.float64), alive), tf.maximum(alive - 1, 0)
    )
