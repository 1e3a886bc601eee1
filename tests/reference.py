"""Slow NumPy versions of what the library does, written from the papers."""

import math

import numpy as np


def top_k(scores, eligible, k):
    """Masks of the k largest scores of all arrays together; ties go to the lower index."""
    flat = np.concatenate([np.ravel(s) for s in scores])
    allowed = np.concatenate([np.ravel(e) for e in eligible])
    order = [i for i in np.argsort(-flat, kind="stable") if allowed[i]][: int(k)]
    chosen = np.zeros(flat.size, bool)
    chosen[order] = True
    ends = np.cumsum([s.size for s in scores])[:-1]
    return [part.reshape(s.shape) for part, s in zip(np.split(chosen, ends), scores, strict=True)]


def keep_count(size, sparsity):
    """Half to even, where a half is one on paper, whatever float64 makes of it."""
    return max(1, round(round(size * (1.0 - sparsity), 6)))


def cubic(step, initial, final, begin, end):
    progress = min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * (1.0 - progress) ** 3


def cosine(step, total, first, last):
    return last + 0.5 * (first - last) * (1.0 + math.cos(math.pi * min(step / total, 1.0)))


class MLP:
    """Two dense layers without biases, ReLU between, mean squared error: y ≈ relu(x·w0)·w1."""

    @staticmethod
    def loss(weights, x, y):
        hidden = np.maximum(x @ weights[0], 0.0)
        return np.mean((hidden @ weights[1] - y) ** 2)

    @staticmethod
    def gradients(weights, x, y):
        before = x @ weights[0]
        hidden = np.maximum(before, 0.0)
        error = 2.0 * (hidden @ weights[1] - y) / y.size
        return [x.T @ ((error @ weights[1].T) * (before > 0.0)), hidden.T @ error]


class SGD:
    """Momentum as Keras has it: m = β·m − lr·g, w += m."""

    def __init__(self, weights, rate, momentum):
        self.rate, self.momentum = rate, momentum
        self.velocities = [np.zeros_like(w) for w in weights]

    def step(self, weights, gradients):
        for i, gradient in enumerate(gradients):
            self.velocities[i] = self.momentum * self.velocities[i] - self.rate * gradient
            weights[i] = weights[i] + self.velocities[i]


def gmp_mask_only(weights, batches, *, rate, momentum, l2, final, end, frequency):
    """Zhu & Gupta: layer by layer, forward with w·mask, kept values, L2 of w in the loss."""
    weights, masks = list(weights), [np.ones(w.shape, bool) for w in weights]
    sgd = SGD(weights, rate, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        masked = [w * m for w, m in zip(weights, masks, strict=True)]
        gradients = MLP.gradients(masked, x, y)
        zipped = zip(gradients, masks, weights, strict=True)
        sgd.step(weights, [g * m + 2.0 * l2 * w for g, m, w in zipped])
        if step % frequency == 0 and step <= end:
            k = [keep_count(w.size, cubic(step, 0.0, final, 0, end)) for w in weights]
            masks = [
                top_k([abs(w)], [np.ones(w.shape, bool)], n)[0]
                for w, n in zip(weights, k, strict=True)
            ]
        yield weights, masks, sgd.velocities


def granet_zero(
    weights, masks, batches, *, rate, momentum, initial, final, end, frequency, total, r
):
    """Algorithm 1 with pruned weights at zero: global pruning, then regeneration in each layer."""
    masks = [m.copy() for m in masks]
    weights = [w * m for w, m in zip(weights, masks, strict=True)]
    sgd = SGD(weights, rate, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        dense = MLP.gradients(weights, x, y)
        sgd.step(weights, [g * m for g, m in zip(dense, masks, strict=True)])
        if step % frequency == 0:
            size = sum(w.size for w in weights)
            if step - frequency < end:
                k = keep_count(size, cubic(step, initial, final, 0, end))
                masks = top_k([abs(w) for w in weights], masks, min(k, sum(m.sum() for m in masks)))
            for i, (w, g) in enumerate(zip(weights, dense, strict=True)):
                alive = int(masks[i].sum())
                drop = math.ceil(cosine(step, total, r, 0.005) * alive - 1e-9)
                [kept] = top_k([abs(w)], [masks[i]], alive - drop)
                [grown] = top_k([abs(g)], [~kept], drop)
                survivors = masks[i] & (kept | grown)
                weights[i] = np.where(survivors, w, 0.0)
                sgd.velocities[i] = np.where(survivors, sgd.velocities[i], 0.0)
                masks[i] = kept | grown
        yield weights, masks, sgd.velocities
