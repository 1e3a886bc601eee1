"""A dense layer at each step of a sequence, in a layer of its own: as without that one."""

from __future__ import annotations

from keras import layers

from granet_tf.compaction.mixing import Mixing
from granet_tf.compaction.rules import Resized, config_inside, register


class TimeDistributed(Mixing):
    """A dense layer inside."""

    @property
    def dense(self):
        return self.layer.layer

    def obstacle(self, inputs):
        if type(self.dense) is not layers.Dense:
            return f"there is no rule for a {type(self.dense).__name__} inside it"
        return super().obstacle(inputs)

    def resized(self, plan):
        dense = super().resized(plan)
        return Resized(
            {"layer": config_inside(self.layer, "layer", dense.config)},
            {f"layer.{name}": value for name, value in dense.weights.items()},
        )


register(TimeDistributed, [layers.TimeDistributed])
