"""How LiteRT will compute with a stored weight, and why: a table of rules.

Where a file cannot tell, the rules follow LiteRT's kernels for sparse dense layers and XNNPACK's
conditions for sparse inference, after Elsen et al. (2019), "Fast Sparse ConvNets".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras

from granet_tf.export.flatbuffer import StoredWeight
from granet_tf.sparsity.keras.policy import PruneForLatencyOnXNNPack

SPARSE, DENSIFIED, DENSE = "sparse kernel", "densified", "dense"
"""Zeros are skipped; stored sparsely and expanded when the file is loaded; stored densely."""

# XNNPACK's threshold for the 1×1 convolutions of a graph, all together.
_ZEROS_FOR_XNNPACK = 2 / 3


@dataclasses.dataclass(frozen=True)
class Graph:
    """What matters of the whole network.

    Attributes:
        obstacle: Why XNNPACK runs no sparse convolutions of it on ARM; None if it does.
    """

    obstacle: str | None

    @classmethod
    def of(cls, model: keras.Model, weights: list[StoredWeight]) -> Graph:
        """Applies XNNPACK's conditions.

        Args:
            model: A plain Keras model.
            weights: Those of its file.

        Example:

        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 1)])
        >>> Graph.of(model, []).obstacle[:58]
        'it needs a 3×3 Conv2D of stride 2 with 3 input channels an'
        """
        try:
            PruneForLatencyOnXNNPack().ensure_model_supports_pruning(model)
        except ValueError as error:
            text = str(error).partition(" Received: ")[0].rstrip(".")
            return cls(text.replace("XNNPACK needs", "it needs").replace("XNNPACK must", "it must"))
        pointwise = [w for w in weights if _is_pointwise(w)]
        zeros = sum(w.values.size - w.nonzeros for w in pointwise)
        size = sum(w.values.size for w in pointwise)
        if not size or zeros <= _ZEROS_FOR_XNNPACK * size:
            share = zeros / size if size else 0.0
            return cls(f"more than 2/3 of the 1×1 kernels must be zero, here {share:.0%} is")
        return cls(None)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a weight will be used.

    Attributes:
        x86: `SPARSE`, `DENSIFIED` or `DENSE`.
        arm: The same.
        why: The reason.
        advice: What to change to get more; None where there is nothing.
    """

    x86: str
    arm: str
    why: str
    advice: str | None = None


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes:
        fits: Function of (weight, graph): whether the rule is for this weight.
        verdict: What it says; `{obstacle}` is filled in.
    """

    fits: Callable[[StoredWeight, Graph], bool]
    verdict: Verdict


def verdict_on(weight: StoredWeight, graph: Graph) -> Verdict:
    """That of the first rule that fits.

    Example:

    >>> weight = StoredWeight(
    ...     "kernel", np.ones((2, 4), "float32"), np.zeros(0), False, 1, 32, ("CONV_2D",), False
    ... )
    >>> verdict_on(weight, Graph(None)).x86
    'dense'
    """
    verdict = next(rule.verdict for rule in RULES if rule.fits(weight, graph))
    return dataclasses.replace(verdict, why=verdict.why.format(obstacle=graph.obstacle))


def _reads(*operators: str) -> Callable[[StoredWeight, Graph], bool]:
    return lambda weight, graph: set(weight.operators) <= set(operators)


def _is_pointwise(weight: StoredWeight) -> bool:
    shape = weight.values.shape
    return weight.operators == ("CONV_2D",) and len(shape) == 4 and shape[1:3] == (1, 1)


def _is_float(weight: StoredWeight) -> bool:
    return weight.values.dtype.kind == "f"


_DENSE_LAYER = _reads("FULLY_CONNECTED")
_CONVOLUTION = _reads("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "CONV_3D")

RULES: tuple[Rule, ...] = (
    Rule(
        lambda w, g: not w.sparse and w.nonzeros == w.values.size,
        Verdict(DENSE, DENSE, "It has no zeros."),
    ),
    Rule(
        lambda w, g: not w.sparse,
        Verdict(
            DENSE,
            DENSE,
            "Stored densely: that takes fewer bytes, was asked for, or LiteRT cannot expand it for "
            "this operation.",
        ),
    ),
    Rule(
        lambda w, g: _DENSE_LAYER(w, g) and not w.densified and _is_float(w),
        Verdict(
            SPARSE,
            SPARSE,
            "LiteRT's own kernel multiplies the stored blocks only; XNNPACK leaves the layer to "
            "it.",
        ),
    ),
    Rule(
        lambda w, g: _DENSE_LAYER(w, g) and not w.densified,
        Verdict(
            SPARSE,
            SPARSE,
            "LiteRT's own kernel multiplies the stored blocks only; XNNPACK leaves the layer to "
            "it. On x86, XNNPACK's dense int8 kernel can be faster all the same.",
            "Dense kernels in int8: where latency below shows no gain, encoding='dense' is as "
            "fast, and format float32 with pattern='litert', block_size=(4, 1), gains.",
        ),
    ),
    Rule(
        lambda w, g: _DENSE_LAYER(w, g) and w.values.dtype == "float32",
        Verdict(
            DENSIFIED,
            DENSIFIED,
            "Zeros are not in blocks that a kernel knows: expanded when the file is loaded.",
            "Dense kernels: use pattern='litert', or block_size=(4, 1) of prune_low_magnitude; "
            "inputs a multiple of 4.",
        ),
    ),
    Rule(
        lambda w, g: _DENSE_LAYER(w, g) and w.values.dtype == "float16",
        Verdict(
            DENSIFIED,
            DENSIFIED,
            "There is no kernel for sparse float16: expanded to float32 when the file is loaded.",
            "Dense kernels: float16 is never computed sparse; format float32 with "
            "pattern='litert', block_size=(4, 1), is.",
        ),
    ),
    Rule(
        _DENSE_LAYER,
        Verdict(
            DENSIFIED,
            DENSIFIED,
            "Zeros are not in blocks that a kernel knows: expanded when the file is loaded, and "
            "computed by LiteRT's own kernel, as XNNPACK cannot take such int8 weights.",
            "Dense kernels in int8: encoding='dense' leaves them to XNNPACK; for sparse kernels, "
            "use pattern='litert_int8', block_size=(16, 1), or float32 with 'litert', (4, 1).",
        ),
    ),
    Rule(
        lambda w, g: _is_pointwise(w) and _is_float(w) and g.obstacle is None,
        Verdict(
            DENSIFIED,
            SPARSE,
            "XNNPACK runs 1×1 convolutions of this network sparse on ARM; on x86 it never does.",
        ),
    ),
    Rule(
        lambda w, g: _is_pointwise(w) and _is_float(w),
        Verdict(
            DENSIFIED,
            DENSIFIED,
            "XNNPACK runs no convolution of this network sparse, on ARM either: {obstacle}.",
            "1×1 convolutions, for ARM: build the network as PruneForLatencyOnXNNPack asks (stem: "
            "symmetric padding, ZeroPadding2D(1) before a 3×3 convolution of stride 2).",
        ),
    ),
    Rule(
        lambda w, g: _is_pointwise(w),
        Verdict(
            DENSIFIED,
            DENSIFIED,
            "There is no sparse kernel for int8 convolutions: expanded when the file is loaded, to "
            "float32 where activations are.",
            "1×1 convolutions, for ARM: only float32 and float16 can be computed sparse.",
        ),
    ),
    Rule(
        _CONVOLUTION,
        Verdict(
            DENSIFIED,
            DENSIFIED,
            "There is no kernel for sparse windows: expanded when the file is loaded.",
            "Convolutions with a window: prune whole filters, pattern=granet_tf.Filter(), and "
            "remove them with granet_tf.compact; the file is smaller and faster everywhere.",
        ),
    ),
    Rule(
        lambda w, g: True,
        Verdict(DENSIFIED, DENSIFIED, "Expanded when the file is loaded."),
    ),
)
