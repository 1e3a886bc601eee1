"""Compaction: a smaller dense model with the same outputs, without the channels that are dead.

The parts: `calls` lists what a model calls; a rule for each class of layers (`mixing`, `einsum`,
`convolutions`, `channelwise`, `joining`, `reshaping`, `attention`, `recurrent`, `averaging`,
`time_distributed`, `transformer_blocks`) says how channels pass through;
`analysis` finds which can go; `resizing` builds the smaller model; `report` tells about it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras

from granet_tf.compaction.analysis import planned
from granet_tf.compaction.calls import is_graph
from granet_tf.compaction.channelwise import Elementwise as Elementwise
from granet_tf.compaction.report import CompactionReport as CompactionReport
from granet_tf.compaction.report import LayerSize as LayerSize
from granet_tf.compaction.report import LeftChannels as LeftChannels
from granet_tf.compaction.report import report_of
from granet_tf.compaction.resizing import resized
from granet_tf.compaction.rules import register as register
from granet_tf.wrapping.own_classes import check_keras
from granet_tf.wrapping.stripping import masked_weights
from keras_layers.keras_internals import Functional


def compact(model: keras.Model) -> keras.Model:
    """Returns a smaller dense model with the same outputs, by removing dead filters and units.

    A channel is dead if all weights that lead to it are zero, so that it is constant, or if no
    weight that leads on from it is anything but zero. A constant moves into the bias of the layers
    that read it, through normalisation, activations and pooling. Where zero padding cuts it at the
    border no bias can hold it: then one channel carries the constants of all that are cut alike.
    What dies with a removed channel goes, too.

    Nothing is approximated: outputs at inference agree to rounding. Training the smaller model is
    another thing, as what was removed can't come back and batch statistics of constants are gone.

    Channels are followed through dense layers and convolutions of all kinds, batch normalisation,
    activations, pooling, padding, reshaping, sums, products and concatenation, recurrent layers and
    attention, whose heads go as a whole, through shared layers and models inside the model. Any
    other layer stays as it is, with all channels that it reads and writes;
    `granet_tf.compaction.explain` names it. Inputs and outputs of the model keep their shapes, and
    no layer loses its last channel.

    Args:
        model: A built sequential or functional model, or one wrapped by `granet_tf.wrap` or
            `PruneLowMagnitude`; its masks count. It is not changed.

    Returns:
        A new model, not compiled, without masks or wrappers. Layers keep their names, and all of
        their config but the sizes.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `model` is neither sequential nor functional, is not built, or has a layer
            that `from_config(get_config())` can't make anew.

    Example:

    >>> import granet_tf
    >>> layers = [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    >>> model = granet_tf.wrap(
    ...     keras.Sequential(layers),
    ...     granet_tf.StaticSparse(0.5, pattern=granet_tf.Filter(), distribution="uniform"),
    ...     prunable=["*/dense*/kernel"],
    ... )
    >>> small = granet_tf.compact(model)
    >>> small.layers[0].units, model.count_params() > small.count_params()
    (4, True)

    Reference:

    - [Liu et al., 2021, Appendix A](https://arxiv.org/abs/2106.10404), for filter pruning
    """
    with _checked(model) as plain:
        return resized(plain, planned(plain))


def explain(model: keras.Model) -> CompactionReport:
    """Says what `compact` would remove of a model, what it would leave, and why.

    Args:
        model: As for `compact`. It is not changed.

    Returns:
        A `CompactionReport`; `print` shows it.

    Raises:
        TypeError, ValueError: As `compact`.

    Example:

    >>> from granet_tf import compaction
    >>> layers = [keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2, name="head")]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> _ = model.layers[0].kernel.assign(keras.ops.eye(4, 8))
    >>> print(compaction.explain(model))
    layer   channels  kept
    hidden         8     4
    head           2     2
    """
    with _checked(model) as plain:
        return report_of(planned(plain))


@contextlib.contextmanager
def _checked(model: keras.Model) -> Iterator[keras.Model]:
    """The user's model with masks applied, if it is one that can be taken apart."""
    check_keras(model)
    with masked_weights(model) as plain:
        if not isinstance(plain, (keras.Sequential, Functional)):
            raise ValueError(
                "`model` must be sequential or functional, so that its layers can be seen; a "
                "subclassed model's can't. Compact models that it calls one by one. "
                f"Received: model={plain} of {type(plain)}"
            )
        if not plain.built or not is_graph(plain):
            raise ValueError(
                "`model` must be built before it is compacted, and must not have a `call` of its "
                "own: start it with keras.Input(shape), or call it once on a batch of data. "
                f"Received: model={plain} of {type(plain)}"
            )
        yield plain
