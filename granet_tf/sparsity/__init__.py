"""`tfmot.sparsity` on Keras 3."""

from granet_tf.sparsity import keras as keras
