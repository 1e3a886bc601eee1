# %% [markdown]
# # A training loop of your own
#
# Without `fit`, a `SparseOptimizer` takes the place of your optimizer, and the method is told how
# long training is. Nothing else changes. The data are scikit-learn's digits. Needs
# `pip install 'granet_tf[training]'`.
#
#     python examples/custom_loop.py [--epochs=10]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=10)
flags = parser.parse_args()

# %%
keras.utils.set_random_seed(0)
digits = load_digits()
x, y = (digits.data / 16.0).astype("float32"), digits.target
train = tf.data.Dataset.from_tensor_slices((x[:1437], y[:1437])).shuffle(1437, seed=0)
train = train.batch(32, drop_remainder=True)
layers = [
    keras.Input((64,)),
    keras.layers.Dense(128, activation="relu", name="first"),
    keras.layers.Dense(64, activation="relu", name="second"),
    keras.layers.Dense(10, name="head"),
]
network = keras.Sequential(layers, name="digits")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# %% [markdown]
# ## The two lines that differ
# `total_steps` is what `fit` would have told the method. RigL is sparse from the first step on, and
# moves connections every 20 steps.

# %%
steps = flags.epochs * len(train)
model = granet_tf.wrap(network, granet_tf.RigL(0.9, frequency=20, total_steps=steps))
optimizer = granet_tf.SparseOptimizer(keras.optimizers.Adam(3e-3), model)
before = granet_tf.summarize(model)
masks = [pruned.mask.numpy() for pruned in model.pruned]

# %% [markdown]
# ## The loop

# %%


@tf.function
def train_step(images, labels):
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True)) + sum(model.losses)
    gradients = tape.gradient(value, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return value


sparsities, losses = [], []
for _epoch in range(flags.epochs):
    losses.append(float(np.mean([train_step(images, labels) for images, labels in train])))
    sparsities.append(model.sparsity)

# %% [markdown]
# ## What came of it

# %%
accuracy = np.mean(np.argmax(network(x[1437:]), axis=-1) == y[1437:])
grown = sum(
    int(np.count_nonzero(pruned.mask.numpy() & ~mask))
    for pruned, mask in zip(model.pruned, masks, strict=True)
)
granet_tf.plot_history({"loss": losses, "sparsity": sparsities}, to_file="custom_loop.png")
print(f"{grown} of {model.nonzeros} connections are where none was; as many as at first: ", end="")
print(model.nonzeros == before.nonzeros)
print(f"test accuracy {accuracy:.2%} at sparsity {model.sparsity:.3f} after {steps} steps")
