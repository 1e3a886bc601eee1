"""The names of `tfmot.sparsity.keras`, so that `import granet_tf as tfmot` migrates to Keras 3.

What differs from tfmot is listed in docs/migrating_from_tfmot.md.
"""

from granet_tf.schedules import ConstantSparsity as ConstantSparsity
from granet_tf.schedules import PolynomialDecay as PolynomialDecay
from granet_tf.schedules import PruningSchedule as PruningSchedule
from granet_tf.sparsity.keras.callbacks import PruningSummaries as PruningSummaries
from granet_tf.sparsity.keras.callbacks import UpdatePruningStep as UpdatePruningStep
from granet_tf.sparsity.keras.policy import PruneForLatencyOnXNNPack as PruneForLatencyOnXNNPack
from granet_tf.sparsity.keras.policy import PruningPolicy as PruningPolicy
from granet_tf.sparsity.keras.prunable_layer import PrunableLayer as PrunableLayer
from granet_tf.sparsity.keras.prune import prune_low_magnitude as prune_low_magnitude
from granet_tf.sparsity.keras.prune import prune_scope as prune_scope
from granet_tf.sparsity.keras.prune import strip_pruning as strip_pruning
from keras_layers import PruneLowMagnitude as PruneLowMagnitude
