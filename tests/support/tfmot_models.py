"""Run as a script, beside Keras 3: makes models that tfmot has pruned.

    python tests/support/tfmot_models.py FOLDER FILE...

Saves one to FOLDER, as each FILE, with its inputs, outputs and masks beside it. Without a FILE,
converts all others, and prints what it saw.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

import granet_tf
from granet_tf.compat_tfmot import from_tfmot

api = tfmot.sparsity.keras
L = tf_keras.layers
RNG = np.random.default_rng(0)
RISING = {"initial_sparsity": 0.1, "final_sparsity": 0.75, "begin_step": 2, "end_step": 10}


def images():
    """Two inputs, two outputs, a shared layer, a nested model, every kind of convolution."""
    image, aux = tf_keras.Input((8, 8, 3)), tf_keras.Input((4,), name="aux")
    x = L.Conv2D(4, 3, padding="same", kernel_regularizer="l2", name="conv")(image)
    x = L.BatchNormalization()(x)
    x = L.ReLU(6.0)(x)
    x = L.SeparableConv2D(4, 3)(L.DepthwiseConv2D(3, depth_multiplier=2)(x))
    x = L.Conv2DTranspose(4, 3, strides=2, padding="same")(x)
    x = L.MaxPooling2D()(L.ZeroPadding2D(1)(x))
    x = L.Concatenate()([L.GlobalAveragePooling2D()(x), aux])
    shared = L.Dense(8, activation="tanh", name="shared")
    x = L.Dropout(0.5)(shared(shared(x)))
    top = tf_keras.Sequential(
        [L.Dense(4, input_shape=(8,), name="in_top"), L.LeakyReLU()], name="top"
    )
    return tf_keras.Model([image, aux], [top(x), L.Dense(2, name="other")(x)])


def series():
    """Recurrent layers, attention, wrappers of layers; a function that Keras 3 has changed."""
    inputs = tf_keras.Input((6,), dtype="int32")
    wide = tf_keras.initializers.RandomNormal(stddev=1.0)
    x = L.Embedding(20, 8, embeddings_initializer=wide, name="embedding")(inputs)
    x = L.MultiHeadAttention(2, 4)(x, x)
    x = L.LayerNormalization()(L.Add()([x, x]))
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    x = L.TimeDistributed(L.Dense(5, activation="gelu"))(x)
    x = L.Conv1D(6, 3, padding="causal")(x)
    x = L.GRU(4, recurrent_activation="hard_sigmoid", return_sequences=True)(x)
    x = L.RNN(L.LSTMCell(4), return_sequences=True)(x)
    x = L.PReLU(shared_axes=[1])(L.SimpleRNN(4)(x))
    return tf_keras.Model(inputs, L.Dense(3)(x))


def by_name():
    """Takes and returns dicts; two layers are wrapped by hand, in blocks and in groups."""
    half = api.ConstantSparsity(0.5, 0, frequency=1)
    blocks = api.prune_low_magnitude(
        L.Dense(8, name="blocks"), half, block_size=(4, 1), block_pooling_type="MAX"
    )
    groups = api.prune_low_magnitude(L.Dense(8, name="groups"), half, sparsity_m_by_n=(2, 4))
    inputs = {
        "left": tf_keras.Input((8,), name="left"),
        "right": tf_keras.Input((8,), name="right"),
    }
    x = L.Subtract()([blocks(inputs["left"]), groups(inputs["right"])])
    return tf_keras.Model(inputs, {"sum": x, "score": L.Dense(1)(x)})


def pruned_where_possible(model, schedule):
    """tfmot refuses a whole model for a layer that it does not know."""

    def wrap(layer):
        known = type(layer).__name__ in ("Embedding", "MultiHeadAttention", "Conv1D", "GRU", "RNN")
        return api.prune_low_magnitude(layer, schedule) if known else layer

    return tf_keras.models.clone_model(model, clone_function=wrap)


def data(model):
    """A batch in the structure of the model's inputs."""

    def draw(tensor):
        shape = (5, *tensor.shape[1:])
        if tensor.dtype.is_integer:
            return RNG.integers(0, 20, shape).astype(tensor.dtype.name)
        return RNG.normal(size=shape).astype(tensor.dtype.name)

    return tf.nest.map_structure(draw, model.input)


def trained(model):
    """`model` after one step an epoch, as a user of tfmot trains it."""
    x = data(model)
    model.compile(tf_keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    y = tf.nest.map_structure(np.ones_like, model(x))
    model.fit(x, y, epochs=4, verbose=0, callbacks=[api.UpdatePruningStep()])
    return model, x


def flat(value):
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in flat(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for each in value for leaf in flat(each)]
    return [np.asarray(value)]


def difference(theirs, ours, x):
    """The largest over all outputs, as a fraction of how much these vary from row to row."""
    pairs = zip(flat(theirs(x)), flat(ours(x)), strict=True)
    return max(float(np.abs(a - b).max() / np.ptp(a, axis=0).max()) for a, b in pairs)


def wrappers(model):
    """Layers of tfmot or ours that have masks, by name."""
    return {
        layer.name: layer
        for layer in model._flatten_layers()
        if getattr(layer, "pruning_vars", None) or getattr(layer, "pruned", None)
    }


def compared(theirs, ours, x):
    pairs = [(layer, wrappers(ours)[name]) for name, layer in wrappers(theirs).items()]
    return {
        "difference": difference(theirs, ours, x),
        "names": sorted(wrappers(theirs)) == sorted(wrappers(ours)),
        "masks": all(
            np.array_equal(a.pruning_vars[i][1].numpy() > 0, b.pruned[i].mask)
            for a, b in pairs
            for i in range(len(a.pruning_vars))
        ),
        "zeros": all(
            not np.any(np.asarray(p.variable)[~np.asarray(p.mask)])
            for _, b in pairs
            for p in b.pruned
        ),
        "sparsity": granet_tf.summarize(ours).sparsity if pairs else None,
        "class": type(ours).__name__,
        # What tfmot's schedules say at its next steps, and ours at ours.
        "schedule": all(
            bool(due) == bool(our_due) and abs(float(sparsity) - float(our_sparsity)) < 1e-6
            for a, b in pairs
            for t in range(1, 12)
            for due, sparsity in (a.pruning_schedule(t + max(int(a.pruning_step), 0)),)
            for our_due, our_sparsity in (b.pruning_schedule(t),)
        ),
        "settings": {
            b.name: [list(b.block_size), b.block_pooling_type, b.sparsity_m_by_n] for _, b in pairs
        },
        "steps": sorted({getattr(b.pruning_schedule, "steps", 0) for _, b in pairs}),
    }


def refusals():
    @tf_keras.utils.register_keras_serializable("mine")
    class Mine(L.Layer):
        def call(self, inputs):
            return inputs

    class Staircase(api.PruningSchedule):
        def __call__(self, step):
            return True, 0.5

        def get_config(self):
            return {}

    inputs = tf_keras.Input((4,))
    x = Mine(name="mine")(inputs) * 2.0
    x = L.Lambda(lambda t: t, name="function")(x)
    x = L.ThresholdedReLU(name="old")(x)
    x = L.BatchNormalization(renorm=True, name="renorm")(x)
    x = api.prune_low_magnitude(L.Dense(2, name="stairs"), Staircase())(x)
    models = {
        "layers": tf_keras.Model(inputs, x),
        "keras 3": keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
        "not built": tf_keras.Sequential([L.Dense(2)], name="lazy"),
        "no path": "nowhere.h5",
    }
    texts = {}
    for name, model in models.items():
        try:
            from_tfmot(model)
        except (TypeError, ValueError) as error:
            texts[name] = f"{type(error).__name__}: {error}"
    return texts


def goes_on(theirs, ours, x):
    """Nonzeros of each mask after the steps that the schedule still has."""
    y = [np.ones_like(v) for v in ours(x)]
    ours.compile("sgd", "mse", run_eagerly=True)
    ours.fit(x, y, epochs=6, verbose=0)
    return {n: [int(np.count_nonzero(p.mask)) for p in b.pruned] for n, b in wrappers(ours).items()}


def report():
    schedule = api.PolynomialDecay(**RISING, frequency=2)
    theirs, x = trained(api.prune_low_magnitude(images(), schedule))
    ours = from_tfmot(theirs)
    yield "images", compared(theirs, ours, x)
    stripped = api.strip_pruning(theirs)
    yield "stripped", compared(stripped, from_tfmot(stripped), x)
    yield "goes on", goes_on(theirs, ours, x)
    theirs, x = trained(pruned_where_possible(series(), schedule))
    yield "series", compared(theirs, from_tfmot(theirs), x)
    theirs, x = trained(by_name())
    yield "by name", compared(theirs, from_tfmot(theirs), x)
    fresh = api.prune_low_magnitude(images(), schedule)
    fresh.get_layer("prune_low_magnitude_conv").trainable = False
    yield "fresh", compared(fresh, from_tfmot(fresh), data(fresh))
    yield "refused", refusals()


def saved(folder, formats):
    layers = [L.Dense(16, activation="relu", input_shape=(8,)), L.BatchNormalization(), L.Dense(4)]
    schedule = api.PolynomialDecay(**RISING, frequency=2)
    model, x = trained(api.prune_low_magnitude(tf_keras.Sequential(layers), schedule))
    for name in formats:
        model.save(f"{folder}/{name}")
    masks = [layer.pruning_vars[0][1].numpy() > 0 for layer in wrappers(model).values()]
    np.savez(f"{folder}/expected.npz", *masks, x=x, y=model(x))


if __name__ == "__main__":
    tf_keras.utils.set_random_seed(0)
    if sys.argv[2:]:
        saved(sys.argv[1], sys.argv[2:])
    else:
        print(json.dumps(dict(report())))
