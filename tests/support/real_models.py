"""Networks as people build them, each with random data to train on for a moment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

layers = keras.layers
RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, and what to train it on."""

    model: keras.Model
    x: Any
    y: Any
    loss: str = "sparse_categorical_crossentropy"


def _images(model, size, batch=8):
    x = RNG.uniform(-1.0, 1.0, (batch, size, size, 3)).astype("float32")
    return Task(model, x, RNG.integers(0, 10, batch))


def lstm_tagger():
    """A tag for each word of a sentence; padding is masked."""
    words = keras.Input((4,), dtype="int32", name="words")
    x = layers.Embedding(40, 12, mask_zero=True)(words)
    # LiteRT has no operation for a loop over time.
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True, unroll=True))(x)
    tags = layers.TimeDistributed(layers.Dense(5, activation="softmax"))(x)
    return Task(keras.Model(words, tags), RNG.integers(1, 40, (16, 4)), RNG.integers(0, 5, (16, 4)))


def audio_convolutions():
    """Dilated causal convolutions on a raw waveform, as in keyword spotting."""
    wave = keras.Input((256, 1), name="wave")
    x = layers.Conv1D(8, 16, strides=4, activation="relu", padding="causal")(wave)
    for dilation in (1, 4):
        y = layers.Conv1D(16, 3, dilation_rate=dilation, padding="causal", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.SeparableConv1D(8, 3, padding="same")(y)
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling1D()(layers.MaxPooling1D(2)(x))
    model = keras.Model(wave, layers.Dense(10, activation="softmax")(x))
    x = RNG.normal(size=(16, 256, 1)).astype("float32")
    return Task(model, x, RNG.integers(0, 10, 16))


def siamese():
    """One encoder for two images."""
    encoder = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(16),
        ],
        name="encoder",
    )
    left, right = keras.Input((12, 12, 1), name="left"), keras.Input((12, 12, 1), name="right")
    distance = layers.Subtract()([encoder(left), encoder(right)])
    same = layers.Dense(1, activation="sigmoid")(layers.Multiply()([distance, distance]))
    x = [RNG.normal(size=(16, 12, 12, 1)).astype("float32") for _ in range(2)]
    model = keras.Model([left, right], same)
    return Task(model, x, RNG.integers(0, 2, (16, 1)), "binary_crossentropy")


def transfer():
    """A head on a backbone that is frozen."""
    backbone = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, name="stem"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
        ],
        name="backbone",
    )
    backbone.trainable = False
    image = keras.Input((16, 16, 3))
    x = layers.Dense(16, activation="relu", name="hidden")(backbone(image, training=False))
    model = keras.Model(image, layers.Dense(10, activation="softmax", name="head")(x))
    return _images(model, 16)


def small_resnet():
    """One residual block; made anew under mixed_float16."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False)(y)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    outputs = layers.Dense(10, activation="softmax", dtype="float32")(x)
    return _images(keras.Model(image, outputs), 16)


def bert():
    """KerasHub's encoder, small and with random weights, under a classifier."""
    import keras_hub

    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=60,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=8,
    )
    model = keras_hub.models.BertTextClassifier(backbone, num_classes=3, activation="softmax")
    ids = RNG.integers(0, 60, (8, 8))
    x = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": np.ones_like(ids)}
    return Task(model, x, RNG.integers(0, 3, 8))


@keras.saving.register_keras_serializable("real_models")
class GAN(keras.Model):
    """A generator against a discriminator, with a train_step of its own and two optimizers."""

    latent = 6

    def __init__(self, generator, discriminator, **kwargs):
        super().__init__(**kwargs)
        self.generator, self.discriminator = generator, discriminator

    def compile(self, for_generator, for_discriminator):
        super().compile()
        self.for_generator, self.for_discriminator = for_generator, for_discriminator
        self.cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    def call(self, noise):
        return self.discriminator(self.generator(noise))

    def train_step(self, real):
        import tensorflow as tf

        noise = tf.random.normal((tf.shape(real)[0], self.latent))
        with tf.GradientTape() as tape:
            of_real = self.discriminator(real, training=True)
            of_fake = self.discriminator(self.generator(noise, training=True), training=True)
            loss = self.cross_entropy(tf.ones_like(of_real), of_real)
            loss += self.cross_entropy(tf.zeros_like(of_fake), of_fake)
        self._step(tape, loss, self.discriminator, self.for_discriminator)
        with tf.GradientTape() as tape:
            of_fake = self.discriminator(self.generator(noise, training=True), training=True)
            fooled = self.cross_entropy(tf.ones_like(of_fake), of_fake)
        self._step(tape, fooled, self.generator, self.for_generator)
        return {"discriminator": loss, "generator": fooled}

    @staticmethod
    def _step(tape, loss, model, optimizer):
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)


def generator():
    """Noise to images of 8 × 8."""
    return keras.Sequential(
        [
            keras.Input((GAN.latent,)),
            layers.Dense(4 * 4 * 8),
            layers.Reshape((4, 4, 8)),
            layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(1, 3, padding="same", activation="tanh"),
        ],
        name="generator",
    )


def discriminator():
    """Images of 8 × 8 to a logit."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, strides=2, activation="leaky_relu"),
            layers.Flatten(),
            layers.Dense(1),
        ],
        name="discriminator",
    )


SMALL: dict[str, Callable[[], Task]] = {
    "lstm_tagger": lstm_tagger,
    "audio_convolutions": audio_convolutions,
    "siamese": siamese,
}

# {family: the name of its smallest member, the least input that it takes, options}
APPLICATIONS: dict[str, tuple[str, int, dict]] = {
    "convnext": ("ConvNeXtTiny", 32, {}),
    "densenet": ("DenseNet121", 32, {}),
    "efficientnet": ("EfficientNetB0", 32, {}),
    "efficientnet_v2": ("EfficientNetV2B0", 32, {}),
    "inception_resnet_v2": ("InceptionResNetV2", 75, {}),
    "inception_v3": ("InceptionV3", 75, {}),
    "mobilenet": ("MobileNet", 32, {"alpha": 0.25}),
    "mobilenet_v2": ("MobileNetV2", 32, {"alpha": 0.35}),
    "mobilenet_v3": ("MobileNetV3Small", 32, {"minimalistic": True, "alpha": 0.75}),
    "nasnet": ("NASNetMobile", 32, {}),
    "resnet": ("ResNet50", 32, {}),
    "resnet_v2": ("ResNet50V2", 32, {}),
    "vgg16": ("VGG16", 32, {}),
    "vgg19": ("VGG19", 32, {}),
    "xception": ("Xception", 71, {}),
}


def application(family: str) -> Task:
    """The smallest member of a family of `keras.applications`, with random weights."""
    name, size, options = APPLICATIONS[family]
    shape = (size, size, 3)
    build = getattr(keras.applications, name)
    return _images(build(weights=None, input_shape=shape, classes=10, **options), size, batch=4)
