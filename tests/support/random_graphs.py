"""Random networks with random masks, for properties that any network must have."""

import inspect

import keras
import numpy as np

layers = keras.layers

# With f(0) = 0 and without, bounded and not, as a layer and as an operation.
ACTIVATIONS = ["relu", "sigmoid", "softplus", "tanh", "gelu", "relu6", "leaky_relu"]
OPERATIONS = [keras.ops.relu, keras.ops.sigmoid, lambda x: x + 0.5, keras.ops.square]


class Drawn:
    """A model drawn with a seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def draw(self, low, high):
        return int(self.rng.integers(low, high))

    def flip(self):
        return bool(self.draw(0, 2))

    def choice(self, options):
        return options[self.draw(0, len(options))]


class RandomGraph(Drawn):
    """A functional model of a dozen calls or so."""

    def model(self):
        size = int(self.rng.integers(5, 9))
        inputs = image = keras.Input((size, size, self.draw(1, 4)))
        pool = [self.convolution(image)]
        for _ in range(self.draw(3, 9)):
            pool.append(self.step(pool))
        x = pool[-1] if self.rng.random() < 0.5 else self.joined(pool)
        x = self.choice([layers.Flatten(), layers.GlobalAveragePooling2D()])(x)
        if self.rng.random() < 0.5:
            x = layers.Dense(self.draw(2, 8), self.activation())(x)
        outputs = layers.Dense(3)(x)
        if self.rng.random() < 0.2:
            outputs = [outputs, self.choice(pool)]
        model = keras.Model(inputs, outputs)
        self.fill(model)
        return model, self.rng.normal(size=(5, *inputs.shape[1:])).astype("float32")

    def activation(self):
        return self.choice([None, *ACTIVATIONS, "softmax"]) if self.draw(0, 2) else "softplus"

    def step(self, pool):
        recent = pool[-3:]
        x = self.choice(recent)
        kinds = [
            *[self.convolution] * 4,
            *[self.simple] * 4,
            *[self.nested, self.twice] * 2,
            *[lambda x: self.joined(recent)] * 3,
        ]
        return self.choice(kinds)(x)

    def convolution(self, x):
        size, bias, filters = self.choice([1, 2, 3, 3]), bool(self.draw(0, 2)), self.draw(3, 9)
        common = {
            "padding": self.choice(["same", "same", "valid"]) if x.shape[1] > 4 else "same",
            "activation": self.activation(),
            "use_bias": bias,
        }
        strides = self.choice([1, 1, 2]) if x.shape[1] > 4 else 1
        groups = [g for g in (1, 2, 3) if x.shape[-1] % g == 0]
        plain = {"strides": strides} if strides > 1 or self.draw(0, 3) else {"dilation_rate": 2}
        if x.shape[1] < 7:
            plain = {"strides": strides}
        group = self.choice(groups)
        return self.choice(
            [
                *[layers.Conv2D(filters, size, **plain, **common)] * 4,
                layers.Conv2D(2 * group, size, groups=group, **common),
                layers.DepthwiseConv2D(size, depth_multiplier=self.draw(1, 3), **common),
                layers.SeparableConv2D(filters, size, depth_multiplier=self.draw(1, 3), **common),
                layers.Conv2DTranspose(filters, size, **common),
                layers.Dense(filters, self.activation(), use_bias=bias),
            ]
        )(x)

    def simple(self, x):
        return self.choice(
            [
                layers.BatchNormalization(),
                layers.BatchNormalization(scale=False),
                layers.Activation(self.choice(ACTIVATIONS)),
                self.choice(OPERATIONS),
                layers.PReLU(shared_axes=self.choice([None, [1, 2]])),
                layers.MaxPooling2D(2, strides=1, padding=self.choice(["same", "valid"])),
                layers.AveragePooling2D(3, strides=1, padding="same"),
                *[layers.ZeroPadding2D(1)] * 2,
                layers.UpSampling2D(2) if x.shape[1] < 6 else layers.Cropping2D(1),
                layers.Dropout(0.5),
                layers.LayerNormalization(),
                layers.Permute((2, 1, 3)),
                layers.Reshape((-1, x.shape[2], x.shape[3])),
            ]
        )(x)

    def joined(self, pool):
        """A sum, or what else joins two tensors of one shape; by a convolution if need be."""
        x, y = self.choice(pool), self.choice(pool)
        if x.shape[1:3] != y.shape[1:3]:
            y = layers.Resizing(*x.shape[1:3])(y)
        if self.rng.random() < 0.4:
            return layers.Concatenate()([x, y])
        if x.shape[-1] != y.shape[-1]:
            y = layers.Conv2D(x.shape[-1], 1)(y)
        kinds = [layers.Add(), layers.Add(), layers.Multiply(), layers.Maximum(), layers.Subtract()]
        if self.rng.random() < 0.3:
            return x + y
        return self.choice(kinds)([x, y])

    def nested(self, x):
        inner = inputs = keras.Input(x.shape[1:])
        for _ in range(2):
            inner = self.choice([self.simple, self.convolution])(inner)
        return keras.Model(inputs, inner)(x)

    def twice(self, x):
        """The same layers for two tensors."""
        shared = keras.Sequential(
            [
                layers.Conv2D(x.shape[-1], 3, padding="same", activation=self.activation()),
                layers.BatchNormalization(),
            ]
        )
        return shared(shared(x)) if self.draw(0, 2) else layers.Add()([shared(x), shared(x + 1.0)])

    def fill(self, model):
        """Random weights and statistics; filters, inputs and single weights that are zero."""
        for variable in model.weights:
            value = self.rng.normal(size=variable.shape) * 0.7
            if variable.name == "moving_variance":
                value = abs(value) + 0.1
            elif variable.name == "gamma" and self.rng.random() < 0.3:
                value = value * (self.rng.random(value.shape) < 0.7)
            elif len(variable.shape) > 1:
                value = value / np.sqrt(np.prod(value.shape[:-1]))
                value = value * self.mask(value.shape)
            elif self.rng.random() < 0.1:
                value = value * 0
            variable.assign(value)

    def mask(self, shape):
        """Some filters and inputs are dead, now and then the layer."""
        mask = self.rng.random(shape) < self.choice([1.0, 1.0, 0.6, 0.2])
        mask = mask & (self.rng.random(shape[-1]) < self.choice([1.0, 0.6, 0.4]))
        mask = mask & (self.rng.random(shape[-2])[:, None] < self.choice([1.0, 1.0, 0.7]))
        return mask & (self.rng.random() < 0.97)


class RandomAttention(Drawn):
    """Attention of any kind between dense layers, some weights of which are zero."""

    dropouts = (0.0, 0.5)
    has_gate = "use_gate" in inspect.signature(layers.MultiHeadAttention).parameters

    def model(self):
        shape = (3, 2, 4) if self.flip() else (4, 4)
        inputs = keras.Input(shape)
        x = layers.Dense(5, "relu", name="before")(inputs)
        grouped = len(shape) == 2 and self.flip()
        other = self.choice([x, layers.Dense(5 if grouped else 3, name="other")(inputs)])
        layer = self.grouped() if grouped else self.multi_head()
        given = {"use_causal_mask": True} if len(shape) == 2 and self.flip() else {}
        if len(shape) == 2 and self.flip():
            given["attention_mask"] = self.rng.random((1, 4, 4)) < 0.6
        y = layer(x, other, **given)
        if not grouped and self.flip():
            y = layer(self.choice([x, keras.ops.negative(x)]), other)  # shared
        if self.flip() and y.shape == x.shape:
            y = layers.Add()([x, y])
        model = keras.Model(inputs, layers.Dense(2, name="after")(y))
        self.fill(model)
        return model, self.rng.normal(size=(3, *shape)).astype("float32")

    def multi_head(self):
        return layers.MultiHeadAttention(
            self.draw(2, 5),
            2,
            value_dim=self.draw(2, 4),
            use_bias=self.flip(),
            output_shape=self.choice([None, None, 7]),
            dropout=self.choice(self.dropouts),
            **({"use_gate": self.flip()} if self.has_gate else {}),
            name="attention",
        )

    def grouped(self):
        heads, repeats = self.draw(2, 4), self.draw(1, 3)
        return layers.GroupQueryAttention(2, heads * repeats, heads, use_bias=self.flip())

    def fill(self, model):
        for variable in model.weights:
            value = self.rng.normal(size=variable.shape) * 0.7
            for axis in range(value.ndim):
                share = self.choice([1.0, 1.0, 0.6])
                keep = self.rng.random(value.shape[axis]) < share
                value *= keep.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
            variable.assign(value)


class RandomRecurrence(Drawn):
    """A few recurrent layers of any kind, some weights of which are zero."""

    def layer(self):
        kind = self.choice([layers.SimpleRNN, layers.GRU, layers.LSTM])
        more = {"reset_after": self.flip()} if kind is layers.GRU else {}
        layer = kind(
            self.draw(2, 6),
            activation=self.choice(["tanh", "relu", None]),
            use_bias=self.flip(),
            go_backwards=self.draw(0, 4) == 0,
            return_sequences=True,
            **more,
        )
        if layer.go_backwards or self.flip():
            return layer
        return layers.Bidirectional(layer, merge_mode=self.choice(["concat", "sum", "mul", "ave"]))

    def model(self):
        tokens = keras.Input((4,), dtype="int32")
        x = layers.Embedding(7, 5, mask_zero=self.flip())(tokens)
        for _ in range(2):
            if self.flip():
                x = layers.Dense(4, self.choice(["relu", "sigmoid"]))(x)
            layer = self.layer()
            y = layer(x)
            if self.flip() and x.shape == y.shape:
                y = layers.Add()([x, layer(y) if self.flip() else y])
            x = y
        model = keras.Model(tokens, layers.Dense(2, name="after")(layers.GRU(3)(x)))
        self.fill(model)
        return model, self.rng.integers(0, 7, (4, 4))

    def fill(self, model):
        """Random weights; some units have no candidates, some inputs no weights."""
        for variable in model.weights:
            value = self.rng.normal(size=variable.shape) * 0.6
            for axis in range(value.ndim):
                keep = self.rng.random(value.shape[axis]) < self.choice([1.0, 1.0, 0.6, 0.3])
                value *= keep.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
            variable.assign(value)
