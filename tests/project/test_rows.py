"""--row stands for what was a flagfile in earlier versions, in a clone and where installed."""

import csv
import hashlib
import subprocess
import sys

import pytest

from granet_train import command_line, flags, options, rows
from granet_train.errors import UsageError
from granet_train.flagfiles import expand
from granet_train.studies.plasticity import flags as plasticity
from granet_train.training_options import Options
from tests.support import ROOT

ROW = "--row=table2/cifar10/vgg19/95/granet_si0"
# {flagfile of version 0.1.0: hash of the flags that it gave, as that version read them}
with open(ROOT / "tests" / "fixtures" / "v0_1" / "flagfiles.csv", encoding="utf-8") as file:
    FLAGFILES = {line["flagfile"]: line["options"] for line in csv.DictReader(file)}


def parsed(*argv):
    return flags.parse(argv)[0]


def wrong(*argv):
    with pytest.raises(UsageError) as raised:
        flags.parse(argv)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def digest(*argv):
    """Of the flags that are given and their values; the others are at their defaults."""
    values, reading = options.read(Options, expand(argv))
    lines = sorted(f"{name}={options.written(getattr(values, name))}" for name in reading.places)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_each_row_gives_the_flags_that_its_flagfile_gave():
    found = {
        f"configs/{row.table}/{row.file}.flags": digest(f"--row={row.name}")
        for row in rows.all_rows().values()
        if row.variant != "sis"  # Which had none.
    }
    assert found == FLAGFILES and len(FLAGFILES) == 220
    assert len(set(FLAGFILES.values())) == 220
    assert digest(ROW, "--seed=1") not in FLAGFILES.values()


def test_whatever_else_is_said_wins(tmp_path):
    file = tmp_path / "mine.flags"
    file.write_text("--width=0.5\n--row=table2/cifar10/vgg19/90/granet_si0\n")
    for argv in ([ROW, "--width=0.5"], ["--width=0.5", ROW], ["--width", "0.5", *ROW.split("=")]):
        values = parsed(*argv)
        assert (values.width, values.final_sparsity, values.model) == (0.5, 0.95, "vgg19")
    values = parsed(f"--flagfile={file}")
    assert (values.width, values.final_sparsity) == (0.5, 0.9)
    # Of two rows the last one counts, and nothing of the first.
    values = parsed(f"--flagfile={file}", "--row=table3/dense")
    assert (values.width, values.final_sparsity, values.method) == (0.5, None, "dense")
    original = f"--flagfile={ROOT}/configs/base/gmp_original.flags"
    assert parsed(original, "--row=table2/cifar10/vgg19/90/gmp").mask_only


def test_another_method_leaves_out_what_the_row_says_for_its_own():
    values = parsed(ROW, "--method=static")
    assert (values.method, values.final_sparsity) == ("static", 0.95)
    assert "--method=static has no use for --drop_fraction" in wrong(
        ROW, "--method=static", "--drop_fraction=0.3"
    )


def test_a_run_of_the_flagfile_goes_on_with_the_row():
    written = flags.as_dict(parsed(ROW))
    assert "row" not in written
    assert written["workdir"] == "work/table2/cifar10_vgg19_95_granet_si0"


def test_errors_in_a_row_name_it_and_its_recipe():
    assert wrong(ROW, "--epochs=0").endswith("Received: --epochs=0")
    text = wrong(ROW, "--batch_size=0", "--row=table2/cifar10/vgg19/95/gmpp")
    assert text == (
        "--row must be a row of the paper's tables. Did you mean table2/cifar10/vgg19/95/gmp or "
        "table2/cifar100/vgg19/95/gmp? --row=list shows all rows. "
        "Received: --row=table2/cifar10/vgg19/95/gmpp"
    )
    assert "None is like this. --row=list shows all rows. Received: --row=" in wrong("--row")
    places = [each.place for each in expand([ROW])]
    assert f"{ROOT}/configs/base/cifar.flags, line 11" in places
    assert places[-1] == f"{ROOT}/configs/paper.csv, row {ROW.removeprefix('--row=')}"


def test_mistakes_in_a_flagfile_name_the_place_of_the_row(tmp_path):
    file = tmp_path / "mine.flags"
    file.write_text("\n--row=table2/cifar10/vgg19/95\n")
    assert wrong(f"--flagfile={file}").endswith(
        f"Received: --row=table2/cifar10/vgg19/95 ({file}, line 2)"
    )
    assert "There is no flag --rwo. Did you mean --row" in wrong("--rwo=a")


def test_a_mistyped_row_is_one_line_and_code_2(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.run(print, command_line.read, [ROW + "x"])
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --row must be a row of the paper's tables. Did you mean table2/")


def test_flagfiles_of_rows_are_answered_with_the_row(tmp_path):
    for path in FLAGFILES:
        [row] = [
            row
            for row in rows.all_rows().values()
            if path.endswith(f"{row.table}/{row.file}.flags")
        ]
        assert f"It is a row now: --row={row.name}. " == rows.in_place_of(ROOT / path)
    near = rows.in_place_of(ROOT / "configs" / "table5" / "96_rigl.flags")
    assert "Did you mean --row=table5/96.5/rigl? --row=list shows all rows. " in near
    for other in ("configs/mine/a.flags", "configs/table2/a.txt", "table7/a.flags"):
        assert rows.in_place_of(ROOT / other) == ""
    mine = tmp_path / "mine.flags"
    mine.write_text("--flagfile=table4/rigl.flags\n")
    assert wrong(f"--flagfile={mine}") == (
        f"Cannot read the flagfile {tmp_path}/table4/rigl.flags: No such file or directory. It "
        f"is a row now: --row=table4/rigl. Received: --flagfile=table4/rigl.flags ({mine}, line 1)"
    )


@pytest.mark.parametrize("read", [command_line.read, plasticity.read])
def test_all_rows_are_listed(read, capsys):
    with pytest.raises(SystemExit) as ended:
        read(["--row=list"])
    assert not ended.value.code
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["row", "method", "paper"]
    assert [line.split()[0] for line in lines] == list(rows.all_rows())
    assert lines[10].endswith("93.80 ± 0.10")
    assert lines[-1].endswith("76.17 ± 0.15")


def test_an_installed_package_has_them(tmp_path, monkeypatch):
    """What goes into a wheel."""
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    packages = {"granet_tf", "granet_train", "keras_layers"}
    assert {path.name for path in tmp_path.iterdir()} == packages
    installed = tmp_path / "granet_train" / "configs"
    here = {path.name for path in (ROOT / "configs" / "base").iterdir()}
    assert {path.name for path in (installed / "base").iterdir()} == here
    monkeypatch.setattr(rows, "_PACKAGE", tmp_path / "granet_train")
    rows.all_rows.cache_clear()
    try:
        assert rows.folder() == installed
        assert digest(ROW) == FLAGFILES["configs/table2/cifar10_vgg19_95_granet_si0.flags"]
        assert expand([ROW])[0].place.startswith(str(installed))
    finally:
        rows.all_rows.cache_clear()
