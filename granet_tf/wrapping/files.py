"""What of a wrapped model is written into `.keras` files, and how one is made of it again."""

from __future__ import annotations

from typing import Any

import keras

from granet_tf.structured.history import Shrinking
from keras_layers.prunable import as_decided, weights_of
from keras_layers.saved_masks import place_of, places, quantizations, quantize_again, without_masks


class SavedWithMasks:
    """To be mixed into `SparseModel`."""

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.save`, to a `.keras` file: method, masks and optimizer are in it."""
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "`filepath` must end in '.keras', as HDF5 holds functional and sequential models "
                "only; or save granet_tf.strip(model). "
                f"Received: filepath={str(filepath)!r}"
            )
        return super().save(filepath, *args, **kwargs)

    def get_config(self):
        self.pruned = without_masks(self, self.pruned, self.model.variables)
        # By place, as a loaded model's paths may differ. Pins and seeds go on with those here.
        place = place_of(self.model)
        shrunk = (
            {
                "shrunk": self._shrinking.get_config(
                    {p.path: place[id(p.variable)] for p in self.pruned}
                )
            }
            if self.shape_history
            else {}
        )
        return shrunk | {
            "name": self.name,
            "trainable": self.trainable,
            "model": _serialized(self.model),
            "method": keras.saving.serialize_keras_object(self.method),
            "mask_only": self.mask_only,
            "track_explored": self.track_explored,
            "decided": {place[id(w.variable)]: w.decision for w in self.weight_verdicts},
            "quantizations": quantizations(self.model),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("model", "method"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        model = config["model"]
        quantize_again(model, config.pop("quantizations", {}))
        shrunk = Shrinking.from_config(config.pop("shrunk", {}), _paths(model))
        decided = _decided(model, config)
        verdicts = [as_decided(w, decided.get(id(w.variable))) for w in weights_of(model)]
        return cls(**config, _verdicts=verdicts, _shrunk=shrunk)


def _paths(model) -> dict[str, str]:
    """{place of a weight: its path}."""
    path = {id(w.variable): w.path for w in weights_of(model)}
    return {place: path[id(v)] for place, v in places(model).items() if id(v) in path}


def _serialized(model):
    if model.compiled:
        return keras.saving.serialize_keras_object(model)
    model.get_compile_config = lambda: None  # One of the user's own may count on being compiled.
    try:
        return keras.saving.serialize_keras_object(model)
    finally:
        del model.get_compile_config


def _decided(model, config):
    """{id of a weight: the decision about it}, which is not in `config` any more then."""
    if "weights" in config:  # Of version 0.1, by position.
        names = ("path", "prunable", "reason")
        old = config.pop("weights")
        return {id(model.weights[i]): dict(zip(names, of, strict=True)) for i, *of in old}
    here, decided = places(model), config.pop("decided")
    # Keras's files have adapters merged into kernels, so that a copy may have fewer weights.
    return {id(here[place]): decision for place, decision in decided.items() if place in here}
