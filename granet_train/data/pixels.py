"""From bytes to the numbers that a network is given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Channel by channel, number = (pixel − mean) / std.

    Attributes:
        mean, std: One value a channel or one for all, on the scale of pixels, 0 to 255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_fractions(cls, mean: tuple[float, ...], std: tuple[float, ...]) -> Scaling:
        """From values on the scale of 0 to 1, as they are usually given.

        Example:

        >>> Scaling.of_fractions((0.5,), (0.2,))
        Scaling(mean=(127.5,), std=(51.0,))
        """
        return cls(tuple(255.0 * m for m in mean), tuple(255.0 * s for s in std))

    @classmethod
    def measured(cls, images: np.ndarray) -> Scaling:
        """To mean 0 and standard deviation 1 over uint8 images (samples, height, width, channels).

        Example:

        >>> Scaling.measured(np.array([[[[0, 7]]], [[[10, 7]]]], np.uint8))
        Scaling(mean=(5.0, 7.0), std=(5.0, 1.0))
        """
        # Exact, and without a float copy of the images.
        values = np.arange(256.0)
        mean, std = [], []
        for channel in range(images.shape[-1]):
            counts = np.bincount(images[..., channel].ravel(), minlength=256)
            mean.append(float(counts @ values / counts.sum()))
            std.append(float(np.sqrt(counts @ (values - mean[-1]) ** 2 / counts.sum())))
        # A channel that never changes carries nothing, and is only centred.
        return cls(tuple(mean), tuple(s or 1.0 for s in std))

    def __call__(self, images: Any) -> Any:
        """float32 from a tensor of any numbers, shape (..., height, width, channels)."""
        import tensorflow as tf

        # As large as an image: TensorFlow is slow at repeating three numbers.
        std = np.broadcast_to(self.std, images.shape[-3:])
        mean = np.broadcast_to(self.mean, images.shape[-3:])
        factor, offset = (1.0 / std).astype("float32"), (-mean / std).astype("float32")
        return tf.cast(images, tf.float32) * factor + offset
