"""The networks: their sizes against the literature, their layers against the definitions."""

import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from numpy.lib.stride_tricks import sliding_window_view

import granet_tf
from granet_train import models
from granet_train.errors import UsageError
from granet_train.networks import blocks
from tests.support import resnet50

CIFAR, IMAGENET = ((32, 32, 3), 10), ((224, 224, 3), 1000)


def parameters(model):
    """What PyTorch calls so: trainable only."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def multiply_adds(model):
    """Of convolutions and dense layers: without average pooling, as most papers count."""
    report = granet_tf.count_flops(model)
    return sum(row.dense for row in report.rows if row.weights) // 2


def kernel_shapes(model):
    return {v.path.split("/")[-2]: tuple(v.shape) for v in model.weights if v.name == "kernel"}


# Sizes


@pytest.mark.parametrize(
    ("name", "data", "expected_parameters", "prunable", "kernels", "expected_multiply_adds"),
    [
        # Three stages; shortcuts 16·32 + 32·64. Normalization 2 · (7·16 + 6·32 + 6·64 + 32 + 64).
        (
            "resnet20",
            CIFAR,
            272_474,
            432 + 6 * 2304 + (4608 + 5 * 9216 + 512) + (18432 + 5 * 36864 + 2048) + 640,
            22,
            442_368 + 6 * 2304 * 1024 + (50688 + 512) * 256 + (202752 + 2048) * 64 + 640,
        ),
        ("resnet32", CIFAR, 466_906, 464_432, 34, 69_124_736),
        # 20.0 million and 398 million, as in papers that use it.
        ("vgg19", CIFAR, 20_035_018, 20_018_880 + 5_120, 17, 398_136_320),
        # As the well-known PyTorch networks of the same definitions.
        ("resnet50_cifar", CIFAR, 23_520_842, 23_467_712, 54, 1_297_829_888),
        ("resnet50", IMAGENET, 25_557_032, 25_502_912, 54, 4_089_184_256),
        # 4.2 million and 569 million in the paper. Depthwise kernels (44,640 weights) and
        # normalization (21,888) are not prunable, nor are the 1,000 biases.
        ("mobilenet_v1", IMAGENET, 4_231_976, 4_231_976 - 44_640 - 21_888 - 1_000, 15, 568_740_352),
        ("small_cnn", ((8, 8, 1), 10), 94_186, 93_728, 4, 18_432 + 294_912 + 1_179_648 + 1_280),
    ],
)
def test_sizes(name, data, expected_parameters, prunable, kernels, expected_multiply_adds):
    model = models.make(name, *data)
    summary = granet_tf.summarize(model)
    assert parameters(model) == expected_parameters
    assert (summary.size, sum(row.pruned for row in summary.rows)) == (prunable, kernels)
    assert multiply_adds(model) == expected_multiply_adds
    assert model.output_shape == (None, data[1])
    assert model.name == name and not model.losses


def test_resnet50_has_the_papers_kernels_and_flops():
    model = models.make("resnet50", *IMAGENET)
    assert kernel_shapes(model) == {name: shape for name, shape, _ in resnet50.KERNELS}
    # The paper's number counts the average pooling: 2 · 7 · 7 · 2048.
    assert granet_tf.count_flops(model).dense == 8_178_569_216


def test_resnet50_for_cifar_differs_in_its_ends_only():
    expected = {name: shape for name, shape, _ in resnet50.KERNELS}
    expected |= {"stem": (3, 3, 3, 64), "head": (2048, 10)}
    assert kernel_shapes(models.make("resnet50_cifar", *CIFAR)) == expected


def test_vgg19_has_these_convolutions():
    # (input, output) channels of all 16.
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 256, *[512] * 8]
    model = models.make("vgg19", *CIFAR)
    shapes = list(kernel_shapes(model).values())
    assert shapes[:-1] == [(3, 3, a, b) for a, b in itertools.pairwise(channels)]
    assert shapes[-1] == (512, 10)
    assert not [v.path for v in model.weights if v.name == "bias" and "head" not in v.path]
    assert model.get_layer("pool").input.shape == (None, 2, 2, 512)


# Strides and padding


@pytest.fixture(scope="module")
def narrow():
    """Every network that has strides, small."""
    widths = {"resnet20": 0.25, "resnet50_cifar": 1 / 16, "resnet50": 1 / 16, "mobilenet_v1": 0.125}
    return {name: models.make(name, *CIFAR, width=width) for name, width in widths.items()}


def as_in_pytorch(x, kernel, strides, depthwise):
    """A convolution with (size − 1) / 2 zeros on all sides, in plain NumPy."""
    margin = len(kernel) // 2
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::strides, ::strides]
    return np.einsum("nhwcij,ijcf->nhwc" if depthwise else "nhwcij,ijcf->nhwf", windows, kernel)


@pytest.mark.parametrize(
    ("network", "layer", "strides"),
    [
        ("mobilenet_v1", "stem", 2),
        ("mobilenet_v1", "block1_depthwise", 1),
        ("mobilenet_v1", "block2_depthwise", 2),
        ("mobilenet_v1", "block2_pointwise", 1),
        ("resnet50", "stem", 2),
        ("resnet50", "stage2_block1_conv1", 1),
        ("resnet50", "stage2_block1_conv2", 2),
        ("resnet50", "stage2_block1_shortcut", 2),
        ("resnet50_cifar", "stem", 1),
        ("resnet50_cifar", "stage4_block1_conv2", 2),
        ("resnet20", "stage1_block1_conv1", 1),
        ("resnet20", "stage3_block1_conv1", 2),
        ("resnet20", "stage3_block1_shortcut", 2),
    ],
)
def test_padding_is_the_same_on_all_sides(narrow, network, layer, strides):
    by_name = {layer.name: layer for layer in narrow[network].layers}
    conv = by_name[layer]
    entry = by_name.get(f"{layer}_pad", conv).input
    x = np.random.default_rng(0).standard_normal((2, *entry.shape[1:])).astype("float32")
    expected = as_in_pytorch(x, conv.kernel.numpy(), strides, "depthwise" in layer)
    np.testing.assert_allclose(keras.Model(entry, conv.output)(x), expected, rtol=0, atol=1e-4)


def test_max_pooling_is_that_of_pytorch(narrow):
    model = narrow["resnet50"]
    entry = model.get_layer("stem_pool_pad").input
    x = np.random.default_rng(0).random((2, *entry.shape[1:]), np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    expected = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2].max((-1, -2))
    pooled = keras.Model(entry, model.get_layer("stem_pool").output)(x)
    np.testing.assert_array_equal(pooled, expected)


def test_v1_5_has_its_strides_in_the_3x3_convolutions(narrow):
    strided = {
        layer.name: layer.kernel_size
        for layer in narrow["resnet50"].layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides == (2, 2)
    }
    assert strided == {
        "stem": (7, 7),
        **{f"stage{stage}_block1_conv2": (3, 3) for stage in (2, 3, 4)},
        **{f"stage{stage}_block1_shortcut": (1, 1) for stage in (2, 3, 4)},
    }


def test_only_the_first_block_of_a_stage_has_a_shortcut_with_weights(narrow):
    shortcuts = {
        name: {layer.name for layer in model.layers if layer.name.endswith("_shortcut")}
        for name, model in narrow.items()
    }
    assert shortcuts["resnet20"] == {"stage2_block1_shortcut", "stage3_block1_shortcut"}
    assert shortcuts["resnet50"] == {f"stage{stage}_block1_shortcut" for stage in (1, 2, 3, 4)}


@pytest.mark.slow
def test_mobilenet_is_of_the_form_that_sparse_kernels_can_run(narrow, tmp_path):
    model, path = narrow["mobilenet_v1"], tmp_path / "model.tflite"
    model.export(path, format="litert", verbose=False)
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    operations = litert.Interpreter(str(path), experimental_op_resolver_type=resolver)
    names = [operation["op_name"] for operation in operations._get_ops_details()]
    # One PAD for each stride of 2. Nothing but these: XNNPACK would leave its sparse layout there.
    assert {name: names.count(name) for name in names} == {
        "PAD": 5,
        "CONV_2D": 14,
        "DEPTHWISE_CONV_2D": 13,
        "MEAN": 1,
        "FULLY_CONNECTED": 1,
    }
    relus = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    assert len(relus) == 27 and {relu.max_value for relu in relus} == {6.0}


# Names, normalization and initial values


@pytest.mark.parametrize("name", models.NETWORKS)
def test_layers_have_the_same_names_in_every_build(name):
    first, second = (
        [layer.name for layer in models.make(name, *CIFAR, width=1 / 16).layers] for _ in "12"
    )
    assert first == second and first[0] == "image" and first[-2:] == ["pool", "head"]


def test_normalization_is_that_of_pytorch(narrow):
    norms = [
        layer
        for model in narrow.values()
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 21 + 53 + 53 + 27
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}


@pytest.mark.parametrize(
    ("name", "layer", "deviation", "largest"),
    [
        # √(2 / fan), fan = 9 · channels in or out; a normal distribution that is not cut off.
        ("resnet20", "stage2_block1_conv1", (2 / (9 * 16)) ** 0.5, np.inf),
        ("resnet20", "stage3_block3_conv2", (2 / (9 * 64)) ** 0.5, np.inf),
        ("vgg19", "stage2_conv1", (2 / (9 * 128)) ** 0.5, np.inf),
        ("vgg19", "head", 0.01, np.inf),
        ("mobilenet_v1", "block7_depthwise", (2 / 9) ** 0.5, np.inf),
        # Uniform in ±1 / √fan_in.
        ("resnet50_cifar", "stage1_block1_conv2", (1 / (3 * 9 * 64)) ** 0.5, 1 / (9 * 64) ** 0.5),
    ],
)
def test_initial_values(name, layer, deviation, largest):
    kernel = models.make(name, *CIFAR).get_layer(layer).kernel.numpy()
    assert kernel.std() == pytest.approx(deviation, rel=0.04)
    assert abs(kernel).max() <= largest
    if largest == np.inf:
        assert abs(kernel).max() > 2.6 * deviation


def test_layers_of_the_same_shape_start_differently(narrow):
    first, second = (
        narrow["resnet20"].get_layer(f"stage1_block{i}_conv1").kernel.numpy() for i in (1, 2)
    )
    assert first.shape == second.shape and not np.array_equal(first, second)


# Width


@pytest.mark.parametrize(
    ("channels", "width", "multiple", "expected"),
    [
        (64, 1.0, 1, 64),
        (64, 0.25, 1, 16),
        (16, 0.3, 1, 5),
        (16, 0.01, 1, 1),
        (32, 1.0, 8, 32),
        (32, 0.25, 8, 8),
        (32, 0.01, 8, 8),
        (32, 0.35, 8, 16),  # 11.2 would be 8, more than a tenth too few.
        (64, 1.4, 8, 88),
    ],
)
def test_scaled_channels(channels, width, multiple, expected):
    assert blocks.scaled(channels, width, multiple) == expected


@pytest.mark.parametrize(
    ("name", "width", "layer", "kernel"),
    [
        ("small_cnn", 0.5, "conv3", (3, 3, 32, 64)),
        ("resnet20", 0.5, "stage3_block1_conv1", (3, 3, 16, 32)),
        ("resnet32", 2.0, "stage3_block5_conv2", (3, 3, 128, 128)),
        ("resnet50_cifar", 0.25, "stage4_block1_shortcut", (1, 1, 256, 512)),
        ("resnet50", 0.25, "stem", (7, 7, 3, 16)),
        ("vgg19", 0.25, "stage5_conv4", (3, 3, 128, 128)),
        ("mobilenet_v1", 0.25, "block13_pointwise", (1, 1, 256, 256)),
    ],
)
def test_width_scales_all_channels(name, width, layer, kernel):
    model = models.make(name, *CIFAR, width=width)
    assert model.get_layer(layer).kernel.shape == kernel
    assert model.output_shape == (None, 10)


def test_half_the_width_has_a_quarter_of_the_weights():
    full, half = (
        granet_tf.summarize(models.make("vgg19", *CIFAR, width=width)).size for width in (1.0, 0.5)
    )
    # But for the images and the classes, which stay.
    assert half - (9 * 3 * 32 + 256 * 10) == (full - (9 * 3 * 64 + 512 * 10)) / 4


# keras.applications


def test_names_are_ours_and_those_that_keras_exports():
    classes = {name for name in dir(keras.applications) if name[0].isupper()}
    assert "MobileNetV2" in classes
    assert models.names()[: len(models.NETWORKS)] == tuple(models.NETWORKS)
    assert set(models.names()) - set(models.NETWORKS) == classes
    assert len(models.names()) == len(models.NETWORKS) + len(classes)


def test_names_do_not_take_an_import_of_keras():
    script = (
        "import sys, types\n"
        # Without the library on top of Keras that the package itself is.
        f"package = types.ModuleType('granet_tf'); package.__path__ = {list(granet_tf.__path__)}\n"
        "sys.modules['granet_tf'] = package\n"
        "from granet_train import models\n"
        "assert 'ResNet50' in models.names()\n"
        "print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


def test_a_network_of_keras():
    model = models.make("MobileNet", (32, 32, 1), 7, width=0.25)
    assert model.output_shape == (None, 7)
    assert model.layers[-1].activation is keras.activations.linear
    assert model.get_layer("conv_pw_13").kernel.shape == (1, 1, 256, 256)


@pytest.mark.parametrize("name", ["EfficientNetV2B0", "EfficientNetB0"])
def test_networks_of_keras_do_not_rescale_what_is_normalized(name):
    model = models.make(name, (32, 32, 3), 10)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    seen = np.asarray(keras.Model(model.input, first.input)(x))
    # The one pads before its first convolution, the other within.
    np.testing.assert_allclose(seen[:, :32, :32], x, rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("resnet21", (32, 32, 3), 10),
            "--model must be one of small_cnn, resnet20, resnet32, resnet50_cifar, resnet50, "
            "vgg19, mobilenet_v1, or any name in keras.applications, such as MobileNetV2. "
            "Received: --model=resnet21",
        ),
        (
            ("vgg19", (32, 32, 3), 10, 0.0),
            "--width must be a number above 0. Received: --width=0.0",
        ),
        (
            ("VGG16", (32, 32, 3), 10, 0.5),
            "--model=VGG16 comes in one width only. Received: --model=VGG16 --width=0.5",
        ),
        (
            ("VGG16", (8, 8, 1), 10),
            "--model=VGG16 cannot take these images. Input size must be at least 32x32; "
            "Received: input_shape=(8, 8, 1)",
        ),
        (
            ("vgg19", (8, 8, 1), 10),
            "--model=vgg19 cannot take these images. VGG-19 halves images four times, so they must "
            "be 16 × 16 or larger. Received: input_shape=(8, 8, 1)",
        ),
    ],
    ids=["name", "width", "alpha", "too small for Keras's", "too small for ours"],
)
def test_what_cannot_be_built_says_why(arguments, text):
    with pytest.raises(UsageError) as error:
        models.make(*arguments)
    assert str(error.value) == text


@pytest.mark.parametrize("name", [name for name in models.NETWORKS if name != "vgg19"])
def test_small_images_work(name):
    model = models.make(name, (8, 8, 1), 3, width=0.125)
    assert np.isfinite(model(np.ones((2, 8, 8, 1), "float32"), training=True)).all()
