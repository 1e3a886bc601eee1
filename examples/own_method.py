# %% [markdown]
# # A method of your own
#
# Most methods only say what goes and what comes. GraNet drops the connections whose weights are
# smallest. This method drops those whose removal changes the loss least, to first order, and has a
# parameter that mixes the two. The data are scikit-learn's digits. Needs
# `pip install 'granet_tf[training]'`.
#
#     python examples/own_method.py [--epochs=10]

# %%
import argparse
import dataclasses
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import granet_tf
from granet_tf.methods.parameters import parameter

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
flags = parser.parse_args()

# %% [markdown]
# ## The method
# It is a frozen dataclass: its fields are its parameters, whose range is checked. Registering it
# lets Keras load models that were saved with it.

# %%


@keras.saving.register_keras_serializable("examples")
@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstOrder(granet_tf.GraNet):
    """GraNet that drops by |w| · |gradient|^p instead of by |w|; p = 0 is GraNet."""

    exponent: float = parameter(0.5, "Exponent of |gradient| in what is dropped.", at_least=0)

    def drop_score(self, weight, gradient, seed):
        return tf.abs(weight) * tf.abs(gradient) ** self.exponent


# %% [markdown]
# ## GraNet beside it
# The same network from the same weights, on the same batches.

# %%
digits = load_digits()
x, y = (digits.data / 16.0).astype("float32"), digits.target
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained(method):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(128, activation="relu", name="first"),
        keras.layers.Dense(10, name="head"),
    ]
    model = granet_tf.wrap(keras.Sequential(layers, name="digits"), method)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x[:1437], y[:1437], epochs=flags.epochs, verbose=0)
    return model, model.evaluate(x[1437:], y[1437:], verbose=0, return_dict=True)["accuracy"]


theirs, accuracy = trained(granet_tf.GraNet(0.95, frequency=20))
print(f"GraNet: test accuracy {accuracy:.2%} at sparsity {theirs.sparsity:.3f}")
ours, accuracy = trained(FirstOrder(0.95, frequency=20))
print(f"FirstOrder: test accuracy {accuracy:.2%} at sparsity {ours.sparsity:.3f}")

# %% [markdown]
# ## Where the two differ
# The picture has what is left in each layer, and a mark where GraNet is.

# %%
figure = granet_tf.plot_sparsity(ours, before=granet_tf.summarize(theirs), to_file="own_method.png")
both = sum(
    int(np.count_nonzero(a.mask.numpy() & b.mask.numpy()))
    for a, b in zip(ours.pruned, theirs.pruned, strict=True)
)
print(f"{both} of {ours.nonzeros} connections are GraNet's, too")
