"""An optimizer around another one, of which it shows what Keras looks at."""

from __future__ import annotations

import keras

# Keras's trainer and callbacks look at these.
_DELEGATED = (
    "weight_decay",
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


class WrapsOptimizer(keras.optimizers.Optimizer):
    """Base class: an optimizer that does something beside the step of its `inner_optimizer`.

    Source: the shape of `keras.optimizers.LossScaleOptimizer`.
    """

    inner_optimizer: keras.optimizers.Optimizer

    @property
    def variables(self):
        return self.inner_optimizer.variables

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def _model_variables_moving_average(self):
        return self.inner_optimizer._model_variables_moving_average

    def apply_gradients(self, grads_and_vars):
        super().apply_gradients(grads_and_vars)
        return self.iterations

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)


def _delegate(name):
    def read(self):
        return getattr(self.inner_optimizer, name)

    def write(self, value):
        # Keras's own constructor assigns its defaults before there is an inner optimizer.
        if "inner_optimizer" in self.__dict__:
            setattr(self.inner_optimizer, name, value)

    return property(read, write)


for _name in _DELEGATED:
    setattr(WrapsOptimizer, _name, _delegate(_name))
