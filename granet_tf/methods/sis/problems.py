"""The convex problem of each layer that SIS prunes by, and the masks' scores from its solutions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from granet_tf.methods.sis.inclusion import Inclusion
from granet_tf.methods.sis.recording import Use, uses_of
from granet_tf.methods.sis.splitting import TOLERANCE, sparsest
from keras_layers.keras_internals import layers_of

# Shares between which the one of a wanted sparsity is looked for, and by how many solutions.
_LOWEST, _HIGHEST, _MOST_SOLUTIONS = 1e-5, 1.0, 15
# As many weights more than wanted are near enough: the smallest go.
_NEAR = 1.02
# A rough search, and one around the share that it finds: by so much in logarithms, in which the
# number of weights is taken to change by a half.
_TOLERANCES, _AROUND, _CHANGE = (1e-3, TOLERANCE), 0.3, 1.5
# Nearer together, in logarithms, shares are the same.
_CLOSE = 1e-3


@dataclasses.dataclass(frozen=True)
class Problem:
    """That of one layer.

    Attributes:
        path: Of its kernel.
        weights: The kernel.
        start: The kernel as a matrix (inputs, outputs), and the bias as its last row.
        inclusions: One for each batch.
    """

    path: str
    weights: tf.Tensor
    start: tf.Tensor
    inclusions: tuple[Inclusion, ...]

    @property
    def rows(self) -> int:
        """Those of the kernel."""
        return self.weights.shape.num_elements() // self.weights.shape[-1]

    def solved(self, eta: float, iterations: int, tolerance: float = TOLERANCE) -> tf.Tensor:
        """The sparsest kernel that is off by the share η of what zeros are off by."""
        is_kernel = tf.cast(tf.range(self.start.shape[0]) < self.rows, self.start.dtype)[:, None]
        nothing = self.start * (1.0 - is_kernel)
        bounds = [eta * each.distance(nothing) for each in self.inclusions]
        found = sparsest(
            self.start,
            self.inclusions,
            bounds,
            penalized=is_kernel,
            iterations=iterations,
            tolerance=tolerance,
        )
        return tf.reshape(found[: self.rows], self.weights.shape)


def problems_of(model: Any, batches: Sequence[Any], samples: int, seed: int) -> list[Problem]:
    """The problem of each pruned weight of a `SparseModel`, in its order.

    Raises:
        ValueError: On a layer or an activation that is not known.
    """
    network = model.model
    owners = {
        id(weight): layer
        for layer in layers_of(network)
        for weight in (() if layers_of(layer, include_self=False) else layer.weights)
    }
    layers = [owners[id(p.variable)] for p in model.pruned]
    for pruned, layer in zip(model.pruned, layers, strict=True):
        _check_known(layer, pruned)
    draws = [np.random.default_rng((seed % 2**32, place)) for place in range(len(layers))]
    inclusions = [[] for _ in layers]
    for inputs, *_ in batches:  # One at a time, as what goes into all layers may need gigabytes.
        for use, draw, found in zip(
            uses_of(network, layers, [inputs]), draws, inclusions, strict=True
        ):
            found += _inclusions(use, samples, draw)
    return [
        Problem(pruned.path, tf.convert_to_tensor(layer.kernel), _start(layer), tuple(found))
        for pruned, layer, found in zip(model.pruned, layers, inclusions, strict=True)
    ]


def _check_known(layer, pruned):
    if rows_of.dispatch(type(layer)) is _unknown or layer.kernel is not pruned.variable:
        raise ValueError(
            "SIS prunes the kernels of Dense and Conv2D layers; leave other weights out by "
            f"`prunable`. Received: {pruned.path} of {layer}"
        )


def _start(layer):
    start = tf.reshape(layer.kernel, (-1, layer.kernel.shape[-1]))
    if layer.use_bias:
        start = tf.concat([start, tf.convert_to_tensor(layer.bias)[None]], 0)
    return start


def _inclusions(use: Use, samples, rng):
    layer, start = use.layer, _start(use.layer)
    scale, shift = _affine(use.normalization, start.dtype)
    found = []
    for inputs in use.inputs:
        rows = tf.cast(_sampled(layer, inputs, samples, rng), start.dtype)
        if layer.use_bias:
            rows = tf.concat([rows, tf.ones((rows.shape[0], 1), rows.dtype)], 1)
        outputs = rows @ start * scale + shift
        found.append(Inclusion(rows, outputs, use.residual, scale, shift))
    return found


def _sampled(layer, inputs, most, rng):
    """Some rows of `rows_of`, made image by image, as all patches may need gigabytes."""
    images = inputs.shape[0]
    of_one = rows_of(layer, inputs[:1]).shape[0]
    if images * of_one <= most:
        return rows_of(layer, inputs)
    chosen = np.sort(rng.choice(images * of_one, most, replace=False))
    owners = chosen // of_one
    parts = [
        tf.gather(rows_of(layer, inputs[image : image + 1]), chosen[owners == image] % of_one)
        for image in np.unique(owners)
    ]
    return tf.concat(parts, 0)


def _affine(normalization, dtype):
    """What batch normalization does to each channel at inference."""
    if normalization is None:
        return tf.ones((), dtype), tf.zeros((), dtype)
    scale = tf.math.rsqrt(normalization.moving_variance + normalization.epsilon)
    if normalization.scale:
        scale *= normalization.gamma
    shift = -normalization.moving_mean * scale
    if normalization.center:
        shift += normalization.beta
    return tf.cast(scale, dtype), tf.cast(shift, dtype)


def _unknown(layer: keras.Layer, inputs: tf.Tensor) -> tf.Tensor:
    """What meets the kernel as a matrix, (samples, inputs), of the inputs of a layer.

    Example:

    >>> layer = keras.layers.Conv2D(1, 2)
    >>> rows_of(layer, tf.reshape(tf.range(9.0), (1, 3, 3, 1)))[0].numpy().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    raise NotImplementedError(type(layer))


rows_of = functools.singledispatch(_unknown)


@rows_of.register
def _(layer: keras.layers.Dense, inputs):
    return tf.reshape(inputs, (-1, inputs.shape[-1]))


@rows_of.register
def _(layer: keras.layers.Conv2D, inputs):
    if layer.groups != 1 or layer.data_format != "channels_last":
        raise ValueError(
            "SIS prunes convolutions with channels last and one group. Received: "
            f"groups={layer.groups}, data_format={layer.data_format} of {layer.path}"
        )
    patches = tf.image.extract_patches(
        inputs,
        (1, *layer.kernel_size, 1),
        (1, *layer.strides, 1),
        (1, *layer.dilation_rate, 1),
        layer.padding.upper(),
    )
    return tf.reshape(patches, (-1, patches.shape[-1]))


def solutions_of_number(problems, wanted, iterations):
    """The solutions for the η, one for all, that leaves about `wanted` weights and not fewer.

    Example:

    >>> rows = tf.constant(np.random.default_rng(0).normal(size=(50, 3)))
    >>> start = tf.constant([[1.0], [0.1], [-2.0]], tf.float64)
    >>> problem = Problem("kernel", start, start, (Inclusion(rows, rows @ start),))
    >>> [kernel] = solutions_of_number([problem], 2, iterations=500)
    >>> tf.where(kernel[:, 0] != 0)[:, 0].numpy().tolist()
    [0, 2]
    """
    size = sum(problem.weights.shape.num_elements() for problem in problems)
    if wanted >= size:
        return [problem.weights for problem in problems]
    rough, fine = (functools.partial(_solved, problems, iterations, t) for t in _TOLERANCES)
    eta, _ = _searched(rough, wanted, (math.log(_LOWEST), math.log(_HIGHEST)), (size, 0))
    around = eta - _AROUND, min(eta + _AROUND, math.log(_HIGHEST))
    return _searched(fine, wanted, around, (_CHANGE * wanted, wanted / _CHANGE))[1]


def _solved(problems, iterations, tolerance, eta):
    return [problem.solved(math.exp(eta), iterations, tolerance) for problem in problems]


def _searched(solved, wanted, between, numbers):
    """The highest η, in logarithms, of which the solutions leave `wanted` weights, and these.

    Args:
        solved: η -> kernels.
        wanted: How many weights, or a few more.
        between: The least and the highest η.
        numbers: Of weights that these two leave, about.
    """
    (low, high), (most, least) = between, numbers
    best = None
    for turn in range(_MOST_SOLUTIONS):
        # Halves, as the numbers at the ends tell little, and then where they let it expect.
        share = 0.5 if turn % 2 == 0 else _share(most, math.sqrt(_NEAR) * wanted, least)
        eta = low + share * (high - low)
        kernels = solved(eta)
        left = sum(int(tf.math.count_nonzero(kernel)) for kernel in kernels)
        if left >= wanted:
            low, most, best = eta, left, kernels
        else:
            high, least = eta, left
        if wanted <= left <= _NEAR * wanted or high - low < _CLOSE:
            break
    return low, solved(low) if best is None else best


def _share(most, wanted, least):
    """How far it is from `most` to `wanted`, of the way to `least`, in logarithms."""
    most, wanted, least = (math.log1p(number) for number in (most, wanted, least))
    return min(max((most - wanted) / (most - least), 0.02), 0.98)


def scores(kernels, problems):
    """|W| of the solution; what is 0 in it comes after, by |W| of the network."""
    sizes = [tf.abs(kernel) for kernel in kernels]
    least = min(
        float(tf.reduce_min(tf.where(size > 0, size, tf.constant(np.inf, size.dtype))))
        for size in sizes
    )
    most = max(float(tf.reduce_max(tf.abs(problem.weights))) for problem in problems)
    below = least / (2.0 * most) if most and np.isfinite(least) else 1.0
    return [
        tf.where(size > 0, size, below * tf.abs(problem.weights))
        for size, problem in zip(sizes, problems, strict=True)
    ]
