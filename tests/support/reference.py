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
            # What grows has a whole period of training before it.
            grows = weights if step + frequency <= total else []
            for i, (w, g) in enumerate(zip(grows, dense, strict=False)):
                alive = int(masks[i].sum())
                drop = math.ceil(cosine(step, total, r, 0.005) * alive - 1e-9)
                [kept] = top_k([abs(w)], [masks[i]], alive - drop)
                [grown] = top_k([abs(g)], [~kept], drop)
                survivors = masks[i] & (kept | grown)
                weights[i] = np.where(survivors, w, 0.0)
                sgd.velocities[i] = np.where(survivors, sgd.velocities[i], 0.0)
                masks[i] = kept | grown
        yield weights, masks, sgd.velocities


def allocate(total, shares, room):
    """`total` whole units in proportion to the shares; what a layer can't take goes to others."""
    room, given = list(map(int, room)), [0] * len(room)
    unfilled = [i for i, r in enumerate(room) if r > 0]
    while unfilled:
        left = int(total) - sum(given)
        weights = {i: float(shares[i]) for i in unfilled}
        if sum(weights.values()) == 0.0:
            weights = {i: float(room[i]) for i in unfilled}
        quota = {i: left * w / sum(weights.values()) for i, w in weights.items()}
        full = [i for i in unfilled if quota[i] >= room[i]]
        if not full:
            for i in unfilled:
                given[i] = math.floor(round(quota[i], 6))
            by_remainder = sorted(unfilled, key=lambda i: (-round(quota[i] - given[i], 6), i))
            for i in by_remainder[: int(total) - sum(given)]:
                given[i] += 1
            return given
        for i in full:
            given[i] = room[i]
        unfilled = [i for i in unfilled if i not in full]
    return given


def acdc(weights, batches, *, rate, momentum, sparsity, is_sparse):
    """Peste et al.: at a change of phase the largest of all layers stay, or all come back as 0."""
    weights, masks = list(weights), [np.ones(w.shape, bool) for w in weights]
    everything = [np.ones(w.shape, bool) for w in weights]
    sgd = SGD(weights, rate, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        dense = MLP.gradients(weights, x, y)
        sgd.step(weights, [g * m for g, m in zip(dense, masks, strict=True)])
        if is_sparse(step) != is_sparse(step - 1):
            k = keep_count(sum(w.size for w in weights), sparsity if is_sparse(step) else 0.0)
            masks = top_k([abs(w) for w in weights], everything, k)
            weights = [w * m for w, m in zip(weights, masks, strict=True)]
            sgd.velocities = [v * m for v, m in zip(sgd.velocities, masks, strict=True)]
        yield weights, masks, sgd.velocities


def dpf(weights, batches, *, rate, momentum, final, end, frequency):
    """Lin et al.: the gradient at the pruned weights moves all; masks by magnitude to the end.

    The last ones have a whole period of training before them.
    """
    weights, masks = list(weights), [np.ones(w.shape, bool) for w in weights]
    everything = [np.ones(w.shape, bool) for w in weights]
    sgd = SGD(weights, rate, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        sgd.step(weights, MLP.gradients([w * m for w, m in zip(weights, masks, strict=True)], x, y))
        if step % frequency == 0 and step + frequency <= len(batches):
            k = keep_count(sum(w.size for w in weights), cubic(step, 0.0, final, 0, end))
            masks = top_k([abs(w) for w in weights], everything, k)
        yield weights, masks, sgd.velocities


def top_kast(weights, batches, *, rate, momentum, forward, backward, decay, frequency):
    """Jayakumar et al.: forward with the top D of each layer, learning in the top D + M."""

    def choose(sparsity):
        return [
            top_k([abs(w)], [np.ones(w.shape, bool)], keep_count(w.size, sparsity))[0]
            for w in weights
        ]

    weights = list(weights)
    used, learning = choose(forward), choose(backward)
    sgd = SGD(weights, rate, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        gradients = MLP.gradients([w * a for w, a in zip(weights, used, strict=True)], x, y)
        total = []
        for g, w, a, b in zip(gradients, weights, used, learning, strict=True):
            penalty = decay * w * (a + (b & ~a) / (1.0 - forward))
            total.append((g + penalty) * b)
        sgd.step(weights, total)
        if step % frequency == 0 and step + frequency <= len(batches):
            used, learning = choose(forward), choose(backward)
        yield weights, used, sgd.velocities


def snfs(weights, masks, batches, *, rate, momentum, beta, r, frequency, total):
    """Dettmers & Zettlemoyer: drop by magnitude, grow by momentum, share out by mean momentum."""
    masks = [m.copy() for m in masks]
    weights = [w * m for w, m in zip(weights, masks, strict=True)]
    sgd, grown_by = SGD(weights, rate, momentum), [np.zeros_like(w) for w in weights]
    for step, (x, y) in enumerate(batches, start=1):
        dense = MLP.gradients(weights, x, y)
        sgd.step(weights, [g * m for g, m in zip(dense, masks, strict=True)])
        grown_by = [beta * m + g for m, g in zip(grown_by, dense, strict=True)]
        if step % frequency == 0 and step + frequency <= total:
            alive = [int(m.sum()) for m in masks]
            drop = [math.ceil(cosine(step, total, r, 0.005) * a - 1e-9) for a in alive]
            kept = [
                top_k([abs(w)], [m], a - d)[0]
                for w, m, a, d in zip(weights, masks, alive, drop, strict=True)
            ]
            means = [np.mean(abs(v)[m]) for v, m in zip(grown_by, masks, strict=True)]
            numbers = allocate(sum(drop), means, [(~k).sum() for k in kept])
            for i, number in enumerate(numbers):
                [grown] = top_k([abs(grown_by[i])], [~kept[i]], number)
                survivors = masks[i] & (kept[i] | grown)
                weights[i] = weights[i] * survivors
                sgd.velocities[i] = sgd.velocities[i] * survivors
                masks[i] = kept[i] | grown
        yield weights, masks, sgd.velocities


def soft_threshold(weights, batches, *, rate, momentum, init, decay):
    """Kusupati et al.: the gradient of the loss at S(w, s), by the chain rule to w and to s."""
    weights, thresholds = list(weights), [np.array(init) for _ in weights]
    sgd = SGD([*weights, *thresholds], rate, momentum)
    for x, y in batches:
        sizes = [1.0 / (1.0 + np.exp(-s)) for s in thresholds]
        active = [abs(w) > g for w, g in zip(weights, sizes, strict=True)]
        values = [
            np.sign(w) * (abs(w) - g) * a for w, g, a in zip(weights, sizes, active, strict=True)
        ]
        gradients = MLP.gradients(values, x, y)
        of_weights = [g * a for g, a in zip(gradients, active, strict=True)]
        of_thresholds = [
            -np.sum(g * np.sign(w) * a) * t * (1.0 - t) + decay * s
            for g, w, a, t, s in zip(gradients, weights, active, sizes, thresholds, strict=True)
        ]
        both = [*weights, *thresholds]
        sgd.step(both, [*of_weights, *of_thresholds])
        weights, thresholds = both[: len(weights)], both[len(weights) :]
        masks = [
            abs(w) > 1.0 / (1.0 + np.exp(-s)) for w, s in zip(weights, thresholds, strict=True)
        ]
        yield weights, masks, sgd.velocities[: len(weights)], thresholds


def st3(weights, batches, *, rate, momentum, final, end):
    """Vanderschueren & De Vleeschouwer: weights move by the gradient at their thresholded values.

    The threshold is chosen anew after each step: the largest |w| that is not to stay.
    """
    weights, threshold = list(weights), 0.0
    sgd = SGD(weights, rate, momentum)
    for step, (x, y) in enumerate(batches, start=1):
        sgd.step(weights, MLP.gradients([st3_value(w, threshold) for w in weights], x, y))
        sizes = np.sort(np.concatenate([abs(w).ravel() for w in weights]))
        k = keep_count(sizes.size, cubic(step, 0.0, final, 0, end))
        threshold = sizes[-k - 1] if k < sizes.size else 0.0
        masks = [abs(w) > threshold for w in weights]
        yield list(weights), masks, list(sgd.velocities), threshold


def st3_value(w, threshold):
    """What the network computes with in place of a matrix (inputs, outputs)."""
    active = abs(w) > threshold
    left, whole = ((abs(w) * m).mean(0) + 1e-6 for m in (active, 1.0))
    return 1.01 / (left / whole + 0.01) * np.sign(w) * (abs(w) - threshold) * active


def problem(steps):
    """First weights of a network of two layers, and a batch for each step."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(6, 12)) / 2.0, rng.normal(size=(12, 4)) / 3.0]
    batches = [(rng.normal(size=(16, 6)), rng.normal(size=(16, 4))) for _ in range(steps)]
    return weights, batches
