# %% [markdown]
# # Sparse and in int8: digits
#
# A small network is trained to 90 % zeros, fine-tuned with the rounding of int8 in its forward
# pass, and exported to a full int8 file that computes the same. The images are scikit-learn's
# digits, which need no download. Needs `pip install 'granet_tf[training]'`.
#
#     python examples/int8_digits.py [--epochs=40] [--fine_tune=5]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--fine_tune", type=int, default=5, help="epochs of fine-tuning")
parser.add_argument("--images", type=int, default=1437, help="of the training set")
flags = parser.parse_args()

# %% [markdown]
# ## Data and network

# %%
keras.utils.set_random_seed(0)
digits = load_digits()
images, labels = digits.images[..., None].astype("float32") / 16.0, digits.target
train, test = slice(0, flags.images), slice(1437, None)

layers = keras.layers
inputs = x = keras.Input((8, 8, 1), name="image")
for filters, strides in ((32, 1), (64, 2), (128, 1)):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
x = layers.GlobalAveragePooling2D()(x)
network = keras.Model(inputs, layers.Dense(10)(x))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fit(model, learning_rate, epochs):
    """Trains, the learning rate falling by a cosine."""
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * (flags.images // 64))
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(images[train], labels[train], batch_size=64, epochs=epochs, verbose=2)
    scores = model.evaluate(images[test], labels[test], verbose=0, return_dict=True)
    return f"{scores['accuracy']:.2%}"


# %% [markdown]
# ## To 90 % zeros

# %%
sparse = granet_tf.wrap(network, granet_tf.GraNet(0.9))
print("float32:", fit(sparse, 0.05, flags.epochs), f"at sparsity {sparse.sparsity:.2f}")

# %% [markdown]
# ## To int8
# Kernels and activations are rounded from here on, and zeros are held.

# %%
int8 = granet_tf.fake_quantize(sparse, representative_data=images[train])
print("int8, simulated:", fit(int8, 0.005, flags.fine_tune), f"at sparsity {int8.sparsity:.2f}")

# %% [markdown]
# ## The file
# It needs no representative data: the ranges of activations are the model's.

# %%
written = granet_tf.export_tflite(
    int8, "digits.tflite", format="int8", sample_inputs=images[test], labels=labels[test]
)
print(written)
