"""Dense layers that are written as an equation, as in "abc,cd->abd"."""

from __future__ import annotations

from keras import layers

from granet_tf.compaction.mixing import Mixing
from granet_tf.compaction.rules import register, values_of


class EinsumDense(Mixing):
    """A dense layer on the last axis. Where it makes several axes of it, the output stays."""

    def obstacle(self, inputs):
        source, kernel, result = self._equation()
        dense = source[:-1] + kernel[1:] == result and source[-1:] == kernel[:1]
        if not dense or not kernel[1:] or set(kernel[1:]) & set(source):
            return "its equation is not that of a dense layer on the last axis"
        if self.layer.bias is not None and self._bias_axes() != kernel[1:]:
            return "its bias is not one of each output"
        return super().obstacle(inputs)

    def _equation(self) -> tuple[str, str, str]:
        """Letters of the input, of the kernel and of the output; one dot is the ellipsis."""
        operands, result = self._plain(self.layer.equation).split("->")
        source, kernel = operands.split(",")
        return source, kernel, result

    def _bias_axes(self) -> str:
        return "".join(sorted(self._plain(self.layer.bias_axes), key=self._equation()[2].index))

    def _plain(self, letters: str) -> str:
        return letters.replace(" ", "").replace("...", ".")

    @property
    def _flat(self) -> bool:
        return len(self.layer.kernel.shape) == 2

    def kernel(self):
        kernel = values_of(self.layer.kernel)
        return kernel.reshape(kernel.shape[0], -1)

    def forward(self, ties):
        return super().forward(ties) if self._flat else None

    def _stored(self, kernel):
        return {"kernel": kernel.reshape(len(kernel), *self._outputs(kernel.shape[1]))}

    def _stored_bias(self, bias):
        return {"bias": bias.reshape(self._outputs(len(bias)))}

    def _outputs(self, count: int) -> tuple[int, ...]:
        """Sizes of the axes of outputs, which are this many in all."""
        return (count,) if self._flat else tuple(self.layer.kernel.shape[1:])

    def _config(self, kernel):
        outputs = self._outputs(kernel.shape[1])
        before = self.layer.partial_output_shape[: -len(outputs)]
        return {"output_shape": (*before, *outputs)}

    def _with_bias(self):
        return {"bias_axes": self._equation()[1][1:]}


register(EinsumDense, [layers.EinsumDense])
