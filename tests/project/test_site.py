"""The documentation's site: no public name is left out, and it builds without a warning."""

import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

from tests.support import ROOT

PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
# Packages whose names are for users.
PUBLIC = [
    "granet_tf",
    "granet_tf.callbacks",
    "granet_tf.compaction",
    "granet_tf.compat_tfmot",
    "granet_tf.export",
    "granet_tf.masks.distributions",
    "granet_tf.methods",
    "granet_tf.plasticity",
    "granet_tf.sparsity.keras",
    "granet_tf.structured",
    "keras_layers",
]
DATA = {"granet_tf.methods.DISTRIBUTIONS"}


def public_names(package):
    """{path: value} of what a package defines, or hands on by `import X as X`."""
    module = importlib.import_module(package)
    tree = ast.parse(pathlib.Path(module.__file__).read_text(encoding="utf-8"))
    imports = (node.names for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    names = {each.name for names in imports for each in names if each.asname == each.name}
    names |= {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    public = {f"{package}.{n}": getattr(module, n) for n in names if not n.startswith("_")}
    return {path: value for path, value in public.items() if path not in DATA}


def looked_up(path):
    """What "granet_tf.plasticity.measure" names: an attribute before a module of that name."""
    value, *names = importlib.import_module(path.partition(".")[0]), *path.split(".")[1:]
    for i, name in enumerate(names, start=2):
        if not hasattr(value, name):
            importlib.import_module(".".join(path.split(".")[:i]))
        value = getattr(value, name)
    return value


def described():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("package", PUBLIC)
def test_each_public_name_is_on_a_page(package):
    found = {id(looked_up(path)) for path in described()}
    left = {path: value for path, value in public_names(package).items() if id(value) not in found}
    modules = {value.__name__ for value in left.values() if inspect.ismodule(value)}
    assert modules <= {*PUBLIC, "granet_tf.sparsity"}
    names = [path for path, value in left.items() if not inspect.ismodule(value)]
    assert names == [], "give each a line in a page of docs/api/, as in `::: granet_tf.wrap`"


def test_nothing_is_described_twice():
    assert len(described()) == len(set(described()))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    equations = (tmp_path / "equations" / "index.html").read_text(encoding="utf-8")
    assert equations.count("<math") > 40 and "arithmatex" not in equations
    methods = (tmp_path / "api" / "methods" / "index.html").read_text(encoding="utf-8")
    assert 'id="granet_tf.GraNet"' in methods and "&gt;&gt;&gt;" in methods
