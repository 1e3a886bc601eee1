"""The solver of the SIS paper in NumPy, slow: Douglas-Rachford with projections by subgradients.

Source: Verma & Pesquet (2021); Combettes (2003); Bauschke & Combettes, Convex Analysis and Monotone
Operator Theory in Hilbert Spaces, Corollary 29.25.
"""

import numpy as np


def distance(inclusion, weights):
    return np.mean(np.sum(_off(inclusion, weights) ** 2, -1))


def gradient(inclusion, weights):
    """Of the distance."""
    inputs = np.asarray(inclusion.inputs)
    off = _off(inclusion, weights) * np.asarray(inclusion.scale)
    return 2.0 * inputs.T @ off / len(inputs)


def _off(inclusion, weights):
    affine = np.asarray(inclusion.scale), np.asarray(inclusion.shift)
    v = np.asarray(inclusion.inputs) @ weights * affine[0] + affine[1]
    return np.asarray(inclusion.residual(v, np.asarray(inclusion.outputs)))


def sparsest(weights, inclusions, bounds, *, threshold, iterations, projections):
    """The weights of the least ℓ1 norm within the bounds."""
    hidden = np.asarray(weights)
    for _ in range(iterations):
        soft = np.sign(hidden) * np.maximum(abs(hidden) - threshold, 0.0)
        within = projected(2.0 * soft - hidden, inclusions, bounds, projections)
        hidden = hidden + within - soft
    return soft


def projected(weights, inclusions, bounds, projections):
    """The nearest weights within all bounds."""
    point = weights
    for _ in range(projections):
        steps = [_step(point, each, bound) for each, bound in zip(inclusions, bounds, strict=True)]
        mean = sum(steps) / len(steps)
        if not np.any(mean):
            break
        further = sum(np.sum(step**2) for step in steps) / len(steps) / np.sum(mean**2)
        point = _nearest(weights, point, point + further * mean)
    return point


def _step(point, inclusion, bound):
    """To the half-space that a subgradient makes of a constraint; 0 where that holds."""
    excess = distance(inclusion, point) - bound
    slope = gradient(inclusion, point)
    return -excess / np.sum(slope**2) * slope if excess > 1e-6 * bound else np.zeros_like(point)


def _nearest(x, y, z):
    """The projection of x onto {h: ⟨h − y, x − y⟩ ≤ 0} ∩ {h: ⟨h − z, y − z⟩ ≤ 0}."""
    to_y, to_z = x - y, y - z
    pi, mu, nu = np.sum(to_y * to_z), np.sum(to_y**2), np.sum(to_z**2)
    rho = mu * nu - pi**2
    if rho <= 1e-12 * mu * nu:
        return z
    if pi * nu >= rho:
        return x - (1.0 + pi / nu) * to_z
    return y + nu / rho * (pi * to_y - mu * to_z)
