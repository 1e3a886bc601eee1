"""Quantization-aware training that keeps zeros: a model that computes as its int8 file will."""

from granet_tf.int8.layers import FakeQuantized as FakeQuantized
from granet_tf.int8.layers import FakeQuantizedNormalization as FakeQuantizedNormalization
from granet_tf.int8.ranges import FakeQuantize as FakeQuantize
