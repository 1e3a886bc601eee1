"""Methods that find their masks during training, beyond those of `granet_tf.methods`.

Each is a record of parameters that overrides a few of `granet_tf.hooks.Hooks`.
"""

from granet_tf.dynamic.acdc import ACDC as ACDC
from granet_tf.dynamic.deep_r import DeepR as DeepR
from granet_tf.dynamic.dpf import DPF as DPF
from granet_tf.dynamic.dsr import DSR as DSR
from granet_tf.dynamic.itop import ITOP as ITOP
from granet_tf.dynamic.snfs import SNFS as SNFS
from granet_tf.dynamic.soft_threshold import STR as STR
from granet_tf.dynamic.top_kast import TopKAST as TopKAST
