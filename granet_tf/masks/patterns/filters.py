"""`Filter`: all that leads to one output, alone or with what goes only together with it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from granet_tf.masks.patterns.axes import Axes, are_outputs, checked_axes, positive
from granet_tf.masks.patterns.base import Pattern
from granet_tf.masks.patterns.criteria import CRITERIA, Criterion, Filters
from granet_tf.schedules import PACKAGE


def _lamp(score, eligible):
    """s² over the sum of s² of the scores that are at least as large; negative ones mirrored."""
    score = tf.where(eligible, tf.cast(score, tf.float32), 0.0)
    # Only ratios count, and squares of these are in range.
    flat = tf.math.divide_no_nan(tf.reshape(score, [-1]), tf.reduce_max(tf.abs(score)))

    def share(size):
        squares = size**2
        order = tf.argsort(squares, direction="DESCENDING", stable=True)
        ordered = tf.gather(squares, order)
        shares = tf.math.divide_no_nan(ordered, tf.cumsum(ordered))
        return tf.gather(shares, tf.argsort(order, stable=True))

    return tf.reshape(share(tf.nn.relu(flat)) - share(tf.nn.relu(-flat)), score.shape)


_NORMALIZATIONS: dict[str | None, Callable] = {
    "lamp": _lamp,
    None: lambda score, eligible: score,
}


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Filter(Pattern):
    """Whole filters and units: all weights that lead to one output.

    The score is the sum over them: of |w| to prune and drop, of |gradient| to grow, as in the
    paper's filter pruning (Appendix A, after Li et al., 2017).

    Sums grow with the size of a filter. In scope "global" they would leave the large filters of
    late layers and nothing of the early ones, so the layers' shares are found by scores relative to
    the layer, as in LAMP (Lee et al., 2021): of a filter with the sum s, s² divided by the sum of
    s² over all filters of its layer with the same sum or more. The best filter of each layer has a
    1, so no layer is emptied while as many filters are kept as there are layers. In each layer it
    is still the largest sums that stay.

    The layers whose outputs are those of the model are not pruned: there is one filter for each
    class. Name them in `prunable`, or in the method's `pinned`, to prune them nevertheless.

    A pruned filter keeps its bias, and its channel the offset and the moving statistics of a batch
    normalisation behind it, so its output is a constant, not always 0. `strip` leaves them, and a
    filter that is grown again finds them there.

    With `coupled`, filters that only go together are one unit, so that all that is pruned can be
    removed: the channel of an addition takes a filter of each branch, a grouped convolution loses a
    filter of each group. Its score is the sum over all weights of these filters. They are the
    dependency groups of DepGraph (Fang et al., 2023), see `granet_tf.structured`. Weights whose
    channels can't be removed are not pruned, and `granet_tf.summarize` says why. What pruned units
    would still put out, the biases and offsets behind them, is held at zero. What a method
    exchanges of the units is rounded to the nearest number, which may be none. A unit that is grown
    before a batch normalisation begins with small random weights and a scale of 0.

    Args:
        axis: The axis of outputs, or several. None takes that of the layer that the weight belongs
            to (-2 in transposed convolutions), or the last one for a bare tensor.
        normalization: What filters of different layers are ranked together by: "lamp", as above,
            or None for the bare sums.
        coupled: Whether filters that can only be removed together are one unit. Needs a sequential
            or functional model.
        criterion: What filters are ranked by when pruned: "l1" or "l2" norm, "taylor", the sum of
            |w · gradient|, "scale", the |γ| of the batch normalisation behind, or a
            `granet_tf.Criterion`. None is the sum of what the method ranks weights by: of |w|.
        round_to: Each layer keeps a multiple of this number of filters, unless it is never pruned,
            and at least as many; hardware likes 8. Of all layers together the number is the
            multiple next to the one asked for.

    Raises:
        ValueError: On an `axis`, `normalization`, `criterion` or `round_to` that is none.

    Example:

    >>> Filter().pool(tf.constant([[1.0, 2.0], [3.0, 4.0]])).numpy().tolist()
    [4.0, 6.0]
    >>> Filter().expand(tf.constant([True, False]), (2, 2)).numpy().tolist()
    [[True, False], [True, False]]
    >>> everything = tf.constant([True, True, True])
    >>> scores = Filter().comparable(tf.constant([1.0, 2.0, 2.0]), everything)
    >>> [round(float(score), 3) for score in scores]
    [0.111, 1.0, 0.5]

    Reference:

    - [Lee et al., 2021](https://arxiv.org/abs/2010.07611)
    """

    axis: Axes | None = None
    normalization: str | None = "lamp"
    coupled: bool = False
    criterion: str | Criterion | None = None
    round_to: int = 1

    def __post_init__(self):
        named = self.criterion is None or self.criterion in CRITERIA
        if not (named or isinstance(self.criterion, Criterion)):
            raise ValueError(
                f"`criterion` must be one of {', '.join(CRITERIA)}, a granet_tf.Criterion, or None "
                f"for what the method ranks by. Received: criterion={self.criterion!r}"
            )
        if not isinstance(self.round_to, int) or self.round_to < 1:
            raise ValueError(
                "`round_to` must be a number of filters, an integer > 0. "
                f"Received: round_to={self.round_to!r}"
            )
        if self.axis is not None:
            object.__setattr__(self, "axis", checked_axes(self.axis, "axis"))
        if self.normalization not in _NORMALIZATIONS:
            raise ValueError(
                '`normalization` must be "lamp", or None for the bare sums. '
                f"Received: normalization={self.normalization!r}"
            )

    def __str__(self):
        return "coupled filters" if self.coupled else "filters"

    @property
    def judge(self):
        return CRITERIA.get(self.criterion) if isinstance(self.criterion, str) else self.criterion

    def judged(self, weight, gradient, scale):
        outputs = positive(-1 if self.axis is None else self.axis, len(weight.shape))
        order = [*self._others(weight.shape), *outputs]
        filters = math.prod(weight.shape[i] for i in outputs)

        def columns(values):
            return tf.reshape(tf.transpose(tf.cast(values, tf.float32), order), (-1, filters))

        gradients = None if gradient is None else columns(gradient)
        return self.judge.score(Filters(columns(weight), gradients, scale))

    def get_config(self):
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return config | {"criterion": keras.saving.serialize_keras_object(self.criterion)}

    def bound(self, layout):
        return self if self.axis is not None else dataclasses.replace(self, axis=layout.outputs)

    def comparable(self, score, eligible):
        return _NORMALIZATIONS[self.normalization](score, eligible)

    def removes_outputs(self, layout, shape=None):
        return self.axis is None or shape is None or are_outputs(self.axis, layout, len(shape))

    @classmethod
    def from_config(cls, config):
        # Files of version 0.1 go on as they began: with bare sums.
        config = {"normalization": None, **config}
        saved = keras.saving.deserialize_keras_object(config.pop("criterion", None))
        return cls(**config, criterion=saved)

    def pool(self, score):
        return tf.reduce_sum(score, self._others(score.shape))

    def units(self, mask):
        return tf.reduce_any(mask, self._others(mask.shape))

    def expand(self, units, shape):
        others = self._others(shape)
        return tf.broadcast_to(
            tf.reshape(units, [1 if i in others else n for i, n in enumerate(shape)]), shape
        )

    def _others(self, shape):
        outputs = positive(-1 if self.axis is None else self.axis, len(shape))
        return [i for i in range(len(shape)) if i not in outputs]
