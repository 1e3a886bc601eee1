"""The callbacks for Keras's `fit`. A model from `wrap` or `prune_low_magnitude` needs none of them.

`LogSparsity` is in every `fit` of such a model already; `UpdatePruningStep` is for models that you
put together of wrapped layers; `PruningSummaries` writes each weight's sparsity for TensorBoard;
`Shrink` removes in the middle of training what coupled filters have pruned.
"""

from granet_tf.sparsity.keras.callbacks import PruningSummaries as PruningSummaries
from granet_tf.sparsity.keras.callbacks import UpdatePruningStep as UpdatePruningStep
from granet_tf.structured.shrink_callback import Shrink as Shrink
from granet_tf.wrapping.log_sparsity import LogSparsity as LogSparsity
