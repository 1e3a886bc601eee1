"""The package: one version, what a wheel holds, and types that hold for a user's program."""

import os
import re
import subprocess
import sys

import pytest

import granet_tf
from tests.support import ROOT


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_public_names_pass_mypy_strict(tmp_path):
    pytest.importorskip("mypy")
    # Keras and TensorFlow have no types, so that errors in our own files are not the user's.
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}"]
    program = ROOT / "tests" / "support" / "typed_user.py"
    done = run("-m", "mypy", *options, program, MYPYPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import granet_tf\n\ngranet_tf.GraNet('90 %')\ngranet_tf.wrap()\n")
    found = re.findall(r"\[([\w-]+)\]$", run("-m", "mypy", *options, wrong).stdout, re.MULTILINE)
    assert found == ["arg-type", "call-arg"]


def test_what_is_installed(tmp_path):
    pytest.importorskip("setuptools")
    done = run("setup.py", "-q", "build", f"--build-base={tmp_path}")
    assert done.returncode == 0, done.stderr
    built = tmp_path / "lib"
    files = {path.relative_to(built).as_posix() for path in built.rglob("*") if path.is_file()}
    packages = {name.partition("/")[0] for name in files}
    assert packages == {"granet_tf", "granet_train", "keras_layers"}
    assert {f"{package}/py.typed" for package in packages} <= files
    assert {"granet_train/configs/paper.csv", "granet_tf/export/report.html"} <= files
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules == {name for name in files if name.endswith(".py")}


def test_the_version_stands_once():
    assert run("setup.py", "--version").stdout.split()[-1] == granet_tf.__version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, re.MULTILINE)[0] == granet_tf.__version__


def test_extras_are_those_that_the_page_lists():
    page = (ROOT / "docs" / "get_started.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.MULTILINE)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    extras = setup[setup.index("extras_require") : setup.index("entry_points")]
    assert set(re.findall(r"\w+", " ".join(listed))) - {"make"} == set(
        re.findall(r'^        "(\w+)": \[', extras, re.MULTILINE)
    )
