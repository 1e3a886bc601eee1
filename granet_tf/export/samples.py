"""What a model is run on: the names and shapes of its inputs, and arrays that fit them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from granet_tf.reasons import reason_of
from keras_layers.keras_internals import get_input_signature

# How long dimensions left open in the model, such as an image's height, are in random samples: the
# first of these that the model accepts. Sizes of images, then any that a network may insist on.
_USUAL = (32, 64, 128, 224, 256)
_OPEN_DIMENSIONS = tuple(dict.fromkeys([*_USUAL, *range(1, max(_USUAL))]))
# Numbers in the largest random input that is tried.
_MOST = 1 << 24
# Samples that are run together where the model leaves it open.
_BATCH = 64
# Batches of one from which ranges of activations are measured.
_CALIBRATION = 256


class Inputs:
    """The positional arguments of a model, each array in them with the name it has in the file.

    Args:
        model: A built Keras model.

    Raises:
        ValueError: If the shapes of its inputs are not known.

    Example:

    >>> model = keras.Sequential([keras.Input((4,), name="pixels"), keras.layers.Dense(2)])
    >>> Inputs(model).feed([np.ones((1, 4))])["pixels"].dtype
    dtype('float32')
    """

    def __init__(self, model: keras.Model):
        try:
            signature = get_input_signature(model)
        except ValueError as error:
            raise ValueError(
                "The shapes of the model's inputs are not known yet: call the model once on a "
                f"batch. Received: model={model}"
            ) from error
        if len(signature) == 0:
            raise ValueError(f"The model must have an input. Received: model={model}")
        # Subclassed models have no names for their inputs: give those that can be told apart.
        named = [
            keras.InputSpec(
                shape=spec.shape,
                dtype=spec.dtype,
                name=spec.name or "_".join(["args", *map(str, place)]),
            )
            for place, spec in keras.tree.flatten_with_path(signature)
        ]
        self.signature = keras.tree.pack_sequence_as(signature, named)

    @property
    def specs(self) -> list[keras.InputSpec]:
        """A spec for each array."""
        return keras.tree.flatten(self.signature)

    @property
    def has_open_dimensions(self) -> bool:
        """Whether the model leaves open more than how many samples there are."""
        return any(None in spec.shape[1:] for spec in self.specs)

    def shapes_of(self, feed: Mapping[str, np.ndarray]) -> Any:
        """Shapes of one sample without the batch, in the structure that the model takes."""
        signature = self.signature[0] if len(self.signature) == 1 else self.signature
        return keras.tree.map_structure(lambda spec: feed[spec.name].shape[1:], signature)

    def arguments(self, given: Any, called: str) -> list:
        """Arrays in the structure of the model's positional arguments.

        Args:
            given: Arrays of shape (batch, ...), in the structure that the model takes.
            called: What errors call them.

        Raises:
            ValueError: If they have another structure or other shapes.
        """
        places, specs = zip(*keras.tree.flatten_with_path(self.signature), strict=True)
        wrapped = [given] if len(self.signature) == 1 else given
        given_at = keras.tree.flatten_with_path(wrapped)
        if [place for place, _ in given_at] != list(places):
            names = keras.tree.map_structure(lambda spec: spec.name, self.signature)
            raise ValueError(
                f"`{called}` must hold one array for each input, in the structure that the model "
                f"takes: {names}. Received: {called}={_shapes(given)}"
            )
        arrays = [
            _array(value, spec, called) for (_, value), spec in zip(given_at, specs, strict=True)
        ]
        return keras.tree.pack_sequence_as(self.signature, arrays)

    def random(self, samples: int = 1, length: int = _USUAL[0]) -> list:
        """Arguments drawn with a fixed seed.

        Standard normal for floats, 0 or 1 for other types.

        Args:
            samples: How many, where the model leaves it open.
            length: Of all other dimensions that are open.
        """
        rng = np.random.default_rng(0)
        arrays = [_random(spec, rng, samples, length) for spec in self.specs]
        return keras.tree.pack_sequence_as(self.signature, arrays)

    def accepted(self, model: keras.Model) -> list:
        """One random sample, its open dimensions as long as `model` takes them.

        Raises:
            ValueError: If it takes none of the lengths that are tried.

        Example:

        >>> model = keras.Sequential([keras.Input((None, 3)), keras.layers.Conv1D(4, 40)])
        >>> [sample] = Inputs(model).accepted(model)
        >>> sample.shape
        (1, 64, 3)
        """
        if not self.has_open_dimensions:
            return self.random()
        first, run = None, self.inference(model)
        for length in _OPEN_DIMENSIONS:
            arguments = self.random(length=length)
            if max(array.size for array in keras.tree.flatten(arguments)) > _MOST:
                continue
            # What does not fit fails in whatever way the layers and TensorFlow have for it.
            try:
                outputs = run(self.feed(arguments))
            except Exception as error:
                first = first or error
                continue
            if all(0 not in x.shape for x in keras.tree.flatten(outputs)):
                return arguments
        shapes = ", ".join(_shown(spec.shape) for spec in self.specs)
        reason = f" ({reason_of(first)})" if first else ""
        raise ValueError(
            "The model's inputs have open dimensions, and it accepts random samples of no length "
            f"up to {max(_OPEN_DIMENSIONS)}{reason}: pass `sample_inputs` of a size that it takes. "
            f"Received: inputs of shape {shapes}"
        ) from first

    def call(self, model: keras.Model, flat: Sequence[Any]) -> Any:
        """The model's outputs, at inference, of the arrays or tensors in its arguments."""
        return model(*keras.tree.pack_sequence_as(self.signature, flat), training=False)

    def inference(self, model: keras.Model) -> Callable[[Mapping[str, np.ndarray]], Any]:
        """What computes a model's outputs from what `feed` returns, as a graph.

        That is how the model is exported. Eagerly, convolutions on some processors answer with
        arbitrary numbers, where in a graph they refuse inputs that are smaller than their window.

        Example:

        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> inputs = Inputs(model)
        >>> inputs.inference(model)(inputs.feed(inputs.random(samples=3))).shape
        TensorShape([3, 2])
        """
        function = tf.function(lambda *flat: self.call(model, flat), autograph=False)

        def computed(feed):
            tensors = [tf.constant(array) for array in feed.values()]
            return function.get_concrete_function(*tensors)(*tensors)

        return computed

    def feed(self, arguments: list) -> dict[str, np.ndarray]:
        """Arrays by their names in the file."""
        arrays = keras.tree.flatten(arguments)
        return {
            spec.name: keras.ops.convert_to_numpy(array).astype(spec.dtype)
            for spec, array in zip(self.specs, arrays, strict=True)
        }

    def batches(self, arguments: list, called: str) -> Iterator[list]:
        """The same in batches that the model takes.

        Raises:
            ValueError: If the model has a fixed batch size of which the samples are no multiple.
        """
        samples = {len(array) for array in keras.tree.flatten(arguments)}
        fixed = {spec.shape[0] for spec in self.specs} - {None}
        size = max(fixed, default=_BATCH)
        if len(samples) > 1 or (fixed and min(samples) % size):
            raise ValueError(
                f"`{called}` must have the same number of samples for each input"
                f"{f', a multiple of {size}' if fixed else ''}. "
                f"Received: {', '.join(map(str, sorted(samples)))} samples"
            )
        for begin in range(0, samples.pop(), size):
            yield keras.tree.map_structure(lambda x, i=begin: x[i : i + size], arguments)

    def joined(self, feeds: Iterable[Mapping[str, np.ndarray]]) -> list[list]:
        """Arguments from batches of arrays by name, samples of one shape together."""
        alike: dict[tuple, list] = {}
        for feed in feeds:
            arrays = [feed[spec.name] for spec in self.specs]
            alike.setdefault(tuple(array.shape[1:] for array in arrays), []).append(arrays)
        return [
            keras.tree.pack_sequence_as(
                self.signature, list(map(np.concatenate, zip(*batches, strict=True)))
            )
            for batches in alike.values()
        ]

    def calibration(self, data: Any) -> Callable[[], Iterable[Mapping[str, np.ndarray]]]:
        """What the converter measures the ranges of activations on: a function that makes batches.

        Args:
            data: Arrays as in `arguments`, or a function without arguments that makes an iterable
                of batches of them.

        Raises:
            ValueError: If they do not fit, or there are none.
        """
        called = "representative_data"
        if data is None:
            raise ValueError(
                "`representative_data` must be given to quantize activations: some inputs like "
                "those the model will see, as arrays, or a function that makes batches of them. "
                "Received: representative_data=None"
            )
        made = data() if callable(data) else self.batches(self.arguments(data, called), called)
        batches = (self.arguments(batch, called) if callable(data) else batch for batch in made)
        # Batch by batch would take memory for all activations of a batch.
        size = max({spec.shape[0] for spec in self.specs} - {None}, default=1)
        small = (
            self.feed(keras.tree.map_structure(lambda x, i=i: x[i : i + size], batch))
            for batch in batches
            for i in range(0, len(keras.tree.flatten(batch)[0]), size)
        )
        kept = list(itertools.islice(small, _CALIBRATION))
        if not kept:
            raise ValueError(
                "`representative_data` must hold a sample. Received: an empty iterable"
            )
        return lambda: iter(kept)


def _array(value: Any, spec: keras.InputSpec, called: str) -> np.ndarray:
    array = keras.ops.convert_to_numpy(value)
    expected = tuple(spec.shape)
    fits = len(array.shape) == len(expected) and all(
        size in (None, own) for size, own in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not fits or not len(array):
        raise ValueError(
            f"`{called}` must have the shape {_shown(expected)} for the input {spec.name!r}. "
            f"Received: an array of shape {array.shape}"
        )
    return array.astype(spec.dtype)


def _shown(shape: tuple) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _shapes(given: Any) -> str:
    return str(keras.tree.map_structure(lambda x: f"array of shape {np.shape(x)}", given))


def _random(
    spec: keras.InputSpec, rng: np.random.Generator, samples: int, length: int
) -> np.ndarray:
    batch = spec.shape[0] or samples
    shape = [batch, *(length if size is None else size for size in spec.shape[1:])]
    if keras.backend.is_float_dtype(spec.dtype):
        return rng.normal(size=shape).astype(spec.dtype)
    # As indices, 0 and 1 are in range for nearly every table.
    return rng.integers(0, 2, size=shape).astype(spec.dtype)
