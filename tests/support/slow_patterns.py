"""Patterns as lists of indices, and an update of masks over these: slow, from the definitions."""

import dataclasses
import itertools
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class Units:
    """Of one weight: which indices make up each unit, and which units share a group.

    Attributes:
        members: Flat indices of the weights of each unit.
        groups: Lists of units of which `most` may be active; none without groups.
        most: n of n:m.
        padding: Slots of each group that no unit takes.
    """

    members: list
    groups: list = ()
    most: int = 0
    padding: list = ()

    def sums(self, score):
        return np.array([score.ravel()[unit].sum() for unit in self.members])

    def active(self, mask):
        return np.array([mask.ravel()[unit].any() for unit in self.members])

    def mask(self, active, shape):
        flat = np.zeros(math.prod(shape), bool)
        for unit, on in zip(self.members, active, strict=True):
            flat[unit] = on
        return flat.reshape(shape)

    def order(self, score, eligible, kept):
        """Tiers of units, each from best to worst: what fits into its group beside `kept`, then
        the rest."""
        by_score = sorted(np.flatnonzero(eligible), key=lambda unit: (-score[unit], unit))
        if not self.groups:
            return [by_score, []]
        fits = set()
        for group in self.groups:
            free = self.most - sum(kept[unit] for unit in group)
            fits |= set([unit for unit in by_score if unit in set(group)][: max(free, 0)])
        return [[u for u in by_score if u in fits], [u for u in by_score if u not in fits]]

    def best(self, score, eligible, k, kept=None):
        kept = np.zeros(len(self.members), bool) if kept is None else kept
        chosen = np.zeros(len(self.members), bool)
        chosen[list(itertools.chain(*self.order(score, eligible, kept)))[:k]] = True
        return chosen

    def to_keep(self, sparsity):
        """Slots are filled in the order of tiers, and what pads a group takes the last of one."""
        groups = list(zip(self.groups, self.padding, strict=True))
        slots = len(self.members) + sum(self.padding)
        k = max(1, round(round(slots * (1.0 - sparsity), 6)))
        if not groups:
            return k
        real = sum(min(self.most, len(g)) for g in self.groups)
        open_slots = self.most * len(groups)
        return min(k, real) if k <= open_slots else real + k - open_slots


def blocks(shape, size, inputs=(-2,), outputs=(-1,)):
    index = np.arange(math.prod(shape)).reshape(shape)
    rank = len(shape)
    inputs, outputs = ([a % rank for a in axes] for axes in (inputs, outputs))
    rest = [a for a in range(rank) if a not in (*inputs, *outputs)]
    moved = index.transpose(*rest, *inputs, *outputs)
    moved = moved.reshape(-1, *(math.prod(shape[a] for a in axes) for axes in (inputs, outputs)))
    members = []
    for position in moved:
        rows, columns = (range(0, n, s) for n, s in zip(position.shape, size, strict=True))
        for i, j in itertools.product(rows, columns):
            members.append(position[i : i + size[0], j : j + size[1]].ravel())
    return Units(members)


def filters(shape, outputs=(-1,)):
    rank = len(shape)
    outputs = [a % rank for a in outputs]
    rest = [a for a in range(rank) if a not in outputs]
    index = np.arange(math.prod(shape)).reshape(shape)
    return Units(
        list(index.transpose(*outputs, *rest).reshape(-1, math.prod(shape[a] for a in rest)))
    )


def n_of_m(shape, n, m, inputs=(-2,)):
    rank = len(shape)
    inputs = [a % rank for a in inputs]
    rest = [a for a in range(rank) if a not in inputs]
    index = np.arange(math.prod(shape)).reshape(shape)
    rows = index.transpose(*rest, *inputs).reshape(-1, math.prod(shape[a] for a in inputs))
    groups = [row[i : i + m].tolist() for row in rows for i in range(0, len(row), m)]
    members = [np.array([i]) for i in range(index.size)]
    return Units(members, groups, n, [m - len(group) for group in groups])


def elements(shape):
    return Units([np.array([i]) for i in range(math.prod(shape))])


def update(units, weights, masks, gradients, *, keep, drop, dormant_compete=False):
    """Prunes each weight for itself to `keep` units, unless None, and replaces a share of `drop`.

    Returns new masks, and which entries keep their value.
    """
    new, survivors = [], []
    for u, w, m, g, k in zip(units, weights, masks, gradients, keep, strict=True):
        active = u.active(m)
        eligible = np.ones_like(active) if dormant_compete and k is not None else active
        score = u.sums(abs(w))
        pruned = active if k is None else u.best(score, eligible, k)
        alive = int(pruned.sum())
        dropped = math.ceil(drop * alive - 1e-9)
        kept = u.best(score, pruned, alive - dropped)
        grown = u.best(u.sums(g), ~kept, dropped, kept) if dropped else np.zeros_like(kept)
        new.append(u.mask(kept | grown, w.shape))
        alive_before = u.mask(pruned, w.shape) & (m if dormant_compete else True)
        survivors.append(new[-1] & alive_before)
    return new, survivors
