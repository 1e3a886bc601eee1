"""The sparsest weights, by their ℓ1 norm, that are off by no more than a bound.

    min Σ |W|  with  distance_j(W) ≤ bound_j for each batch j

Douglas-Rachford splitting takes turns between a soft threshold and a projection. Both have a closed
form, as the outputs V = X W are unknowns, too: W is thresholded, and V alone is taken within the
bounds. The projection is that on the pairs with V = X W, by a factor of I + α XᵀX that all outputs
share (the graph form of Parikh & Boyd, 2013). The paper projects W on the bounds, by subgradients;
that comes to the same weights, and takes far longer.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from granet_tf.methods.sis.inclusion import Inclusion, Residual

TOLERANCE = 3e-5
# The threshold, relative to the mean |W|, where the weights may be off by as much as without them.
_THRESHOLD = 3.0
# How far an iteration goes, of less than twice its step.
_RELAXATION = 1.6


def sparsest(
    weights: tf.Tensor,
    inclusions: Sequence[Inclusion],
    bounds: Sequence[tf.Tensor],
    *,
    penalized: tf.Tensor | float = 1.0,
    iterations: int = 500,
    tolerance: float = TOLERANCE,
) -> tf.Tensor:
    """The weights of the least ℓ1 norm within the bounds; what is 0 is exactly 0.

    Args:
        weights: Where to begin, (inputs, outputs): the weights that the inclusions hold with.
        inclusions: One for each batch, of the same layer.
        bounds: The highest `distance` of each, 0 or more.
        penalized: What each entry counts in the norm, such as 0 for a bias.
        iterations: The most of Douglas-Rachford.
        tolerance: Weights are found when one moves them and the outputs by less than this share.

    Example: the output is 3 x_0 + 0.1 x_1; being off by 0.04 in the mean square takes x_1 away, and
    0.17 off x_0, as 0.1² + 0.17² = 0.04.

    >>> x = tf.constant([[1.0, 1.0], [1.0, -1.0]])
    >>> w = tf.constant([[3.0], [0.1]])
    >>> sparse = sparsest(w, [Inclusion(x, x @ w)], [tf.constant(0.04)])
    >>> [round(float(v), 2) for v in sparse.numpy().ravel()]
    [2.83, 0.0]
    """
    first, weights = inclusions[0], tf.convert_to_tensor(weights)
    columns, dtype = weights.shape[-1:], weights.dtype
    penalized = tf.broadcast_to(tf.cast(penalized, dtype), weights.shape)
    unbound = tf.add_n([each.distance(weights * (1.0 - penalized)) for each in inclusions])
    bound = tf.add_n(bounds)
    share = tf.where(bound < unbound, tf.math.divide_no_nan(bound, unbound), 1.0)
    return _solver(first.residual, len(inclusions), dtype)(
        weights,
        tf.concat([each.inputs for each in inclusions], 0),
        [tf.convert_to_tensor(each.outputs) for each in inclusions],
        tf.broadcast_to(tf.cast(first.scale, dtype), columns),
        tf.broadcast_to(tf.cast(first.shift, dtype), columns),
        list(bounds),
        _THRESHOLD * tf.sqrt(share) * penalized,
        tf.cast(tolerance, dtype),
        tf.constant(iterations),
    )


@functools.cache
def _solver(residual, batches, dtype):
    """One for layers of all sizes, so that it is traced once."""
    matrix, row, number = (tf.TensorSpec([None] * rank, dtype) for rank in (2, 1, 0))
    signature = matrix, matrix, [matrix] * batches, row, row, [number] * batches, matrix, number
    return tf.function(
        functools.partial(_sparsest, residual),
        input_signature=(*signature, tf.TensorSpec((), tf.int32)),
        autograph=False,
    )


def _sparsest(
    residual, weights, inputs, outputs, scale, shift, bounds, threshold, tolerance, iterations
):
    # In terms of W · scale, so that a change of an output counts the same in each.
    start = weights * scale
    unscale = tf.math.reciprocal_no_nan(scale)
    threshold *= tf.reduce_mean(tf.abs(start)) * tf.reduce_mean(tf.abs(scale)) * tf.abs(unscale)
    squares = tf.matmul(inputs, inputs, transpose_a=True)
    alpha = tf.math.reciprocal_no_nan(tf.reduce_mean(tf.linalg.diag_part(squares)))
    identity = tf.eye(tf.shape(squares)[0], dtype=squares.dtype)
    factor = tf.linalg.cholesky(identity + alpha * squares)

    def on_graph(w, v):
        w = tf.linalg.cholesky_solve(factor, w + alpha * tf.matmul(inputs, v, transpose_a=True))
        return w, inputs @ w

    def size(w, v):
        return tf.reduce_sum(w**2) + alpha * tf.reduce_sum(v**2)

    def turn(hidden_w, hidden_v, *_):
        w = tf.sign(hidden_w) * tf.nn.relu(tf.abs(hidden_w) - threshold)
        v = _within(hidden_v, outputs, residual, shift, bounds)
        moved_w, moved_v = on_graph(2.0 * w - hidden_w, 2.0 * v - hidden_v)
        moved_w, moved_v = _RELAXATION * (moved_w - w), _RELAXATION * (moved_v - v)
        return hidden_w + moved_w, hidden_v + moved_v, w, size(moved_w, moved_v) > least

    least = tolerance**2 * size(start, inputs @ start)
    begin = start, inputs @ start, start, tf.constant(True)
    found = tf.while_loop(lambda *state: state[-1], turn, begin, maximum_iterations=iterations)
    return found[2] * unscale


def _within(v, outputs, residual: Residual, shift, bounds):
    """The nearest V whose distance is within the bound of each batch.

    The points that are no farther than r from a convex set are those that a step of their distance
    less r towards it leads to.

    Example: the two are off by (3, 4), 12.5 in the mean, and may be off by 0.5, r = 1.

    >>> from granet_tf.methods.sis.inclusion import of_a_bijection
    >>> v, outputs = tf.constant([[3.0], [4.0]]), [tf.zeros((2, 1))]
    >>> within = _within(v, outputs, of_a_bijection, 0.0, [0.5])
    >>> [round(float(x), 2) for x in within.numpy().ravel()]
    [0.6, 0.8]
    """
    samples = [tf.shape(each)[0] for each in outputs]
    found = []
    parts = tf.split(v, samples, num=len(samples))
    for part, before, bound, number in zip(parts, outputs, bounds, samples, strict=True):
        off = residual(part + shift, before)
        square, most = tf.reduce_sum(off**2), bound * tf.cast(number, v.dtype)
        far = tf.where(square > most, 1.0 - tf.sqrt(most / tf.maximum(square, most)), 0.0)
        found.append(part - far * off)
    return tf.ensure_shape(tf.concat(found, 0), v.shape)
