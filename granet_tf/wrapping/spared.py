"""Weights that lead to the outputs of a model: spared where whole units are pruned.

A class without weights is never predicted, and there is one unit for each. Whoever names such a
weight, in `prunable` or in the method's `pinned`, has it pruned all the same.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Iterable, Mapping, Sequence

import keras

from granet_tf.masks.patterns import Pattern
from granet_tf.masks.scopes import match
from granet_tf.methods import Method
from keras_layers.known_layers import layout_of
from keras_layers.outputs import output_layers
from keras_layers.prunable import Weight, own_weights

# Why a weight that leads to outputs is not pruned, as `granet_tf.summarize` says it.
REASON = "output of the model"


def spare_outputs(
    model: keras.Layer, weights: Sequence[Weight], method: Method
) -> tuple[list[Weight], Method]:
    """The verdicts with those weights spared that lead to outputs, and a method that suits them.

    Positions in `pinned` and `capped` count what is spared, as they do with any other pattern: they
    become paths.

    Args:
        model: The model.
        weights: Verdicts on its weights, none of which the user has asked for.
        method: The method. What its `pinned` names is not spared.

    Example:

    >>> from granet_tf.methods import GMP
    >>> from keras_layers.prunable import weights_of
    >>> layers = [keras.layers.Dense(n, name=name) for n, name in ((8, "hidden"), (3, "classes"))]
    >>> model = keras.Sequential([keras.Input((4,)), *layers], name="net")
    >>> method = GMP(0.5, pattern="filter", pinned={0: 0.25}, capped={-1: 0.8})
    >>> weights, method = spare_outputs(model, weights_of(model), method)
    >>> [(w.path, w.reason) for w in weights if "kernel" in w.path]
    [('net/hidden/kernel', 'pruned'), ('net/classes/kernel', 'output of the model')]
    >>> method.pinned, method.capped
    ({'net/hidden/kernel': 0.25}, {})
    """
    candidates = {w.path: w for w in weights if w.prunable}
    asked_for = match(method.pinned, candidates, "pinned")
    removed = outputs_removed(model, candidates.values(), method.pattern)
    spared = {w.path for w in removed if w.path not in asked_for}
    if not spared:
        return list(weights), method
    left = {
        name: _by_path(match(getattr(method, name), candidates, name), spared)
        for name in ("pinned", "capped")
    }
    verdicts = [
        dataclasses.replace(w, prunable=False, reason=REASON) if w.path in spared else w
        for w in weights
    ]
    return verdicts, dataclasses.replace(method, **left)


def outputs_removed(
    model: keras.Layer, weights: Iterable[Weight], pattern: Pattern
) -> list[Weight]:
    """Those of the `weights` by which `pattern` would remove outputs of the model.

    Example:

    >>> from granet_tf.masks.patterns import Element, Filter
    >>> from keras_layers.prunable import weights_of
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="classes")])
    >>> weights = [weight for weight in weights_of(model) if weight.prunable]
    >>> [len(outputs_removed(model, weights, each)) for each in (Filter(), Element())]
    [1, 0]
    """
    whole = [weight for weight in weights if _removes(pattern, weight)]
    # Looking for the outputs takes longer, and most patterns have no need to know.
    layers = output_layers(model) if whole else []
    outputs = {id(variable) for layer in layers for variable in own_weights(layer)}
    return [weight for weight in whole if id(weight.variable) in outputs]


def _removes(pattern, weight):
    layout = layout_of(weight.layer, weight.variable)
    return pattern.chosen(layout.kind).removes_outputs(layout, tuple(weight.variable.shape))


def _by_path(values: Mapping[str, float], spared) -> dict[str, float]:
    return {glob.escape(path): value for path, value in values.items() if path not in spared}
