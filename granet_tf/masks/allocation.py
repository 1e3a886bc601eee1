"""How many weights each layer grows, when what is dropped anywhere is shared out among all."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from granet_tf.masks.scopes import alike, match
from granet_tf.masks.selection import count
from granet_tf.masks.units import Units, share, units_to_keep
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
    paths: Sequence[str],
    units: Sequence[Units],
    kept: Sequence[tf.Tensor],
    shares: tf.Tensor,
) -> list[tf.Tensor]:
    """How many units each weight grows, where all that was dropped is shared out.

    Weights of equal patterns share what these weights lost, so each pattern keeps its number.

    Args:
        method: Its pins and caps are obeyed.
        paths: Names of the weights.
        units: Their units.
        kept: Which of these are left.
        shares: As for `allocate`.

    Example:

    >>> from granet_tf.masks.patterns import Element
    >>> method, shares = Method(0.5, pinned={1: 0.5}), tf.constant([9, 9, 0])
    >>> units = [Units(Element(), (4,), tf.constant([True, True, False, False]))] * 3
    >>> kept = [units[0].active, *[tf.constant([True, False, False, False])] * 2]
    >>> [int(n) for n in share_out(method, "abc", units, kept, shares)]
    [1, 1, 0]
    """
    own, is_pinned = owed(method, paths, units, kept)
    lost = tf.stack([count(u.active) - count(k) for u, k in zip(units, kept, strict=True)])
    room = tf.stack([u.room(k) for u, k in zip(units, kept, strict=True)]) - own
    room = tf.where(is_pinned, tf.zeros_like(room), room)
    numbers = [None] * len(units)
    for group in alike([u.given for u in units]):
        mine = tf.gather(own, group)
        rest = tf.reduce_sum(tf.gather(lost, group) - mine)
        more = allocate(rest, tf.gather(shares, group), tf.gather(room, group))
        for i, number in zip(group, tf.unstack(mine + more), strict=True):
            numbers[i] = number
    return numbers


def owed(
    method: Method, paths: Sequence[str], units: Sequence[Units], kept: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, list[bool]]:
    """How many units each weight must grow itself, and whether it may grow no others.

    One that is pinned grows what it lost, one that is capped what its cap demands.
    """
    by_path = dict.fromkeys(paths)
    pinned = match(method.pinned, by_path, "pinned")
    capped = match(method.capped, by_path, "capped")
    numbers = []
    for path, u, k in zip(paths, units, kept, strict=True):
        lost = count(u.active) - count(k)
        least = tf.zeros((), tf.int64)
        if path in capped:
            least = units_to_keep([u.capacity], capped[path]) - count(k)
        numbers.append(lost if path in pinned else tf.clip_by_value(least, 0, lost))
    return tf.stack(numbers), [path in pinned for path in paths]


def drop_count(fraction: tf.Tensor, alive: tf.Tensor) -> tf.Tensor:
    """ceil(fraction · alive), as in Eq. 2, but never all: a layer without weights never grows any.

    Args:
        fraction: float64 scalar in [0, 1].
        alive: int64 tensor of numbers of active weights.

    Example:

    >>> fraction = tf.constant(0.3, tf.float64)
    >>> drop_count(fraction, tf.constant([10, 11, 1], tf.int64)).numpy().tolist()
    [3, 4, 0]
    """
    return tf.minimum(share(tf.cast(fraction, tf.float64), alive), tf.maximum(alive - 1, 0))
