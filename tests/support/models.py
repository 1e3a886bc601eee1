"""Small models of every kind that Keras has, and what several tests ask of them."""

import keras
import numpy as np

import granet_tf

layers = keras.layers


def sequential():
    """8 → 16 → 4: 128 and 64 prunable weights."""
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(4, name="head"),
        ],
        name="net",
    )


def functional():
    """A convolution, batch normalisation, dropout and a dense layer on 6 × 6 images."""
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Dropout(0.5, seed=3, name="dropout")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="net")


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """Two dense layers with dropout between; the training flag is passed on by hand."""

    def __init__(self, units=16, rate=0.5, **kwargs):
        super().__init__(**kwargs)
        self.units, self.rate = units, rate
        self.hidden = layers.Dense(units, activation="relu", name="hidden")
        self.dropout = layers.Dropout(rate, seed=3, name="dropout")
        self.head = layers.Dense(4, name="head")

    def call(self, inputs, training=None):
        return self.head(self.dropout(self.hidden(inputs), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units, "rate": self.rate}


def subclassed(**kwargs):
    model = Subclassed(**kwargs)
    model(np.zeros((1, 8), "float32"))
    return model


def nested():
    """A functional model and a sequential one inside a functional one."""
    inputs = keras.Input((6, 6, 2))
    trunk = functional()
    top = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="last")], name="top")
    return keras.Model(inputs, top(trunk(inputs)), name="outer")


def shared():
    """One dense layer called twice."""
    inputs = keras.Input((8,))
    twice = layers.Dense(8, activation="tanh", name="twice")
    return keras.Model(inputs, layers.Dense(4, name="head")(twice(twice(inputs))), name="net")


def multi_input():
    """Takes a dict of two inputs."""
    left, right = keras.Input((8,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()(
        [layers.Dense(5, name="from_left")(left), layers.Dense(5, name="from_right")(right)]
    )
    outputs = layers.Dense(4, name="head")(joined)
    return keras.Model({"left": left, "right": right}, outputs, name="net")


# What each takes, without the batch dimension.
INPUT_SHAPES = {
    sequential: (8,),
    functional: (6, 6, 2),
    subclassed: (8,),
    nested: (6, 6, 2),
    shared: (8,),
    multi_input: {"left": (8,), "right": (3,)},
}
ALL = list(INPUT_SHAPES)


def data(build, size=32, seed=0):
    """Random inputs for the model that `build` makes, and targets of 4 columns."""
    rng = np.random.default_rng(seed)

    def draw(shape):
        return rng.normal(size=(size, *shape)).astype("float32")

    return keras.tree.map_shape_structure(draw, INPUT_SHAPES[build]), draw((4,))


def counts(model):
    """{path: number of nonzero values} of all weights that are not one-dimensional."""
    return {
        v.path: int(np.count_nonzero(v.numpy())) for v in model.trainable_variables if v.ndim > 1
    }


def bits(mask):
    """The mask in row-major order, such as "0110"."""
    return "".join(str(int(b)) for b in np.ravel(mask))


def wrapped(model):
    """The layers that `prune_low_magnitude` has wrapped, also in models in the model."""
    return [x for x in model._flatten_layers() if isinstance(x, granet_tf.PruneLowMagnitude)]
