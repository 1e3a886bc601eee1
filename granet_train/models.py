"""Networks, by name: those of the paper and those of `keras.applications`."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import math
import pathlib
from typing import Any

from granet_train.errors import UsageError

# {name: module of `granet_train.networks` with the function of that name}
NETWORKS = {
    "small_cnn": "small_cnn",
    "resnet20": "resnet",
    "resnet32": "resnet",
    "resnet50_cifar": "resnet",
    "resnet50": "resnet",
    "vgg19": "vgg",
    "mobilenet_v1": "mobilenet",
}


def names() -> tuple[str, ...]:
    """The names that `make` knows: ours first, then the classes of `keras.applications`.

    Example:

    >>> from granet_train import models
    >>> models.names()[:3], "EfficientNetB0" in models.names()
    (('small_cnn', 'resnet20', 'resnet32'), True)
    """
    return (*NETWORKS, *_applications())


def make(name: str, input_shape: tuple[int, ...], classes: int, width: float = 1.0) -> Any:
    """A new network that returns logits, with random weights and no regularizers.

    Args:
        name: One of `names()`. Note that case matters: `resnet50` is the paper's, `ResNet50` is
            Keras's.
        input_shape: Height, width and channels of an image. Images are expected normalized, so a
            network of `keras.applications` does not rescale them.
        classes: Number of logits.
        width: Factor on the number of channels of every layer, above 0. The number of weights goes
            with about its square. It is the `alpha` of those `keras.applications` that have one.

    Returns:
        A `keras.Model`.

    Raises:
        UsageError: If there is no such network, or not of this width or for such images.

    Example:

    >>> from granet_train import models
    >>> model = models.make("resnet20", (32, 32, 3), 10, width=0.25)
    >>> model.output_shape, tuple(model.get_layer("stage3_block1_conv1").kernel.shape)
    ((None, 10), (3, 3, 8, 16))
    """
    if name not in names():
        raise UsageError(
            f"--model must be one of {', '.join(NETWORKS)}, or any name in keras.applications, "
            f"such as MobileNetV2. Received: --model={name}"
        )
    if not 0 < width < math.inf:
        raise UsageError(f"--width must be a number above 0. Received: --width={width}")
    build = _ours if name in NETWORKS else _of_keras
    try:
        return build(name, tuple(input_shape), classes, width)
    except ValueError as error:
        raise UsageError(
            f"--model={name} cannot take these images. {' '.join(str(error).split())}"
        ) from error


def _ours(name: str, input_shape: tuple[int, ...], classes: int, width: float) -> Any:
    module = importlib.import_module(f"granet_train.networks.{NETWORKS[name]}")
    return getattr(module, name)(input_shape, classes, width)


def _of_keras(name: str, input_shape: tuple[int, ...], classes: int, width: float) -> Any:
    import keras

    application = getattr(keras.applications, name)
    parameters = inspect.signature(application).parameters
    options = {"include_preprocessing": False} if "include_preprocessing" in parameters else {}
    if width != 1.0:
        if "alpha" not in parameters:
            raise UsageError(
                f"--model={name} comes in one width only. Received: --model={name} --width={width}"
            )
        options["alpha"] = width
    model = application(
        weights=None,
        classes=classes,
        classifier_activation=None,
        input_shape=input_shape,
        **options,
    )
    # EfficientNetB0 to B7 divide by 255 whatever they are told.
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            layer.scale, layer.offset = 1.0, 0.0
    return model


@functools.cache
def _applications() -> tuple[str, ...]:
    """What `keras.applications` exports, read from its source: importing Keras takes seconds."""
    [package] = importlib.util.find_spec("keras").submodule_search_locations
    source = pathlib.Path(package, "applications", "__init__.py").read_text(encoding="utf-8")
    imports = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom))
    exported = (alias.asname or alias.name for node in imports for alias in node.names)
    # Modules are in lower case.
    return tuple(name for name in exported if name[0].isupper())
