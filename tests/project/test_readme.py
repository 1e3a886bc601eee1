"""README and docs keep their word: Python runs, commands exist, links lead somewhere."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from granet_train import flags, method_table
from granet_train.export_command import flags as export_flags
from granet_train.studies.compare import flags as compare_flags
from granet_train.studies.plasticity import flags as plasticity_flags
from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SCRIPTS = [path for path in PAGES if "```python\n" in path.read_text(encoding="utf-8")]
PARSERS = {
    "granet-train": flags.parse,
    "granet-export": export_flags.parse,
    "granet-plasticity": plasticity_flags.read,
    "granet-compare": compare_flags.read,
}
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What tells how to use it on the command line.
MANUAL = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            *("get_started", "sparse_training", "exporting", "distribution"),
            *("command_line", "studies", "plasticity", "distillation", "structured"),
        )
    ),
]
# python and python3 run here, py in a process of tfmot's, sh is parsed; the others are shown only.
LANGUAGES = {"python", "python3", "py", "sh", "console", "cpp", ""}

assert {"README.md", "migrating_from_tfmot.md"} <= {path.name for path in SCRIPTS}

# Runs in a process of its own, as a reader would run it: no fixtures, and tfmot's import and
# changes of global state stay there. All blocks of a page share one namespace.
RUNNER = """
import contextlib, io, json, os, sys, traceback

def run(page, script):
    namespace = {"__name__": "__main__"}
    for line, source, expected in script:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\\n" * line + source, page, "exec"), namespace)
        lines = iter(printed.getvalue().splitlines())
        for text in expected:
            # `in` goes on from where the last one was found: the results must come in order.
            assert text in lines, f"{page}, line {line}: {text!r} not in {printed.getvalue()}"

pages = json.load(sys.stdin)
errors = {}
for directory, page, script in pages:
    if len(pages) > 1:
        import keras, tensorflow
        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        keras.backend.clear_session()
    os.chdir(directory)
    try:
        run(page, script)
    except Exception:
        errors[page] = traceback.format_exc()
print(json.dumps(errors))
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
    pages = [path.read_text(encoding="utf-8") for path in MANUAL]
    sources = [source for page in pages for _, source in blocks("sh", page)]
    return [line for source in sources for line in source.splitlines() if line]


# tfmot's import changes how others run.
TOGETHER = [path for path in SCRIPTS if "tfmot" not in path.name]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """{page: its error}, of all pages that one process can run one after the other."""
    return run_blocks("python", TOGETHER, tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("path", TOGETHER, ids=lambda path: path.name)
def test_python_blocks_print_what_they_say(errors, path):
    assert path.name not in errors, errors[path.name]


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) if p in TOGETHER else p for p in SCRIPTS],
    ids=lambda path: path.name,
)
def test_python_blocks_run_in_order_and_print_what_they_say(path, tmp_path):
    assert not run_blocks("python", [path], tmp_path)


@pytest.mark.slow
def test_python_blocks_that_need_keras_hub(tmp_path):
    pytest.importorskip("keras_hub")
    assert not run_blocks("python3", [ROOT / "docs" / "keras_hub.md"], tmp_path)


def run_blocks(language, paths, tmp_path):
    """{page: its error} of blocks that one process runs, page by page, each in its directory."""
    results = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)
    pages = []
    for path in paths:
        page, directory = path.read_text(encoding="utf-8"), tmp_path / path.stem
        script = [(line, code, results.findall(code)) for line, code in blocks(language, page)]
        assert script
        directory.mkdir()
        (directory / path.name).write_text(page, encoding="utf-8")  # AutoGraph reads the source.
        # "py" is for programs of Keras 2, whose files the page goes on with.
        for _, source in blocks("py", page):
            run(source, cwd=directory, TF_USE_LEGACY_KERAS="1")
        pages.append((str(directory), path.name, script))
    return json.loads(run(RUNNER, cwd=tmp_path, input=json.dumps(pages)).splitlines()[-1])


def run(source, *, cwd, input=None, **environment):
    """What Python source prints in a process of its own, as a reader would run it."""
    done = subprocess.run(
        [sys.executable, "-c", source],
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
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pages = "".join(path.read_text(encoding="utf-8") for path in MANUAL)
    named = set(re.findall(r"\bmake ([\w-]+)(?=`)", pages))
    named |= {line.split()[1] for line in commands() if line.startswith("make ")}
    assert {"demo", "test", "docs"} <= named
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
def test_every_block_is_of_a_kind_that_is_looked_at(path):
    fences = re.findall(r"^```(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(fences[::2]) <= LANGUAGES and set(fences[1::2]) <= {""}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_files_exist(path):
    links = re.findall(r"\]\((?!https://)([^)#]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        assert (path.parent / link).exists(), link


def test_the_table_of_options_is_what_methods_declare():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert method_table.markdown() in page
