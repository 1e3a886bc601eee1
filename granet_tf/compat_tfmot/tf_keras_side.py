"""What is read off a tf_keras model: plain data and arrays, which need no tf_keras any more.

Works on a model object, and as a script in a process of its own, which loads a file and writes what
it has read. So nothing is imported here that a process without Keras 3, or without tf_keras, lacks.

    TF_USE_LEGACY_KERAS=1 python tf_keras_side.py MODEL FOLDER
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

# Layers that hold one other layer, and call it their `layer`.
_WRAPPERS = ("PruneLowMagnitude", "TimeDistributed")
# tfmot's files do not keep `sparsity_m_by_n`; a model object does.
_PRUNING = ("block_size", "block_pooling_type", "sparsity_m_by_n")
_OWN = ("tf_keras.", "keras.", "tensorflow_model_optimization.")


@dataclasses.dataclass
class Snapshot:
    """A model as plain data.

    Attributes:
        layers: One record for each layer object, a shared one only once. All have "class", "name",
            "standard" (whether it is one of the library's own) and "trainable"; further entries
            depend on the kind: see `_RECORDS`. Layers are referred to by their position here.
        root: Position of the model itself.
        arrays: Values of weights, masks and constants; referred to by their position, too.
    """

    layers: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    root: int = 0
    arrays: list[np.ndarray] = dataclasses.field(default_factory=list)

    def save(self, folder: str) -> None:
        """Writes `model.json` and `arrays.npz` to an existing folder."""
        np.savez(os.path.join(folder, "arrays.npz"), *self.arrays)
        with open(os.path.join(folder, "model.json"), "w", encoding="utf-8") as file:
            json.dump({"layers": self.layers, "root": self.root}, file)

    @classmethod
    def load(cls, folder: str) -> Snapshot:
        """Reads what `save` has written."""
        with open(os.path.join(folder, "model.json"), encoding="utf-8") as file:
            model = json.load(file)
        with np.load(os.path.join(folder, "arrays.npz")) as arrays:
            return cls(**model, arrays=[arrays[f"arr_{i}"] for i in range(len(arrays))])


def read(model: Any) -> Snapshot:
    """Reads a tf_keras model, with what tfmot has put into it.

    Raises:
        ValueError: If a sequential model in it is not built.

    Example:

    >>> import tf_keras
    >>> dense = tf_keras.layers.Dense(2, name="dense", input_shape=(3,))
    >>> snapshot = read(tf_keras.Sequential([dense]))
    >>> [layer["class"] for layer in snapshot.layers], [a.shape for a in snapshot.arrays]
    (['Dense', 'Sequential'], [(3, 2), (2,)])
    """
    snapshot = Snapshot()
    snapshot.root = _Reader(snapshot).layer(model)
    return snapshot


class _Reader:
    def __init__(self, snapshot: Snapshot):
        self.snapshot = snapshot
        self._positions: dict[int, int] = {}

    def layer(self, layer: Any) -> int:
        """The position of its record, which is made if there is none yet."""
        if id(layer) not in self._positions:
            name = type(layer).__name__
            record = {
                "class": name,
                "name": layer.name,
                "standard": type(layer).__module__.startswith(_OWN),
                "trainable": bool(layer.trainable),
                **_RECORDS.get(name, _leaf)(self, layer),
            }
            self._positions[id(layer)] = len(self.snapshot.layers)
            self.snapshot.layers.append(record)
        return self._positions[id(layer)]

    def array(self, value: Any) -> int:
        self.snapshot.arrays.append(np.asarray(value))
        return len(self.snapshot.arrays) - 1


def _leaf(reader, layer):
    """A layer as a whole: its configuration and weights, trained ones first."""
    # A class of the user's own may have no configuration, and gets its error later.
    config = layer.get_config() if type(layer).__module__.startswith(_OWN) else {}
    weights = [reader.array(w.numpy()) for w in _ordered(layer)]
    return {"config": _plain(config), "weights": weights}


def _wrapper(reader, layer):
    inner = reader.layer(layer.layer)
    config = {k: v for k, v in layer.get_config().items() if k not in ("layer", "pruning_schedule")}
    return {"layer": inner, "config": _plain(config)}


def _pruned(reader, layer):
    """Masks are of weights at these positions in the record of the layer inside."""
    positions = {id(w): i for i, w in enumerate(_ordered(layer.layer))}
    masks = {
        positions[id(weight)]: reader.array(mask.numpy() > 0.5)
        for weight, mask, _ in layer.pruning_vars
    }
    schedule = layer.pruning_schedule
    return {
        "layer": reader.layer(layer.layer),
        "masks": sorted(masks.items()),
        "names": [w.name.split(":")[0].split("/")[-1] for w, _, _ in layer.pruning_vars],
        # -1 before the first training.
        "step": max(int(layer.pruning_step.numpy()), 0),
        "schedule": {"class": type(schedule).__name__, **_plain(schedule.get_config())},
        "settings": _plain({name: getattr(layer, name) for name in _PRUNING}),
    }


def _sequential(reader, model):
    if not model.built or model.input_shape is None:
        raise ValueError(
            "A sequential model must be built before it can be converted: call it once on a batch. "
            f"Received: {model.name}"
        )
    [tensor] = model.inputs
    return {
        "shape": list(tensor.shape),
        "dtype": tensor.dtype.name,
        "layers": [reader.layer(layer) for layer in model.layers],
    }


def _functional(reader, model):
    """The calls of its layers in an order that works, with tensors by number."""
    numbers: dict[int, int] = {}

    def encode(value):
        if id(value) in numbers:
            return {"tensor": numbers[id(value)]}
        if isinstance(value, dict):
            return {"dict": [[k, encode(v)] for k, v in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"list": [encode(v) for v in value]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return {"value": value}
        return {"array": reader.array(value)}

    calls, inputs = [], []
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            outputs = _flat(node.outputs)
            if not node.is_input:
                args = [encode(value) for value in node.call_args]
                kwargs = {k: encode(v) for k, v in node.call_kwargs.items()}
            for tensor in outputs:
                numbers[id(tensor)] = len(numbers)
            if node.is_input:
                [tensor] = outputs
                inputs.append(
                    {
                        "tensor": numbers[id(tensor)],
                        "shape": list(tensor.shape),
                        "dtype": tensor.dtype.name,
                        "name": node.layer.name,
                        "plain": type(tensor).__name__ == "KerasTensor",
                    }
                )
                continue
            calls.append(
                {
                    "layer": reader.layer(node.layer),
                    "args": args,
                    "kwargs": kwargs,
                    "outputs": [numbers[id(tensor)] for tensor in outputs],
                }
            )
    return {
        "given": inputs,
        "calls": calls,
        "inputs": encode(model._nested_inputs),
        "outputs": encode(model._nested_outputs),
    }


_RECORDS: dict[str, Callable] = {
    "Sequential": _sequential,
    "Functional": _functional,
    "PruneLowMagnitude": _pruned,
    "TimeDistributed": _wrapper,
}


def _ordered(layer):
    """Weights, those first that are made to be trained, frozen or not."""
    return sorted(layer.weights, key=lambda weight: not weight.trainable)


def _flat(value):
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in _flat(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for each in value for leaf in _flat(each)]
    return [value]


def _plain(value):
    """`value` of dicts, lists and what JSON has."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "tolist"):  # An array of NumPy, or a number.
        return value.tolist()
    if hasattr(value, "__iter__"):
        return [_plain(v) for v in value]
    return str(value)


def main(path: str, folder: str) -> None:
    """Loads the model at `path` and writes its snapshot to `folder`."""
    import tf_keras

    try:
        import tensorflow_model_optimization as tfmot
    except ImportError:  # A stripped model does not need it.
        scope = contextlib.nullcontext()
    else:
        scope = tfmot.sparsity.keras.prune_scope()
    with scope:
        model = tf_keras.models.load_model(path, compile=False)
    read(model).save(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
