# %% [markdown]
# # Fine-tune and prune a model of keras.applications
#
# A network that is trained already is pruned while it is fine-tuned: GraNet starts dense, so that
# the weights it begins with survive. In earnest, begin with `weights="imagenet"` and your own
# images. Here the network is trained on scikit-learn's digits first, which needs no download. Needs
# `pip install 'granet_tf[training]'`.
#
#     python examples/pruned_mobilenet.py [--epochs=10] [--images=1437] [--size=64] [--alpha=0.5]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument(
    "--epochs", type=int, default=10, help="of the dense and of the sparse training"
)
parser.add_argument("--images", type=int, default=1437, help="of the training set")
parser.add_argument("--size", type=int, default=64, help="height and width of the images")
parser.add_argument("--alpha", type=float, default=0.5, help="width of the network")
flags = parser.parse_args()

# %% [markdown]
# ## Data
# 8 × 8 grey images, made as large as the network likes them.

# %%
keras.utils.set_random_seed(0)
digits = load_digits()
images = keras.ops.image.resize(digits.images[..., None] / 8.0 - 1.0, (flags.size, flags.size))
images, labels = np.repeat(images, 3, axis=-1).astype("float32"), digits.target
train, test = slice(0, flags.images), slice(1437, None)

# %% [markdown]
# ## The dense network
# With `weights="imagenet"` this training is that of a new head.

# %%
shape = (flags.size, flags.size, 3)
network = keras.applications.MobileNet(
    input_shape=shape, alpha=flags.alpha, weights=None, classes=10
)
for layer in network.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.9  # At 0.99, its averages would take more steps than there are here.
training = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
network.compile(keras.optimizers.Adam(2e-3), **training)
network.fit(images[train], labels[train], batch_size=64, epochs=flags.epochs, verbose=0)
dense = network.evaluate(images[test], labels[test], verbose=0, return_dict=True)["accuracy"]

# %% [markdown]
# ## Which layers to spare
# Each kernel is pruned alone, without training, and the network is measured. The kernel that
# suffers most goes to a lower sparsity than the others.

# %%
report = granet_tf.sensitivity(network, (images[train][:64], labels[train][:64]), sparsities=[0.8])
for row in report.rows[:5]:
    print(f"{row.path}: the loss changes by {row.change:.3g}")

# %% [markdown]
# ## Fine-tune and prune
# A small learning rate, as always when you fine-tune; but not too small, as weights must recover.

# %%
method = granet_tf.GraNet(0.8, pinned=report.pins(1, sparsity=0.6), capped={"*": 0.98})
model = granet_tf.wrap(network, method)
model.compile(keras.optimizers.Adam(1e-3), **training)
model.fit(images[train], labels[train], batch_size=64, epochs=flags.epochs, verbose=0)
sparse = model.evaluate(images[test], labels[test], verbose=0, return_dict=True)["accuracy"]
granet_tf.plot_sparsity(model, to_file="pruned_mobilenet.png")
print(f"test accuracy {dense:.2%} dense, {sparse:.2%} at sparsity {model.sparsity:.3f}")

# %% [markdown]
# ## The network itself
# `strip` gives back the object that was wrapped, now sparse.

# %%
assert granet_tf.strip(model) is network
