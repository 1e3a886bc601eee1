"""A Keras 3 model of a `Snapshot`: layers converted one by one, the graph called anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from granet_tf.compat_tfmot.layer_configs import WEIGHTS, NoCounterpart, converted
from granet_tf.compat_tfmot.tf_keras_side import Snapshot
from granet_tf.schedules import TFMOT_SCHEDULES, PruningSchedule, Shifted
from granet_tf.sparsity.keras.prune import PrunedFunctional, PrunedSequential
from keras_layers.keras_internals import layers_of
from keras_layers.prune_low_magnitude import PruneLowMagnitude


def rebuilt(snapshot: Snapshot) -> keras.Model:
    """The model, with its weights and masks.

    Raises:
        ValueError: If something can't be converted; all such layers are named.

    Example:

    >>> import tf_keras
    >>> from granet_tf.compat_tfmot.tf_keras_side import read
    >>> theirs = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])
    >>> rebuilt(read(theirs)).output_shape
    (None, 2)
    """
    layers = _converted_layers(snapshot)
    builder = _Builder(snapshot, layers)
    model = builder.layer(snapshot.root)
    for position, record in enumerate(snapshot.layers):
        if "weights" in record:
            builder.fill(position)
    for position, record in enumerate(snapshot.layers):
        if record.get("masks"):
            builder.fill_masks(position)
    return model


def _converted_layers(snapshot) -> dict[int, keras.Layer]:
    """Keras 3 layers for all records that have weights of their own, by position."""
    layers, refused = {}, []
    for position, record in enumerate(snapshot.layers):
        try:
            if not record["standard"]:
                raise NoCounterpart("it is a class of your own")
            if "schedule" in record:
                _schedule(record)
            if not all(given["plain"] for given in record.get("given", [])):
                raise NoCounterpart("it has a sparse or ragged input")
            if "weights" in record:
                layers[position] = converted(record["class"], record["config"])
        except NoCounterpart as error:
            refused.append(f"{record['name']!r} ({record['class']}): {error}")
    if refused:
        raise ValueError(
            "`model` must be a sequential or functional model of standard layers. "
            f"Received: a model with layers that can't be converted: {'; '.join(refused)}"
        )
    return layers


@dataclasses.dataclass
class _Builder:
    snapshot: Snapshot
    layers: dict[int, keras.Layer]

    def layer(self, position: int) -> keras.Layer:
        """The Keras 3 layer for a record; always the same one."""
        if position not in self.layers:
            record = self.snapshot.layers[position]
            self.layers[position] = _MAKERS[record["class"]](self, record)
        return self.layers[position]

    def decode(self, value: dict[str, Any], tensors: dict[int, Any]) -> Any:
        """An argument of a call."""
        [(kind, content)] = value.items()
        return _DECODERS[kind](self, content, tensors)

    def fill(self, position: int) -> None:
        record, layer = self.snapshot.layers[position], self.layers[position]
        values = [self.snapshot.arrays[i] for i in record["weights"]]
        values = WEIGHTS.get(record["class"], list)(values)
        variables = _ordered(layer)
        shapes = [[tuple(x.shape) for x in each] for each in (values, variables)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "`model` must have layers whose weights Keras 3 has, too. Received: a layer "
                f"{record['name']!r} ({record['class']}) with weights of shapes {shapes[0]}, where "
                f"Keras 3 has {shapes[1]}"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def fill_masks(self, position: int) -> None:
        record, layer = self.snapshot.layers[position], self.layers[position]
        variables = _ordered(layer.layer)
        masks = {id(variables[i]): self.snapshot.arrays[array] for i, array in record["masks"]}
        if {id(p.variable) for p in layer.pruned} != set(masks):
            raise ValueError(
                "`model` must have layers of which the same weights are pruned here. Received: a "
                f"layer {record['name']!r}, of which tfmot prunes "
                f"{sorted(v.path for v in variables if id(v) in masks)}, and granet_tf "
                f"{[p.path for p in layer.pruned]}"
            )
        for pruned in layer.pruned:
            mask = masks[id(pruned.variable)]
            pruned.mask.assign(mask)
            # tfmot masks weights when they are used, so some of them may not be 0 yet.
            pruned.variable.assign(np.where(mask, pruned.variable.numpy(), 0))


def _pruned(builder, record):
    inner = builder.layer(record["layer"])
    if not record["masks"]:  # tfmot also wraps what has nothing to prune.
        return inner
    # What is frozen is pruned only where it is named.
    frozen = [f"*/{name}" for name in record["names"]] if not record["trainable"] else None
    return PruneLowMagnitude(
        inner,
        _schedule(record),
        **record["settings"],
        prunable=frozen,
        name=record["name"],
    )


def _schedule(record) -> PruningSchedule:
    given = record["schedule"]
    if given["class"] not in TFMOT_SCHEDULES:
        raise NoCounterpart(
            f"its schedule {given['class']} is none of {', '.join(TFMOT_SCHEDULES)}"
        )
    schedule = TFMOT_SCHEDULES[given["class"]].from_config(given)
    return Shifted(schedule, record["step"]) if record["step"] else schedule


def _time_distributed(builder, record):
    inner = builder.layer(record["layer"])
    return keras.layers.TimeDistributed(inner, name=record["name"])


def _sequential(builder, record):
    given = keras.Input(batch_shape=record["shape"], dtype=record["dtype"])
    layers = [builder.layer(position) for position in record["layers"]]
    kind = PrunedSequential if _has_wrappers(layers) else keras.Sequential
    return kind([given, *layers], name=record["name"])


def _functional(builder, record):
    tensors = {
        each["tensor"]: keras.Input(
            batch_shape=each["shape"], dtype=each["dtype"], name=each["name"]
        )
        for each in record["given"]
    }
    layers = []
    for call in record["calls"]:
        layers.append(builder.layer(call["layer"]))
        args = [builder.decode(value, tensors) for value in call["args"]]
        kwargs = {name: builder.decode(v, tensors) for name, v in call["kwargs"].items()}
        outputs = keras.tree.flatten(layers[-1](*args, **kwargs))
        tensors |= dict(zip(call["outputs"], outputs, strict=True))
    inputs, outputs = (builder.decode(record[name], tensors) for name in ("inputs", "outputs"))
    kind = PrunedFunctional if _has_wrappers(layers) else keras.Model
    return kind(inputs, outputs, name=record["name"])


def _has_wrappers(layers):
    return any(isinstance(x, PruneLowMagnitude) for layer in layers for x in layers_of(layer))


_MAKERS: dict[str, Callable[[_Builder, dict], keras.Layer]] = {
    "PruneLowMagnitude": _pruned,
    "TimeDistributed": _time_distributed,
    "Sequential": _sequential,
    "Functional": _functional,
}

_DECODERS: dict[str, Callable] = {
    "tensor": lambda builder, number, tensors: tensors[number],
    "value": lambda builder, value, tensors: value,
    "array": lambda builder, i, tensors: builder.snapshot.arrays[i],
    "list": lambda builder, values, tensors: [builder.decode(v, tensors) for v in values],
    "dict": lambda builder, items, tensors: {k: builder.decode(v, tensors) for k, v in items},
}


def _ordered(layer: keras.Layer) -> list[keras.Variable]:
    """Weights, those first that are made to be trained, as `tf_keras_side` has them."""
    layers = layers_of(layer)
    weights = {id(v) for v in layer.weights}
    both = ([], [])
    for each in layers:
        both[0].extend(each._trainable_variables)
        both[1].extend(v for v in each._non_trainable_variables if id(v) in weights)
    return [*both[0], *both[1]]
