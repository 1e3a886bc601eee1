"""Recurrent layers, in one direction or in both: their units are channels.

The state begins with 0. A unit whose candidate is always 0 stays 0, whatever its gates say: if
weights and biases that lead to its candidate are 0, but for those from units that stay 0, too.
A unit is needed if its output is, or if another one that is needed reads it at the next step.
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from keras import layers

from granet_tf.compaction.channels import unknown
from granet_tf.compaction.channelwise import is_elementwise, keeps_zero
from granet_tf.compaction.rules import Member, Resized, Rule, config_inside, register, values_of

# Which of the gates is the candidate: (input, forget, candidate, output), (update, reset,
# candidate), (candidate).
_CANDIDATES = {layers.LSTM: 2, layers.GRU: 2, layers.SimpleRNN: 0}


@dataclasses.dataclass(frozen=True)
class Steps:
    """What one recurrent layer does with its units.

    Attributes:
        layer: An LSTM, a GRU or a SimpleRNN.
    """

    layer: layers.RNN

    @property
    def units(self) -> int:
        """How many."""
        return self.layer.units

    def obstacle(self) -> str | None:
        """Why its units can't be followed; None if they can."""
        if self.layer.return_state:
            return "it returns its states"
        if self.layer.stateful:
            return "it keeps its states from batch to batch"
        if not keeps_zero(self.layer.activation):
            return "its activation may mix units, or makes something else of 0"
        if not is_elementwise(getattr(self.layer, "recurrent_activation", None)):
            return "its activation may mix units"
        return None

    def weights(self) -> list[keras.Variable]:
        """Those that lead to units: for inputs and for the state before, for all gates."""
        return [self.layer.cell.kernel, self.layer.cell.recurrent_kernel]

    @property
    def bias(self) -> keras.Variable | None:
        """That of all gates; a GRU may have two rows, for the inputs and for the state before."""
        return self.layer.cell.bias

    def by_gate(self, weight: keras.Variable) -> np.ndarray:
        """A weight as (inputs, gates, units)."""
        values = values_of(weight)
        return values.reshape(*values.shape[:-1], -1, self.units)

    def zero(self, live: np.ndarray) -> np.ndarray:
        """Which units are always 0, given which inputs are not."""
        kernel, recurrent = (self._candidate(weight) for weight in self.weights())
        zero = ~kernel[live].any(0)
        if self.bias is not None:
            zero &= ~np.atleast_2d(self._candidate(self.bias)).any(0)
        while True:
            after = zero & ~recurrent[~zero].any(0)
            if (after == zero).all():
                return zero
            zero = after

    def _candidate(self, weight: keras.Variable) -> np.ndarray:
        kind = next(c for c in type(self.layer).__mro__ if c in _CANDIDATES)
        return self.by_gate(weight)[..., _CANDIDATES[kind], :]

    def read(self, needed: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """The needed units and those that they read."""
        reads = self.by_gate(self.weights()[1]).any(1)
        while True:
            after = needed | (reads[:, needed & ~zero].any(1) & ~zero)
            if (after == needed).all():
                return needed
            needed = after

    def reads_inputs(self, needed: np.ndarray) -> np.ndarray:
        """Which inputs these units read."""
        return self.by_gate(self.weights()[0])[..., needed].any((1, 2))

    def cut(self, kept_in, kept: np.ndarray, constants: np.ndarray) -> dict[int, np.ndarray]:
        """The weights for what stays, by `id`, with constants of inputs that go in the bias."""
        kernel, recurrent = (self.by_gate(weight) for weight in self.weights())
        parts = zip(self.weights(), (kernel[kept_in], recurrent[kept]), strict=True)
        found = {id(weight): value for weight, value in parts}
        if self.bias is not None:
            amount = (constants[:, None, None] * kernel.astype("float64")).sum(0)
            bias = self.by_gate(self.bias) + np.zeros(amount.shape)
            # Of two rows the first is added to what inputs give.
            bias[(0,) * (bias.ndim - 2)] += amount
            found[id(self.bias)] = bias
        return {
            key: value[..., kept].reshape(*value.shape[:-2], -1) for key, value in found.items()
        }


class Recurrent(Rule):
    """An LSTM, a GRU or a SimpleRNN."""

    resizes = makes_channels = True

    def steps(self) -> list[Steps]:
        """Those of each direction."""
        return [Steps(self.layer)]

    def obstacle(self, inputs):
        if inputs and inputs[0] is not None and inputs[0].axis != 2:
            return "its channels are on another axis"
        reasons = (steps.obstacle() for steps in self.steps())
        return super().obstacle(inputs) or next((x for x in reasons if x is not None), None)

    def forward(self, ties):
        self._zeros = [steps.zero(self._live()) for steps in self.steps()]
        known = self.joined(self._zeros, np.all)
        y = unknown(ties.fresh(len(known)), len(self.call.output_shape) - 1)
        return y.with_constants(known, y.value)

    def parted(self, of_outputs: np.ndarray) -> list[np.ndarray]:
        """An entry for each channel of the output -> one for each unit, in each direction."""
        return [of_outputs]

    def joined(self, of_units: list[np.ndarray], join) -> np.ndarray:
        """The reverse; `join` says what becomes of several for the same channel."""
        return of_units[0]

    def _live(self) -> np.ndarray:
        """Which inputs are not always 0."""
        x = self.inputs[0]
        if x is None:
            return np.ones(self.call.input_shapes[0][-1], bool)
        return ~(x.known & (x.value == 0))

    def _absorbed(self) -> np.ndarray:
        """Which inputs are 0, or constants that a bias has room for."""
        x = self.inputs[0]
        if x is None or self.shared or any(steps.bias is None for steps in self.steps()):
            return ~self._live()
        return ~self._live() | x.everywhere

    def reads_itself(self, needed):
        parts = zip(self.steps(), self.parted(needed), self._zeros, strict=True)
        return self.joined([steps.read(part, zero) for steps, part, zero in parts], np.any)

    def needs(self, needed, merging):
        if self.inputs[0] is None:
            return [np.zeros(0, bool)]
        parts = zip(self.steps(), self.parted(needed), self._zeros, strict=True)
        read = [steps.reads_inputs(part & ~zero) for steps, part, zero in parts]
        return [np.any(read, axis=0) & ~self._absorbed()]

    def members(self):
        parts = zip(self.steps(), self.parted(self.output.ids), strict=True)
        return [
            Member(weight, np.tile(ids, weight.shape[-1] // len(ids)))
            for steps, ids in parts
            for weight in steps.weights()
        ]

    def offsets(self):
        parts = zip(self.steps(), self.parted(self.output.ids), strict=True)
        return [
            Member(steps.bias, np.tile(ids, int(np.prod(steps.bias.shape)) // len(ids)))
            for steps, ids in parts
            if steps.bias is not None
        ]

    def resized(self, plan):
        x, kept_in = self.inputs[0], plan.kept(self.inputs[0])
        constants = np.zeros(len(self._live()))
        if x is not None:
            constants = np.where(~kept_in & self._absorbed(), x.value, 0.0)
        inside, units = {}, []
        for steps, ids in zip(self.steps(), self.parted(self.output.ids), strict=True):
            units.append(int(np.count_nonzero(plan.stays[ids])))
            inside |= steps.cut(kept_in, plan.stays[ids], constants)
        return Resized(self._config(units), inside=inside)

    def _config(self, units: list[int]) -> dict:
        return {"units": units[0]}


class BothDirections(Recurrent):
    """Bidirectional: the outputs of two layers, side by side or one on the other.

    Keras takes it that both directions have equally many units.
    """

    def steps(self):
        return [Steps(self.layer.forward_layer), Steps(self.layer.backward_layer)]

    def obstacle(self, inputs):
        for steps in self.steps():
            if type(steps.layer) not in _CANDIDATES:
                return f"there is no rule for a {type(steps.layer).__name__} inside it"
        if self.layer.merge_mode is None:
            return "it returns its directions one by one"
        return super().obstacle(inputs)

    @property
    def _side_by_side(self) -> bool:
        return self.layer.merge_mode == "concat"

    def parted(self, of_outputs):
        return np.split(of_outputs, 2) if self._side_by_side else [of_outputs, of_outputs]

    def joined(self, of_units, join):
        return np.concatenate(of_units) if self._side_by_side else join(of_units, axis=0)

    def also_keep(self, kept):
        ids = [super().also_keep(kept)]
        sides = self.parted(self.output.ids)
        target = max(kept[side].sum() for side in sides)
        for side in sides:
            ids.append(side[~kept[side]][: target - kept[side].sum()])
        return np.concatenate(ids)

    def couple(self, ties):
        ties.join(*self.parted(self.output.ids))

    def _config(self, units):
        names = ("layer", "backward_layer")
        return {
            name: config_inside(self.layer, name, {"units": count})
            for name, count in zip(names, units, strict=True)
        }


register(Recurrent, list(_CANDIDATES))
register(BothDirections, [layers.Bidirectional])
