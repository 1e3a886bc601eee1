"""Scalars in TensorBoard's event files, without the package TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

# `tf.summary.scalar` needs the package; this is what it writes.
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class="DATA_CLASS_SCALAR",
)


def write_scalars(writer: tf.summary.SummaryWriter, step: int, figures: Mapping[str, float]):
    """Writes {tag: figure} at `step`.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = tf.summary.create_file_writer(folder)
    ...     write_scalars(writer, 100, {"sparsity": 0.5})
    ...     writer.close()
    """
    with writer.as_default(step):
        for tag, figure in figures.items():
            tf.summary.write(tag, tf.constant(figure, tf.float32), metadata=_SCALAR)
