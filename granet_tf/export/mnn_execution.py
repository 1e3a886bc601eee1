"""How MNN will compute with a weight, and why: a table of rules, as `execution` has for LiteRT.

Whether a kernel is sparse is read from the file. The rules say what made it so, after MNN's
converter (`AddSparseInfo.cpp`) and its CPU kernels (`ConvolutionFloatFactory.cpp`) in version 3.6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras

from granet_tf.export.execution import DENSE, DENSIFIED, SPARSE
from granet_tf.export.layers import Match, matched
from granet_tf.export.mnn_file import DEPTHWISE, read_mnn_weights

# From which share of zeros on sparse kernels are faster than MNN's own dense ones, about: on x86
# with AVX2, one thread; the last column of `python benchmarks/engines.py --curve`.
_WINOGRAD_PAYS, _DENSE_LAYERS_PAY, _OTHERS_PAY = 0.9, 0.94, 0.75


@dataclasses.dataclass(frozen=True)
class MNNVerdict:
    """How MNN will use a weight, on x86 with AVX2 and on ARM.

    Attributes:
        runs: `SPARSE`, `DENSIFIED` or `DENSE`.
        why: The reason.
        advice: What to change to get more; None where there is nothing.
    """

    runs: str
    why: str
    advice: str | None = None


@dataclasses.dataclass(frozen=True)
class _Rule:
    """One line of the table; `{zeros}` is filled in."""

    fits: Callable[[Match], bool]
    verdict: MNNVerdict


def verdict_on(match: Match) -> MNNVerdict:
    """That of the first rule that fits a kernel of an `.mnn` file.

    Example:

    >>> from granet_tf.export.mnn_file import CONVOLUTION, MNNWeight
    >>> values = np.ones((4, 1, 1, 4), "float32")
    >>> weight = MNNWeight("w", values, values, False, 1, 64, (CONVOLUTION,), False, False)
    >>> verdict_on(Match(weight)).why
    'It has no zeros.'
    """
    verdict = next(rule.verdict for rule in RULES if rule.fits(match))
    return dataclasses.replace(verdict, why=verdict.why.format(zeros=f"{_zeros(match):.0%}"))


def verdicts(model: keras.Model, content: bytes) -> Mapping[str, MNNVerdict]:
    """{path of a Keras weight: how MNN will use it}, of those that the file has as kernels.

    Example:

    >>> from granet_tf.export.mnn import converted
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8, name="head")])
    >>> [v.runs for v in verdicts(model, converted(model).content).values()]
    ['dense']
    """
    found = matched(model, read_mnn_weights(content))
    return {each.variable.path: verdict_on(each) for each in found if each.variable is not None}


ELSEWHERE = MNNVerdict(
    DENSE, "It is no kernel of a convolution or a dense layer in MNN, and only these are sparse."
)
"""Of a weight that the file has somewhere else, such as an embedding."""


def _zeros(match: Match) -> float:
    return 1.0 - match.stored.nonzeros / match.stored.values.size


def _is_depthwise(match: Match) -> bool:
    return DEPTHWISE in match.stored.operators


def _is_dense_layer(match: Match) -> bool:
    # In MNN it is a convolution of 1 × 1.
    return match.variable is not None and len(match.variable.shape) == 2


RULES: tuple[_Rule, ...] = (
    _Rule(
        lambda match: _zeros(match) == 0.0,
        MNNVerdict(DENSE, "It has no zeros."),
    ),
    _Rule(
        lambda match: _is_depthwise(match) and not match.stored.sparse,
        MNNVerdict(DENSE, "MNN has no sparse kernel for depthwise convolutions."),
    ),
    _Rule(
        lambda match: _is_depthwise(match),
        MNNVerdict(
            DENSIFIED,
            "MNN has no sparse kernel for depthwise convolutions: expanded when the file is "
            "loaded.",
            "Depthwise convolutions in MNN: they never run sparse, so zeros there cost accuracy "
            "only; pin them, as in pinned={'*depthwise*': 0.0}.",
        ),
    ),
    _Rule(
        lambda match: not match.stored.sparse,
        MNNVerdict(
            DENSE,
            "MNN's converter stores a kernel sparsely from more than 60% zeros on, here {zeros} "
            "are.",
            "Kernels with at most 60% zeros in MNN: they run dense; more zeros there, by a higher "
            "sparsity or scope='layer' with distribution='uniform', would make them run sparse.",
        ),
    ),
    _Rule(
        lambda match: match.stored.winograd and _zeros(match) < _WINOGRAD_PAYS,
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros, but its dense kernel needs few products for such windows "
            "(Winograd's): sparse is faster from about 90% zeros on, here {zeros} are.",
            "Convolutions with a window and no strides in MNN: below about 90% zeros they are "
            "slower sparse than dense; give them more zeros.",
        ),
    ),
    _Rule(
        lambda match: _is_dense_layer(match) and _zeros(match) < _DENSE_LAYERS_PAY,
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros, but one input vector gives its kernel little to do for each: "
            "sparse is faster from about 94% zeros on, here {zeros} are.",
            "Dense layers in MNN: below about 94% zeros they are slower sparse than dense; give "
            "them more zeros, or use pattern='litert' and a .tflite file.",
        ),
    ),
    _Rule(
        lambda match: _zeros(match) < _OTHERS_PAY,
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros: that is faster from about 75% zeros on, here {zeros} are.",
            "1×1 convolutions, and those with strides, in MNN: below about 75% zeros they are no "
            "faster sparse than dense; give them more zeros.",
        ),
    ),
    _Rule(
        lambda match: True,
        MNNVerdict(SPARSE, "MNN skips the zeros, wherever they are."),
    ),
)
