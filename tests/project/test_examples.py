"""Each example runs from beginning to end, on little data."""

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
        r"MNN +sparse +1 .*\n(.*\n)*With 1 thread, the fastest sparse file",
        "mobilenet.mnn",
    ),
    "int8_digits.py": (
        ["--epochs=2", "--fine_tune=1", "--images=256"],
        r"float32: \d+\.\d\d% at sparsity 0\.90\n(.*\n)*"
        r"int8, simulated: \d+\.\d\d% at sparsity 0\.90\n(.*\n)*digits\.tflite: .*accuracy",
        "digits.tflite",
    ),
}


def test_all_are_here():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs(name, tmp_path):
    arguments, printed, written = EXAMPLES[name]
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(printed, done.stdout)
    assert os.listdir(tmp_path) == [written]
