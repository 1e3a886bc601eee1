"""The methods: how masks start and what an update makes of them, a file for each family.

Each is a record of parameters with a schedule and two scores; one that needs more overrides a few
of the methods of `granet_tf.methods.base.Method`.
"""

from granet_tf.methods.acdc import ACDC as ACDC
from granet_tf.methods.at_initialization import SNIP as SNIP
from granet_tf.methods.at_initialization import GraSP as GraSP
from granet_tf.methods.at_initialization import MagnitudeAtInit as MagnitudeAtInit
from granet_tf.methods.at_initialization import SynFlow as SynFlow
from granet_tf.methods.base import Method as Method
from granet_tf.methods.deep_r import DeepR as DeepR
from granet_tf.methods.dpf import DPF as DPF
from granet_tf.methods.dsr import DSR as DSR
from granet_tf.methods.finding import all_methods as all_methods
from granet_tf.methods.gmp import GMP as GMP
from granet_tf.methods.gmp import GraNet as GraNet
from granet_tf.methods.itop import ITOP as ITOP
from granet_tf.methods.mest import MEST as MEST
from granet_tf.methods.rigl import SET as SET
from granet_tf.methods.rigl import RigL as RigL
from granet_tf.methods.sis import SIS as SIS
from granet_tf.methods.snfs import SNFS as SNFS
from granet_tf.methods.soft_threshold import STR as STR
from granet_tf.methods.sparsities import DISTRIBUTIONS as DISTRIBUTIONS
from granet_tf.methods.st3 import ST3 as ST3
from granet_tf.methods.static import StaticSparse as StaticSparse
from granet_tf.methods.top_kast import TopKAST as TopKAST
