"""`prune_low_magnitude`, `strip_pruning` and `prune_scope`, as tfmot has them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import keras

from granet_tf.graphs import rebuilt
from granet_tf.masks.patterns import Pattern
from granet_tf.masks.patterns.names import as_pattern
from granet_tf.schedules import ConstantSparsity, PolynomialDecay
from granet_tf.sparsity.keras.policy import PruningPolicy
from granet_tf.sparsity.keras.prunable_layer import has_prunable_weights
from granet_tf.sparsity.keras.pruned_model import (
    PrunedFunctional,
    PrunedOwn,
    PrunedSequential,
    with_layers,
)
from granet_tf.wrapped_layers import DEFAULT_SCHEDULE
from granet_tf.wrapping.own_classes import is_built, is_own_class
from granet_tf.wrapping.spared import outputs_removed
from granet_tf.wrapping.stripping import pruned_weights, strip
from keras_layers.carrier import carries_masks
from keras_layers.keras_internals import Functional, layers_of
from keras_layers.layouts import KINDS, Layout
from keras_layers.prunable import names_weights, weights_of
from keras_layers.prune_low_magnitude import PruneLowMagnitude


def prune_low_magnitude(
    to_prune: keras.Layer | Sequence[keras.Layer],
    pruning_schedule: Callable = DEFAULT_SCHEDULE,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    *,
    pattern: str | Pattern | None = None,
    reselect: bool = False,
    mask_only: bool = False,
    prunable: Callable | Sequence[str] | None = None,
    **kwargs,
) -> keras.Layer | list[keras.Layer]:
    """Wraps every layer that has something to prune in `PruneLowMagnitude`.

    Layers with nothing to prune, and frozen ones, stay as they are; `granet_tf.summarize(model)`
    lists what is pruned and what is not, and why. Weights are shared with `to_prune`, not copied.

    A model comes back not compiled. Its `compile` takes care that masks are updated. A model that
    you put together of wrapped layers needs `callbacks=[UpdatePruningStep()]` in `fit`, or
    `granet_tf.SparseOptimizer(optimizer, model)` in `compile`; without, a warning says so.

    A model of a class of your own keeps its methods, such as `train_step`. A subclassed one, whose
    layers are attributes, is changed itself: a wrapper takes the place of each layer, also in
    lists, tuples and dicts, until `strip_pruning` puts the layers back. If it has several
    optimizers, each updates the masks of what it trains.

    Args:
        to_prune: A layer, a list of layers, or a model: sequential, functional or subclassed, also
            nested. A subclassed model must be built: call it once on a batch of data.
        pruning_schedule: When and how much, ours or tfmot's: `step -> (should_prune, sparsity)`.
        block_size: See `PruneLowMagnitude`, as for `block_pooling_type` and `sparsity_m_by_n`.
        block_pooling_type: "AVG" or "MAX".
        pruning_policy: Which layers; None for all that can be pruned.
        sparsity_m_by_n: (m, n), m zeros in every n consecutive inputs.
        pattern: What is pruned as one unit, in place of `block_size` and `sparsity_m_by_n`: a
            pattern or its name, such as "litert"; see `granet_tf.Method`. One that removes whole
            units, such as "filter", leaves the layers of a model as they are whose units are its
            outputs, unless `prunable` is given.
        reselect: Whether the groups of `sparsity_m_by_n` are chosen anew at each update; see
            `PruneLowMagnitude`.
        mask_only: Whether pruned weights keep their value behind the mask until they are stripped,
            as in the original gradual pruning. Without it they are 0 at any moment, also in files.
        prunable: Which weights, also frozen ones: a callable `(layer, weight) -> bool`; of a single
            layer also patterns of paths. None is `granet_tf.default_prunable`.
        **kwargs: For the wrapper of a single layer, such as `name`; not used else. With any of
            them, a layer with nothing to prune is wrapped as well.

    Returns:
        The same as `to_prune`: a layer, a list of layers or a model.

    Raises:
        ValueError: If `to_prune` is none of these, is a subclassed model that is not built, or has
            a layer of yours that does not say what of it to prune, itself or inside another layer,
            such as a cell; if the policy does not fit the model; on `kwargs` for a layer that must
            not be wrapped.

    Warns:
        UserWarning: If there is nothing to prune in a model.

    Source: `tfmot.sparsity.keras.prune_low_magnitude`.

    Example:

    >>> from granet_tf.sparsity.keras import ConstantSparsity, strip_pruning
    >>> dense = keras.layers.Dense(4)
    >>> model = keras.Sequential([keras.Input((4,)), dense])
    >>> pruned = prune_low_magnitude(model, ConstantSparsity(0.75, 0, frequency=1))
    >>> pruned.compile("sgd", "mse")
    >>> x = keras.random.normal((8, 4))
    >>> history = pruned.fit(x, x, verbose=0)
    >>> int(keras.ops.count_nonzero(strip_pruning(pruned).layers[0].kernel))
    4
    """
    settings = {
        "pruning_schedule": pruning_schedule,
        "block_size": block_size,
        "block_pooling_type": block_pooling_type,
        "sparsity_m_by_n": sparsity_m_by_n,
        "pattern": None if pattern is None else as_pattern(pattern),
        "reselect": reselect,
        "mask_only": mask_only,
        "prunable": prunable,
    }

    spared = set()
    if isinstance(to_prune, keras.Model) and prunable is None and pattern is not None:
        spared = _spared(to_prune, settings["pattern"])

    def wrapped(layer, of_built=False, **options):
        if carries_masks(layer) or isinstance(layer, keras.layers.InputLayer):
            return layer
        if spared and not isinstance(layer, keras.Model) and spared & _ids(layer):
            return layer
        if not isinstance(layer, keras.Layer):
            raise ValueError(
                "`to_prune` must be a Keras 3 layer, a list of layers or a model. "
                f"Received: {layer!r} of {type(layer)}"
            )
        if isinstance(layer, keras.Model):
            if of_built and _is_never_called(layer):
                return layer
            _check_model(layer)
            return with_layers(layer, functools.partial(each, of_built=layer.built))
        if pruning_policy is not None and not pruning_policy.allow_pruning(layer):
            return layer
        prune = has_prunable_weights(layer, options["prunable"], of_built=of_built)
        return PruneLowMagnitude(layer, **options) if prune else layer

    @functools.cache  # A layer that is used twice is wrapped once.
    def each(layer, of_built=False):
        return wrapped(layer, of_built, **settings)

    if isinstance(to_prune, (list, keras.Model)) and not (prunable is None or callable(prunable)):
        raise ValueError(
            "`prunable` must be a callable (layer, weight) -> bool, or None, for more than one "
            f"layer. Received: prunable={prunable!r}"
        )
    if isinstance(to_prune, list):
        return [each(layer) for layer in to_prune]
    if isinstance(to_prune, keras.Model) and pruning_policy is not None:
        pruning_policy.ensure_model_supports_pruning(to_prune)
    if isinstance(to_prune, (keras.Sequential, Functional)) and not is_own_class(to_prune):
        change = functools.partial(each, of_built=to_prune.built)
        pruned = rebuilt(to_prune, change, sequential=PrunedSequential, functional=PrunedFunctional)
    else:
        pruned = wrapped(to_prune, **{**settings, **kwargs})
        if kwargs and pruned is to_prune and not isinstance(to_prune, keras.Model):
            _check_can_take(to_prune, kwargs, pruning_policy, prunable)
            pruned = PruneLowMagnitude(to_prune, **{**settings, **kwargs})
    if isinstance(pruned, keras.Model) and not _has_wrappers(pruned):
        warnings.warn(
            f"Nothing in {pruned.name} will be pruned. granet_tf.summarize(model) says why.",
            stacklevel=2,
        )
    return pruned


def strip_pruning(model: keras.Model) -> keras.Model:
    """The model without wrappers, its pruned weights 0.

    Args:
        model: A model from `prune_low_magnitude`, or with wrapped layers.

    Returns:
        A new graph of the layers inside the wrappers, not compiled; `model` itself where nothing in
        it is wrapped, or where it is subclassed: its wrapped layers are attributes again.

    Raises:
        ValueError: If `model` is not a Keras model.

    Source: `tfmot.sparsity.keras.strip_pruning`.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    >>> [type(x).__name__ for x in strip_pruning(prune_low_magnitude(model)).layers]
    ['Dense']
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras 3 model. Received: {model!r} of {type(model)}")
    return strip(model) if pruned_weights(model) or _has_wrappers(model) else model


def prune_scope() -> keras.saving.CustomObjectScope:
    """A scope in which models with wrapped layers load; `import granet_tf` is enough, too.

    Source: `tfmot.sparsity.keras.prune_scope`.

    Example:

    >>> with prune_scope():
    ...     keras.saving.get_registered_object("PolynomialDecay").__name__
    'PolynomialDecay'
    """
    classes = (PruneLowMagnitude, PrunedSequential, PrunedFunctional, PrunedOwn)
    schedules = (ConstantSparsity, PolynomialDecay)
    return keras.saving.custom_object_scope({c.__name__: c for c in (*classes, *schedules)})


def _spared(model, pattern) -> set[int]:
    """Ids of the weights by which `pattern` would remove outputs of the model."""
    if not model.built:
        if any(pattern.chosen(kind).removes_outputs(Layout(kind)) for kind in KINDS):
            raise ValueError(
                "`to_prune` must be built where a pattern removes whole units, as those that are "
                "outputs of the model are spared: start it with keras.Input(shape). Or say with "
                "`prunable` what to prune, such as granet_tf.default_prunable. "
                f"Received: to_prune={model}, which is not built, and pattern={pattern!r}"
            )
        return set()
    weights = [weight for weight in weights_of(model) if weight.prunable]
    return {id(weight.variable) for weight in outputs_removed(model, weights, pattern)}


def _ids(layer):
    return {id(variable) for variable in layer.variables}


def _check_model(model):
    if not is_built(model) and not isinstance(model, (keras.Sequential, Functional)):
        raise ValueError(
            "A subclassed model must be built before it is pruned: call it once on a batch of "
            f"data. Received: to_prune={model}, which is not built"
        )
    if names_weights(model):
        raise ValueError(
            "A model's own weights, which are in none of its layers, can't be wrapped. Use "
            "granet_tf.wrap(model), or put them in a layer with get_prunable_weights(). "
            f"Received: to_prune={model}"
        )


def _is_never_called(model):
    """Whether a model that is part of a built one has nothing, and will have nothing, to prune."""
    empty = not (model.built or model.weights)
    return empty and not has_prunable_weights(model, of_built=True)


def _check_can_take(layer, arguments, policy, prunable):
    """Raises a ValueError on arguments for a wrapper that there must not be."""
    reasons = {
        "it has masks of its own already": carries_masks(layer),
        "it is an input": isinstance(layer, keras.layers.InputLayer),
        "it is frozen; name its weights with `prunable`": prunable is None and not layer.trainable,
        "`pruning_policy` does not allow to prune it": (
            policy is not None and not policy.allow_pruning(layer)
        ),
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise ValueError(
                f"{sorted(arguments)} must be left out, as they are for a wrapper, and `to_prune` "
                f"stays without one: {reason}. Received: to_prune={layer}, with {arguments}"
            )


def _has_wrappers(model):
    return any(carries_masks(layer) for layer in layers_of(model))
