"""Encoded images of any size: the part that is needed, decoded and resized.

A JPEG is decoded only where it is needed; other formats are decoded and then cropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Evaluation sees the middle 224 of 256 pixels.
CENTRAL = 224 / 256


def whole(encoded: Any, channels: int) -> Any:
    """uint8 (height, width, channels) from bytes of any format that TensorFlow reads."""
    import tensorflow as tf

    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    image.set_shape((None, None, channels))
    return image


def random_part(encoded: Any, seed: Any, size: int, channels: int, *, flip: bool) -> Any:
    """For training: a window of 8 to 100 % of the area, 3:4 to 4:3, half of the time mirrored.

    As in Szegedy et al. (2015), "Going deeper with convolutions", without changes of colour.

    Args:
        encoded: Scalar string tensor.
        seed: int64 tensor of shape (2,); the same one draws the same window.
        size: Height and width of the result.
        flip: Whether mirroring is allowed.

    Returns:
        float32 (size, size, channels) on the scale of 0 to 255.
    """
    import tensorflow as tf

    seeds = tf.random.experimental.stateless_split(seed, 2)

    def window(shape):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            bounding_boxes=tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            seed=seeds[0],
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
        )
        return tf.concat([begin[:2], extent[:2]], axis=0)

    image = tf.image.resize(_part(encoded, window, channels), (size, size))
    return tf.image.stateless_random_flip_left_right(image, seeds[1]) if flip else image


def central_part(encoded: Any, size: int, channels: int) -> Any:
    """For evaluation: what is left of the shorter side at 256/224 · size, cropped to the middle.

    Returns:
        float32 (size, size, channels) on the scale of 0 to 255.
    """
    import tensorflow as tf

    def window(shape):
        side = tf.cast(tf.round(CENTRAL * tf.cast(tf.reduce_min(shape[:2]), tf.float32)), tf.int32)
        side = tf.maximum(side, 1)
        return tf.concat([(shape[:2] - side) // 2, [side, side]], axis=0)

    return tf.image.resize(_part(encoded, window, channels), (size, size))


def _part(encoded: Any, window: Callable[[Any], Any], channels: int) -> Any:
    """uint8 image; `window` makes (top, left, height, width) of its full shape."""
    import tensorflow as tf

    def jpeg():
        place = window(tf.image.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(encoded, place, channels=channels)

    def other():
        image = whole(encoded, channels)
        top, left, height, width = tf.unstack(window(tf.shape(image)))
        return image[top : top + height, left : left + width]

    image = tf.cond(tf.io.is_jpeg(encoded), jpeg, other)
    image.set_shape((None, None, channels))
    return image
