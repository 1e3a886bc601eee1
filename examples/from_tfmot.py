# %% [markdown]
# # From tfmot code, before and after
#
# The function `pruned` below is code for tfmot. It runs unchanged with granet_tf on Keras 3: only
# what is imported as `keras` and `tfmot` differs. To see it run with tfmot itself, install it with
# `pip install tensorflow-model-optimization tf_keras`, and add `--before`.
#
#     python examples/from_tfmot.py [--before] [--epochs=8]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("--before", action="store_true", help="run it with tfmot and tf_keras")
parser.add_argument("--epochs", type=int, default=8)
flags = parser.parse_args()

# %% [markdown]
# ## What changes
# Two imports, and an environment variable that is not needed any more.

# %%
if flags.before:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
else:
    import keras

    import granet_tf as tfmot

# %% [markdown]
# ## What stays

# %%


def pruned(x, y, epochs):
    """A regression that is pruned to 75 %, as tfmot's guide has it."""
    model = keras.Sequential(
        [
            keras.layers.InputLayer((32,)),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(8, name="head"),
        ]
    )
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    dense = model.evaluate(x, y, verbose=0)

    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.25,
        final_sparsity=0.75,
        begin_step=0,
        end_step=len(x) // 32 * epochs // 2,
        frequency=10,
    )
    model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    model.compile("adam", "mse")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]  # May be left out with granet_tf.
    model.fit(x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=callbacks)
    return model, dense


keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
x = rng.normal(size=(512, 32)).astype("float32")
y = np.tanh(x[:, :8] - x[:, 8:16]).astype("float32")
wrapped, dense = pruned(x, y, flags.epochs)
model = tfmot.sparsity.keras.strip_pruning(wrapped)

# %% [markdown]
# ## The same figures

# %%
kernels = [weight for weight in model.get_weights() if weight.ndim == 2]
zeros = [1 - np.count_nonzero(kernel) / kernel.size for kernel in kernels]
model.compile("adam", "mse")
print(f"loss {dense:.3f} dense, {model.evaluate(x, y, verbose=0):.3f} sparse")
print(f"zeros in the kernels: {', '.join(f'{share:.2f}' for share in zeros)}")

# %% [markdown]
# ## What tfmot does not have

# %%
if not flags.before:
    print(tfmot.summarize(wrapped))
    tfmot.plot_sparsity(wrapped, to_file="from_tfmot.png")
