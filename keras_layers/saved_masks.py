"""Which weights carry masks, as files have it.

Decided once: a weight that is frozen or quantized since, or has adapters, keeps its mask. A weight
goes by its layer's place in the model and its own name: paths may differ in a copy, and so may the
order of a layer's weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import keras

from keras_layers.keras_internals import without_variable
from keras_layers.masking import PrunedWeight
from keras_layers.prunable import Weight, own_weights, unique, walk
from keras_layers.settling import MODES, is_settled, settled


def places(layer: keras.Layer) -> dict[str, keras.Variable]:
    """{place: weight} of a layer or model, and of all layers in it that have no masks of their own.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> list(places(model))
    ['2/kernel', '2/bias']
    """
    taken: set[str] = set()
    return {
        unique(f"{i}/{variable.name}", taken): variable
        for i, each in enumerate(walk(layer))
        for variable in own_weights(each)
    }


def place_of(layer: keras.Layer) -> dict[int, str]:
    """{id of a weight: its place}, of all in `places`."""
    return {id(variable): place for place, variable in places(layer).items()}


def masks_config(layer: keras.Layer, pruned: Sequence[PrunedWeight]) -> dict[str, dict[str, bool]]:
    """{place in `layer`: what is to be known of the mask} of masked weights.

    That is whether it is "settled", and whether the weight was "frozen" when it got its mask.

    Example:

    >>> import granet_tf
    >>> wrapper = granet_tf.PruneLowMagnitude(keras.layers.Dense(2))
    >>> wrapper.build((None, 3))
    >>> masks_config(wrapper.layer, wrapper.pruned)
    {'0/kernel': {'settled': False, 'frozen': False}}
    """
    place = place_of(layer)
    return {
        place[id(p.variable)]: {"settled": is_settled(p), "frozen": p.was_frozen} for p in pruned
    }


def with_masks(
    layer: keras.Layer, weights: Sequence[Weight], config: Mapping[str, Mapping[str, bool]]
) -> list[Weight]:
    """`weights` of `layer`, those prunable that `config` has, from `masks_config`."""
    where = place_of(layer)
    return [
        dataclasses.replace(w, prunable=True, reason="pruned", frozen=config[place]["frozen"])
        if place in config
        else dataclasses.replace(w, prunable=False)
        for w in weights
        for place in (where[id(w.variable)],)
    ]


def settled_again(
    layer: keras.Layer,
    pruned: Sequence[PrunedWeight],
    config: Mapping[str, Mapping[str, bool]],
) -> tuple[PrunedWeight, ...]:
    """`pruned`, settled where `config` says so."""
    place = place_of(layer)
    return tuple(
        settled(p, p.variable) if config[place[id(p.variable)]]["settled"] else p for p in pruned
    )


def without_masks(
    owner: keras.Layer, pruned: Sequence[PrunedWeight], present: Collection[keras.Variable]
) -> tuple[PrunedWeight, ...]:
    """Those of `pruned` that are about a weight that is `present`; `owner` loses the others' masks.

    A layer that was taken out of a model takes its weights with it.
    """
    ids = {id(v) for v in present}
    gone = [p for p in pruned if id(p.variable) not in ids]
    states = {id(v) for p in gone for v in (p.mask, *p.state.values(), p.explored) if v is not None}
    for name, value in list(vars(owner).items()):
        if id(value) in states:
            without_variable(owner, name)
    return tuple(p for p in pruned if id(p.variable) in ids)


def quantizations(layer: keras.Layer) -> dict[str, str]:
    """{place of a layer: its mode of quantization}, as a user's class may not keep them in files.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> model.layers[0].quantize("int8")
    >>> quantizations(model)
    {'2': 'int8'}
    """
    modes = {str(i): each.quantization_mode for i, each in enumerate(walk(layer))}
    return {place: mode for place, mode in modes.items() if mode in MODES}


def quantize_again(layer: keras.Layer, modes: Mapping[str, str]) -> None:
    """Quantizes what `quantizations` has found and a copy of the layer has not."""
    for i, each in enumerate(list(walk(layer))):
        if each.built and each.quantization_mode is None and str(i) in modes:
            each.quantize(modes[str(i)])
