"""Attention with several heads: whole heads can go, and what only they read.

A head adds to the output what it takes from the values. So it is dead if its values are constant,
by zero weights, or if no nonzero weight leads on from it. With grouped queries, a head is one of
keys and values, and the queries that share it go with it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from granet_tf.compaction.calls import Call
from granet_tf.compaction.channels import Channels, unknown
from granet_tf.compaction.channelwise import members_of
from granet_tf.compaction.rules import Member, Resized, Rule, found, register, values_of
from keras_layers.keras_internals import layers_of

HEADS = "heads"

# What is projected, and with which of the layers inside.
_ROLES = {"query": ("query", "gate"), "key": ("key",), "value": ("value",)}
_MASKS = ("query_mask", "key_mask", "value_mask", "attention_mask")
_HARMLESS = ("training", "use_causal_mask")


MASKS_HEADS = "its mask has an axis for heads"


def arguments_of(call: Call) -> dict[str, Any]:
    """The arguments of a call, by name.

    Example:

    >>> from granet_tf.compaction.calls import call_graph
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    >>> list(arguments_of(call_graph(model).calls[0]))
    ['inputs']
    """
    given = call.node.arguments
    return inspect.signature(call.operation.call).bind(*given.args, **given.kwargs).arguments


def masks_heads(arguments: Mapping[str, Any]) -> bool:
    """Whether a layer with heads is called with a mask for each of them.

    Example:

    >>> masks_heads({"attention_mask": np.ones((1, 2, 5, 5))}), masks_heads({})
    (True, False)
    """
    mask = arguments.get("attention_mask")
    return mask is not None and len(mask.shape) > 3 and mask.shape[1] != 1


class Attention(Rule):
    """Heads are ids inside; the last axes of inputs and output have channels."""

    resizes = makes_channels = True
    # Names in the config: how many heads there are, and how many of them keys and values have.
    counts = ("num_heads", "num_heads")

    def obstacle(self, inputs):
        given = self._given
        for name in given.keys() - {*_ROLES, *_MASKS, *_HARMLESS}:
            if given[name] is not None and given[name] is not False:
                return f"it is called with `{name}`"
        if masks_heads(given):
            return MASKS_HEADS
        if self.has_single_numbers:
            return "its heads are of size 1, with biases that Keras may take for those of positions"
        roles = {id(self._tensor(role)) for role in _ROLES}
        for tensor, x in zip(self.call.tensors, inputs, strict=True):
            if x is not None and (id(tensor) not in roles or x.axis != len(tensor.shape) - 1):
                return "its channels are on another axis"
        return None

    @property
    def has_single_numbers(self) -> bool:
        """Whether heads are of size 1 and have biases, which Keras adds along the first axis of
        positions, if that is as long."""
        biases = [part.bias for part, _, _ in self._projections() if part.bias is not None]
        return any(bias.shape[-1] == 1 for bias in biases)

    @functools.cached_property
    def _given(self) -> dict:
        return arguments_of(self.call)

    def _of(self, role: str) -> Channels | None:
        """The channels of what is projected as this."""
        pairs = zip(self.call.tensors, self.inputs, strict=True)
        return next((x for each, x in pairs if each is self._tensor(role)), None)

    def _tensor(self, role: str):
        """Keys are the values if there are no others."""
        tensor = self._given.get(role)
        return self._given["value"] if tensor is None else tensor

    @functools.cached_property
    def _parts(self) -> dict[str, keras.Layer]:
        """The layers inside that have weights, by their names."""
        return {part.name: part for part in layers_of(self.layer, include_self=False)}

    def _kernel(self, part: str) -> np.ndarray:
        """(inputs, heads of it, size of a head); that of the output (heads, size, outputs)."""
        return values_of(self._parts[part].kernel).astype("float64")

    def _bias(self, part: str) -> np.ndarray:
        bias = self._parts[part].bias
        return np.zeros(()) if bias is None else values_of(bias).astype("float64")

    @property
    def _repeats(self) -> int:
        """How many heads of queries share one of keys and values."""
        return self._kernel("query").shape[1] // self._kernel("key").shape[1]

    @property
    def _makes_channels(self) -> bool:
        """Whether the output has one axis of channels, which may be of any number."""
        return self._kernel("attention_output").ndim == 3

    @property
    def _steady(self) -> bool:
        """Whether constant values are constant in the output, whatever the queries.

        Not if a gate scales them, or if a mask may leave nothing to attend to.
        """
        masked = any(self._given.get(name) is not None for name in _MASKS)
        windowed = self.layer.get_config().get("sliding_window") is not None
        return not (masked or windowed or self.call.on_masked_tensors or "gate" in self._parts)

    def _leads(self) -> np.ndarray:
        """(heads, size of a head, outputs): whether a weight leads on from it."""
        return self._onward().any(1)

    def _onward(self) -> np.ndarray:
        """The kernel of the output as (heads, queries that share one, size of a head, outputs)."""
        kernel = self._kernel("attention_output")
        outputs = int(np.prod(kernel.shape[2:]))
        return kernel.reshape(-1, self._repeats, kernel.shape[1], outputs)

    def _carries(self) -> np.ndarray:
        """(heads, size of a head): whether it has a value that is not constant."""
        kernel = self._kernel("value")[self._live("value")]
        return kernel.any(0) if self._steady else kernel.any(0) | (self._bias("value") != 0)

    def _live(self, role: str):
        """What to index the inputs of a kernel with: those that are not always 0."""
        x = self._of(role)
        return slice(None) if x is None else ~(x.known & (x.value == 0))

    def _from_biases(self) -> np.ndarray:
        """(heads, size of a head, outputs): what the biases of values add, if nothing else does."""
        if not self._steady:
            return np.zeros(self._leads().shape)
        kernel = self._onward().sum(1)
        return np.broadcast_to(self._bias("value"), kernel.shape[:2])[:, :, None] * kernel

    def forward(self, ties):
        self.inside = {HEADS: ties.fresh(self._kernel("value").shape[1])}
        self._constant = self._from_biases()
        if not self._makes_channels:
            return None
        leads, carries = self._leads(), self._carries()
        known = ~(leads & carries[:, :, None]).any((0, 1))
        value = (self._constant * ~carries[:, :, None]).sum((0, 1))
        value = value + self._bias("attention_output")
        y = unknown(ties.fresh(len(known)), len(self.call.output_shape) - 1)
        return y.with_constants(known, value)

    def _alive(self, needed: np.ndarray | None) -> np.ndarray:
        """(heads, size of a head): what reaches the needed outputs, and is not constant."""
        leads = self._leads()
        leads = leads if needed is None else leads[..., needed]
        return self._carries() & leads.any(-1)

    def needs_inside(self, needed):
        return {HEADS: self._alive(needed).any(1)}

    def needs(self, needed, merging):
        alive = self._alive(needed)
        heads = alive.any(1)
        read = {
            "query": self._reads("query", np.repeat(heads, self._repeats)),
            "key": self._kernel("key")[:, heads].any((1, 2)),
            "value": self._kernel("value")[:, alive].any(1),
        }
        result = []
        for tensor, x in zip(self.call.tensors, self.inputs, strict=True):
            need = np.zeros(0 if x is None else len(x.ids), bool)
            for role in _ROLES if x is not None else ():
                if self._tensor(role) is tensor:
                    need |= read[role] & ~(x.known & (x.value == 0))
            result.append(need)
        return result

    def _reads(self, role: str, heads: np.ndarray) -> np.ndarray:
        kernels = [self._kernel(part) for part in _ROLES[role] if part in self._parts]
        return np.any([kernel[:, heads].any((1, 2)) for kernel in kernels], axis=0)

    def _projections(self):
        """Each projection into heads: its layer, its role, and how many of its heads go as one."""
        for role, parts in _ROLES.items():
            for part in (x for x in parts if x in self._parts):
                yield self._parts[part], role, self._repeats if role == "query" else 1

    def members(self):
        heads = self.inside[HEADS]
        return [
            Member(part.kernel, np.repeat(heads, times * part.kernel.shape[-1]))
            for part, _, times in self._projections()
        ] + members_of(self.output, self._parts["attention_output"].kernel)

    def offsets(self):
        heads = self.inside[HEADS]
        return [
            Member(part.bias, np.repeat(heads, times * part.bias.shape[-1]))
            for part, _, times in self._projections()
            if part.bias is not None
        ] + members_of(self.output, self._parts["attention_output"].bias)

    def resized(self, plan):
        stays, repeats = plan.stays[self.inside[HEADS]], self._repeats
        kept_out, inside = plan.kept(self.output), {}
        for part, role, times in self._projections():
            kept = np.repeat(stays, times)
            inside[id(part.kernel)] = values_of(part.kernel)[plan.kept(self._of(role))][:, kept]
            if part.bias is not None:
                inside[id(part.bias)] = values_of(part.bias)[kept]
        part = self._parts["attention_output"]
        kernel = values_of(part.kernel)[np.repeat(stays, repeats)][..., kept_out]
        inside[id(part.kernel)] = kernel
        if part.bias is not None:
            moved = self._constant[~stays].sum((0, 1)).reshape(part.bias.shape)
            inside[id(part.bias)] = (self._bias("attention_output") + moved)[kept_out]
        return Resized(self._config(int(stays.sum()), kernel.shape[2:]), inside=inside)

    def _config(self, heads: int, outputs: tuple[int, ...]) -> dict:
        of_queries, of_keys = self.counts
        sizes = {of_queries: heads * self._repeats, of_keys: heads}
        return sizes | self._output_config(outputs)

    def _output_config(self, outputs: tuple[int, ...]) -> dict:
        return {"output_shape": outputs}


class GroupedQueryAttention(Attention):
    """Its output has as many channels as the query and the value, so that all keep them."""

    counts = ("num_query_heads", "num_key_value_heads")
    _makes_channels = False

    def forward(self, ties):
        for x in self.inputs:
            if x is not None:
                ties.pin(x.ids)
        return super().forward(ties)

    def _output_config(self, outputs):
        return {}


register(Attention, [layers.MultiHeadAttention, "keras_hub>CachedMultiHeadAttention"])
register(GroupedQueryAttention, found(layers, "GroupQueryAttention"))
