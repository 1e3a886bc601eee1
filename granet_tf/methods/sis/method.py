"""SIS: masks of a trained network, from the sparsest weights that change its layers little."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

from granet_tf.methods.at_initialization.base import FromBatches
from granet_tf.methods.parameters import parameter
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SIS(FromBatches):
    """Subdifferential inclusion for sparsity: prunes a trained network (Verma & Pesquet, 2021).

    For each layer y = R(Wx + b), with R the proximity operator of a convex f, it looks for the
    weights of the least ℓ1 norm with which Wx + b − y is near to ∂f(y):

        min Σ |W|  with  mean of d(Wx + b − y, ∂f(y))² ≤ η · (the same of W = 0)

    over samples of what goes into the layer in the trained network, by Douglas-Rachford splitting.
    η is such that as many weights are not 0 as `final_sparsity` leaves: in scope "layer" one for
    each layer, by its share of the sparsity, in scope "global" one for all. Where these weights are
    not 0 are the masks. They stay, and the network's own weights are trained on with them.

    Known are dense layers and convolutions of two dimensions, alone or with batch normalization
    after them, with ReLU, ReLU6, sigmoid, tanh, softmax or no activation.

    Args:
        final_sparsity: The sparsity, in (0, 1).
        batches: How many of the first batches to look at, each with a constraint of its own.
        samples: The most samples of a batch for a layer; of a convolution, each position is one.
        iterations: The most of Douglas-Rachford; it stops when the weights are found.
        **kwargs: See `AtInitialization` and `Method`. `scope` is "layer" here, and `distribution`
            "erk"; the paper has one η, which at high sparsities leaves too little of small layers.

    Raises:
        ValueError: On a parameter out of range.

    Example:

    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, "relu")])
    >>> model = granet_tf.wrap(network, SIS(0.75))  # Of a network that was trained.
    >>> model.start([(np.random.rand(100, 8), None)])
    >>> model.nonzeros
    8
    """

    rounds: int = dataclasses.field(default=1, init=False)
    scope: str = "layer"
    distribution: str | Callable = "erk"
    samples: int = parameter(
        1000, "The most samples of a batch by which a layer is pruned.", at_least=1
    )
    iterations: int = parameter(500, "The most iterations of the solver.", at_least=1)

    def saliency(self, model, batches=(), loss=None, masks=None):
        # Imported here, as `import granet_tf` takes every method in.
        from granet_tf.methods.sis.problems import problems_of, scores, solutions_of_number

        del loss, masks  # All is still active.
        problems = problems_of(model, batches, self.samples, self.seed)
        kernels = [
            kernel
            for together, wanted in _WANTED[self.scope](self, problems)
            for kernel in solutions_of_number(together, wanted, self.iterations)
        ]
        return dict(zip([p.path for p in problems], scores(kernels, problems), strict=True))


def _of_all(method, problems):
    size = sum(problem.weights.shape.num_elements() for problem in problems)
    return [(problems, max(1, round(size * (1.0 - method.final_sparsity))))]


def _of_each(method, problems):
    shapes = {problem.path: tuple(problem.weights.shape) for problem in problems}
    sparsities = method.distribute(shapes, method.final_sparsity)
    return [
        ([problem], max(1, round(math.prod(shape) * (1.0 - sparsities[path]))))
        for problem, (path, shape) in zip(problems, shapes.items(), strict=True)
    ]


# {scope: (method, problems) -> those that have one η, and how many weights it leaves}
_WANTED: dict[str, Callable] = {"global": _of_all, "layer": _of_each}


def sis_solution(
    model: Any,
    batches: Iterable[Any],
    eta: float,
    *,
    samples: int = 1000,
    iterations: int = 500,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """{path: the sparsest weights} of a `SparseModel` for a given η, zeros being exactly 0.

    Args:
        model: A `SparseModel` whose masks are not drawn yet.
        batches: `(x, ...)` each.
        eta: How far the layers may be off, in [0, 1]: the mean squared distance relative to that
            of weights that are all 0. The higher, the sparser.
        samples: The most samples of a batch for a layer.
        iterations: The most of the solver.
        seed: Which samples.

    Raises:
        ValueError: If `eta` is out of range or there is no batch, or on a layer or an activation
            that is not known.

    Example:

    >>> network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model = granet_tf.wrap(network, SIS(0.5))
    >>> [kernel] = sis_solution(model, [(np.random.randn(100, 8),)], eta=0.2).values()
    >>> bool(0 < np.count_nonzero(kernel) < 32)
    True
    """
    from granet_tf.methods.sis.problems import problems_of

    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"`eta` must be in [0, 1]. Received: eta={eta}")
    batches = list(batches)
    if not batches:
        raise ValueError("`batches` must be one or more: (x, ...) each. Received: none")
    problems = problems_of(model, batches, samples, seed)
    return {p.path: p.solved(eta, iterations).numpy() for p in problems}
