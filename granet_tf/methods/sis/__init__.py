"""SIS: a trained network is pruned from data, each layer by a convex problem of its own.

`inclusion.py`: what a layer's outputs ask of its weights. `recording.py`: the inputs of the layers,
and what follows them. `splitting.py`: the solver. `problems.py`: the problem of each layer.
`method.py`: the masks that come of it.
"""

from granet_tf.methods.sis.method import SIS as SIS
from granet_tf.methods.sis.method import sis_solution as sis_solution
