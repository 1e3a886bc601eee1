"""What the benchmarks need of tfmot. To be imported in a process of its own, with tf_keras."""

from __future__ import annotations

from typing import Any

from granet_train.quiet_tensorflow import without_notes

with without_notes():
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras

pruning = tfmot.sparsity.keras


def prune(model: Any, schedule: Any) -> Any:
    """A model that is ready to be trained, as after the start of tfmot's callback."""
    pruned = pruning.prune_low_magnitude(model, schedule)
    set_step(pruned, 0)
    return pruned


def set_step(model: Any, step: int) -> None:
    """Steps that tfmot has counted; it counts up before it asks the schedule."""
    for layer in wrappers(model):
        layer.pruning_step.assign(step)


def wrappers(model: Any) -> list:
    return [layer for layer in model.layers if hasattr(layer, "pruning_step")]


def mask_weights(model: Any) -> None:
    """What tfmot's callback does at the end of an epoch."""
    for layer in wrappers(model):
        layer.pruning_obj.weight_mask_op()


__all__ = ["keras", "mask_weights", "prune", "pruning", "set_step", "wrappers"]
