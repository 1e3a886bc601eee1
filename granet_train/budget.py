"""A final sparsity that follows from a budget: --max_bytes, --max_flops, --max_latency_ms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

import granet_tf
from granet_train import models
from granet_train.data import Data
from granet_train.durations import TrainingLength
from granet_train.errors import UsageError
from granet_train.in_flags import in_flags
from granet_train.quiet_tensorflow import without_notes
from granet_train.run import method_of
from granet_train.training_options import BUDGETS, Options


def of(values: Options) -> dict[str, float]:
    """{flag: value} of the budget that was given, if any.

    Example:

    >>> of(Options(max_flops=1000)), of(Options())
    ({'max_flops': 1000}, {})
    """
    given = {name: getattr(values, name) for name in BUDGETS}
    return {name: value for name, value in given.items() if value is not None}


def as_earlier(values: Options, earlier: Mapping[str, Any]) -> Options:
    """With the sparsity that an earlier session of the run has found for its budget.

    Example:

    >>> as_earlier(Options(max_bytes=10), {"max_bytes": 10, "final_sparsity": 0.75}).final_sparsity
    0.75
    """
    if of(values) and all(earlier.get(name) == value for name, value in of(values).items()):
        return dataclasses.replace(values, final_sparsity=earlier.get("final_sparsity"))
    return values


def met(values: Options, data: Data, length: TrainingLength) -> Options:
    """With the least final sparsity at which the network meets its budget, if it has one.

    Args:
        values: The flags.
        data: What the network is for.
        length: How long training is.

    Raises:
        UsageError: If no sparsity meets it.
    """
    if not of(values) or values.final_sparsity is not None:
        return values
    keras.utils.set_random_seed(values.seed)
    network = models.make(values.model, data.input_shape, data.classes, values.width)
    method = method_of(values.method, values, length, length)
    try:
        with without_notes():
            sparsity = granet_tf.sparsity_for(network, method=method, **of(values))
    except ValueError as error:
        names = {name: f"--{name}" for name in BUDGETS}
        raise UsageError(in_flags(str(error), names)) from error
    keras.backend.clear_session(free_memory=False)
    return dataclasses.replace(values, final_sparsity=sparsity)
