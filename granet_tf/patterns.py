"""What is pruned as one unit. Selection ranks units; a pattern says what they are.

A new pattern (blocks, N:M groups, whole filters) implements the three methods of `Pattern`: methods
and optimizer handle it without change, as they only ever see units.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import keras
import tensorflow as tf

from granet_tf.schedules import PACKAGE


class Pattern(Protocol):
    """Maps a weight tensor to its units and back."""

    def pool(self, score: tf.Tensor) -> tf.Tensor:
        """Scores of single weights -> scores of units."""

    def units(self, mask: tf.Tensor) -> tf.Tensor:
        """Mask of single weights -> mask of units."""

    def expand(self, units: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
        """Mask of units -> mask of the weights of a tensor of `shape`."""


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True)
class Element:
    """Each weight is its own unit: unstructured sparsity."""

    def pool(self, score):
        return score

    def units(self, mask):
        return mask

    def expand(self, units, shape):
        del shape
        return units

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
