"""Keras layers that carry masks. They know nothing of methods or optimizers."""

from keras_layers.masking import PrunedWeight as PrunedWeight
from keras_layers.prunable import default_prunable as default_prunable
from keras_layers.prune_low_magnitude import PruneLowMagnitude as PruneLowMagnitude
