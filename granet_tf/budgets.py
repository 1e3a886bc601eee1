"""Which sparsity meets a budget: of bytes, of FLOPs, of milliseconds."""

from __future__ import annotations

import contextlib
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from granet_tf.at_sparsity import masks_at
from granet_tf.export.engines import compare_engines
from granet_tf.export.tflite import converted
from granet_tf.methods import Method
from granet_tf.model import wrap
from granet_tf.optimization.groups import groups_of
from granet_tf.reports.flops import count_flops
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import masked_weights, pruned_weights, strip

# The highest sparsity that is tried.
_MOST = 0.999
# How much of the budget may be left unused, and how finely sparsities are told apart.
_UNUSED, _FINEST = 0.005, 1e-4


def sparsity_for(
    model: keras.Model,
    *,
    max_bytes: int | None = None,
    max_flops: int | None = None,
    max_latency_ms: float | None = None,
    method: Method | None = None,
    format: str = "float32",
    encoding: str = "auto",
    representative_data: Any = None,
) -> float:
    """The least final sparsity at which a model meets a budget.

    The weights that the model has now are pruned by magnitude to one sparsity after the other, and
    the file is really made, its FLOPs counted, or its latency measured; then they are put back.
    Training moves weights, so the sparsity of each layer may end elsewhere under
    `scope="global"`; under `scope="layer"`, bytes and FLOPs are what they are found to be here.

    Args:
        model: A built Keras model, or a `SparseModel`, as for `wrap`.
        max_bytes: Size of the `.tflite` file, in bytes.
        max_flops: FLOPs of inference on one sample that involve a nonzero weight; see
            `count_flops`.
        max_latency_ms: Milliseconds for one sample on this machine with one thread, of the fastest
            sparse file of the engines that are installed; see `compare_engines`.
        method: How sparsity is shared out: by its scope, distribution, pattern, pins and caps.
            None is that of a `SparseModel`, and else `GraNet()`.
        format: For `max_bytes`, as for `export_tflite`.
        encoding: For `max_bytes`, as for `export_tflite`.
        representative_data: For `max_bytes` with format "int8", as for `export_tflite`.

    Returns:
        A sparsity in [0, 1), at which the budget is met, and half a percent of it left at most
        where the measure is that fine; 0.0 if the model meets it as it is.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If there is not exactly one budget, a positive number; if no sparsity meets it,
            with the least that one does; or as `wrap` and `export_tflite` do.

    Example:

    >>> import granet_tf
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    >>> round(granet_tf.sparsity_for(model, max_flops=2048), 3)
    0.75
    """
    check_keras(model)
    budgets = {"max_bytes": max_bytes, "max_flops": max_flops, "max_latency_ms": max_latency_ms}
    name, budget = _only(budgets)

    def size(plain):
        _make_unequal(plain)
        options = {"format": format, "encoding": encoding}
        made = converted(plain, representative_data=representative_data, **options)
        return len(made.content)

    def latency(plain):
        return compare_engines(plain, threads=[1], seconds=1.0).best(1, "sparse").latency.median

    measures = {
        "max_bytes": size,
        "max_flops": lambda plain: count_flops(plain).sparse,
        "max_latency_ms": latency,
    }
    with _pruned(model, method) as measured_at:
        return _least(lambda s: measured_at(s, measures[name]), name, budget)


def _only(budgets: dict[str, Any]) -> tuple[str, float]:
    given = {name: value for name, value in budgets.items() if value is not None}
    valid = all(isinstance(v, (int, float)) and v > 0 for v in given.values())
    if len(given) != 1 or not valid:
        raise ValueError(
            f"Exactly one of {', '.join(f'`{name}`' for name in budgets)} must be given, a "
            f"positive number. Received: {given or 'none of them'}"
        )
    [found] = given.items()
    return found


def _make_unequal(model: keras.Model) -> None:
    """Gives biases and the like values as of training: equal ones take less room in a file."""
    for variable in model.variables:
        value = variable.numpy()
        if value.ndim == 1 and value.dtype.kind == "f" and value.size > 1 and not np.ptp(value):
            rng = np.random.default_rng(zlib.crc32(variable.path.encode()))
            variable.assign(rng.uniform(0.5, 1.5, value.shape))


@contextlib.contextmanager
def _pruned(model: keras.Model, method: Method | None) -> Iterator[Callable[[float, Any], float]]:
    """A function of (sparsity, measure): the measure of the model pruned to it."""
    is_wrapped = bool(pruned_weights(model))
    if is_wrapped and method is not None:
        raise ValueError(
            f"A wrapped model has a method already: leave `method` out. Received: method={method}"
        )
    kept = [(v, v.numpy()) for v in model.variables]
    # Wrapping may set weights to zero.
    sparse = model if is_wrapped else wrap(model, method, start=False)
    groups = list(groups_of(sparse))

    def restore():
        for variable, value in kept:
            variable.assign(value)

    def measured_at(sparsity, measure):
        restore()
        for group in groups:
            masks = masks_at(group, sparsity, is_final=True)
            for pruned, mask in zip(group.pruned, masks, strict=True):
                pruned.mask.assign(mask)
        with masked_weights(sparse) as plain, warnings.catch_warnings():
            # At a low sparsity dense files are smaller.
            warnings.filterwarnings("ignore", "Nothing in the file is sparse")
            return measure(plain)

    try:
        yield measured_at
    finally:
        if not is_wrapped:
            strip(sparse)
        restore()


def _least(measure: Callable[[float], float], name: str, budget: float) -> float:
    """The least sparsity of which the measure is within the budget, by interpolation."""
    low, high = 0.0, _MOST
    at_low = measure(low)
    if at_low <= budget:
        return low
    at_high = measure(high)
    if at_high > budget:
        raise ValueError(
            f"No sparsity meets this budget: at {_MOST} it is still {at_high:,.6g}, from "
            f"{at_low:,.6g} without zeros. Received: {name}={budget:,}"
        )
    by_halves = False
    while high - low > _FINEST and at_high < (1 - _UNUSED) * budget:
        share = 0.5 if by_halves else (at_low - budget) / (at_low - at_high)
        # Inside, as interpolation may stay at one end.
        share = min(max(share, 0.05), 0.95)
        middle = low + share * (high - low)
        value = measure(middle)
        # Where the measure has a plateau, halving gets out of it.
        by_halves = not by_halves
        if value <= budget:
            high, at_high = middle, value
        else:
            low, at_low = middle, value
    return high
