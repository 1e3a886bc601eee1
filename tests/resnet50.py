"""ResNet-50 v1.5, the network of the paper: stride in the 3×3 convolutions, no biases in any."""

import keras

STAGES = [(64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)]  # width, blocks, output size


def _kernels():
    yield "conv1", (7, 7, 3, 64), 112
    channels, size = 64, 56
    for stage, (width, blocks, output) in enumerate(STAGES, start=1):
        for block in range(blocks):
            name = f"layer{stage}_{block}"
            yield f"{name}_conv1", (1, 1, channels, width), size
            yield f"{name}_conv2", (3, 3, width, width), output
            yield f"{name}_conv3", (1, 1, width, 4 * width), output
            if block == 0:
                yield f"{name}_downsample", (1, 1, channels, 4 * width), output
            channels, size = 4 * width, output
    yield "fc", (2048, 1000), 1


KERNELS = list(_kernels())
"""`(layer name, kernel shape, height and width of the output)` of the 54 kernels."""


def build() -> keras.Model:
    """The network for 224 × 224 × 3 images and 1000 classes."""
    inputs = keras.Input((224, 224, 3))
    x = _conv(inputs, "conv1", 64, size=7, strides=2)
    x = keras.layers.ReLU()(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for stage, (width, blocks, _) in enumerate(STAGES, start=1):
        for block in range(blocks):
            x = _bottleneck(x, f"layer{stage}_{block}", width, first=block == 0, stage=stage)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(1000, name="fc")(x), name="resnet50")


def _bottleneck(x, name, width, first, stage):
    strides = 2 if first and stage > 1 else 1
    shortcut = _conv(x, f"{name}_downsample", 4 * width, strides=strides) if first else x
    x = keras.layers.ReLU()(_conv(x, f"{name}_conv1", width))
    x = keras.layers.ReLU()(_conv(x, f"{name}_conv2", width, size=3, strides=strides))
    x = _conv(x, f"{name}_conv3", 4 * width)
    return keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))


def _conv(x, name, filters, size=1, strides=1):
    x = keras.layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=False, name=name
    )(x)
    return keras.layers.BatchNormalization(name=f"{name}_bn")(x)
