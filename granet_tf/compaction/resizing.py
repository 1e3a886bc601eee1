"""The smaller model: the same layers, each from its own config, with what stays of its weights."""

from __future__ import annotations

import functools

import keras
import numpy as np

from granet_tf.compaction.analysis import Plan
from granet_tf.compaction.calls import is_graph
from granet_tf.compaction.rules import Resized
from granet_tf.graphs import rebuilt
from keras_layers.keras_internals import layers_of


def resized(model: keras.Model, plan: Plan) -> keras.Model:
    """A new model of what stays by `plan`. Shares no weights with `model`.

    Raises:
        ValueError: If a layer can't be made anew from its config.

    Example:

    >>> from granet_tf.compaction.analysis import planned
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> _ = model.layers[0].kernel.assign([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    >>> resized(model, planned(model)).layers[0].units
    2
    """
    rules = {}
    for rule in plan.rules:
        rules.setdefault(rule.layer, rule)
    made: list[tuple] = []

    @functools.cache
    def change(layer):
        if is_graph(layer) and layer not in rules:
            return rebuilt(layer, change, change_input=change_input)
        rule = rules[layer]
        fixed = all(channels is None for channels in (rule.output, *rule.inputs))
        changes = rule.resized(plan) if rule.resizes and not fixed else Resized({}, {})
        new = _anew(layer, changes.config)
        made.append((layer, new, changes))
        return new

    def change_input(layer):
        [shape] = {_entering(layer, plan.channels.get(n), plan) for n in plan.entries[layer]}
        return _anew(layer, {"batch_shape": shape})

    result = rebuilt(model, change, change_input=change_input)
    for old, new, changes in made:
        _fill(old, new, changes)
    return result


def _entering(layer, channels, plan: Plan) -> tuple:
    """The shape that enters a model inside, from now on."""
    shape = list(layer.batch_shape)
    if channels is not None:
        shape[channels.axis] = int(np.count_nonzero(plan.kept(channels)))
    return tuple(shape)


def _anew(layer, changes: dict):
    try:
        config = layer.get_config() | changes
        if changes:
            config |= {k: "zeros" for k, v in config.items() if _is_array_initializer(v)}
        return type(layer).from_config(config)
    except Exception as error:
        raise ValueError(
            "Each layer of `model` must be one that `from_config(get_config())` makes anew, "
            f"because the compact model shares none with it. Layer '{layer.name}' is not: {error}. "
            f"Received: a {type(layer).__name__}"
        ) from error


def _is_array_initializer(config) -> bool:
    """Whether an initializer has values of its own, which fit no other shape."""
    if not isinstance(config, dict) or config.get("class_name") != "Constant":
        return False
    return not np.isscalar(config["config"]["value"])


def _fill(old, new, changes: Resized) -> None:
    """Gives a new, built layer its weights: those of the old one, or what came of them."""
    if changes.weights:
        for name, value in changes.weights.items():
            getattr(new, name).assign(value)
        return
    pairs = zip(layers_of(old), layers_of(new), strict=True)
    for source, target in pairs:
        store: dict[str, np.ndarray] = {}
        source.save_own_variables(store)
        if store:
            target.load_own_variables({k: np.array(v) for k, v in store.items()})
