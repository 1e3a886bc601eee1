"""The smaller model: the same layers, each from its own config, with what stays of its weights."""

from __future__ import annotations

import dataclasses
import functools
import operator

import keras
import numpy as np

from granet_tf.compaction.analysis import Plan
from granet_tf.compaction.calls import is_graph
from granet_tf.compaction.rules import Resized, values_of
from granet_tf.compaction.values import Substituted
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
    result, made = _made(model, plan)
    for rule, new, changes in made:
        _fill(rule.layer, new, changes)
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class Move:
    """Where the values of a variable are to be found in the model that it was made smaller from.

    Attributes:
        old: The variable there.
        new: The variable here.
        entries: Of each entry here, its place in the flat variable there; None for all of them, as
            they are.
    """

    old: keras.Variable
    new: keras.Variable
    entries: np.ndarray | None

    def of(self, values: np.ndarray) -> np.ndarray:
        """What is left of `values`, an array that has an entry for each of the old variable."""
        return values if self.entries is None else values.ravel()[self.entries]

    def values(self) -> np.ndarray:
        """The values of the new variable: those that are left of the old one."""
        return self.of(values_of(self.old))


def moved(model: keras.Model, plan: Plan) -> tuple[keras.Model, list[Move]]:
    """As `resized`, but with the values that the initializers give; and where to find the others.

    What goes must leave nothing that another channel or a bias would have to make up for.

    Example:

    >>> from granet_tf.compaction.analysis import planned
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    >>> _ = model.layers[0].kernel.assign([[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    >>> small, moves = moved(model, planned(model))
    >>> [move.entries.tolist() for move in moves]
    [[[0, 2], [3, 5]], [0, 2], [[0], [2]], [0]]
    """
    result, made = _made(model, plan)
    return result, [move for each in made for move in _moves(plan, *each)]


def _moves(plan, rule, new, changes: Resized) -> list[Move]:
    """Finds the places by having the rule cut arrays of places."""
    old = rule.layer
    places = {}
    if changes.weights or changes.inside:
        with Substituted(lambda variable: _places(variable.shape)):
            cut = rule.resized(plan)
        named = {id(operator.attrgetter(name)(old)): each for name, each in cut.weights.items()}
        places = {key: each.astype(np.int64) for key, each in {**named, **cut.inside}.items()}
    pairs = zip(old.variables, new.variables, strict=True)
    return [Move(before, after, places.get(id(before))) for before, after in pairs]


def _places(shape):
    return keras.ops.convert_to_tensor(np.arange(np.prod(shape), dtype="float64").reshape(shape))


def _made(model, plan: Plan) -> tuple[keras.Model, list[tuple]]:
    """The smaller model, and of each layer its rule, what it has become, and by which changes."""
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
        fixed = fixed and not rule.inside
        changes = rule.resized(plan) if rule.resizes and not fixed else Resized({})
        new = _anew(layer, changes.config, changes.kind)
        made.append((rule, new, changes))
        return new

    def change_input(layer):
        [shape] = {_entering(layer, plan.channels.get(n), plan) for n in plan.entries[layer]}
        return _anew(layer, {"batch_shape": shape})

    return rebuilt(model, change, change_input=change_input), made


def _entering(layer, channels, plan: Plan) -> tuple:
    """The shape that enters a model inside, from now on."""
    shape = list(layer.batch_shape)
    if channels is not None:
        shape[channels.axis] = int(np.count_nonzero(plan.kept(channels)))
    return tuple(shape)


def _anew(layer, changes: dict, kind: type | None = None):
    try:
        config = layer.get_config() | changes
        if changes:
            config |= {k: "zeros" for k, v in config.items() if _is_array_initializer(v)}
        return (kind or type(layer)).from_config(config)
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
            operator.attrgetter(name)(new).assign(value)
        return
    if changes.inside:
        for source, target in zip(old.weights, new.weights, strict=True):
            target.assign(changes.inside.get(id(source), source))
        return
    pairs = zip(layers_of(old), layers_of(new), strict=True)
    for source, target in pairs:
        store: dict[str, np.ndarray] = {}
        source.save_own_variables(store)
        if store:
            target.load_own_variables({k: np.array(v) for k, v in store.items()})
