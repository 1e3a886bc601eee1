"""`fake_quantize`: from a sparse model to one that is fine-tuned as its int8 file will compute."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from granet_tf.compaction.calls import is_graph
from granet_tf.int8.folding import is_fake_quantized
from granet_tf.int8.kernels import kernel_of
from granet_tf.int8.ranges import check_momentum, measuring
from granet_tf.int8.simulation import check_known, simulated
from granet_tf.methods import StaticSparse
from granet_tf.model import SparseModel, wrap
from granet_tf.wrapping.own_classes import check_keras, is_built
from granet_tf.wrapping.stripping import masked_weights, pruned_weights, strip
from keras_layers.keras_internals import layers_of


def fake_quantize(
    model: keras.Model, *, representative_data: Any = None, momentum: float = 0.99
) -> SparseModel:
    """A model with the same weights that computes as its int8 file will, to be fine-tuned.

    Kernels are rounded to int8, symmetric, with one scale for each channel of the output;
    activations to int8 of the range that a moving average finds. Gradients pass as if there were no
    rounding, but for activations out of range. What is pruned stays 0, in training and in the file:
    `granet_tf.export_tflite(model, path, format="int8")` stores these very whole numbers.

    The weights are those of `model`, float32, so that it is fine-tuned, too. A wrapped model is
    stripped. The new one is a functional model in a `SparseModel` with masks of all kernels: of a
    wrapped model its own, else where a kernel is not 0. Compile it, fit some epochs at a small
    learning rate, and export or save it.

    Args:
        model: A built sequential or functional model, dense, stripped or wrapped, with float32
            inputs. Layers that are known: Dense on (batch, features), Conv1D, Conv2D,
            DepthwiseConv2D, BatchNormalization, the usual activations and poolings, Flatten,
            Reshape, ZeroPadding, Dropout, Add, Subtract, Multiply of two tensors, Concatenate.
        representative_data: Where ranges begin, as for `export_tflite`: arrays of shape
            (samples, ...), a function that makes batches, the name of a data set or a directory.
            At most 256 samples. None leaves it to the first batch that it is fitted to; until
            then, activations are not rounded.
        momentum: What the range so far counts at each step, in [0, 1).

    Returns:
        The new model, not compiled.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If `model` is not built, is subclassed, is fake-quantized already, or has layers
            that are not known or are quantized by Keras: they are named; if an argument does not
            fit. Then `model` is as it was.

    Example:

    >>> import granet_tf
    >>> layers = [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)]
    >>> plain = keras.Sequential(layers)
    >>> plain.layers[0].kernel.assign(np.eye(8, 16)).shape
    TensorShape([8, 16])
    >>> model = granet_tf.fake_quantize(plain)
    >>> model.compile("sgd", "mse")
    >>> x, y = np.random.rand(64, 8), np.random.rand(64, 4)
    >>> history = model.fit(x, y, batch_size=8, verbose=0)
    >>> int(np.count_nonzero(plain.layers[0].kernel))
    8
    >>> granet_tf.export_tflite(model, "/tmp/int8.tflite", format="int8").max_error < 0.02
    True

    References:

    - [Jacob et al., 2018](https://arxiv.org/abs/1712.05877)
    - [Zhu and Gupta, 2017](https://arxiv.org/abs/1710.01878) for zeros that stay
    """
    check_keras(model)
    check_momentum(momentum)
    if is_fake_quantized(model):
        raise ValueError(f"`model` is fake-quantized already. Received: model={model}")
    masked = {id(p.variable): p.mask.numpy() for p in pruned_weights(model)}
    with masked_weights(model) as plain:
        _check(plain)
    plain = strip(model) if masked else model
    with plain.distribute_strategy.scope():
        fake = simulated(plain, momentum)
        sparse = _with_masks(fake, masked)
    if representative_data is not None:
        _measure(fake, representative_data)
    return sparse


def _check(model):
    if not is_graph(model):
        if isinstance(model, keras.Sequential) and not is_built(model):
            raise ValueError(
                "`model` must be built: start it with keras.Input(shape), or call it once. "
                f"Received: model={model}"
            )
        raise ValueError(
            "`model` must be a sequential or functional model, as the calls of a class of your own "
            f"are not known. Received: model={model} of {type(model)}"
        )
    check_known(model)
    if not any(map(kernel_of, layers_of(model))):
        raise ValueError(
            "`model` must have a layer with a kernel, such as Dense or Conv2D. "
            f"Received: model={model}"
        )


def _with_masks(fake: keras.Model, masked: dict[int, np.ndarray]) -> SparseModel:
    kernels = [layer.kernel for layer in layers_of(fake) if kernel_of(layer)]
    chosen = {*map(id, kernels), *masked}
    # A method that leaves masks as they are.
    sparse = wrap(fake, StaticSparse(0.0), prunable=lambda layer, weight: id(weight) in chosen)
    sparse.set_masks(
        {p.path: masked.get(id(p.variable), p.variable.numpy() != 0) for p in sparse.pruned}
    )
    return sparse


def _measure(model, representative_data):
    # They load what exports need, which training does not.
    from granet_tf.export.calibration import representative
    from granet_tf.export.samples import Inputs

    inputs = Inputs(model)
    samples = inputs.calibration(representative(representative_data, inputs))
    with measuring():
        for group in inputs.joined(samples()):
            for batch in inputs.batches(group, "representative_data"):
                model(*batch, training=False)
