"""How channels pass through a call: what a rule must answer, and which rule a layer has."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import keras
import numpy as np

from granet_tf.compaction.calls import Call
from granet_tf.compaction.channels import Channels, Ties
from keras_layers.keras_internals import layers_of


@dataclasses.dataclass(frozen=True)
class Resized:
    """What a layer becomes when channels are taken out.

    Attributes:
        config: What changes in the layer's config.
        weights: The new values, by the name of the attribute, as in "kernel" or "layer.kernel".
        inside: For a layer of layers, which has the same weights as before, in other sizes: the new
            values of those that change, by `id` of the old one.
        kind: The class of the smaller layer, if it is another one.
    """

    config: dict[str, Any]
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    inside: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    kind: type[keras.Layer] | None = None


@dataclasses.dataclass(frozen=True)
class Member:
    """A weight, and which channel each of its outputs leads to.

    Attributes:
        weight: The weight. Its outputs are those of its `keras_layers.layouts.Layout`, in one row;
            those of an offset or a scale are its entries, also where it has several axes.
        ids: The id of the channel of each of them.
    """

    weight: keras.Variable
    ids: np.ndarray


class Rule:
    """What one call does with channels. One object for each call; subclasses are the rules.

    `inputs` and `output` hold `Channels`, or None for a tensor whose channels all stay as they are.
    `inside` has ids of what can go without being a channel of a tensor, by what it is: the heads of
    attention, say.

    Attributes:
        resizes: Whether the layer has something to resize when channels go.
        makes_channels: Whether channels begin here: filters, units, columns.
        can_merge: Whether what one constant input adds can be had from another one instead, by
            changing the kernel.
    """

    resizes: ClassVar[bool] = False
    makes_channels: ClassVar[bool] = False
    can_merge: ClassVar[bool] = False

    def __init__(self, call: Call, *, shared: bool):
        self.call = call
        self.layer = call.operation
        self.shared = shared
        self.inputs: list[Channels | None] = []
        self.output: Channels | None = None
        self.inside: dict[str, np.ndarray] = {}
        # What the calls after this one ask for, once that is known.
        self.needed_inputs: list[np.ndarray] = []
        self.needed_output: np.ndarray | None = None

    @property
    def differs_in_training(self) -> bool:
        """Whether the layer may compute something else when it is called with training=True."""
        return "training" in inspect.signature(self.layer.call).parameters

    def obstacle(self, inputs: list[Channels | None]) -> str | None:
        """Why this rule does not hold here; None if it does."""
        return "it takes more than one tensor" if len(inputs) != 1 else None

    def forward(self, ties: Ties) -> Channels | None:
        """The channels of the output. May tie some together."""
        raise NotImplementedError

    def needs(self, needed: np.ndarray | None, merging: bool) -> list[np.ndarray]:
        """Which channels of each input must be there for those needed of the output.

        Args:
            needed: Of the output; None for all of it.
            merging: Whether a constant may also move into another constant channel.
        """
        raise NotImplementedError

    def reads_itself(self, needed: np.ndarray) -> np.ndarray:
        """Which channels of its own output the layer reads for those needed, a step later."""
        return np.zeros(len(needed), bool)

    def needs_inside(self, needed: np.ndarray | None) -> dict[str, np.ndarray]:
        """Which ids of `inside` must be there for the needed channels of the output."""
        return {}

    def also_keep(self, kept: np.ndarray) -> np.ndarray:
        """Ids to keep besides, given which ids are kept so far."""
        sides = [*self.inside.values(), *([] if self.output is None else [self.output.ids])]
        return np.concatenate([np.zeros(0, int), *(_first_if_none(ids, kept) for ids in sides)])

    def couple(self, ties: Ties) -> None:
        """Ties channels that this layer can only lose together."""

    def members(self) -> list[Member]:
        """The weights that lead to channels here: without all of them a channel is dead."""
        return []

    def offsets(self) -> list[Member]:
        """The vectors that would still give a dead channel a value: biases, means."""
        return []

    def scales(self) -> list[Member]:
        """The vectors that scale channels, as that of a batch normalisation."""
        return []

    def variances(self) -> list[Member]:
        """The moving variances by which channels are divided at inference."""
        return []

    def resized(self, plan: Any) -> Resized:
        """The layer without what `plan` removes."""
        raise NotImplementedError

    def why(self, known: bool) -> str:
        """Why a channel of an input must stay for this call, though its layer is dead there.

        Args:
            known: Whether the channel is still constant where it comes in.
        """
        if known:
            return f"'{self.layer.name}' makes its constant differ from position to position"
        return f"it is tied to channels that '{self.layer.name}' reads"


def _first_if_none(ids: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """No tensor may lose all of its channels, and no attention its heads."""
    return ids[: 0 if kept[ids].any() else 1]


class Opaque(Rule):
    """A call that can't be seen through: all of its input stays, and all of its output."""

    def __init__(self, call: Call, reason: str):
        super().__init__(call, shared=False)
        self.reason = reason

    def obstacle(self, inputs):
        return None

    def forward(self, ties):
        return None

    def needs(self, needed, merging):
        return [np.ones(0 if x is None else len(x.ids), bool) for x in self.inputs]

    def why(self, known):
        return f"'{self.layer.name}' reads it, which stays as it is: {self.reason}"


RULES: dict[type | str, Callable[..., Rule]] = {}
"""What makes the rule of a call, for each class of layers or of operations of `keras.ops`."""


def register(rule: Callable[..., Rule], classes: list[type | str]) -> None:
    """Makes `rule` that of these classes, and of their subclasses that override nothing.

    A class of a package that is not imported here goes by the name it is saved with:
    "keras_hub>TransformerEncoder".

    Example:

    >>> class Scale(keras.layers.Layer):
    ...     def call(self, inputs):
    ...         return 2 * inputs
    >>> from granet_tf.compaction.channelwise import Elementwise
    >>> register(Elementwise, [Scale])
    >>> RULES.pop(Scale).__name__
    'Elementwise'
    """
    RULES.update(dict.fromkeys(classes, rule))


def rule_of(call: Call, inputs: list[Channels | None], *, shared: bool) -> Rule:
    """The rule for one call, with the channels of its inputs.

    Args:
        call: The call.
        inputs: Channels of each input.
        shared: Whether the layer is called elsewhere, too.

    Example:

    >>> from granet_tf.compaction.calls import call_graph
    >>> model = keras.Sequential([keras.Input((2, 2)), keras.layers.Softmax(name="softmax")])
    >>> rule_of(call_graph(model).calls[0], [None], shared=False).why(known=False)
    "'softmax' reads it, which stays as it is: there is no rule for a Softmax"
    """
    operation = call.operation
    base = next((c for c in type(operation).__mro__ if _registered(c)), None)
    rule, reason = None, _strange(operation, base, call)
    if reason is None:
        rule = _registered(base)(call, shared=shared)
        forced = call.forced_training and rule.differs_in_training
        reason = "it is called with training=True" if forced else rule.obstacle(inputs)
    rule = rule if reason is None else Opaque(call, reason)
    rule.inputs = inputs
    return rule


def _registered(kind: type) -> Callable[..., Rule] | None:
    """The rule of this very class."""
    return RULES.get(kind) or RULES.get(keras.saving.get_registered_name(kind))


def _strange(operation, base, call) -> str | None:
    if call.closed is not None:
        return call.closed
    name = type(operation).__name__
    if base is None:
        return f"there is no rule for a {name}"
    lineage = type(operation).__mro__
    if any(_overrides(c, base) for c in lineage[: lineage.index(base)]):
        return f"{name} overrides something of {base.__name__}"
    parts = layers_of(operation) if isinstance(operation, keras.Layer) else []
    if any(getattr(part, "quantization_mode", None) for part in parts):
        return "it is quantized"
    if any(getattr(part, "lora_enabled", False) for part in parts):
        return "it has LoRA weights"
    return None


def _overrides(cls, base) -> bool:
    """Whether a subclass defines anything that its base has as well, apart from what names it."""
    names = {"__module__", "__doc__", "__qualname__", "__annotations__", "__firstlineno__"}
    names |= {"__static_attributes__", "__dict__", "__weakref__", "__parameters__"}
    return any(hasattr(base, name) for name in set(vars(cls)) - names)


def config_inside(layer: keras.Layer, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The config of a layer inside, which that of `layer` has at `name`, with these changes.

    Example:

    >>> wrapper = keras.layers.TimeDistributed(keras.layers.Dense(4))
    >>> config_inside(wrapper, "layer", {"units": 2})["config"]["units"]
    2
    """
    inside = layer.get_config()[name]
    # It would be built for the inputs that it had.
    inside = {key: value for key, value in inside.items() if key != "build_config"}
    return inside | {"config": inside["config"] | changes}


def channel_axis(layer: keras.Layer, rank: int) -> int:
    """The axis of channels in a tensor of `rank` axes, as the layer sees it.

    Example:

    >>> channel_axis(keras.layers.Conv2D(1, 1, data_format="channels_first"), 4)
    1
    """
    return 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1


def found(module: ModuleType, names: str) -> list[type]:
    """Those of these classes that the installed version of Keras has.

    Example:

    >>> [c.__name__ for c in found(keras.layers, "ReLU NotYetInvented")]
    ['ReLU']
    """
    return [getattr(module, name) for name in names.split() if hasattr(module, name)]


def of_ranks(names: str) -> list[type]:
    """The layers of these names for one, two and three dimensions.

    Example:

    >>> [c.__name__ for c in of_ranks("DepthwiseConv")]
    ['DepthwiseConv1D', 'DepthwiseConv2D']
    """
    ranked = [f"{name}{rank}D" for name in names.split() for rank in (1, 2, 3)]
    return found(keras.layers, " ".join(ranked))


def values_of(variable: keras.Variable) -> np.ndarray:
    """The values of a weight.

    Example:

    >>> values_of(keras.Variable([1.0, 2.0])).tolist()
    [1.0, 2.0]
    """
    return keras.ops.convert_to_numpy(variable)
