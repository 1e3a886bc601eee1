"""What is pruned as one unit: a weight, a block, a filter, a slot of an N:M group.

`base` says what a pattern is; each kind of pattern has a file, and `names` their short names.
"""

from granet_tf.masks.patterns.base import Capacity as Capacity
from granet_tf.masks.patterns.base import Element as Element
from granet_tf.masks.patterns.base import Pattern as Pattern
from granet_tf.masks.patterns.blocks import Block as Block
from granet_tf.masks.patterns.filters import Filter as Filter
from granet_tf.masks.patterns.n_of_m import NM as NM
