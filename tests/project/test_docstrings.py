"""Every example in a docstring runs, and every public name has a docstring."""

import doctest
import importlib
import inspect
import pathlib
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
import granet_train
import keras_layers

# What the examples may use besides the names of their own module.
PACKAGES = (granet_tf, keras_layers, granet_train)
GLOBALS = {"keras": keras, "np": np, "tf": tf, "granet_tf": granet_tf}


def modules():
    for package in PACKAGES:
        yield package.__name__
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):  # Importing it would start training.
                yield info.name


def own_public(module):
    """Public functions and classes that `module` defines itself."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


def exported(package):
    return {
        name: getattr(package, name)  # Some are imported by that.
        for name in dir(package)
        if not name.startswith("_") and not inspect.ismodule(getattr(package, name))
    }


MODULES = list(modules())


def test_the_modules_are_found():
    assert {"granet_tf", "granet_tf.model", "granet_tf.schedules", "keras_layers.prunable"} <= set(
        MODULES
    )
    folders = [pathlib.Path(package.__path__[0]) for package in PACKAGES]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(MODULES) == len([file for file in files if file.name != "__main__.py"])


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(
        module,
        extraglobs={k: v for k, v in GLOBALS.items() if k not in vars(module)},
        optionflags=doctest.FAIL_FAST,
    )
    assert result.failed == 0, "see the captured output"
    # A module of nothing but data and protocols has nothing to show; binaries show themselves.
    of_binary = name.startswith("granet_train") and "export_command" not in name
    if not of_binary and any(inspect.isfunction(v) for v in own_public(module).values()):
        assert result.attempted >= 1


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name):
    module = importlib.import_module(name)
    assert module.__doc__, name
    public = own_public(module) | (
        exported(module) if name in ("granet_tf", "keras_layers") else {}
    )
    assert [k for k, v in public.items() if not inspect.getdoc(v)] == []


def test_what_the_package_exports():
    assert set(exported(granet_tf)) >= {
        "wrap",
        "strip",
        "summarize",
        "count_flops",
        "export_tflite",
        "default_prunable",
        "SparseModel",
        "SparseOptimizer",
        "PruneLowMagnitude",
        "Method",
        "GraNet",
        "GMP",
        "RigL",
        "SET",
        "StaticSparse",
        "PruningSchedule",
        "ConstantSparsity",
        "PolynomialDecay",
        "GraNetSchedule",
    }
    assert inspect.ismodule(granet_tf.distributions)
