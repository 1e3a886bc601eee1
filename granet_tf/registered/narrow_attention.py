"""KerasHub's encoder with fewer heads than fill its width, as `compact` makes it and files have it.

The layer itself divides its width by the number of heads to get the size of a head.
"""

from __future__ import annotations

import functools

import keras

from granet_tf.schedules import PACKAGE
from granet_tf.wrapping.own_classes import named_in_files_as


class HeadsOfSize(int):
    """A number of heads that says how large each is, whatever width is divided by it.

    Example:

    >>> heads = HeadsOfSize(3, 16)
    >>> int(heads), 64 // heads
    (3, 16)
    """

    def __new__(cls, heads: int, size: int):
        self = super().__new__(cls, heads)
        self.size = size
        return self

    def __rfloordiv__(self, width: int) -> int:
        return self.size


@keras.saving.register_keras_serializable(PACKAGE)
class TransformerEncoder(keras.layers.Layer):
    """What files name: makes a KerasHub layer, which is imported only then."""

    @classmethod
    def from_config(cls, config: dict):
        return narrow_encoder().from_config(config)


@functools.cache
def narrow_encoder() -> type[keras.Layer]:
    """The class of KerasHub's `TransformerEncoder` that is told `head_size`, the size of a head.

    Raises:
        ImportError: Without KerasHub.
    """
    try:
        from keras_hub.layers import TransformerEncoder as Base
    except ImportError as error:
        raise ImportError(
            "The model has a `TransformerEncoder` of KerasHub, which must be installed: "
            f"`pip install keras-hub`. Received: {error}"
        ) from error

    class NarrowEncoder(Base):
        """As the base class, with `num_heads` heads of `head_size` on inputs of any width."""

        def __init__(self, intermediate_dim: int, num_heads: int, head_size: int, **options):
            super().__init__(intermediate_dim, HeadsOfSize(num_heads, head_size), **options)

        def get_config(self):
            heads = {"num_heads": int(self.num_heads), "head_size": self.num_heads.size}
            return super().get_config() | heads

    named_in_files_as(NarrowEncoder, TransformerEncoder)
    return NarrowEncoder
