"""How sparse each layer should be: uniform, Erdős–Rényi, Erdős–Rényi-Kernel.

Pure functions from the shapes of the weights to their sparsities (fractions of zeros).
"""

import math
from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]

# A density this close to 1 is 1: it differs by rounding only.
_ROUNDING = 1e-12


def uniform(shapes: Shapes, sparsity: float, pinned: Mapping[str, float] = {}) -> dict[str, float]:
    """The same sparsity for every layer.

    Pinned layers keep their own sparsity, and the others do not make up for it: with the first
    layer pinned at 0 this is the "uniform" baseline of the RigL paper.

    Args:
        shapes: Mapping from the name of each weight to its shape.
        sparsity: Fraction of zeros, in `[0, 1)`, of each weight that is not pinned.
        pinned: Mapping from names in `shapes` to a fixed sparsity in `[0, 1)`.

    Returns:
        A dict from each name to its sparsity, in the order of `shapes`.

    Raises:
        ValueError: If a sparsity is outside `[0, 1)`, or `shapes` is empty, or `pinned` names a
            weight that `shapes` does not have.

    Example:

    >>> uniform({"conv": (3, 3, 3, 64), "dense": (64, 10)}, 0.9, pinned={"conv": 0.0})
    {'conv': 0.0, 'dense': 0.9}

    Reference:

    - [Evci et al., 2020, section 3 (1)](https://arxiv.org/abs/1911.11134)
    """
    _validate(shapes, sparsity, pinned)
    return {name: float(pinned.get(name, sparsity)) for name in shapes}


def erdos_renyi(
    shapes: Shapes,
    sparsity: float,
    pinned: Mapping[str, float] = {},
    power: float = 1.0,
) -> dict[str, float]:
    """Erdős–Rényi: layers with more inputs and outputs get sparser.

    The density of a layer is proportional to
    `((fan_in + fan_out) / (fan_in * fan_out)) ** power`, where fan in and fan out are the last two
    dimensions of the shape; a convolution's spatial dimensions play no part.
    A layer whose density would pass 1 is dense, and the others share what is left.

    Args:
        shapes: Mapping from the name of each weight to its shape.
        sparsity: Overall fraction of zeros, in `[0, 1)`. A fraction of a zero is not set in any
            layer: the number of nonzeros is the sum of `ceil(size * (1 - sparsity))`.
        pinned: Mapping from names in `shapes` to a fixed sparsity in `[0, 1)`. The other layers
            make up for it, so the overall number of nonzeros stays the same.
        power: Exponent of the ratio, above 0. Higher values spread the sparsities further.

    Returns:
        A dict from each name to its sparsity, in the order of `shapes`.

    Raises:
        ValueError: If an argument is out of range, or the pinned layers make the overall sparsity
            impossible.

    Example:

    >>> erdos_renyi({"wide": (16, 16), "narrow": (4, 2)}, 0.5)
    {'wide': 0.515625, 'narrow': 0.0}

    Reference:

    - [Mocanu et al., 2018, equation 3](https://arxiv.org/abs/1707.04780)
    """
    return _solve(shapes, sparsity, pinned, power, dims=slice(-2, None))


def erdos_renyi_kernel(
    shapes: Shapes,
    sparsity: float,
    pinned: Mapping[str, float] = {},
    power: float = 1.0,
) -> dict[str, float]:
    """Erdős–Rényi-Kernel: Erdős–Rényi that also counts a convolution's spatial dimensions.

    The density of a layer is proportional to `(sum(shape) / prod(shape)) ** power`, for a
    convolution over kernel height, kernel width, channels in and channels out.
    A layer whose density would pass 1 is dense, and the others share what is left.

    Args:
        shapes: Mapping from the name of each weight to its shape.
        sparsity: Overall fraction of zeros, in `[0, 1)`. A fraction of a zero is not set in any
            layer: the number of nonzeros is the sum of `ceil(size * (1 - sparsity))`.
        pinned: Mapping from names in `shapes` to a fixed sparsity in `[0, 1)`. The other layers
            make up for it, so the overall number of nonzeros stays the same.
        power: Exponent of the ratio, above 0. Higher values spread the sparsities further.

    Returns:
        A dict from each name to its sparsity, in the order of `shapes`.

    Raises:
        ValueError: If an argument is out of range, or the pinned layers make the overall sparsity
            impossible.

    Example:

    >>> erdos_renyi_kernel({"conv": (3, 3, 8, 8), "dense": (8, 8)}, 0.5)
    {'conv': 0.5555555555555556, 'dense': 0.0}

    Reference:

    - [Evci et al., 2020, section 3 (1)](https://arxiv.org/abs/1911.11134)
    """
    return _solve(shapes, sparsity, pinned, power, dims=slice(None))


def _solve(
    shapes: Shapes, sparsity: float, pinned: Mapping[str, float], power: float, dims: slice
) -> dict[str, float]:
    """Densities proportional to the ratio over `dims`, at most 1, that sum to the budget."""
    _validate(shapes, sparsity, pinned)
    if not 0 < power < math.inf:
        raise ValueError(
            f"Argument `power` must be a finite number above 0. Received: power={power}"
        )

    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    free = {name for name in shapes if name not in pinned}
    budget = sum(_nonzeros(sizes[name], sparsity) for name in shapes)
    budget -= sum(_nonzeros(sizes[name], pinned[name]) for name in pinned)
    capacity = sum(sizes[name] for name in free)
    if not min(1, capacity) <= budget <= capacity:
        raise ValueError(
            "Argument `pinned` makes the overall sparsity impossible: the layers that are not "
            f"pinned have {capacity} weights, and {budget} of them would have to be nonzero. "
            f"Received: sparsity={sparsity}, pinned={dict(pinned)}"
        )

    scores = {
        name: (sum(shape[dims]) / math.prod(shape[dims])) ** power for name, shape in shapes.items()
    }
    sparsities = dict.fromkeys(shapes, 0.0) | {n: float(s) for n, s in pinned.items()}
    while free:
        scale = budget / sum(scores[name] * sizes[name] for name in free)
        dense = {name for name in free if scale * scores[name] > 1 - _ROUNDING}
        if not dense:
            return sparsities | {name: 1 - scale * scores[name] for name in shapes if name in free}
        # Full layers stay full: what they hand back only raises the scale of the others.
        free -= dense
        budget -= sum(sizes[name] for name in dense)
    return sparsities


def _nonzeros(size: int, sparsity: float) -> int:
    # 0.29 * 100 is 28.999999999999996: round before the floor.
    return size - math.floor(round(size * sparsity, 6))


def _validate(shapes: Shapes, sparsity: float, pinned: Mapping[str, float]) -> None:
    if not shapes:
        raise ValueError(
            f"Argument `shapes` must have at least one weight. Received: shapes={dict(shapes)}"
        )
    for name, shape in shapes.items():
        if not shape or not all(dim > 0 for dim in shape):
            raise ValueError(
                "Argument `shapes` must map each name to a shape of one or more positive "
                f"dimensions. Received: shapes[{name!r}]={shape}"
            )
    if not 0 <= sparsity < 1:
        raise ValueError(
            f"Argument `sparsity` must be in the range [0, 1). Received: sparsity={sparsity}"
        )
    for name, value in pinned.items():
        if name not in shapes:
            raise ValueError(
                f"Argument `pinned` must only name weights that are in `shapes`, {list(shapes)}. "
                f"Received: pinned={dict(pinned)}"
            )
        if not 0 <= value < 1:
            raise ValueError(
                "Argument `pinned` must hold sparsities in the range [0, 1). "
                f"Received: pinned={dict(pinned)}"
            )
