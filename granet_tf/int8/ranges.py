"""`FakeQuantize`: follows the range of an activation, and rounds it to int8."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf

from granet_tf.int8.rounding import rounded, with_exact_zero
from granet_tf.schedules import PACKAGE

_MEASURING: contextvars.ContextVar = contextvars.ContextVar("measuring", default=False)


@contextlib.contextmanager
def measuring() -> Iterator[None]:
    """While it lasts, models that are called eagerly widen their ranges to what they compute.

    Example:

    >>> layer = FakeQuantize()
    >>> with measuring():
    ...     _ = layer(np.array([[-1.0, 3.0]])), layer(np.array([[2.0, 4.0]]))
    >>> layer.limits
    (-1.0, 4.0)
    """
    token = _MEASURING.set(True)
    try:
        yield
    finally:
        _MEASURING.reset(token)


@keras.saving.register_keras_serializable(PACKAGE)
class FakeQuantize(keras.Layer):
    """Rounds its input to 256 values, as an int8 file will.

    In training, the range from the least to the largest value is a moving average over batches,
    which the first batch begins; 0 is always in it. Until then, values pass as they are. The
    gradient is that of clipping.

    Args:
        momentum: What the range so far counts at each step, in [0, 1).
        fixed: (least, largest) value where LiteRT leaves no choice, as behind a softmax. None
            measures.
        **kwargs: As of every Keras layer.

    Raises:
        ValueError: If `momentum` is out of range.

    Call arguments:
        inputs: float32, of any shape.
        training: Whether the range follows `inputs`.
        follow: False leaves the range alone all the same: behind an average pooling, say, whose
            outputs have the range of its inputs.

    Example:

    >>> layer = FakeQuantize(fixed=(0.0, 255.0))
    >>> layer(np.array([[0.6, 9.2, 300.0]], "float32")).numpy().tolist()
    [[1.0, 9.0, 255.0]]
    """

    def __init__(self, momentum: float = 0.99, fixed: tuple[float, float] | None = None, **kwargs):
        super().__init__(**kwargs)
        check_momentum(momentum)
        self.momentum = momentum
        self.fixed = None if fixed is None else tuple(fixed)

    def build(self, input_shape):
        del input_shape
        # Replicas see different batches; after each step they have the mean of their ranges.
        self.range = self.add_weight(
            name="range",
            shape=(2,),
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="mean",
        )
        if self.fixed:
            self.range.assign(self.fixed)

    def call(self, inputs, training=None, follow=True):
        known = tf.convert_to_tensor(self.range)
        if follow and not self.fixed and (training or _MEASURING.get()):
            known = tf.stop_gradient(self._followed(known, inputs))
            self.range.assign(known)
        low, high = tf.unstack(known)
        return tf.where(high > low, rounded(inputs, low, high), inputs)

    def _followed(self, known, inputs):
        batch = tf.stack([tf.reduce_min(inputs), tf.reduce_max(inputs)])
        batch = tf.stack([tf.minimum(batch[0], 0.0), tf.maximum(batch[1], 0.0)])
        if _MEASURING.get():
            return tf.stack([tf.minimum(known[0], batch[0]), tf.maximum(known[1], batch[1])])
        averaged = self.momentum * known + (1.0 - self.momentum) * batch
        return tf.where(known[1] > known[0], averaged, batch)

    @property
    def limits(self) -> tuple[float, float]:
        """The range so far: (least, largest) value; (0, 0) before there is one."""
        low, high = self.range.numpy().tolist()
        return low, high

    def compute_output_shape(self, input_shape):
        """That of the inputs."""
        return input_shape

    def folded(self) -> keras.Layer:
        """The same with a range that is a constant of the graph.

        Raises:
            ValueError: If there is no range yet.

        Example:

        >>> FakeQuantize(fixed=(0.0, 1.0), name="range").folded()
        Traceback (most recent call last):
            ...
        ValueError: The ranges of activations must be known: fit the model, or pass \
`representative_data` to granet_tf.fake_quantize(). Received: no values at 'range' so far, or only 0
        """
        low, high = self.limits if self.built else (0.0, 0.0)
        if not high > low:
            raise ValueError(
                "The ranges of activations must be known: fit the model, or pass "
                "`representative_data` to granet_tf.fake_quantize(). "
                f"Received: no values at {self.name!r} so far, or only 0"
            )
        return _Rounded(low, high, name=self.name)

    def get_config(self):
        """As of every Keras layer."""
        return {**super().get_config(), "momentum": self.momentum, "fixed": self.fixed}


class _Rounded(keras.Layer):
    """Rounds by TensorFlow's operation, in which LiteRT's converter finds the range."""

    def __init__(self, low, high, **kwargs):
        super().__init__(**kwargs)
        self.ends = with_exact_zero(tf.constant(low), tf.constant(high))

    def call(self, inputs, follow=True):
        del follow
        low, high = (float(end) for end in self.ends)
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)


def check_momentum(momentum: float) -> None:
    """Raises ValueError if it is none.

    Example:

    >>> check_momentum(0.99)
    """
    if not 0.0 <= momentum < 1.0:
        raise ValueError(
            f"`momentum` must be at least 0 and less than 1. Received: momentum={momentum}"
        )
