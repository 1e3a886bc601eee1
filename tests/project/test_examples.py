"""Each example runs from beginning to end, on little data, and prints and draws what it says."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from tests.support import ROOT

# {example: (arguments, what it must print, what it must write)}
EXAMPLES = {
    "fast_mobilenet.py": (
        ["--epochs=1", "--images=64", "--size=32", "--alpha=0.25"],
        r"test accuracy \d+\.\d\d% at sparsity 0\.90\n(.*\n)*mobilenet\.mnn: .*\n(.*\n)*"
        r"engine +weights +1 thread\n(.*\n)*MNN +sparse +\d.*\n(.*\n)*"
        r"With 1 thread, the fastest sparse file",
        ["mobilenet.mnn"],
    ),
    "pruned_mobilenet.py": (
        ["--epochs=1", "--images=64", "--size=32", "--alpha=0.25"],
        r"(.*/kernel: the loss changes by .*\n){5}"
        r"test accuracy \d+\.\d\d% dense, \d+\.\d\d% at sparsity 0\.800\n",
        ["pruned_mobilenet.png"],
    ),
    # The sentences are told apart by any classifier that has learned.
    "keras_hub_classifier.py": (
        [],
        r"accuracy 100\.00% at sparsity 0\.800\n",
        ["keras_hub_classifier.png"],
    ),
    # A tenth of 64 · 128 + 128 · 64 + 64 · 10 weights, rounded up in each layer.
    "custom_loop.py": (
        [],
        r"\d{3,} of 1703 connections are where none was; as many as at first: True\n"
        r"test accuracy (8[5-9]|9\d)\.\d\d% at sparsity 0\.900 after 440 steps\n",
        ["custom_loop.png"],
    ),
    # 5 % of 64 · 128 + 128 · 10 weights are left.
    "own_method.py": (
        [],
        r"GraNet: test accuracy (8[5-9]|9\d)\.\d\d% at sparsity 0\.950\n"
        r"FirstOrder: test accuracy (8[5-9]|9\d)\.\d\d% at sparsity 0\.950\n"
        r"\d+ of 474 connections are GraNet's, too\n",
        ["own_method.png"],
    ),
    "from_tfmot.py": (
        [],
        r"loss 0\.\d+ dense, 0\.\d+ sparse\nzeros in the kernels: 0\.75, 0\.75\n"
        r"(.*\n)*all prunable",
        ["from_tfmot.png"],
    ),
    # Of 12 channels: 9 · 12 + 4 · 9 · 12² weights, 5 · 4 · 12 of norms, 130 of the head.
    "shrinking_network.py": (
        [],
        r"go together: stem, one_second, two_second\n"
        r"test accuracy 9\d\.\d\d% with 5,662 of 21,682 parameters\n",
        ["shrinking_network.png"],
    ),
    "search_sparsity.py": (
        ["--trials=3", "--epochs=8"],
        r"best: final_sparsity=0\.\d+, method=(GMP|GraNet)\n"
        r"test accuracy [89]\d\.\d\d% at sparsity 0\.\d{3}\n",
        ["search_sparsity.png"],
    ),
    "int8_digits.py": (
        ["--epochs=2", "--fine_tune=1", "--images=256"],
        r"float32: \d+\.\d\d% at sparsity 0\.90\n(.*\n)*"
        r"int8, simulated: \d+\.\d\d% at sparsity 0\.90\n(.*\n)*digits\.tflite: .*accuracy",
        ["digits.tflite"],
    ),
}
NEEDS = {"keras_hub_classifier.py": "keras_hub", "search_sparsity.py": "keras_tuner"}

# One process runs them one after the other, as TensorFlow takes long to start.
RUNNER = """
import contextlib, io, json, os, runpy, sys, traceback
import keras, tensorflow

done = {}
for path, directory, arguments in json.load(sys.stdin):
    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    keras.backend.clear_session()
    os.chdir(directory)
    sys.argv = [path, *arguments]
    printed, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(path, run_name="__main__")
    except Exception:
        error = traceback.format_exc()
    done[os.path.basename(path)] = [error, printed.getvalue()]
print(json.dumps(done))
"""


def run(command, cwd, input=None, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        input=input,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{example: (error, what it printed, what it wrote)}."""
    folder, programs = tmp_path_factory.mktemp("examples"), []
    for name, (arguments, *_) in EXAMPLES.items():
        if importlib.util.find_spec(NEEDS.get(name, "keras")):
            (folder / name).mkdir()
            programs.append([str(ROOT / "examples" / name), str(folder / name), arguments])
    printed = run(["-c", RUNNER], folder, json.dumps(programs))
    done = json.loads(printed.splitlines()[-1])
    return {name: (*each, os.listdir(folder / name)) for name, each in done.items()}


def test_all_are_here():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES}
    pages = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": examples/{name.removesuffix('.py')}.md\n" in pages for name in EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs(name, outcomes):
    pytest.importorskip(NEEDS.get(name, "keras"))
    error, printed, written = outcomes[name]
    assert error is None, error
    _, expected, files = EXAMPLES[name]
    assert re.search(expected, printed), printed
    assert written == files


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_opens_as_a_notebook(name):
    script = (ROOT / "examples" / name).read_text(encoding="utf-8")
    first, *cells = re.split(r"^# %%", script, flags=re.MULTILINE)
    assert first == "" and cells[0].startswith(" [markdown]\n# # ")
    for cell in cells:
        kind, _, text = cell.partition("\n")
        assert kind in ("", " [markdown]")
        if kind:
            assert all(line.startswith("#") for line in text.strip().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast_mobilenet.py", "pruned_mobilenet.py"])
def test_a_mobilenet_learns(name, tmp_path):
    """Which it does not with as little training as above; of ten classes."""
    arguments = ["--size=32", "--alpha=0.5", "--epochs=12"]
    printed = run([ROOT / "examples" / name, *arguments], tmp_path)
    [line] = re.findall(r"test accuracy .*", printed)
    accuracies = [float(figure) for figure in re.findall(r"(\d+\.\d\d)%", line)]
    assert min(accuracies) > 60, line


@pytest.mark.slow
def test_tfmot_gives_the_same_figures(tmp_path):
    printed = run([ROOT / "examples" / "from_tfmot.py", "--before"], tmp_path)
    assert re.search(EXAMPLES["from_tfmot.py"][1].partition("\\n(")[0], printed), printed
