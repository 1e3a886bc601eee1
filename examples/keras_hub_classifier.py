# %% [markdown]
# # A text classifier of KerasHub
#
# A small BERT with random weights learns which of two made-up sentences is good, and ends with 80 %
# zeros. In earnest, begin with
# `keras_hub.models.BertTextClassifier.from_preset("bert_tiny_en_uncased", num_classes=2)`.
# Needs `pip install keras-hub 'granet_tf[report]'`.
#
#     python examples/keras_hub_classifier.py [--epochs=30]

# %%
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import keras_hub
import numpy as np

import granet_tf

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=30)
flags = parser.parse_args()

# %% [markdown]
# ## Data
# "not" turns "good" and "bad" round.

# %%
keras.utils.set_random_seed(0)
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "not"]
rng = np.random.default_rng(0)
adjectives, negations = rng.integers(0, 2, 256), rng.integers(0, 2, 256)
texts = np.array(
    [
        f"{('very', 'not')[negation]} {('bad', 'good')[adjective]}"
        for adjective, negation in zip(adjectives, negations, strict=True)
    ]
)
labels = adjectives ^ negations

# %% [markdown]
# ## The classifier
# Its preprocessor cuts texts into tokens; `fit` and `predict` take the texts as they are.

# %%
models = keras_hub.models
backbone = models.BertBackbone(
    vocabulary_size=len(words),
    num_layers=1,
    num_heads=2,
    hidden_dim=32,
    intermediate_dim=64,
    max_sequence_length=8,
)
preprocessor = models.BertTextClassifierPreprocessor(
    models.BertTokenizer(vocabulary=words), sequence_length=8
)
classifier = models.BertTextClassifier(backbone, num_classes=2, preprocessor=preprocessor)

# %% [markdown]
# ## Train it sparse
# Everything that may be pruned is, but the token embedding: it has a row for each word. The caps
# keep GraNet from emptying a small kernel, as it ranks all of them together.

# %%


def is_no_embedding(layer, weight):
    return granet_tf.default_prunable(layer, weight) and "embedding" not in weight.path


model = granet_tf.wrap(
    classifier, granet_tf.GraNet(0.8, capped={"*": 0.9}), prunable=is_no_embedding
)
model.compile(
    optimizer=keras.optimizers.Adam(5e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
model.fit(texts, labels, batch_size=32, epochs=flags.epochs, verbose=0)
task = granet_tf.strip(model)  # The classifier itself, with its preprocessor.
accuracy = np.mean(np.argmax(task.predict(texts, verbose=0), axis=-1) == labels)
granet_tf.plot_sparsity(model, to_file="keras_hub_classifier.png")
print(f"accuracy {accuracy:.2%} at sparsity {model.sparsity:.3f}")
