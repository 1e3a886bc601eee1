"""What Keras does since some version, for tests that also run on older ones."""

import keras
from packaging.version import Version

KERAS = Version(keras.__version__)

DIVIDES_ACTIVITY_REGULARIZATION = Version("3.14") <= KERAS  # By the number of samples.
TRACKS_BESIDE_THE_GRAPH = Version("3.15") <= KERAS  # Layers that a functional model also has.
HAS_MULTI_OPTIMIZER = hasattr(keras.optimizers, "MultiOptimizer")
LOADS_FILES_OF_3_15 = Version("3.15") <= KERAS  # Their initializers have arguments of that version.
NAMES_HISTOGRAMS_BY_PATH = Version("3.14") <= KERAS  # TensorBoard's; before, by name.
NORMALIZES_SEVERAL_AXES = Version("3.14") <= KERAS  # RMSNormalization; before, only one.
