"""How sparse a training ends, and what `fit` says where that is not what was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import keras
import numpy as np

from granet_tf.at_sparsity import masks_at
from granet_tf.methods import Method
from granet_tf.optimization.groups import Group
from granet_tf.optimizer import SparseOptimizer


def sparsity_after(method: Method, step: int) -> float:
    """The sparsity that the schedule of `method` has reached after `step`, pins and caps aside.

    Example:

    >>> method = granet_tf.GMP(0.8, end_step=10, frequency=4)
    >>> [round(sparsity_after(method, step), 3) for step in (3, 4, 9, 12)]
    [0.0, 0.627, 0.794, 0.8]
    """
    last = method.make_schedule().last_prune(step)
    if last is None:
        return method.initial_sparsity
    return max(float(method.make_schedule().exact_sparsity(last)), method.initial_sparsity)


def warn_of_short_training(method: Method) -> None:
    """Warns if training is too short to reach the final sparsity, or for a single update.

    Args:
        method: One that knows the length of training.
    """
    length, schedule = method.total_steps, method.make_schedule()
    final = schedule.final_update
    if final is not None and final > length:
        goal, reached = float(schedule.exact_sparsity(final)), sparsity_after(method, length)
        if reached < goal:
            warnings.warn(
                f"Training has {length} steps, but the final sparsity {goal:g} is reached at "
                f"step {final}: it will end at {reached:.4f}. Train longer, or lower the "
                "method's `end_step` or `frequency`.",
                stacklevel=3,
            )
    elif schedule.regenerates and schedule.last_regeneration(length) is None:
        warnings.warn(
            f"Training has {length} steps, too few for {type(method).__name__} to change "
            "its masks, as each update should leave a whole period to train what it grows: "
            "lower the method's `frequency`, or train longer.",
            stacklevel=3,
        )


def warn_of_dense_end(optimizer: SparseOptimizer, *, ended: bool) -> None:
    """Warns if the weights of a model are not as sparse as their schedule should have made them.

    So it is where training was stopped early, or a callback has put weights from before the end of
    pruning back. Nothing is said where training is to go on.

    Args:
        optimizer: Of the model, after training.
        ended: Whether training has ended, however long the method was told that it is.
    """
    for message in _messages(optimizer, ended):
        warnings.warn(message, stacklevel=4)


def _messages(optimizer, ended) -> Iterator[str]:
    steps = optimizer.steps
    for group in optimizer.groups:
        method = group.method()
        final = method.make_schedule().final_update
        length = method.total_steps
        if length is None:
            # A schedule in steps, which does not know how long training is.
            length = steps if final is None else max(steps, final)
        elif steps < length and not ended:
            continue
        wanted = sparsity_after(method, length)
        if wanted <= method.initial_sparsity or not _excess(group, wanted):
            continue
        last = method.make_schedule().last_prune(length)
        yield (
            f"Training ended after {steps} steps at sparsity {_sparsity(group):.4f}, and was to "
            f"end at {wanted:.4f}, which is reached at step {last}. Train on until then, or let "
            "pruning end earlier. A callback that stops early or puts back the best weights must "
            "only look at what comes after: EarlyStopping(start_from_epoch=...)."
        )


def _sparsity(group: Group) -> float:
    active = sum(int(group.active(p).sum()) for p in group.pruned)
    return 1.0 - active / sum(p.variable.shape.num_elements() for p in group.pruned)


def _excess(group: Group, sparsity: float) -> int:
    """How many weights pruning to `sparsity` would take away now."""
    each = zip(group.pruned, masks_at(group, sparsity), strict=True)
    return sum(int(np.count_nonzero(group.active(p) & ~mask.numpy())) for p, mask in each)


def training_steps(
    params: dict, optimizer: keras.optimizers.Optimizer, done: int, initial_epoch: int = 0
) -> int:
    """How many optimizer updates there are by the end of a `fit`, those before it included.

    Args:
        params: `keras.callbacks.Callback.params`.
        optimizer: Of the model.
        done: How many updates there are by now.
        initial_epoch: As `fit` was given it.

    Raises:
        ValueError: If the data does not say how long an epoch is.

    Example:

    >>> training_steps({"steps": 10, "epochs": 20}, keras.optimizers.SGD(), 160, initial_epoch=16)
    200
    """
    if params["steps"] is None:
        raise ValueError(
            "The data must say how many batches an epoch has, as the method's durations depend on "
            "it. Pass `steps_per_epoch` to fit(), or `total_steps` to the method. "
            "Received: data of unknown length"
        )
    batches = int(params["steps"]) * (params["epochs"] - initial_epoch)
    return done + batches // (optimizer.gradient_accumulation_steps or 1)
