# %% [markdown]
# # How sparse can it be? A search with KerasTuner
#
# `sparsity` is in the logs of `fit`, so that KerasTuner can search for it as for any figure. This
# search looks for the sparsest network that loses no more than a point of accuracy, over the final
# sparsity and the method. The data are scikit-learn's digits. Needs
# `pip install 'granet_tf[training]' keras-tuner`.
#
#     python examples/search_sparsity.py [--trials=8] [--epochs=8]

# %%
import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_tuner
import matplotlib.figure
from sklearn.datasets import load_digits

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument("--trials", type=int, default=8)
parser.add_argument("--epochs", type=int, default=8)
flags = parser.parse_args()

digits = load_digits()
x, y = (digits.data / 16.0).astype("float32"), digits.target
train, validation, test = slice(0, 1077), slice(1077, 1437), slice(1437, None)


def dense():
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
    return keras.Sequential(layers, name="digits")


def fit(model, verbose=0, **options):
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    validated = (x[validation], y[validation])
    return model.fit(
        x[train],
        y[train],
        epochs=flags.epochs,
        validation_data=validated,
        verbose=verbose,
        **options,
    )


# %% [markdown]
# ## What is to be found
# A network that is as good as the dense one, but for a point, counts by its sparsity; one that is
# worse counts by how much accuracy it lacks, below all that are good enough.

# %%
keras.utils.set_random_seed(0)
floor = fit(dense()).history["val_accuracy"][-1] - 0.01


class Search(keras_tuner.HyperModel):
    def build(self, hp):
        methods = {"GraNet": granet_tf.GraNet, "GMP": granet_tf.GMP}
        method = methods[hp.Choice("method", [*methods])]
        final_sparsity = hp.Float("final_sparsity", 0.5, 0.99)
        return granet_tf.wrap(dense(), method(final_sparsity, frequency=10))

    def fit(self, hp, model, **options):
        accuracy = fit(model, **options).history["val_accuracy"][-1]
        good = accuracy >= floor
        return {
            "accuracy": accuracy,
            "sparsity": model.sparsity,
            "score": model.sparsity if good else accuracy - floor,
        }


tuner = keras_tuner.BayesianOptimization(
    Search(),
    objective=keras_tuner.Objective("score", "max"),
    max_trials=flags.trials,
    directory=tempfile.mkdtemp(),
    seed=0,
)
tuner.search(verbose=0)

# %% [markdown]
# ## What came of it
# The best is trained again and tested. The picture has a point for each trial, and the floor.

# %%
best = tuner.get_best_hyperparameters()[0]
print("best:", ", ".join(f"{name}={value}" for name, value in sorted(best.values.items())))
keras.utils.set_random_seed(0)
model = Search().build(best)
fit(model)
accuracy = model.evaluate(x[test], y[test], verbose=0, return_dict=True)["accuracy"]
print(f"test accuracy {accuracy:.2%} at sparsity {model.sparsity:.3f}")

trials = [trial.metrics for trial in tuner.oracle.trials.values()]
figure = matplotlib.figure.Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
axes.plot(
    [trial.get_last_value("sparsity") for trial in trials],
    [trial.get_last_value("accuracy") for trial in trials],
    "o",
)
axes.axhline(floor, color="gray", linestyle="dashed")
axes.set_xlabel("sparsity")
axes.set_ylabel("validation accuracy")
figure.savefig("search_sparsity.png")
