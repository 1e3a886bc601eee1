"""Patterns by name, and patterns that differ with the kind of layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from granet_tf.masks.patterns import NM, Block, Element, Filter, Pattern
from granet_tf.schedules import PACKAGE
from keras_layers.layouts import KINDS


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class ByKind(Pattern):
    """A pattern for each kind of layer.

    In scope "global", weights of the same pattern are ranked together, and each pattern has the
    sparsity: a block of four weights and a single weight are not compared.

    Args:
        patterns: {kind: pattern}; kinds are "dense", "einsum" (and with it attention),
            "convolution", "transposed_convolution", "depthwise", "recurrent", "embedding" and
            "other", what custom layers name in `get_prunable_weights()`.
        default: The pattern of all other kinds.

    Raises:
        ValueError: On a kind that is none.
        TypeError: On a pattern that is none.

    Example:

    >>> mixed = ByKind({"dense": Block((4, 1)), "convolution": NM(2, 4)})
    >>> mixed.chosen("convolution"), mixed.chosen("recurrent")
    (NM(n=2, m=4, axis=None), Element())
    """

    patterns: Mapping[str, Pattern]
    default: Pattern = dataclasses.field(default_factory=Element)

    def __post_init__(self):
        for kind in self.patterns:
            if kind not in KINDS:
                raise ValueError(
                    f"`patterns` must be of kinds of layers, {', '.join(KINDS)}. "
                    f"Received: patterns={dict(self.patterns)}, with the kind {kind!r}"
                )
        for pattern in (*self.patterns.values(), self.default):
            if not isinstance(pattern, Pattern) or isinstance(pattern, ByKind):
                raise TypeError(
                    "`patterns` and `default` must be patterns such as Block((4, 1)). "
                    f"Received: {pattern!r}"
                )

    def chosen(self, kind):
        return self.patterns.get(kind, self.default)

    @property
    def needs_gradient(self):
        return any(p.needs_gradient for p in (*self.patterns.values(), self.default))

    def get_config(self):
        save = keras.saving.serialize_keras_object
        patterns = {kind: save(pattern) for kind, pattern in self.patterns.items()}
        return {"patterns": patterns, "default": save(self.default)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ByKind:
        load = keras.saving.deserialize_keras_object
        patterns = {kind: load(pattern) for kind, pattern in config["patterns"].items()}
        return cls(patterns, load(config["default"]))


def _in_dense_layers(pattern):
    """What LiteRT runs as a fully connected layer; EinsumDense, and so attention, is that too."""
    return ByKind({"dense": pattern, "einsum": pattern})


def _in_kernels(pattern):
    """What MNN runs as a convolution: dense layers, too."""
    return ByKind({"dense": pattern, "einsum": pattern, "convolution": pattern})


# LiteRT expands the zeros of convolutions when it loads a model, so these stay single weights.
PATTERNS: dict[str, Pattern] = {
    "element": Element(),
    "filter": Filter(),
    "2:4": NM(2, 4),
    "litert": _in_dense_layers(Block((4, 1))),
    "litert_int8": _in_dense_layers(Block((16, 1))),
    "mnn": _in_kernels(Block((1, 4))),
    "coupled_filter": Filter(coupled=True),
}


def as_pattern(pattern: str | Pattern) -> Pattern:
    """`pattern` itself, or the one of that name in `PATTERNS`.

    Raises:
        ValueError: On a name that is none.
        TypeError: If `pattern` is neither a pattern nor a name.

    Example:

    >>> as_pattern("litert").chosen("dense")
    Block(size=(4, 1), pooling='sum', axes=None)
    """
    if isinstance(pattern, Pattern):
        return pattern
    if not isinstance(pattern, str):
        raise TypeError(
            "`pattern` must be a pattern such as granet_tf.Block((4, 1)), or the name of one: "
            f"{', '.join(PATTERNS)}. Received: pattern={pattern!r}"
        )
    if pattern not in PATTERNS:
        raise ValueError(
            f"`pattern` must be one of {', '.join(PATTERNS)}, or a pattern such as "
            f"granet_tf.Block((4, 1)). Received: pattern={pattern!r}"
        )
    return PATTERNS[pattern]
