"""Which weights of a Keras layer may be pruned, and why the others may not."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from keras_layers.carrier import carries_masks
from keras_layers.keras_internals import children_of, is_default
from keras_layers.known_layers import known

Rule = Callable[[keras.Layer, keras.Variable], bool]


@dataclasses.dataclass(frozen=True)
class Weight:
    """One weight of a model: where it is, and whether and why it is to be pruned.

    Attributes:
        path: Its path, made unique.
        layer: The layer that it is a weight of.
        variable: The weight.
        prunable: Whether it carries a mask, or is to.
        reason: "pruned", or why not.
        settled: Whether the mask has been put into it for good; see `keras_layers.settling`.
        frozen: Whether it was not trainable when that was decided.
    """

    path: str
    layer: keras.Layer
    variable: keras.Variable
    prunable: bool
    reason: str
    settled: bool = False
    frozen: bool = False

    @property
    def decision(self) -> dict[str, Any]:
        """What of it is not to be decided anew; see `as_decided`."""
        names = ("path", "prunable", "reason", "settled", "frozen")
        return {name: getattr(self, name) for name in names}

    @property
    def is_never_pruned(self) -> bool:
        """Whether it is a weight of Keras's own layers that are left out on purpose."""
        return is_left_out(self.layer, self.variable)


def is_left_out(layer: keras.Layer, weight: keras.Variable) -> bool:
    """Whether Keras's own `layer` has this weight, and it is left out on purpose.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> is_left_out(layer, layer.kernel), is_left_out(layer, layer.bias)
    (False, True)
    """
    return is_of_keras(layer) and not _in_table(layer, weight)


@dataclasses.dataclass(frozen=True)
class KnownWeights:
    """`get_prunable_weights()` of a layer that has none itself, as Keras's do not.

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> [weight.name for weight in KnownWeights(layer)()]
    ['kernel']
    """

    layer: keras.Layer

    def __call__(self) -> list[keras.Variable]:
        """What of the layer is pruned by default, also if it is frozen."""
        return [
            variable
            for layer in walk(self.layer)
            for variable in own_weights(layer)
            if _named_prunable(layer, variable)
        ]


def names_weights(layer: keras.Layer) -> bool:
    """Whether whoever wrote `layer` says which of its weights may be pruned.

    Example:

    >>> names_weights(keras.layers.Dense(2))  # It is in our table instead.
    False
    """
    own = getattr(layer, "get_prunable_weights", None)
    return own is not None and not isinstance(own, KnownWeights)


def may_be_pruned(layer: keras.Layer) -> bool:
    """Whether `layer`, without its sublayers, has or will have weights that are pruned by default.

    Example:

    >>> may_be_pruned(keras.layers.Dense(2)), may_be_pruned(keras.layers.ReLU())
    (True, False)
    """
    row = known(layer)
    return names_weights(layer) or bool(row.prunable) or row.makes_pruned_layers


def silent_layers(layer: keras.Layer, *, of_built: bool = False) -> list[keras.Layer]:
    """The layers of users' own in `layer`, itself included, that do not say what of them to prune.

    One that is made of layers which are pruned has said enough. One that is not built, and will
    make its weights in `build`, counts, unless it is in something that is built: nothing calls it.

    Args:
        layer: A layer, built or not.
        of_built: Whether it belongs to a model that is built.

    Example:

    >>> class Own(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight((input_shape[-1], 3))
    >>> own = Own()
    >>> silent_layers(keras.layers.TimeDistributed(own)) == [own]
    True
    """
    of_built = of_built or layer.built
    return [
        inner
        for inner in walk(layer)
        if not (is_of_keras(inner) or names_weights(inner))
        and inner.trainable
        and (own_weights(inner) if of_built else may_have_weights(inner))
        and not any(map(may_be_pruned, walk(inner)))
    ]


def may_have_weights(layer: keras.Layer) -> bool:
    """Whether `layer`, without its sublayers, has weights or may make some when it is built.

    Example:

    >>> may_have_weights(keras.layers.Dense(2)), may_have_weights(keras.layers.ReLU())
    (True, False)
    """
    makes_none = is_default(layer.build) or type(layer).build is keras.layers.Wrapper.build
    return bool(own_weights(layer)) or not (layer.built or makes_none)


def is_of_keras(layer: keras.Layer) -> bool:
    """Whether Keras has the class of `layer`, not the user.

    Example:

    >>> is_of_keras(keras.layers.ReLU())
    True
    """
    return type(layer).__module__.startswith("keras.")


@keras.saving.register_keras_serializable("granet_tf")
def default_prunable(layer: keras.Layer, weight: keras.Variable) -> bool:
    """Whether `weight` of `layer` is pruned where the user says nothing else.

    True for the kernels of dense, convolutional, recurrent, attention and embedding layers, and for
    what a custom layer names in `get_prunable_weights()`. False for anything frozen.

    Args:
        layer: The layer that owns the weight.
        weight: One of its own weights (not of a sublayer).

    Example:

    >>> layer = keras.layers.Dense(2)
    >>> layer.build((None, 3))
    >>> default_prunable(layer, layer.kernel), default_prunable(layer, layer.bias)
    (True, False)
    """
    return _default_reason(layer, weight) is None


def weights_of(model: keras.Layer, prunable: Rule | Sequence[str] | None = None) -> list[Weight]:
    """All floating-point weights of `model`, each once, with the verdict on it.

    And kernels that Keras has quantized, which are not pruned any more.

    Args:
        model: A built layer or model. Layers inside that carry masks of their own are left out.
        prunable: None for `default_prunable`, a callable `(layer, weight) -> bool`, or a list of
            patterns such as `"encoder/*/kernel"`, matched against the weight's path; a pattern
            also selects what the default leaves out.

    Raises:
        ValueError: If a pattern matches no weight.
        TypeError: If `prunable` is none of these.
    """
    verdict = _verdict(prunable)
    found, seen, taken = [], set(), set()
    for layer in walk(model):
        for variable in own_weights(layer):
            is_float = keras.backend.is_float_dtype(variable.dtype)
            if id(variable) in seen or not (is_float or _in_table(layer, variable)):
                continue
            seen.add(id(variable))
            path = unique(variable.path, taken)
            reason = verdict(layer, variable, path) if is_float else "quantized"
            frozen = not variable.trainable
            found.append(
                Weight(path, layer, variable, reason is None, reason or "pruned", frozen=frozen)
            )
    if isinstance(prunable, Sequence):
        _check_patterns(prunable, [weight.path for weight in found])
    return found


def as_decided(weight: Weight, decision: Mapping[str, Any] | None) -> Weight:
    """`weight` with an earlier `decision` in the place of its own; None: it has come later.

    Example:

    >>> layer = keras.layers.Dense(2, name="dense")
    >>> layer.build((None, 3))
    >>> kernel, bias = weights_of(layer)
    >>> as_decided(kernel, {"prunable": False, "reason": "frozen"}).reason
    'frozen'
    >>> as_decided(kernel, None).reason, as_decided(bias, None).reason
    ('added later', 'bias or scale')
    """
    if decision is None:
        reason = "added later" if weight.prunable else weight.reason
        decision = {"prunable": False, "reason": reason}
    return dataclasses.replace(weight, **decision)


def unique(path: str, taken: set[str]) -> str:
    """`path`, or `path#2` and so on: two submodels may have layers of the same name."""
    names = itertools.chain([path], (f"{path}#{n}" for n in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def walk(layer: keras.Layer, seen: set[int] | None = None) -> Iterator[keras.Layer]:
    """`layer` and its sublayers in order of creation, each once, not into layers with own masks."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer
    for child in children_of(layer):
        if not carries_masks(child):
            yield from walk(child, seen)


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """The weights of `layer` itself, without those of its sublayers."""
    inner = {id(v) for child in children_of(layer) for v in child.variables}
    return [v for v in layer.weights if id(v) not in inner]


def _verdict(prunable):
    """A function (layer, variable, path) -> why it is not pruned, or None."""
    if prunable is None or prunable is default_prunable:
        return lambda layer, variable, path: _default_reason(layer, variable)
    if callable(prunable):
        return lambda layer, variable, path: (
            None if prunable(layer, variable) else "not chosen by `prunable`"
        )
    is_list = isinstance(prunable, Sequence) and not isinstance(prunable, str)
    if not is_list or not all(isinstance(p, str) for p in prunable):
        raise TypeError(
            "`prunable` must be None, a callable (layer, weight) -> bool or a list of path "
            f"patterns. Received: prunable={prunable!r}"
        )
    return lambda layer, variable, path: (
        None if any(fnmatchcase(path, p) for p in prunable) else "no pattern of `prunable` fits"
    )


def _check_patterns(patterns, paths):
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise ValueError(
                f"Each pattern of `prunable` must match a weight's path, such as {paths[:3]}. "
                f"Received: prunable={list(patterns)}, of which {pattern!r} matches nothing"
            )


def _default_reason(layer, weight) -> str | None:
    if not weight.trainable or not layer.trainable:
        return "frozen" if _named_prunable(layer, weight) else "not trainable"
    return None if _named_prunable(layer, weight) else _why_not(layer, weight)


def _named_prunable(layer, weight) -> bool:
    if names_weights(layer):
        return any(weight is w for w in layer.get_prunable_weights())
    return _in_table(layer, weight)


def _in_table(layer, weight) -> bool:
    return weight.name in known(layer).prunable


def _why_not(layer, weight) -> str:
    if len(weight.shape) < 2 or weight.name == "bias":
        return "bias or scale"
    if "depthwise" in weight.name:
        return "depthwise kernel"
    if weight.name.startswith("lora_"):
        return "adapter"
    return known(layer).why_not or f"{type(layer).__name__} names no get_prunable_weights()"
