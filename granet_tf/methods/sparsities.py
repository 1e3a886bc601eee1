"""How sparse each weight of a method is to be, pins and caps obeyed, and whether that can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from granet_tf.masks import distributions
from granet_tf.masks.scopes import match
from granet_tf.masks.units import alike
from keras_layers.layouts import Layout

if TYPE_CHECKING:
    from granet_tf.methods.base import Method

Shapes = Mapping[str, tuple[int, ...]]
Layouts = Mapping[str, Layout] | None

DISTRIBUTIONS: dict[str, Callable] = {
    "erk": distributions.erdos_renyi_kernel,
    "er": distributions.erdos_renyi,
    "uniform": distributions.uniform,
}


def distribute(
    method: Method, shapes: Shapes, sparsity: float, floors: Mapping[str, float]
) -> dict[str, float]:
    """See `Method.distribute`.

    Example:

    >>> method = granet_tf.GMP(0.5, distribution="uniform", pinned={"head": 0.0})
    >>> distribute(method, {"body": (4, 4), "head": (4, 2)}, 0.5, {})
    {'body': 0.5, 'head': 0.0}
    """
    pinned = match(method.pinned, shapes, "pinned")
    capped = match(method.capped, shapes, "capped")
    return _spread(method, sparsity, shapes, floors, pinned, capped)


def initial(method: Method, shapes: Shapes, layouts: Layouts) -> dict[str, float]:
    """That of each weight at first; where patterns are ranked apart, each for itself has it."""
    capacities = method.capacities(shapes, layouts)
    floors = {path: c.least_sparsity for path, c in capacities.items()}
    groups = _ranked_together(method, shapes, layouts)
    if len(groups) == 1:
        return method.distribute(shapes, method.initial_sparsity, floors)
    pinned = match(method.pinned, shapes, "pinned")
    capped = match(method.capped, shapes, "capped")
    found = {}
    for paths in groups:
        mine = [
            {path: of_all[path] for path in paths if path in of_all}
            for of_all in (shapes, floors, pinned, capped)
        ]
        found |= _spread(method, method.initial_sparsity, *mine)
    return found


def _ranked_together(method, shapes, layouts) -> list[list[str]]:
    """Paths by pattern in scope "global", else all of them together."""
    paths = list(shapes)
    if method.scope != "global":
        return [paths]
    of_paths = [method.patterns_of((layouts or {}).get(path, Layout())) for path in paths]
    groups = alike([given for given, _ in of_paths])
    return [[paths[i] for i in group] for group in groups]


def _spread(method, sparsity, shapes, floors, fixed, capped):
    if sparsity == 0.0:
        return dict.fromkeys(shapes, 0.0)
    spread = DISTRIBUTIONS.get(method.distribution, method.distribution)
    final = sparsity == method.final_sparsity
    floors = {p: f for p, f in floors.items() if f > 0.0 and (final or f <= sparsity)}
    while True:
        wanted = spread(shapes, sparsity, fixed)
        beyond = {path: cap for path, cap in capped.items() if wanted[path] > cap}
        beyond |= {
            path: floor
            for path, floor in floors.items()
            if wanted[path] < floor - 1e-9 and path not in capped
        }
        beyond = {path: bound for path, bound in beyond.items() if path not in fixed}
        if not beyond:
            return wanted
        # The others make up for it, which may take them to their bounds.
        fixed = fixed | beyond


def check_fits(method: Method, shapes: Shapes, layouts: Layouts) -> None:
    """Raises ValueError if the pattern, pins or caps do not suit weights of these shapes."""
    pinned = match(method.pinned, shapes, "pinned")
    least = match(method.capped, shapes, "capped") | pinned
    capacities = method.capacities(shapes, layouts)
    for path, capacity in capacities.items():
        if not least and method.final_sparsity < capacity.least_sparsity - 1e-9:
            raise ValueError(
                f"`final_sparsity` must be at least {capacity.least_sparsity:g}, which the "
                f"pattern of {path} needs, or else more weights of its groups are active. "
                f"Received: final_sparsity={method.final_sparsity}, pattern={method.pattern!r}"
            )
    if method.scope == "global":
        for paths in _ranked_together(method, shapes, layouts):
            _check_feasible(method, {path: capacities[path] for path in paths}, least, pinned)


def _check_feasible(method, capacities, least, pinned):
    """What pins and caps keep must fit into what the final sparsity leaves.

    And what they do not keep must fit into the rest.
    """
    sizes = {path: capacity.slots for path, capacity in capacities.items()}
    needed = sum(sizes[path] * (1.0 - least[path]) for path in sizes if path in least)
    left = sum(sizes.values()) * (1.0 - method.final_sparsity)
    if needed > left + 1.0:
        raise ValueError(
            "`pinned` and `capped` must leave weights to prune: they keep at least "
            f"{needed:.0f} of the {left:.0f} weights that final_sparsity={method.final_sparsity} "
            f"leaves. Received: pinned={method.pinned}, capped={method.capped}"
        )
    room = sum(sizes[path] * (1.0 - pinned[path]) for path in sizes if path in pinned)
    room += sum(capacity.open for path, capacity in capacities.items() if path not in pinned)
    if room < left - 1.0:
        raise ValueError(
            f"`pinned` must leave room for the {left:.0f} weights that final_sparsity="
            f"{method.final_sparsity} keeps, and there is room for {room:.0f}: pin to less. "
            f"Received: pinned={method.pinned}, pattern={method.pattern!r}"
        )
