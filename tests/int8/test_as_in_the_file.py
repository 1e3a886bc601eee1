"""A fake-quantized model computes what its int8 file computes in LiteRT, which is the reference.

A step is the distance between two neighbours of the 256 values that an output can have.
"""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import granet_tf
from granet_tf.export import read_weights
from granet_tf.int8 import FakeQuantize, FakeQuantized

L = keras.layers
X = np.random.default_rng(0).normal(size=(64, 8, 8, 6)).astype("float32")
RESOLVERS = [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES]


def conv(x, filters=6, size=1, **options):
    return L.Conv2D(filters, size, bias_initializer="random_normal", **options)(x)


def normalized(x, **options):
    return L.BatchNormalization(
        gamma_initializer=keras.initializers.RandomUniform(-2, 2),
        beta_initializer="random_normal",
        moving_mean_initializer="random_normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2),
        **options,
    )(x)


def dense(x, units=5, **options):
    return L.Dense(units, bias_initializer="random_normal", **options)(L.Flatten()(x))


# {name: (what makes an output of a rounded input, share of values that may be a step off)}
OPERATIONS = {
    "Conv2D": (lambda x: conv(x, 5, 3, strides=2, padding="same"), 0.01),
    "Conv2D, valid, ReLU": (lambda x: conv(x, 5, 3, activation="relu"), 0.01),
    "Conv2D, ReLU6 behind": (lambda x: L.ReLU(6.0)(conv(x, 5, 3)), 0.01),
    "Conv2D in groups": (lambda x: conv(x, 6, 3, groups=2), 0.01),
    "Conv2D, folded": (lambda x: L.ReLU()(normalized(conv(x, 5, 3, use_bias=False))), 0.01),
    "DepthwiseConv2D": (lambda x: L.DepthwiseConv2D(3, depth_multiplier=2)(x), 0.01),
    "DepthwiseConv2D, folded": (
        lambda x: L.ReLU(6.0)(normalized(L.DepthwiseConv2D(3, strides=2, padding="same")(x))),
        0.01,
    ),
    "Conv1D, folded": (lambda x: normalized(L.Conv1D(5, 3)(L.Reshape((64, 6))(x))), 0.01),
    "Dense": (dense, 0.01),
    "Dense, folded": (lambda x: L.ReLU()(normalized(dense(x))), 0.01),
    "Dense, softmax": (lambda x: dense(x, activation="softmax"), 0.15),
    "Dense, sigmoid": (lambda x: dense(x, activation="sigmoid"), 0.15),
    "Dense, tanh": (lambda x: dense(x, activation="tanh"), 0.15),
    "ReLU": (lambda x: L.ReLU()(x), 0.0),
    "silu": (lambda x: L.Activation("silu")(x), 0.05),
    "hard_silu": (lambda x: L.Activation("hard_silu")(x), 0.05),
    "gelu": (lambda x: L.Activation("gelu")(x), 0.05),
    "LeakyReLU": (lambda x: L.LeakyReLU()(x), 0.2),
    "residual": (lambda x: L.Add()([x, conv(x)]), 0.01),
    "residual, ReLU": (lambda x: L.ReLU()(L.Add()([x, normalized(conv(x))])), 0.01),
    "residual, +": (lambda x: keras.ops.relu(x + conv(x)), 0.01),
    "Subtract": (lambda x: L.Subtract()([x, conv(x)]), 0.01),
    "Multiply": (lambda x: L.Multiply()([x, conv(x, activation="relu")]), 0.01),
    "Multiply, squeeze and excite": (
        lambda x: L.Multiply()(
            [x, conv(L.GlobalAveragePooling2D(keepdims=True)(x), activation="sigmoid")]
        ),
        0.2,
    ),
    "Concatenate": (lambda x: L.Concatenate()([conv(x), conv(x, activation="relu")]), 0.01),
    "Concatenate, of pooled": (
        lambda x: L.Concatenate()([L.MaxPooling2D(2)(conv(x)), conv(x, strides=2)]),
        0.01,
    ),
    "Concatenate, of what others read": (
        lambda x: (lambda y: L.Concatenate()([y, conv(y, activation="relu")]))(conv(x)),
        0.01,
    ),
    "BatchNormalization": (lambda x: L.ReLU()(normalized(x)), 0.01),
    "BatchNormalization of vectors": (lambda x: normalized(L.Flatten()(x)), 0.01),
    "BatchNormalization of sequences": (lambda x: normalized(L.Reshape((64, 6))(x)), 0.01),
    "MaxPooling2D": (lambda x: conv(L.MaxPooling2D(2)(x)), 0.01),
    # Halves are rounded up here, and away from zero in the file.
    "AveragePooling2D": (lambda x: L.AveragePooling2D(2)(x), 0.2),
    "GlobalAveragePooling2D": (lambda x: L.GlobalAveragePooling2D()(x), 0.2),
    "GlobalMaxPooling2D": (lambda x: L.GlobalMaxPooling2D()(x), 0.0),
    "ZeroPadding2D": (lambda x: conv(L.ZeroPadding2D(2)(x), 5, 3), 0.01),
    "Dropout": (lambda x: conv(L.Dropout(0.5)(x)), 0.01),
}


def pruned(model, sparsity=0.9):
    """Random zeros, and one channel that has nothing but zeros."""
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = layer.kernel.numpy()
            kernel[np.random.default_rng(1).random(kernel.shape) < sparsity] = 0
            kernel[..., 0] = 0
            layer.kernel.assign(kernel)
    return model


def outputs_of(file, x, resolver):
    """{name: what the file computes}."""
    interpreter = Interpreter(str(file), experimental_op_resolver_type=resolver)
    run = interpreter.get_signature_runner()
    [name] = run.get_input_details()
    return run(**{name: x})


def limits_of(tensor):
    """The range that a tensor was last rounded to."""
    layer, node, _ = tensor._keras_history
    if isinstance(layer, FakeQuantize):
        return layer.limits
    return limits_of(layer._inbound_nodes[node].input_tensors[0])


def steps_off(model, file, x, resolver):
    """For each output of a model: how many steps each value of the file's is from the model's."""
    theirs = outputs_of(file, x, resolver)
    ours = keras.tree.flatten(model(x))
    found = []
    for i, (each, made) in enumerate(zip(ours, model.model.outputs, strict=True)):
        low, high = limits_of(made)
        found.append(np.abs(theirs[f"output_{i}"] - np.asarray(each)) * 255 / (high - low))
    return found


@pytest.fixture(scope="module", params=RESOLVERS, ids=lambda resolver: resolver.name)
def off(request, exported):
    """{operation: how many steps each of its values is off}."""
    model, file = exported
    return dict(zip(OPERATIONS, steps_off(model, file, X, request.param), strict=True))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """All operations side by side, in Keras and in a file."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 6))
    outputs = [make(inputs) for make, _ in OPERATIONS.values()]
    model = pruned(keras.Model(inputs, outputs))
    fake = granet_tf.fake_quantize(model, representative_data=X[:32])
    file = tmp_path_factory.mktemp("exported") / "model.tflite"
    granet_tf.export_tflite(fake, file, format="int8")
    return fake, file


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_value_is_more_than_a_step_off_and_few_are(name, off):
    share = OPERATIONS[name][1]
    assert off[name].max() < 1.01
    assert np.mean(off[name] > 0.5) <= share


def residual_network():
    """Two blocks of each kind, as ResNets and MobileNets have them."""
    inputs = keras.Input((8, 8, 6))
    x = L.ReLU()(normalized(conv(inputs, 16, 3, padding="same", use_bias=False)))
    for _ in range(2):
        y = L.ReLU()(normalized(conv(x, 16, 3, padding="same")))
        x = L.ReLU()(L.Add()([x, normalized(conv(y, 16, 3, padding="same"))]))
        y = L.ReLU(6.0)(normalized(L.DepthwiseConv2D(3, padding="same")(x)))
        x = L.Add()([x, normalized(conv(y, 16))])
    x = L.GlobalAveragePooling2D()(L.AveragePooling2D(2)(x))
    return keras.Model(inputs, L.Dense(10)(x))


def test_a_deep_network(tmp_path):
    """A step in one layer is more or less than one in the next, so a few add up."""
    fake = granet_tf.fake_quantize(pruned(residual_network(), 0.5), representative_data=X)
    granet_tf.export_tflite(fake, tmp_path / "model.tflite", format="int8", encoding="dense")
    for resolver in RESOLVERS:
        [off] = steps_off(fake, tmp_path / "model.tflite", X, resolver)
        assert off.max() < 4.01
        assert off.mean() < 0.7


def test_whole_numbers_in_the_file_are_those_of_the_rounded_kernels_and_zeros_stay(exported):
    """By hand: a normalization changes the sign of a channel, and no whole number."""
    model, file = exported
    stored = [w.values.astype(int) for w in read_weights(file) if w.operators != ("ADD",)]
    for each in granet_tf.strip(model).layers:
        if not isinstance(each, FakeQuantized):
            continue
        kernel = each.kernel.numpy()
        by_depth = isinstance(each.layer, L.DepthwiseConv2D)
        kernel = kernel.reshape(*kernel.shape[:2], -1) if by_depth else kernel
        largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
        whole = np.round(kernel / np.where(largest > 0, largest, 1) * 127).astype(int)
        if each.normalization is not None:
            whole = whole * np.sign(each.normalization.gamma.numpy()).astype(int)
        assert np.all(whole[kernel == 0] == 0)
        rows = np.moveaxis(whole, -1, 0) if not by_depth else whole[None]
        found = [
            w for w in stored if w.size == rows.size and np.array_equal(w.ravel(), rows.ravel())
        ]
        assert len(found) >= 1, each.name
