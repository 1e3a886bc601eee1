"""Sparse training in Keras 3: GraNet, gradual magnitude pruning, RigL, SET.

```python
model = granet_tf.wrap(keras_model)
model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(dataset, epochs=160)
granet_tf.strip(model)
```
"""

import importlib
from typing import TYPE_CHECKING

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "granet_tf needs Keras on the TensorFlow backend: set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported. "
        f"Received: keras.backend.backend()={keras.backend.backend()!r}"
    )

from granet_tf import sparsity as sparsity
from granet_tf.int8 import FakeQuantize as _FakeQuantize  # noqa: F401
from granet_tf.masks import distributions as distributions
from granet_tf.masks.patterns import NM as NM
from granet_tf.masks.patterns import Block as Block
from granet_tf.masks.patterns import Element as Element
from granet_tf.masks.patterns import Filter as Filter
from granet_tf.masks.patterns import Pattern as Pattern
from granet_tf.masks.patterns.criteria import Criterion as Criterion
from granet_tf.masks.patterns.names import ByKind as ByKind
from granet_tf.methods import ACDC as ACDC
from granet_tf.methods import DPF as DPF
from granet_tf.methods import DSR as DSR
from granet_tf.methods import GMP as GMP
from granet_tf.methods import ITOP as ITOP
from granet_tf.methods import MEST as MEST
from granet_tf.methods import SET as SET
from granet_tf.methods import SIS as SIS
from granet_tf.methods import SNFS as SNFS
from granet_tf.methods import SNIP as SNIP
from granet_tf.methods import ST3 as ST3
from granet_tf.methods import STR as STR
from granet_tf.methods import DeepR as DeepR
from granet_tf.methods import GraNet as GraNet
from granet_tf.methods import GraSP as GraSP
from granet_tf.methods import MagnitudeAtInit as MagnitudeAtInit
from granet_tf.methods import Method as Method
from granet_tf.methods import RigL as RigL
from granet_tf.methods import StaticSparse as StaticSparse
from granet_tf.methods import SynFlow as SynFlow
from granet_tf.methods import TopKAST as TopKAST
from granet_tf.model import SparseModel as SparseModel
from granet_tf.model import wrap as wrap
from granet_tf.optimizer import SparseOptimizer as SparseOptimizer
from granet_tf.registered.hard_sigmoid import keras2_hard_sigmoid as _keras2_hard_sigmoid  # noqa: F401
from granet_tf.registered.held_rate import HeldRate as _HeldRate  # noqa: F401
from granet_tf.registered.linear_warmup import LinearWarmup as LinearWarmup
from granet_tf.registered.narrow_attention import TransformerEncoder as _TransformerEncoder  # noqa: F401
from granet_tf.schedules import ConstantSparsity as ConstantSparsity
from granet_tf.schedules import GraNetSchedule as GraNetSchedule
from granet_tf.schedules import PolynomialDecay as PolynomialDecay
from granet_tf.schedules import PruningSchedule as PruningSchedule
from granet_tf.schedules import Shifted as Shifted
from granet_tf.wrapping.stripping import strip as strip
from keras_layers import PruneLowMagnitude as PruneLowMagnitude
from keras_layers import default_prunable as default_prunable

if TYPE_CHECKING:
    from granet_tf import callbacks as callbacks
    from granet_tf import compaction as compaction
    from granet_tf import compat_tfmot as compat_tfmot
    from granet_tf import plasticity as plasticity
    from granet_tf import structured as structured
    from granet_tf.budgets import sparsity_for as sparsity_for
    from granet_tf.compaction import compact as compact
    from granet_tf.export import EngineComparison as EngineComparison
    from granet_tf.export import MNNReport as MNNReport
    from granet_tf.export import TFLiteReport as TFLiteReport
    from granet_tf.export import compare_engines as compare_engines
    from granet_tf.export import export_mnn as export_mnn
    from granet_tf.export import export_report as export_report
    from granet_tf.export import export_tflite as export_tflite
    from granet_tf.int8.fake_quantize import fake_quantize as fake_quantize
    from granet_tf.reports.flops import count_flops as count_flops
    from granet_tf.reports.plots import plot_history as plot_history
    from granet_tf.reports.plots import plot_sparsity as plot_sparsity
    from granet_tf.reports.sensitivity import sensitivity as sensitivity
    from granet_tf.reports.summary import summarize as summarize
    from granet_tf.structured.shrink_callback import Shrink as Shrink

__version__ = "0.2.0"

# What only some programs use is imported when it is first used: {name: its module}. What Keras must
# know to load a file is imported above.
_MODULES = (
    *("callbacks", "compaction", "compat_tfmot", "export", "int8", "plasticity"),
    *("reports", "structured"),
)
_NAMES = {
    "compact": "compaction",
    "EngineComparison": "export",
    "MNNReport": "export",
    "TFLiteReport": "export",
    "compare_engines": "export",
    "export_mnn": "export",
    "export_report": "export",
    "export_tflite": "export",
    "fake_quantize": "int8.fake_quantize",
    "count_flops": "reports.flops",
    "plot_history": "reports.plots",
    "plot_sparsity": "reports.plots",
    "sensitivity": "reports.sensitivity",
    "sparsity_for": "budgets",
    "summarize": "reports.summary",
    "Shrink": "structured.shrink_callback",
}


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _NAMES:
        from granet_tf.unknown_names import unknown_name

        raise unknown_name(__name__, name, __dir__())
    value = getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_MODULES, *_NAMES})
