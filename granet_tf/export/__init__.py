"""From a sparse Keras model to a small and, where possible, fast `.tflite` file.

`export_tflite` writes the file, `read_weights` says what is in one, and `export_report` how each
layer will run, how fast it is here, and what to change to get more.
"""

from granet_tf.export.engines import EngineComparison as EngineComparison
from granet_tf.export.engines import compare_engines as compare_engines
from granet_tf.export.flatbuffer import StoredWeight as StoredWeight
from granet_tf.export.flatbuffer import read_weights as read_weights
from granet_tf.export.mnn import MNNReport as MNNReport
from granet_tf.export.mnn import export_mnn as export_mnn
from granet_tf.export.mnn_file import MNNWeight as MNNWeight
from granet_tf.export.mnn_file import read_mnn_weights as read_mnn_weights
from granet_tf.export.report import ExportReport as ExportReport
from granet_tf.export.report import export_report as export_report
from granet_tf.export.tflite import TFLiteReport as TFLiteReport
from granet_tf.export.tflite import export_tflite as export_tflite
