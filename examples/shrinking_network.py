# %% [markdown]
# # A network that shrinks while it trains
#
# Half of the channels of a small residual network are pruned, so that what is pruned can be
# removed: filters that are added to one another go together. At three quarters of the training
# they are removed, and the rest of it trains a smaller network. The data are scikit-learn's
# digits. Needs `pip install 'granet_tf[training]'`.
#
#     python examples/shrinking_network.py [--epochs=12]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.figure
import numpy as np
from sklearn.datasets import load_digits

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=12)
flags = parser.parse_args()

# %% [markdown]
# ## Data and network

# %%
keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
train, test = slice(None, 1440), slice(1440, None)


def convolution(x, filters, name):
    x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(momentum=0.9)(x)  # Training is short.


inputs = keras.Input((8, 8, 1))
x = keras.layers.ReLU()(convolution(inputs, 24, "stem"))
for block in ("one", "two"):
    y = keras.layers.ReLU()(convolution(x, 24, f"{block}_first"))
    x = keras.layers.ReLU()(keras.layers.Add()([x, convolution(y, 24, f"{block}_second")]))
outputs = keras.layers.Dense(10, name="head")(keras.layers.GlobalAveragePooling2D()(x))
network = keras.Model(inputs, outputs)

# %% [markdown]
# ## Train it
# `summarize` shows which filters go together: those of the stem and of the second convolutions.

# %%
# Each update exchanges a tenth of the filters; with a half, as for single weights, they are
# exchanged before they have learned anything.
method = granet_tf.GraNet(0.5, scope="layer", distribution="uniform", drop_fraction=0.1)
model = granet_tf.wrap(network, method, pattern="coupled_filter")
[group] = granet_tf.summarize(model).groups
print("go together:", ", ".join(path.split("/")[0] for path in group.paths))
model.compile(
    optimizer=keras.optimizers.Adam(3e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
shrink = granet_tf.Shrink(at=0.75)
model.fit(
    images[train], labels[train], batch_size=48, epochs=flags.epochs, verbose=0, callbacks=[shrink]
)

# %% [markdown]
# ## What came of it

# %%
[shrunk] = model.shape_history
small = granet_tf.strip(model)
accuracy = np.mean(small.predict(images[test], verbose=0).argmax(-1) == labels[test])
before, after = shrunk.parameters
print(f"test accuracy {accuracy:.2%} with {after:,} of {before:,} parameters")

figure = matplotlib.figure.Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
names = [path.split("/")[0] for path in shrunk.kept]
axes.bar(names, [24] * len(names), color="lightgray", label="at first")
axes.bar(names, [len(kept) for kept in shrunk.kept.values()], color="teal", label="left")
axes.set_ylabel("channels")
axes.legend()
figure.savefig("shrinking_network.png")
