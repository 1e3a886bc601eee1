"""What Keras does not export is taken from one file, and that file says so when it has moved."""

import ast
import importlib.util
import inspect
import re
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from keras_layers import keras_internals
from tests.support import ROOT

FILE = Path(keras_internals.__file__)
# Other processes run these, with tf_keras in the place of Keras.
OF_TF_KERAS = {ROOT / "granet_tf" / "compat_tfmot" / "tf_keras_side.py"}
SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("granet_tf", "granet_train", "keras_layers")
    for path in sorted((ROOT / folder).rglob("*.py"))
} | {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("*.py"))}
# Names that the library gives to things of its own, or parts of names.
NAMESAKES = {"_initialize", "_lock", "_outputs", "_regularizer", "_shape"}
# What the library only leaves alone where it is: the version that has brought it.
SINCE = {"_compiled_trainable_state": "3.15"}


def imports(tree):
    """(module, name) of all imports in a file, in functions too; the name of `import x` is ''."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def is_internal(module, name):
    return f"{module}.{name}.".startswith("keras.src.")


INTERNALS = sorted({pair for pair in imports(SOURCES[FILE]) if is_internal(*pair)})


def test_only_one_file_imports_from_keras_src():
    assert {
        path.relative_to(ROOT).as_posix()
        for path, tree in SOURCES.items()
        if any(is_internal(*pair) for pair in imports(tree))
    } == {"keras_layers/keras_internals.py"}
    attributes = {
        path.name
        for path, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "keras.src"
    }
    assert attributes == set()


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("from keras.src.models import Functional", True),
        ("from keras.src import models", True),
        ("from keras import src", True),
        ("import keras.src.models as models", True),
        ("def f():\n    import keras.src", True),
        ("import keras", False),
        ("from tf_keras.src import models", False),
    ],
)
def test_imports_of_any_form_are_seen(statement, found):
    assert any(is_internal(*pair) for pair in imports(ast.parse(statement))) == found


def test_nothing_is_taken_that_keras_exports():
    public = {
        id(value)
        for module in (keras, keras.layers, keras.ops, keras.losses, keras.utils, keras.backend)
        for name, value in vars(module).items()
        if not name.startswith("_")
    }
    taken = {name: getattr(sys.modules[module], name) for module, name in INTERNALS}
    assert [name for name, value in taken.items() if id(value) in public] == []


def load_again():
    spec = importlib.util.spec_from_file_location("loaded_again", FILE)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def check_message(error, internal):
    message = str(error.value)
    assert internal in message
    assert f"Keras {keras_internals.KNOWN_TO_WORK} is known to work" in message
    assert f'pip install "keras{keras_internals.KNOWN_TO_WORK}"' in message
    assert message.endswith("Received: keras.__version__='3.99.0'")


@pytest.mark.parametrize(("module", "name"), INTERNALS)
def test_an_internal_that_is_gone_is_named(module, name, monkeypatch):
    gone = getattr(sys.modules[module], name)
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    monkeypatch.delattr(sys.modules[module], name)
    if inspect.ismodule(gone):
        monkeypatch.setitem(sys.modules, f"{module}.{name}", None)
    with pytest.raises(ImportError) as error:
        load_again()
    check_message(error, name)


def test_a_module_that_is_gone_is_named(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    monkeypatch.setitem(sys.modules, "keras.src.ops.node", None)
    with pytest.raises(ImportError) as error:
        load_again()
    check_message(error, "keras.src.ops.node")


# Private attributes


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)


class Seen(keras.callbacks.Callback):
    """What a model has while it is validated."""

    def on_test_end(self, logs=None):
        self.names = set(dir(self.model))


@pytest.fixture(scope="module")
def attributes():
    """{class of Keras: all that its objects have}, by examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Keras would have `keras.Input` instead.
        layer = keras.layers.Dense(1, input_shape=(2,))
    sequential = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    functional = keras.Model(sequential.inputs, sequential.outputs)
    own, seen, x = Own(), Seen(), np.ones((1, 2))
    own.compile(keras.optimizers.SGD(0.1, use_ema=True), "mse")
    own.fit(x, x[:, :1], validation_data=(x, x[:, :1]), callbacks=[seen], verbose=0)
    variable, loss = keras.Variable(1.0), keras.losses.MeanSquaredError()
    compiled, tensor = keras_internals.CompileLoss("mse"), functional.outputs[0]
    examples = (layer, sequential, functional, own, own.optimizer, variable, loss, compiled, tensor)
    return {
        kind: {name for x in examples if isinstance(x, kind) for name in dir(x)}
        | (seen.names if issubclass(type(own), kind) else set())
        for kind in dict(keras_internals.PRIVATE_ATTRIBUTES)
    }


@pytest.mark.parametrize(("kind", "name"), keras_internals.PRIVATE_ATTRIBUTES)
def test_private_attributes_are_there(kind, name, attributes):
    is_there = Version(keras.__version__) >= Version(SINCE.get(name, "3.0"))
    assert (name in attributes[kind]) == is_there


def private_names(tree):
    """Names with one underscore in front of attributes, methods, and what is in strings."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.ClassDef):
            names += [each.name for each in node.body if isinstance(each, ast.FunctionDef)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.append(node.value)
    return {name for name in names if re.fullmatch(r"_[a-z]\w*", name)}


def test_private_attributes_are_listed(attributes):
    listed = {name for _, name in keras_internals.PRIVATE_ATTRIBUTES}
    of_keras = set().union(*attributes.values())
    used = set()
    for path, tree in SOURCES.items():
        if path not in OF_TF_KERAS | {FILE}:
            used |= private_names(tree)
    assert (used & of_keras) - listed == NAMESAKES
    # The strings of that file are the list itself, but for these.
    here = {node.attr for node in ast.walk(SOURCES[FILE]) if isinstance(node, ast.Attribute)}
    assert listed <= used | here | {"_functional", *keras_internals.COMPILED}


# Versions


def required():
    """What setup.py asks for, {package: versions}."""
    found = {}
    for node in ast.walk(SOURCES[ROOT / "setup.py"]):
        if isinstance(node, ast.keyword) and node.arg == "install_requires":
            wanted = map(Requirement, ast.literal_eval(node.value))
            found = {each.name: each.specifier for each in wanted}
    return found


def test_setup_asks_for_the_versions_that_are_known_to_work():
    known = SpecifierSet(keras_internals.KNOWN_TO_WORK)
    assert required()["keras"] == known
    assert keras.__version__ in known and keras_internals.READ_IN in known


def test_the_limit_is_the_next_series():
    major, minor, *_ = map(int, keras_internals.READ_IN.split("."))
    assert f"<{major}.{minor + 1}" in keras_internals.KNOWN_TO_WORK.split(",")


def test_the_readme_names_the_versions_that_are_known_to_work():
    sentence = re.search(r"Keras ([\d., or]+) on the TensorFlow", (ROOT / "README.md").read_text())
    known = SpecifierSet(keras_internals.KNOWN_TO_WORK)
    series = [f"3.{minor}" for minor in range(40) if f"3.{minor}.0" in known]
    assert re.findall(r"3\.\d+", sentence[1]) == series
