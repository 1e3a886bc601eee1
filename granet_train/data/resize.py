"""Images of one size, all to another."""

from __future__ import annotations

from typing import Any


def resized(images: Any, size: int | None) -> Any:
    """Bilinear, with antialiasing where it makes them smaller.

    Args:
        images: uint8 array or tensor (..., height, width, channels).
        size: New height and width. None leaves the images as they are.

    Example:

    >>> resized(tf.fill((3, 32, 32, 1), tf.constant(7, tf.uint8)), 16).shape
    TensorShape([3, 16, 16, 1])
    """
    if size is None or images.shape[-3:-1] == (size, size):
        return images
    import tensorflow as tf

    values = tf.image.resize(images, (size, size), antialias=True)
    return tf.saturate_cast(tf.round(values), tf.uint8)
