"""Pruning plasticity: how well a network recovers from being pruned in the middle of training.

`prune_once` and `dense_gradients` are the two operations of the paper's Section 3, `measure` and
`measure_final_gap` its two figures for one network. The command `granet-plasticity` measures a
whole grid of them. An `Experiment` is what both are made of, for training loops of your own.
"""

from granet_tf.plasticity.experiment import Experiment as Experiment
from granet_tf.plasticity.experiment import Pruned as Pruned
from granet_tf.plasticity.measure import Outcome as Outcome
from granet_tf.plasticity.measure import measure as measure
from granet_tf.plasticity.measure import measure_final_gap as measure_final_gap
from granet_tf.plasticity.one_shot import OneShot as OneShot
from granet_tf.plasticity.one_shot import dense_gradients as dense_gradients
from granet_tf.plasticity.one_shot import prune_once as prune_once
from granet_tf.registered.held_rate import HeldRate as HeldRate
