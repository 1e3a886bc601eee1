"""Running an `.mnn` file in MNN."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

import numpy as np

from granet_tf.export.mnn_conversion import Source
from granet_tf.reasons import reason_of


class MNNRunner:
    """A loaded file, with the methods of `running.Runner`.

    Args:
        content: The file.
        source: What it was made from, which knows the names in it.
        threads: Threads it computes with.

    Raises:
        RuntimeError: If MNN cannot load it.
    """

    def __init__(self, content: bytes, source: Source, threads: int = 1):
        import MNN

        self._mnn, self._source = MNN, source
        # It reads files only.
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.mnn")
            with open(path, "wb") as file:
                file.write(content)
            try:
                self._net = MNN.Interpreter(path)
                # "high" computes in float32 as the model does.
                self._session = self._net.createSession(
                    {"numThread": threads, "backend": "CPU", "precision": "high"}
                )
            # A bare Exception.
            except Exception as error:
                raise _does_not_run(error, f"a file of {len(content):,} bytes") from error
        self._tensors = self._net.getSessionInputAll(self._session)
        missing = {*source.inputs.values()} - {*self._tensors}
        if missing:
            raise _does_not_run(f"it has lost the inputs {sorted(missing)}", sorted(self._tensors))

    def __call__(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, of inputs by name.

        Raises:
            RuntimeError: If an operation fails.
        """
        shapes = {name: array.shape for name, array in feed.items()}
        try:
            self._resize(shapes)
            for name, array in feed.items():
                tensor = self._tensors[self._source.inputs[name]]
                tensor.copyFrom(self._as_tensor(array, tensor.getDimensionType()))
            self._net.runSession(self._session)
            return {name: self._output(own) for name, own in self._source.outputs.items()}
        except Exception as error:
            raise _does_not_run(error, f"inputs of shape {shapes}") from error

    def invoke(self) -> None:
        """Computes once more on the inputs of the last call."""
        self._net.runSession(self._session)

    def _resize(self, shapes):
        changed = False
        for name, shape in shapes.items():
            tensor = self._tensors[self._source.inputs[name]]
            if tuple(tensor.getShape()) != shape:
                self._net.resizeTensor(tensor, shape)
                changed = True
        if changed:
            self._net.resizeSession(self._session)

    def _as_tensor(self, array, dimension_type):
        is_float = np.issubdtype(array.dtype, np.floating)
        array = np.ascontiguousarray(array, np.float32 if is_float else np.int32)
        kind = self._mnn.Halide_Type_Float if is_float else self._mnn.Halide_Type_Int
        return self._mnn.Tensor(array.shape, kind, array, dimension_type)

    def _output(self, name):
        tensor = self._net.getSessionOutput(self._session, name)
        shape = tuple(tensor.getShape())
        if 0 in shape:
            raise RuntimeError(f"its output {name!r} has the shape {shape}")
        kind = tensor.getDataType()
        is_float = kind == self._mnn.Halide_Type_Float
        empty = np.empty(shape, np.float32 if is_float else np.int32)
        copied = self._mnn.Tensor(shape, kind, empty, tensor.getDimensionType())
        tensor.copyToHostTensor(copied)
        return np.array(copied.getNumpyData()).reshape(shape)


def _does_not_run(reason, received) -> RuntimeError:
    reason = reason_of(reason) if isinstance(reason, Exception) else reason
    return RuntimeError(f"the converted model does not run in MNN: {reason}. Received: {received}")
