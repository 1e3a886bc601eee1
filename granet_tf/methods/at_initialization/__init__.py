"""Methods that choose the masks before training: by magnitude, SNIP, GraSP, SynFlow.

Each is a frozen record of parameters with one short method, `saliency`, and a pure function that
does the work and can be used alone. `StaticSparse` is the random one among them.
"""

from granet_tf.methods.at_initialization.base import AtInitialization as AtInitialization
from granet_tf.methods.at_initialization.grasp import GraSP as GraSP
from granet_tf.methods.at_initialization.grasp import grasp_saliency as grasp_saliency
from granet_tf.methods.at_initialization.magnitude import MagnitudeAtInit as MagnitudeAtInit
from granet_tf.methods.at_initialization.magnitude import magnitude_saliency as magnitude_saliency
from granet_tf.methods.at_initialization.snip import SNIP as SNIP
from granet_tf.methods.at_initialization.snip import snip_saliency as snip_saliency
from granet_tf.methods.at_initialization.synflow import SynFlow as SynFlow
from granet_tf.methods.at_initialization.synflow import synflow_saliency as synflow_saliency
