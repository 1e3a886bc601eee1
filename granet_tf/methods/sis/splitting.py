"""The sparsest weights, by their ℓ1 norm, that are off by no more than a bound.

    min Σ |W|  with  distance_j(W) ≤ bound_j for each batch j

Douglas-Rachford splitting takes turns between the norm, by a soft threshold, and the constraint, by
a projection. The latter is that of Haugazeau: the point that is projected is projected onto two
half-spaces which hold the set, one of them by subgradients of the constraints (Combettes, 2003).
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from granet_tf.methods.sis.inclusion import Inclusion

# A bound is kept to but for this share of it.
_TOLERANCE = 1e-4
# Of the mean |W|, how far a soft threshold goes.
_THRESHOLD = 0.25


def sparsest(
    weights: tf.Tensor,
    inclusions: Sequence[Inclusion],
    bounds: Sequence[tf.Tensor],
    *,
    penalized: tf.Tensor | float = 1.0,
    iterations: int = 60,
    projections: int = 50,
) -> tf.Tensor:
    """The weights of the least ℓ1 norm within the bounds; what is 0 is exactly 0.

    Args:
        weights: Where to begin: the weights that the inclusions hold with.
        inclusions: One for each batch.
        bounds: The highest `distance` of each, 0 or more.
        penalized: What each entry counts in the norm, such as 0 for a bias.
        iterations: Of Douglas-Rachford.
        projections: The most half-spaces for one projection.

    Example: the output is 3 x_0 + 0.1 x_1; being off by 0.04 in the mean square takes x_1 away, and
    0.17 off x_0, as 0.1² + 0.17² = 0.04.

    >>> x = tf.constant([[1.0, 1.0], [1.0, -1.0]])
    >>> w = tf.constant([[3.0], [0.1]])
    >>> sparse = sparsest(w, [Inclusion(x, x @ w)], [tf.constant(0.04)])
    >>> [round(float(v), 2) for v in sparse.numpy().ravel()]
    [2.83, 0.0]
    """
    return _sparsest(weights, *_split(inclusions), bounds, penalized, iterations, projections)


def projected(
    weights: tf.Tensor,
    inclusions: Sequence[Inclusion],
    bounds: Sequence[tf.Tensor],
    projections: int = 50,
) -> tf.Tensor:
    """The nearest weights within all bounds, but for a ten-thousandth of them.

    Example:

    >>> x, w = tf.constant([[1.0]]), tf.constant([[5.0]])
    >>> within = projected(w, [Inclusion(x, 2.0 * x)], [tf.constant(1.0)])
    >>> round(float(within[0, 0]), 2)
    3.0
    """
    return _projected(weights, *_split(inclusions), bounds, projections)


def _split(inclusions):
    """Tensors, and the functions that a graph is made for."""
    tensors = [(each.inputs, each.outputs, each.scale, each.shift) for each in inclusions]
    return tensors, tuple(each.residual for each in inclusions)


def _joined(tensors, residuals):
    each = zip(tensors, residuals, strict=True)
    return [Inclusion(x, u, residual, *affine) for (x, u, *affine), residual in each]


# Traced once for all layers of equal shapes.
@tf.function(autograph=False)
def _sparsest(weights, tensors, residuals, bounds, penalized, iterations, projections):
    inclusions = _joined(tensors, residuals)
    threshold = penalized * _THRESHOLD * tf.reduce_mean(tf.abs(weights))

    def turn(hidden, soft):
        soft = tf.sign(hidden) * tf.nn.relu(tf.abs(hidden) - threshold)
        within = _within(2.0 * soft - hidden, inclusions, bounds, projections)
        return hidden + within - soft, soft

    start = (tf.convert_to_tensor(weights),) * 2
    return tf.while_loop(lambda *_: True, turn, start, maximum_iterations=iterations)[1]


@tf.function(autograph=False)
def _projected(weights, tensors, residuals, bounds, projections):
    return _within(weights, _joined(tensors, residuals), bounds, projections)


def _within(weights, inclusions, bounds, projections):
    def turn(point, _):
        steps = [_step(point, each, bound) for each, bound in zip(inclusions, bounds, strict=True)]
        mean = tf.add_n(steps) / len(steps)
        squares = tf.add_n([tf.reduce_sum(step**2) for step in steps]) / len(steps)
        further = tf.math.divide_no_nan(squares, tf.reduce_sum(mean**2))
        return _nearest(weights, point, point + further * mean), further > 0.0

    start = weights, tf.constant(True)
    return tf.while_loop(
        lambda _, is_outside: is_outside, turn, start, maximum_iterations=projections
    )[0]


def _step(point, inclusion, bound):
    """To the half-space that a subgradient makes of a constraint; 0 where that holds."""
    excess = inclusion.distance(point) - bound
    gradient = inclusion.gradient(point)
    far = tf.math.divide_no_nan(excess, tf.reduce_sum(gradient**2))
    return tf.where(excess > _TOLERANCE * bound, -far * gradient, tf.zeros((), point.dtype))


def _nearest(x, y, z):
    """The projection of x onto {h: ⟨h − y, x − y⟩ ≤ 0} ∩ {h: ⟨h − z, y − z⟩ ≤ 0}.

    Source: Haugazeau (1968); Bauschke & Combettes, Convex Analysis and Monotone Operator Theory in
    Hilbert Spaces, Corollary 29.25.

    Example: the quarter plane with the corner (0, 1).

    >>> x, y, z = map(tf.constant, ([2.0, 2.0], [0.0, 2.0], [0.0, 1.0]))
    >>> _nearest(x, y, z).numpy().tolist()
    [0.0, 1.0]
    """
    to_y, to_z = x - y, y - z
    pi, mu, nu = (tf.reduce_sum(a * b) for a, b in ((to_y, to_z), (to_y, to_y), (to_z, to_z)))
    rho = mu * nu - pi**2
    on_one = x - (1.0 + tf.math.divide_no_nan(pi, nu)) * to_z
    on_both = y + tf.math.divide_no_nan(nu, rho) * (pi * to_y - mu * to_z)
    crossing = tf.where(pi * nu >= rho, on_one, on_both)
    return tf.where(rho <= 1e-9 * mu * nu, z, crossing)
