"""README and docs keep their word: Python runs, commands exist, links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from granet_tf.export_command import flags as export_flags
from granet_tf.studies.compare import flags as compare_flags
from granet_tf.studies.plasticity import flags as plasticity_flags
from granet_tf.training import flags
from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [path for path in PAGES if "```python\n" in path.read_text(encoding="utf-8")]
PARSERS = {
    "granet-train": flags.parse,
    "granet-export": export_flags.parse,
    "granet-plasticity": plasticity_flags.read,
    "granet-compare": compare_flags.read,
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

assert {"README.md", "migrating_from_tfmot.md"} <= {path.name for path in SCRIPTS}

# Runs in a process of its own, as a reader would run it: no fixtures, and tfmot's import and
# changes of global state stay there. All blocks share one namespace.
RUNNER = """
import contextlib, io, json, sys

namespace = {"__name__": "__main__"}
for line, source, expected in json.load(sys.stdin):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\\n" * line + source, sys.argv[1], "exec"), namespace)
    lines = iter(printed.getvalue().splitlines())
    for text in expected:
        # `in` goes on from where the last one was found: the results must come in order.
        assert text in lines, f"{sys.argv[1]}, line {line}: {text!r} not in {printed.getvalue()}"
"""


def blocks(language, page=README):
    """(line number of the fence, source) of each fenced block in a language."""
    return [
        (page.count("\n", 0, match.start()) + 1, match[2])
        for match in FENCE.finditer(page)
        if match[1] == language
    ]


def commands():
    """All lines of the shell blocks of the pages that tell how to use it."""
    names = ("exporting.md", "plasticity.md")
    pages = [README, *((ROOT / "docs" / name).read_text(encoding="utf-8") for name in names)]
    sources = [source for page in pages for _, source in blocks("sh", page)]
    return [line for source in sources for line in source.splitlines() if line]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_python_blocks_run_in_order_and_print_what_they_say(path, tmp_path):
    run_blocks("python", path, tmp_path)


@pytest.mark.slow
def test_python_blocks_that_need_keras_hub(tmp_path):
    pytest.importorskip("keras_hub")
    run_blocks("python3", ROOT / "docs" / "keras_hub.md", tmp_path)


def run_blocks(language, path, tmp_path):
    results = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
    page = path.read_text(encoding="utf-8")
    script = [(line, source, results.findall(source)) for line, source in blocks(language, page)]
    assert script
    (tmp_path / path.name).write_text(page, encoding="utf-8")  # AutoGraph reads the source.
    # "py" is for programs of Keras 2, whose files the page goes on with.
    for _, source in blocks("py", page):
        run(source, cwd=tmp_path, TF_USE_LEGACY_KERAS="1")
    run(RUNNER, path.name, cwd=tmp_path, input=json.dumps(script))


def run(source, *arguments, cwd, input=None, **environment):
    """Runs Python source in a process of its own, as a reader would."""
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments],
        input=input,
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake (\w+)\b(?=`)", README))
    named |= {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target: make {target}"


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith(tuple(PARSERS))])
def test_commands_parse(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *arguments = shlex.split(command)
    PARSERS[name](arguments)


def test_installs_name_extras_that_exist():
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    installs = [line for line in commands() if line.startswith("pip ")]
    assert installs
    for extra in re.findall(r"\w+", " ".join(re.findall(r"\[(.*?)\]", " ".join(installs)))):
        assert f'"{extra}": [' in setup


def test_every_shell_command_is_checked():
    assert {command.split()[0] for command in commands()} <= {"make", "pip", *PARSERS}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_exist(path):
    links = re.findall(r"\]\((?!https://)([^)#]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        assert (path.parent / link).exists(), link
