"""granet-compare --table: the rows of a table of the paper, beside the paper's numbers."""

import csv

import numpy as np
import pytest

from granet_train import files, flags, rows
from granet_train.errors import UsageError
from granet_train.studies.compare import flags as compare
from granet_train.studies.compare import main, run, table
from granet_train.studies.compare.beside_paper import Line
from granet_train.studies.grid import Grid
from tests.support import tfds_on_disk

GRANET = "table2/cifar10/vgg19/95/granet_si0"


def read(*argv):
    return compare.read(argv)


def names(settings):
    return [cell.row.name for cell in settings.cells()]


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_all_rows_of_a_table_from_three_seeds():
    for name in rows.tables():
        settings = read(f"--table={name}", "--seeds=0")
        assert set(names(settings)) >= {row.name for row in rows.of_table(name)}
        assert settings.workdir == f"work/compare_{name}"
    settings = read("--table=table4")
    assert [cell.name for cell in settings.cells()][:7] == [
        *(f"table4_granet_si0{s}_seed0" for s in ("", 5, 6, 7, 8)),
        "table4_rigl_seed0",
        "table4_granet_si0_seed1",
    ]
    assert (settings.model, settings.dataset) == ("resnet50", "imagenet2012")


def test_a_cell_is_the_run_of_its_row(tmp_path):
    settings = read("--table=table2", "--methods=granet_si0", "--sparsities=0.95")
    cell = next(c for c in settings.cells() if (c.row.name, c.seed) == (GRANET, 2))
    found = flags.as_dict(settings.of_cell(cell, tmp_path))
    expected = flags.as_dict(flags.parse([f"--row={GRANET}"])[0])
    different = {name for name in found if found[name] != expected[name]}
    assert different == {"seed", "workdir", "tensorboard", "export_tflite", "plot"}
    assert (found["seed"], found["workdir"]) == (2, str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            "--table=table2 --methods=granet --sparsities=0.95 --dataset=cifar10 --model=vgg19",
            ["table2/cifar10/vgg19/95/granet_si0", "table2/cifar10/vgg19/95/granet_si05"],
        ),
        (
            "--table=table2 --methods=granet:initial_sparsity=0.5,dense --sparsities=0.98 "
            "--dataset=cifar100 --model=resnet50_cifar",
            ["table2/cifar100/resnet50/dense", "table2/cifar100/resnet50/98/granet_si05"],
        ),
        (
            "--table=table2 --methods=str --sparsities=0.9,0.98 --dataset=cifar10",
            ["table2/cifar10/vgg19/90/str", "table2/cifar10/vgg19/98/str"],
        ),
        ("--table=table5 --methods=rigl --sparsities=0.965", ["table5/96.5/rigl"]),
        (
            "--table=table4 --methods=granet_si0,rigl",
            ["table4/granet_si0", "table4/rigl"],
        ),
    ],
)
def test_rows_can_be_chosen(argv, expected):
    assert names(read("--seeds=0", *argv.split())) == expected


def test_flags_of_granet_train_reach_all_rows_that_use_them():
    settings = read(
        "--table=table2", "--seeds=0", "--sparsities=0.9", "--methods=gmp,snip", "--frequency=125",
        "--schedule_multiplier=0.125", "--model=vgg19", "--dataset=cifar10",
    )  # fmt: skip
    snip, gmp = map(settings.of_cell, settings.cells())
    assert (snip.method, gmp.method) == ("snip", "gmp")
    assert (snip.schedule_multiplier, gmp.schedule_multiplier) == (0.125, 0.125)
    assert gmp.frequency == "125"
    assert settings.identity() == {
        "table": "table2", "frequency": "125", "schedule_multiplier": 0.125,
    }  # fmt: skip


def test_what_a_row_begins_with_is_trained_first(tmp_path):
    settings = read("--table=table6", "--seeds=3", "--sparsities=0.9", "--methods=granet_si0_lth")
    cells = [cell for cell in settings.cells() if "cifar10/vgg19" in cell.row.name]
    assert [cell.row.name for cell in cells] == [
        "table2/cifar10/vgg19/90/granet_si0",
        "table6/cifar10/vgg19/90/granet_si0_lth",
    ]
    first, second = cells
    assert (first.needs, second.needs) == (None, first)
    grid = Grid(tmp_path)
    values = settings.of_cell(second, grid.folder(second) / run.RUN)
    assert values.masks_from == values.weights_from == str(grid.folder(first) / run.RUN)
    assert (values.weights_at, values.seed, values.method) == ("start", 3, "static")
    mine = read("--table=table6", "--masks_from=mine", "--methods=granet_si0_lth", "--seeds=0")
    assert {cell.needs for cell in mine.cells()} == {None}


def test_a_trained_network_is_pruned_once_it_is_trained(tmp_path):
    settings = read("--table=table2", "--seeds=1", "--sparsities=0.9", "--methods=sis")
    cells = [cell for cell in settings.cells() if "cifar10/vgg19" in cell.row.name]
    assert [cell.row.name for cell in cells] == [
        "table2/cifar10/vgg19/dense",
        "table2/cifar10/vgg19/90/sis",
    ]
    dense, sis = cells
    assert (dense.needs, sis.needs) == (None, dense)
    grid = Grid(tmp_path)
    values = settings.of_cell(sis, grid.folder(sis) / run.RUN)
    assert values.weights_from == str(grid.folder(dense) / run.RUN)
    assert (values.masks_from, values.weights_at, values.seed) == (None, "end", 1)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--table=table1", "--table must be one of table2, table3, table4, table5, table6, table8"),
        ("--methods=granet_s0", "--methods must be of --table=table2: dense, snip, grasp, synflow"),
        ("--methods=granet_s0", "Did you mean granet_si0 or granet_si05? Received: --methods=gran"),
        ("--methods=mest", "--methods must be of --table=table2"),
        ("--sparsities=0.8", "--table=table2: 0.9, 0.95, 0.98. Received: --sparsities=0.8"),
        ("--methods=dense --sparsities=0.9", "--table=table2: they take none. Received: --spars"),
        ("--dataset=digits", "--dataset must be that of rows chosen from --table=table2: cifar10"),
        ("--model=resnet50", "table2: vgg19, resnet50_cifar. Received: --model=resnet50"),
        ("--row=table3/dense", "must not be given with --row. Received: --table=table2 --row=tab"),
        ("--methods=gmp --rounds=3", "--table=table2 has no use for --rounds"),
        ("--final_sparsity=0.9", "This study has no use for --final_sparsity"),
        (
            "--epochs=3",
            "table2/cifar10/vgg19/dense: --milestones must rise and lie within training",
        ),
    ],
)
def test_mistakes(argv, text):
    with pytest.raises(UsageError) as raised:
        read("--table=table2", *argv.split())
    assert text in str(raised.value)
    assert "\n" not in str(raised.value) and "Received: " in str(raised.value)


def test_missing_data_are_told_before_training(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(run.main, "main", lambda *arguments: begun.append(arguments))
    settings = read("--table=table4", f"--data_dir={tmp_path / 'none'}", f"--workdir={tmp_path}/w")
    with pytest.raises(UsageError, match=r"imagenet2012 is not prepared in .*/none"):
        main.main(settings)
    assert not begun


RESULT = {
    "test_accuracy": 0.75, "epoch": 1, "sparsity": 0.95, "inference_flops": 0.25,
    "training_flops": 0.5, "weights": 8, "nonzeros": 4, "flops_dense": 100, "seconds": 1.0,
}  # fmt: skip


def finish(settings, cell, workdir, **changes):
    Grid(workdir).finish(cell, {**RESULT, **changes})


def test_the_paper_stands_beside(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "_check_data", lambda values: None)
    monkeypatch.setattr(run.main, "main", lambda values, listeners: None)
    accuracies = iter([0.5, 0.5, 0.75, 0.75])
    monkeypatch.setattr(
        run, "result", lambda workdir, cell: {**RESULT, "test_accuracy": next(accuracies)}
    )
    argv = ("--table=table5", "--sparsities=0.95", "--seeds=0,1", f"--workdir={tmp_path}")
    main.main(read(*argv))
    out = capsys.readouterr().out
    assert "resnet50 on imagenet2012: 4 trainings" in out
    spread = f"62.50 ± {100 * np.std([0.5, 0.75], ddof=1):.2f}"
    page = (tmp_path / main.PAGE).read_text().splitlines()
    assert page == [
        "| row | accuracy | paper | train FLOPs | paper | test FLOPs | paper |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| table5/95/rigl | {spread} | 69.7 | 0.50× | 0.12× | 0.25× | 0.12× |",
        f"| table5/95/granet_si05 | {spread} | 72.3 | 0.50× | 0.17× | 0.25× | 0.12× |",
    ]
    assert [line.split()[0] for line in out.splitlines() if line.startswith("table5")] == [
        "table5/95/rigl", "table5/95/granet_si05",
    ]  # fmt: skip
    first, second = lines(tmp_path / main.TABLE)
    assert list(first) == list(Line.__dataclass_fields__)
    assert (first["row"], first["seeds"], first["test_accuracy"]) == (
        "table5/95/rigl",
        "2",
        "0.625",
    )
    assert [r["paper_accuracy"] for r in (first, second)] == ["0.697", "0.723"]
    assert (second["paper_training_flops"], second["paper_deviation"]) == ("0.17", "")
    assert [r["method"] for r in lines(tmp_path / main.TRAININGS)] == [
        "table5/95/rigl", "table5/95/granet_si05",
    ] * 2  # fmt: skip
    with pytest.raises(UsageError, match=r"--table=table8 instead of table5"):
        main.main(read("--table=table8", f"--workdir={tmp_path}"))
    with pytest.raises(UsageError, match=r"--width=0.5 instead of None"):
        main.main(read(*argv, "--width=0.5"))
    main.main(read(*argv[:1], "--sparsities=0.95", "--methods=rigl", *argv[2:]))


def test_flops_are_those_of_the_network_and_of_longer_training(tmp_path):
    settings = read("--table=table3", "--methods=dense,small_dense_5x,rigl", "--seeds=0")
    for cell in settings.cells():
        finish(settings, cell, tmp_path, flops_dense=25 if cell.method == "small_dense" else 100)
    found = {row.method: row for row in table.rows(Grid(tmp_path), settings.cells())}
    assert found["table3/80/rigl"].training_flops == 0.5
    assert found["table3/80/small_dense_5x"].training_flops == 0.5 * 0.25 * 5
    assert found["table3/80/small_dense_5x"].inference_flops == 0.25 * 0.25
    both = read("--table=table2", "--methods=dense", "--seeds=0", "--dataset=cifar10")
    for cell, flops in zip(both.cells(), (10, 1000), strict=True):
        finish(both, cell, tmp_path, flops_dense=flops)
    found = table.rows(Grid(tmp_path), both.cells())
    assert [row.inference_flops for row in found] == [0.25, 0.25]


@pytest.mark.slow
def test_table_6_from_end_to_end(tmp_path):
    """On random images: a row is trained, and others go on with what it came to."""
    random = np.random.default_rng(0)
    samples = [
        {"image": random.integers(0, 256, (32, 32, 3), np.uint8), "label": i % 10, "id": f"{i}"}
        for i in range(192)
    ]
    tfds_on_disk.write("cifar10", tmp_path, {"train": samples[:128], "test": samples[128:]})
    settings = read(
        "--table=table6", "--dataset=cifar10", "--model=vgg19", "--sparsities=0.9",
        "--methods=granet_si0_lth,granet_si0_lrr", "--seeds=1", "--width=0.0625",
        "--schedule_multiplier=0.0125", "--frequency=1", "--batch_size=32",
        f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'study'}",
    )  # fmt: skip
    main.main(settings)
    found = lines(tmp_path / "study" / main.TABLE)
    assert [(line["row"], line["paper_accuracy"]) for line in found] == [
        ("table2/cifar10/vgg19/90/granet_si0", "0.938"),
        ("table6/cifar10/vgg19/90/granet_si0_lth", "0.9363"),
        ("table6/cifar10/vgg19/90/granet_si0_lrr", "0.9384"),
    ]
    assert [float(line["sparsity"]) for line in found] == pytest.approx([0.9] * 3, abs=1e-3)
    cells = tmp_path / "study" / "cells"
    assert all((folder / run.RUN / files.SPARSE).exists() for folder in cells.iterdir())


def test_new_trainings_of_an_old_study_have_the_defaults_of_then(tmp_path):
    flags_of_cell = {"method": "gmp", "distribution": None, "prune_outputs": None}
    (tmp_path / files.RUN).write_text('{"table": "table2"}')
    assert files.unsaid_in_study(flags_of_cell, tmp_path) == {"distribution": "uniform"}
    (tmp_path / files.RUN).write_text('{"table": "table2", "defaults": 2}')
    assert files.unsaid_in_study(flags_of_cell, tmp_path) == {}
    of_sis = {"method": "sis", "scope": None, "distribution": "er", "prune_outputs": False}
    assert files.unsaid_in_study(of_sis, tmp_path) == {"scope": "global"}
    (tmp_path / files.RUN).write_text('{"table": "table2", "defaults": 3}')
    assert files.unsaid_in_study(of_sis, tmp_path) == {}
