"""Which weights a model needs most: each is pruned alone, and the model measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from granet_tf.at_sparsity import masks_at
from granet_tf.masks.patterns import Pattern
from granet_tf.methods import GMP
from granet_tf.model import wrap
from granet_tf.optimization.groups import Group, groups_of
from granet_tf.reports.figures import COLORS, DENSE_COLOR, Path, new_figure, saved, tidy
from granet_tf.reports.table import aligned
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import pruned_weights, strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LINES = len(COLORS)


@dataclasses.dataclass(frozen=True)
class WeightSensitivity:
    """What pruning one weight alone does to a model.

    Attributes:
        path: The weight's path.
        size: Number of weights in it.
        values: {sparsity: the metric of the model when this weight alone is pruned to it}.
        change: Mean difference of these to the unpruned model's, without its sign.
    """

    path: str
    size: int
    values: Mapping[float, float]
    change: float


@dataclasses.dataclass(frozen=True)
class SensitivityReport:
    """What `granet_tf.sensitivity` measured; `print` shows it as a table.

    Attributes:
        metric: What was measured.
        unpruned: The metric of the model as it is.
        rows: A `WeightSensitivity` for each weight, the most sensitive one first.
    """

    metric: str
    unpruned: float
    rows: tuple[WeightSensitivity, ...]

    def pins(self, count: int, sparsity: float = 0.0) -> dict[str | int, float]:
        """The most sensitive weights, for `pinned` of a method.

        Args:
            count: How many of them.
            sparsity: What to pin them to; 0 leaves them dense.

        Example:

        >>> rows = [WeightSensitivity(path, 4, {0.5: 1.0}, 1.0) for path in ("stem", "head")]
        >>> SensitivityReport("loss", 0.0, tuple(rows)).pins(1)
        {'stem': 0.0}
        """
        if not 0 <= count <= len(self.rows):
            raise ValueError(
                f"`count` must be a number of weights from 0 to {len(self.rows)}. Received: {count}"
            )
        return {row.path: sparsity for row in self.rows[:count]}

    def plot(self, *, to_file: Path | None = None) -> Figure:
        """Draws the metric over the sparsity, a line for each weight; the most sensitive in colour.

        Args:
            to_file: Where to save the picture; its suffix says in which format.

        Raises:
            ImportError: If Matplotlib is not installed: `pip install 'granet_tf[report]'`.
        """
        figure = new_figure(f"{self.metric} when one weight alone is pruned", (8, 4.5))
        axes = figure.subplots()
        # Those in colour lie on top.
        for i, row in reversed(list(enumerate(self.rows))):
            color, label = (COLORS[i], row.path) if i < _MOST_LINES else (DENSE_COLOR, None)
            line = [(0.0, self.unpruned), *row.values.items()]
            axes.plot(*zip(*line, strict=True), color=color, label=label, marker="o", markersize=3)
        axes.set(xlabel="sparsity of the weight", ylabel=self.metric)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8)
        tidy(axes)
        return saved(figure, to_file)

    def __str__(self) -> str:
        sparsities = list(self.rows[0].values)
        lines = [("weight", "weights", *(f"at {s:g}" for s in sparsities))]
        lines += [
            (row.path, f"{row.size:,}", *(f"{row.values[s]:.4g}" for s in sparsities))
            for row in self.rows
        ]
        heading = f"{self.metric} when one weight alone is pruned; {self.unpruned:.4g} when none is"
        return f"{heading}\n{aligned(lines, text_columns=1)}"


def sensitivity(
    model: keras.Model,
    data: Any,
    *,
    sparsities: Sequence[float] = (0.5, 0.7, 0.8, 0.9, 0.95),
    metric: str = "loss",
    pattern: str | Pattern = "element",
    prunable: Callable | Sequence[str] | None = None,
) -> SensitivityReport:
    """Prunes each weight alone by magnitude, without training, and measures what that costs.

    The most sensitive weights are those to spare: `report.pins(2)` is what a method takes as
    `pinned`. The model is as it was afterwards. It is evaluated once for each weight and sparsity.

    Args:
        model: A compiled Keras model, wrapped or not, with the weights that it was trained to.
        data: What `evaluate` takes: a dataset that can be read more than once, or a tuple
            `(x, y)` or `(x, y, sample_weight)`.
        sparsities: Fractions of zeros in [0, 1).
        metric: "loss", or the name of a metric that the model was compiled with.
        pattern: What is pruned as one unit.
        prunable: Which weights, as for `granet_tf.wrap`; of a model that has masks, it is those
            that have them.

    Returns:
        A `SensitivityReport`: prints as a table; has `.rows`, `.pins()` and `.plot()`.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If it is not compiled, does not know `metric`, or a sparsity is out of range.

    Example:

    >>> import granet_tf
    >>> layers = [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(1, name="head")]
    >>> model = keras.Sequential(layers)
    >>> model.compile("sgd", "mse")
    >>> report = granet_tf.sensitivity(model, (np.ones((4, 8)), np.ones((4, 1))), sparsities=[0.5])
    >>> len(report.rows), len(report.pins(1))
    (2, 1)
    """
    check_keras(model)
    _check(model, sparsities)
    is_wrapped = bool(pruned_weights(model))
    method = GMP(max(sparsities), pattern=pattern)
    sparse = model if is_wrapped else wrap(model, method, prunable=prunable, start=False)
    try:
        unpruned = _measured(model, data, metric)
        rows = [
            _row(group, i, method, sparsities, unpruned, lambda: _measured(model, data, metric))
            for group in groups_of(sparse)
            for i in range(len(group.pruned))
        ]
    finally:
        if not is_wrapped:
            strip(sparse)
    rows.sort(key=lambda row: -row.change)
    return SensitivityReport(metric, unpruned, tuple(rows))


def _row(group: Group, i, method, sparsities, unpruned, measure) -> WeightSensitivity:
    pruned = group.pruned[i]
    alone = dataclasses.replace(group, pruned=(pruned,), method=lambda: method)
    kept = pruned.variable.numpy()
    values = {}
    try:
        for sparsity in sparsities:
            [mask] = masks_at(alone, sparsity, is_final=True)
            pruned.variable.assign(np.where(mask.numpy(), kept, 0))
            values[sparsity] = measure()
            pruned.variable.assign(kept)
    finally:
        pruned.variable.assign(kept)
    change = float(np.mean([abs(value - unpruned) for value in values.values()]))
    return WeightSensitivity(pruned.path, kept.size, values, change)


def _measured(model, data, metric) -> float:
    arrays = data if isinstance(data, tuple) else (data,)
    names = ("x", "y", "sample_weight")[: len(arrays)]
    given = dict(zip(names, arrays, strict=True))
    found = model.evaluate(**given, verbose=0, return_dict=True)
    if metric not in found:
        raise ValueError(
            f"`metric` must be one of {list(found)}, which the model was compiled with. "
            f"Received: metric={metric!r}"
        )
    return float(found[metric])


def _check(model, sparsities):
    if not model.compiled:
        raise ValueError(
            "`model` must be compiled with a loss, by which it is measured. "
            f"Received: {model.name}, not compiled"
        )
    if not sparsities or not all(0 <= sparsity < 1 for sparsity in sparsities):
        raise ValueError(
            f"`sparsities` must be fractions of zeros in [0, 1). Received: sparsities={sparsities}"
        )
