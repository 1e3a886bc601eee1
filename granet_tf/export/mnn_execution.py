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

# From which share of zeros on sparse kernels are faster than MNN's own dense ones, about: on x86,
# one thread; the last column of `python benchmarks/engines.py --curve`, with AVX2, and in blocks of
# four with AVX-512.
_WINOGRAD, _DENSE_LAYERS, _OTHERS = "Winograd", "dense layers", "others"
_PAYS = {_WINOGRAD: 0.9, _DENSE_LAYERS: 0.94, _OTHERS: 0.75}
_PAYS_IN_BLOCKS = {_WINOGRAD: 0.8, _DENSE_LAYERS: 0.8, _OTHERS: 0.3}


@dataclasses.dataclass(frozen=True)
class MNNVerdict:
    """How MNN will use a weight, on x86 and on ARM.

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
    """One line of the table; `{zeros}` is filled in, and `{pays}`, of what kernel it is about."""

    fits: Callable[[Match], bool]
    verdict: MNNVerdict
    about: str = _OTHERS


def verdict_on(match: Match) -> MNNVerdict:
    """That of the first rule that fits a kernel of an `.mnn` file.

    Example:

    >>> from granet_tf.export.mnn_file import CONVOLUTION, MNNWeight
    >>> values = np.ones((4, 1, 1, 4), "float32")
    >>> weight = MNNWeight("w", values, values, False, 1, 64, (CONVOLUTION,), False, False)
    >>> verdict_on(Match(weight)).why
    'It has no zeros.'
    """
    rule = next(rule for rule in RULES if rule.fits(match))
    figures = {
        "zeros": f"{_zeros(match):.0%}",
        "pays": f"{_pays(match, rule.about):.0%}",
        "block": match.stored.block,
        "or_blocks": ", or zeros in blocks by pattern='mnn'" if match.stored.block == 1 else "",
    }
    filled = {
        name: text if text is None else text.format(**figures)
        for name, text in (("why", rule.verdict.why), ("advice", rule.verdict.advice))
    }
    return dataclasses.replace(rule.verdict, **filled)


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


def _pays(match: Match, about: str) -> float:
    return (_PAYS if match.stored.block == 1 else _PAYS_IN_BLOCKS)[about]


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
            "only; pin them, as in pinned={{'*depthwise*': 0.0}}.",
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
        lambda match: match.stored.winograd and _zeros(match) < _pays(match, _WINOGRAD),
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros, but its dense kernel needs few products for such windows "
            "(Winograd's): sparse is faster from about {pays} zeros on, here {zeros} are.",
            "Convolutions with a window and no strides in MNN: below about {pays} zeros they are "
            "slower sparse than dense; give them more zeros{or_blocks}.",
        ),
        _WINOGRAD,
    ),
    _Rule(
        lambda match: _is_dense_layer(match) and _zeros(match) < _pays(match, _DENSE_LAYERS),
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros, but one input vector gives its kernel little to do for each: "
            "sparse is faster from about {pays} zeros on, here {zeros} are.",
            "Dense layers in MNN: below about {pays} zeros they are slower sparse than dense; give "
            "them more zeros{or_blocks}, or use pattern='litert' and a .tflite file.",
        ),
        _DENSE_LAYERS,
    ),
    _Rule(
        lambda match: _zeros(match) < _pays(match, _OTHERS),
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros: that is faster from about {pays} zeros on, here {zeros} are.",
            "1×1 convolutions, and those with strides, in MNN: below about {pays} zeros they are "
            "no faster sparse than dense; give them more zeros{or_blocks}.",
        ),
    ),
    _Rule(
        lambda match: match.stored.block == 1,
        MNNVerdict(
            SPARSE,
            "MNN skips the zeros, wherever they are.",
            "Zeros anywhere in MNN: kernels with as many zeros in blocks of 4 outputs, by "
            "pattern='mnn', take about half of the time.",
        ),
    ),
    _Rule(
        lambda match: True,
        MNNVerdict(SPARSE, "MNN skips what is zero in blocks of {block} outputs."),
    ),
)
