# %% [markdown]
# # A MobileNet that is small and fast
#
# From `keras.applications` to a sparse file that MNN runs faster than any engine here runs the
# dense one. The images are scikit-learn's digits, which need no download. Needs
# `pip install 'granet_tf[training,mnn]'`.
#
#     python examples/fast_mobilenet.py [--epochs=8] [--images=1437] [--size=64]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--images", type=int, default=1437, help="of the training set")
parser.add_argument("--size", type=int, default=64, help="height and width of the images")
parser.add_argument("--alpha", type=float, default=1.0, help="width of the network")
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
# ## Three lines
# GraNet at 90 %, everywhere but in the depthwise kernels, which are few and are not skipped by any
# engine. `pattern="mnn"` has zeros in blocks of four outputs, which MNN computes fastest.

# %%
network = keras.applications.MobileNet(
    weights=None, input_shape=(flags.size, flags.size, 3), classes=10, alpha=flags.alpha
)
for layer in network.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.9  # At 0.99, its averages would take more steps than there are here.


def is_pointwise(layer, weight):
    return granet_tf.default_prunable(layer, weight) and "conv_pw" in weight.path


# Ranked together, the weights of some layers would all go.
method = granet_tf.GraNet(0.9, capped={"*": 0.98}, pattern="mnn")
model = granet_tf.wrap(network, method, prunable=is_pointwise)
model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images[train], labels[train], batch_size=64, epochs=flags.epochs, verbose=2)
accuracy = model.evaluate(images[test], labels[test], verbose=0, return_dict=True)["accuracy"]
print(f"test accuracy {accuracy:.2%} at sparsity {model.sparsity:.2f}")

# %% [markdown]
# ## The file, and how fast it is here

# %%
written = granet_tf.export_mnn(
    model, "mobilenet.mnn", sample_inputs=images[test], labels=labels[test]
)
print(written)
print(granet_tf.compare_engines(model, sample_inputs=images[test][:1], threads=[1]))
