"""Prunes a network once, with or without regenerating as many connections."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import tensorflow as tf

from granet_tf.masks.counts import keep_count
from granet_tf.masks.patterns import Element
from granet_tf.masks.scopes import Candidates, match
from granet_tf.masks.selection import count, count_all, count_each
from granet_tf.masks.units import expanded
from granet_tf.methods.records import updated
from granet_tf.model import SparseModel
from granet_tf.wrapping.compiling import sparse_part
from granet_tf.wrapping.states import snapshot
from keras_layers.masking import PrunedWeight


@dataclasses.dataclass(frozen=True)
class OneShot:
    """What `prune_once` did.

    Attributes:
        pruned: How many single weights it pruned.
        regenerated: How many it made active, those just pruned included.
        nonzeros: Number of active prunable weights, afterwards.
        emptied: Paths of weights of which nothing is active any more.
    """

    pruned: int
    regenerated: int
    nonzeros: int
    emptied: tuple[str, ...]


def prune_once(
    model: SparseModel,
    rate: float,
    *,
    scope: str = "global",
    gradients: Mapping[str, tf.Tensor] | None = None,
) -> OneShot:
    """Prunes a share of the active weights, at once, and regenerates as many if told how.

    Pruned are those of smallest |w|. With `gradients`, each weight tensor then grows as many
    connections as it lost, where the dense gradient is largest; they start from 0. What is pruned
    becomes 0, and so do optimizer slots of all that is pruned or new (their initial value, where
    that is another one).

    With a pattern such as `Filter()`, all of that goes by units: the sum of |w| over a filter, and
    of |gradient|. N:M groups get back no more than fit into them. In scope "global", weights of
    equal patterns are ranked together, and each pattern loses the same share of its units. Weights
    that the method pins stay as they are.

    Args:
        model: From `granet_tf.wrap`, zero mode. Its masks are changed, and its method's pattern and
            pins are obeyed. Compiled if it is to be trained on.
        rate: Share of the active units to prune, in (0, 1).
        scope: "global" ranks all weights together, "layer" each tensor for itself.
        gradients: {path: dense gradient}, see `dense_gradients`; None regenerates nothing.

    Returns:
        A `OneShot`.

    Raises:
        TypeError: If `model` is not a `SparseModel`.
        ValueError: If an argument is out of range, the model keeps pruned values, a gradient is
            missing or no number, or a layer would be left without any filter.

    Source: Section 3.3 of the paper, one-shot pruning and gradient-based regeneration; Appendix A
    for filters.

    Example:

    >>> layer = keras.layers.Dense(4, use_bias=False)
    >>> network = keras.Sequential([keras.Input((8,)), layer])
    >>> model = granet_tf.wrap(network, granet_tf.StaticSparse(0.0))
    >>> prune_once(model, 0.75).nonzeros
    8
    >>> gradients = {model.pruned[0].path: tf.ones((8, 4))}
    >>> prune_once(model, 0.5, gradients=gradients)
    OneShot(pruned=4, regenerated=4, nonzeros=8, emptied=())
    """
    _check(model, rate, scope)
    pruned = _free(model)
    before = [snapshot(p) for p in pruned]
    groups = model.method.units_of(before)
    sizes = [tf.abs(w.weight) for w in before]
    kept = SCOPES[scope]([Candidates.of(units, units.pool(sizes)) for units in groups], rate)
    after = kept
    if gradients is not None:
        growth = [tf.abs(_gradient(gradients, p)) for p in pruned]
        after = [
            units.add(units.pool(growth), count_each(units.active) - count_each(k), k)
            for units, k in zip(groups, kept, strict=True)
        ]
    new = updated(expanded(groups, after), expanded(groups, kept))
    each = list(zip(pruned, before, new, strict=True))
    emptied = tuple(p.path for p, _, now in each if not int(count(now.mask)))
    _check_left(groups, emptied, rate, scope)
    _apply(model, each)
    return OneShot(
        pruned=sum(int(count(w.mask & ~now.survivors)) for _, w, now in each),
        regenerated=sum(int(count(now.mask & ~now.survivors)) for now in new),
        nonzeros=model.nonzeros,
        emptied=emptied,
    )


def dense_gradients(
    model: SparseModel,
    batches: Iterable[tuple[tf.Tensor, ...]],
    loss: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
) -> dict[str, tf.Tensor]:
    """Gradients of the loss by prunable weight, dormant ones included; the model stays as it is.

    Args:
        model: From `granet_tf.wrap`, zero mode.
        batches: Some batches (x, y) or (x, y, sample_weight), of which the gradients are summed:
            one is what a mask update in training looks at.
        loss: Function of (y, outputs), averaged over the batch without sample weights; None is
            that of `compile`. Regularizers are added.

    Returns:
        {path: gradient of the weight's shape}.

    Raises:
        ValueError: If there is no batch.
    """
    check_zero_mode(model)
    variables = [p.variable for p in model.pruned]
    total = None
    # A forward pass of training moves the statistics of batch normalization, and random states.
    state = [(v, tf.identity(v.value)) for v in model.non_trainable_variables]
    for x, y, *rest in batches:
        with tf.GradientTape() as tape:
            outputs = model.model(x, training=True)  # Nothing is trained.
            if loss is None:
                value = model.compute_loss(x, y, outputs, *rest)
            else:
                value = tf.reduce_mean(loss(y, outputs)) + sum(model.losses)
        found = tape.gradient(
            value, [v.value for v in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        found = [tf.convert_to_tensor(gradient) for gradient in found]
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
    for variable, value in state:
        variable.assign(value)
    if total is None:
        raise ValueError("`batches` must hold a batch (x, y). Received: none")
    return {p.path: gradient for p, gradient in zip(model.pruned, total, strict=True)}


def _keep_global(groups: Sequence[Candidates], rate):
    return [c.best_together(keep_count(int(count_all(c.units.active)), rate)) for c in groups]


def _keep_layer(groups: Sequence[Candidates], rate):
    return [c.best_of_each(keep_count(count_each(c.units.active), rate)) for c in groups]


SCOPES: dict[str, Callable] = {"global": _keep_global, "layer": _keep_layer}


def _check_left(groups, emptied, rate, scope):
    """A layer may lose all of its single weights, but not all filters or blocks."""
    lost = {
        path: str(units.given)
        for units in groups
        for path in units.paths
        if path in emptied and units.given != Element()
    }
    if lost:
        raise ValueError(
            f"`rate` must leave each layer a unit of {', '.join(sorted(set(lost.values())))}, but "
            f"nothing would be left of {', '.join(lost)}. Prune less, or with scope='layer'. "
            f"Received: rate={rate}, scope={scope!r}"
        )


def _gradient(gradients, pruned):
    gradient = gradients.get(pruned.path)
    if gradient is None or tuple(gradient.shape) != tuple(pruned.variable.shape):
        received = "none" if gradient is None else f"one of shape {tuple(gradient.shape)}"
        raise ValueError(
            f"`gradients` must have a gradient of shape {tuple(pruned.variable.shape)} for "
            f"{pruned.path}; granet_tf.plasticity.dense_gradients makes them. Received: {received}"
        )
    gradient = tf.convert_to_tensor(gradient)
    if not bool(tf.reduce_all(tf.math.is_finite(gradient))):
        raise ValueError(
            "`gradients` must be finite numbers, as they rank what is to grow. "
            f"Received: NaN or infinity for {pruned.path}"
        )
    return gradient


def _free(model) -> list[PrunedWeight]:
    """The weights that are not pinned."""
    paths = {p.path: p for p in model.pruned}
    pinned = match(model.method.pinned, paths, "pinned")
    return [p for path, p in paths.items() if path not in pinned]


def _apply(model, each):
    """Whatever did not survive is 0 now, its optimizer slots as new."""
    slots = _slots(model)
    for p, before, now in each:
        p.mask.assign(now.mask)
        p.variable.assign(tf.where(now.survivors, before.weight, tf.zeros_like(before.weight)))
        for slot in slots.get(id(p.variable), ()):
            value = tf.convert_to_tensor(slot.variable)
            slot.variable.assign(tf.where(now.survivors, value, slot.initial_value()))


def _slots(model):
    """{id(weight): its optimizer slots}; nothing where the model is not compiled, or just so."""
    part = sparse_part(getattr(model, "optimizer", None))
    groups = () if part is None else part.groups
    return {id(p.variable): p.slots for group in groups for p in group.pruned}


def _check(model, rate, scope):
    check_zero_mode(model)
    check_how(rate, scope)


def check_how(rate: float, scope: str) -> None:
    """Raises ValueError unless both are as `prune_once` wants them."""
    if not (isinstance(rate, (int, float)) and 0.0 < rate < 1.0) or math.isnan(rate):
        raise ValueError(
            f"`rate` must be a share of the active weights in (0, 1). Received: rate={rate}"
        )
    if scope not in SCOPES:
        raise ValueError(f"`scope` must be one of {sorted(SCOPES)}. Received: scope={scope!r}")


def check_zero_mode(model: SparseModel) -> None:
    """Raises TypeError or ValueError unless `prune_once` can prune it."""
    if not isinstance(model, SparseModel):
        raise TypeError(
            "`model` must come from granet_tf.wrap(keras_model), for a dense one with the method "
            f"granet_tf.StaticSparse(0.0). Received: model={model!r}"
        )
    if model.mask_only:
        raise ValueError(
            "`model` must be wrapped with mask_only=False: values kept behind the mask would make "
            f"recovery too easy. Received: {model.name}, mask_only=True"
        )
