"""Whether a file computes what Keras does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from granet_tf.export.samples import Inputs
from granet_tf.reasons import reason_of

# What differs by less is rounding, however small the outputs are.
_ROUNDING = 1e-6


@dataclasses.dataclass
class Difference:
    """Of one output, over all samples.

    Attributes:
        error: Largest absolute difference; NaN where one of the two is NaN and the other is not.
        scale: Largest finite magnitude in Keras.
        low, high: Smallest and largest finite value in Keras.
    """

    error: float = 0.0
    scale: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def relative(self) -> float:
        """The error as a fraction of the range of Keras's values, their largest minus their least.

        Where all are the same, their magnitude takes the place of the range; where all are 0, the
        error stays as it is.

        Example:

        >>> Difference(error=0.5, scale=6.0, low=-4.0, high=6.0).relative
        0.05
        >>> Difference(error=0.5, scale=2.0, low=2.0, high=2.0).relative
        0.25
        """
        spread = self.high - self.low if self.high > self.low else 0.0
        return self.error / (spread or self.scale or 1.0)

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Takes a batch into account: Keras's outputs and the file's.

        Example:

        >>> difference = Difference()
        >>> difference.add(np.array([1.0, np.inf]), np.array([1.5, np.inf]))
        >>> difference
        Difference(error=0.5, scale=1.0, low=1.0, high=1.0)
        """
        ours, theirs = ours.astype("float64"), theirs.astype("float64")
        # Infinities and NaNs agree when they are the same.
        differs = (ours != theirs) & ~(np.isnan(ours) & np.isnan(theirs))
        with np.errstate(invalid="ignore"):
            error = np.max(np.abs(ours - theirs), where=differs, initial=0.0)
        scale = np.max(np.abs(ours), where=np.isfinite(ours), initial=0.0)
        # np.maximum keeps a NaN, which is no pass.
        self.error = float(np.maximum(self.error, error))
        self.scale = float(max(self.scale, scale))
        finite = np.isfinite(ours)
        self.low = float(min(self.low, np.min(ours, where=finite, initial=math.inf)))
        self.high = float(max(self.high, np.max(ours, where=finite, initial=-math.inf)))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The file against Keras.

    Attributes:
        outputs: Differences by the name of the output.
        samples: How many samples were run.
        accuracy_keras, accuracy_file: Fraction of samples whose largest output is that of their
            label; None without labels.
    """

    outputs: Mapping[str, Difference]
    samples: int
    accuracy_keras: float | None = None
    accuracy_file: float | None = None

    @property
    def max_error(self) -> float:
        """Largest absolute difference over all outputs."""
        return float(np.max([each.error for each in self.outputs.values()]))

    @property
    def relative_error(self) -> float:
        """Largest difference as a fraction of the range of its output, over all outputs."""
        return float(np.max([each.relative for each in self.outputs.values()]))

    def check(self, tolerance: float) -> None:
        """Raises RuntimeError if an output differs by more than this fraction of its magnitude."""
        for name, each in self.outputs.items():
            if not each.error <= max(tolerance * each.scale, _ROUNDING):
                raise RuntimeError(
                    f"The converted model computes something else: its output {name!r} differs "
                    f"from Keras by {each.error:.3g}, where values reach {each.scale:.3g}. If the "
                    "model is that sensitive to rounding, pass a larger `tolerance`. "
                    f"Received: tolerance={tolerance}"
                )


class Expected:
    """What Keras computes, once for all files that are compared with it.

    Args:
        model: The Keras model.
        inputs: What it takes.
        groups: Samples, each group as `Inputs.arguments` makes it.
        labels: Class of each sample, or None.

    Raises:
        ValueError: If labels do not fit.
    """

    def __init__(
        self, model: keras.Model, inputs: Inputs, groups: Sequence[list], labels: Any = None
    ):
        self._feeds, self._outputs, self._specs = [], [], inputs.specs
        run = inputs.inference(model)
        for batch in (b for group in groups for b in inputs.batches(group, "sample_inputs")):
            feed = inputs.feed(batch)
            self._feeds.append(feed)
            self._outputs.append(_by_name(_called(run, feed)))
        self._labels = None if labels is None else self._checked(labels)

    @classmethod
    def of(
        cls, model: keras.Model, inputs: Inputs, sample_inputs: Any = None, labels: Any = None
    ) -> Expected:
        """On the samples given, or else on one that is drawn with a fixed seed.

        Raises:
            ValueError: If there are labels without samples.
        """
        if labels is not None and sample_inputs is None:
            raise ValueError("`labels` need `sample_inputs`. Received: sample_inputs=None")
        if sample_inputs is None:
            return cls(model, inputs, [inputs.accepted(model)])
        return cls(model, inputs, [inputs.arguments(sample_inputs, "sample_inputs")], labels)

    def compare(self, runner: Callable[[dict], Mapping[str, np.ndarray]]) -> Comparison:
        """Runs a file on the same samples.

        Raises:
            RuntimeError: If it does not run.
        """
        outputs = {name: Difference() for name in self._outputs[0]}
        classes = []
        for feed, expected in zip(self._feeds, self._outputs, strict=True):
            actual = runner(feed)
            for name, value in expected.items():
                _check_shape(name, value, actual[name])
                outputs[name].add(value, actual[name])
            classes.append(np.argmax(actual[next(iter(expected))], axis=-1))
        samples = sum(map(self._size, self._feeds))
        if self._labels is None:
            return Comparison(outputs, samples)
        ours = np.concatenate([self._first(each).argmax(axis=-1) for each in self._outputs])
        return Comparison(
            outputs,
            samples,
            accuracy_keras=float(np.mean(ours == self._labels)),
            accuracy_file=float(np.mean(np.concatenate(classes) == self._labels)),
        )

    @property
    def one_sample(self) -> dict[str, np.ndarray]:
        """Inputs of the first sample, or batch if its size is fixed, to measure latency on."""
        sizes = {spec.name: spec.shape[0] or 1 for spec in self._specs}
        return {name: array[: sizes[name]] for name, array in self._feeds[0].items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the inputs of that sample, which the file is loaded for."""
        return {name: array.shape for name, array in self.one_sample.items()}

    def _checked(self, labels: Any) -> np.ndarray:
        labels = np.asarray(keras.ops.convert_to_numpy(labels))
        shapes = {self._first(each).shape[1:] for each in self._outputs}
        samples = sum(map(self._size, self._feeds))
        [shape] = shapes
        if len(shape) != 1 or shape[0] < 2 or labels.shape != (samples,):
            raise ValueError(
                "`labels` must hold the class of each sample, a whole number, for a model whose "
                "first output has two classes or more. "
                f"Received: labels of shape {labels.shape} for {samples} samples and an output of "
                f"shape (any, {', '.join(map(str, shape))})"
            )
        return labels

    @staticmethod
    def _first(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        return next(iter(outputs.values()))

    @staticmethod
    def _size(feed: Mapping[str, np.ndarray]) -> int:
        return len(next(iter(feed.values())))


def _check_shape(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    if ours.shape != theirs.shape:
        raise RuntimeError(
            f"The converted model computes something else: its output {name!r} must have the shape "
            f"{ours.shape} that it has in Keras. Received: an output of shape {theirs.shape}"
        )


def _called(run: Callable[[Mapping], Any], feed: Mapping[str, np.ndarray]) -> Any:
    try:
        return run(feed)
    # What does not fit fails in whatever way the layers and TensorFlow have for it.
    except Exception as error:
        shapes = {name: array.shape for name, array in feed.items()}
        raise ValueError(
            f"The model must accept the samples that its file is to be run on: {reason_of(error)}. "
            f"Received: inputs of shape {shapes}"
        ) from error


def _by_name(outputs: Any) -> dict[str, np.ndarray]:
    """As Keras's export names them."""
    if not isinstance(outputs, dict):
        outputs = {f"output_{i}": value for i, value in enumerate(keras.tree.flatten(outputs))}
    return {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in outputs.items()}
