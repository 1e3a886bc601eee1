"""granet-compare: every method, sparsity and seed once, and a table that says what they came to."""

import csv
import json
import statistics

import pytest

from granet_train import figures, files
from granet_train import flags as training_flags
from granet_train.errors import UsageError
from granet_train.studies.compare import figure, flags, main, run, table
from granet_train.studies.compare.cells import Variant, trainings
from granet_train.studies.grid import Grid
from tests.support.short_runs import run as train
from tests.support.short_runs import summary
from tests.support.short_runs import table as lines_of

RECIPE = ("--epochs=2", "--batch_size=256", "--learning_rate=0.05", "--momentum=0.9")
NETWORK = (*RECIPE, "--width=0.25", "--frequency=2")
SMALL = (*NETWORK, "--methods=dense,granet:initial_sparsity=0.5", "--sparsities=0.9", "--seeds=0,1")


def settings(workdir, *argv):
    return flags.read([*SMALL, f"--workdir={workdir}", *argv])


def lines(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("compare") / "study"
    main.main(settings(workdir))
    return workdir


@pytest.mark.slow
def test_each_training_is_one_of_granet_train(finished, tmp_path):
    rows = lines(finished / main.TRAININGS)
    assert [(r["method"], r["final_sparsity"], r["seed"]) for r in rows] == [
        ("dense", "", "0"),
        ("granet:initial_sparsity=0.5", "0.9", "0"),
        ("dense", "", "1"),
        ("granet:initial_sparsity=0.5", "0.9", "1"),
    ]
    train(
        *NETWORK, "--method=granet", "--initial_sparsity=0.5", "--final_sparsity=0.9", "--seed=1",
        "--notensorboard", "--noexport_tflite", "--noplot", f"--workdir={tmp_path}",
    )  # fmt: skip
    alone = summary(tmp_path)["runs"]["granet"]
    found = rows[-1]
    for name in ("test_accuracy", "training_flops", "inference_flops", "sparsity"):
        assert float(found[name]) == alone[name]
    assert int(found["nonzeros"]) == alone["nonzeros"]
    cell = finished / "cells" / "granet_initial_sparsity=0.5_s0.9_seed1"
    assert lines_of(cell / run.RUN / files.METRICS) == lines_of(tmp_path / files.METRICS)
    assert not (cell / run.RUN / files.CHECKPOINTS).exists()
    assert "granet  " in (cell / run.LOG).read_text()


def test_the_table_has_means_and_deviations(finished):
    rows, means = lines(finished / main.TRAININGS), lines(finished / main.TABLE)
    assert [m["method"] for m in means] == ["dense", "granet:initial_sparsity=0.5"]
    for mean in means:
        accuracies = [float(r["test_accuracy"]) for r in rows if r["method"] == mean["method"]]
        assert len(accuracies) == int(mean["seeds"]) == 2
        a, b = accuracies
        assert float(mean["test_accuracy"]) == pytest.approx((a + b) / 2)
        assert float(mean["deviation"]) == pytest.approx(abs(a - b) / 2**0.5)
    assert float(means[0]["training_flops"]) == float(means[0]["inference_flops"]) == 1.0
    page = (finished / main.PAGE).read_text().splitlines()
    assert page[0] == "| method | accuracy at 0.9 | train FLOPs | test FLOPs |"
    assert [line.count("|") for line in page] == [5] * 4
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (finished / "comparison.svg").read_text()


@pytest.fixture
def begun(monkeypatch):
    """The flags of the trainings that were begun; none of them is carried out."""
    values = []
    monkeypatch.setattr(run.main, "main", lambda of_cell, listeners: values.append(of_cell))
    monkeypatch.setattr(
        run, "result", lambda workdir, cell: dict.fromkeys(
            ("test_accuracy", "epoch", "sparsity", "weights", "nonzeros", "inference_flops",
             "training_flops", "flops_dense", "seconds"), 1,
        ),
    )  # fmt: skip
    return values


def test_it_goes_on_with_what_is_new(finished, begun):
    results = {path: path.stat().st_mtime_ns for path in finished.rglob("result.json")}
    main.main(settings(finished, "--methods=dense,gmp"))
    assert [(v.method, v.seed, v.final_sparsity) for v in begun] == [
        ("gmp", 0, 0.9), ("gmp", 1, 0.9),
    ]  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in results} == results
    with pytest.raises(UsageError, match=r"--epochs=3 instead of 2"):
        main.main(settings(finished, "--epochs=3"))


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((), (None, None)),
        (("defaults",), ("uniform", None)),
        (("defaults", "shrink_at", "prune_outputs"), ("uniform", True)),
    ],
)
def test_new_trainings_of_an_old_study_have_the_defaults_of_then(
    tmp_path, begun, missing, expected
):
    workdir = tmp_path / "study"
    main.main(settings(workdir, "--methods=gmp", "--seeds=0"))
    noted = json.loads((workdir / files.RUN).read_text())
    (workdir / files.RUN).write_text(
        json.dumps({name: value for name, value in noted.items() if name not in missing})
    )
    for seed in (1, 2):  # What the first of these sessions notes is not to hide it.
        main.main(settings(workdir, "--methods=gmp", f"--seeds={seed}"))
    assert [(v.distribution, v.prune_outputs) for v in begun] == [(None, None), expected, expected]
    main.main(settings(workdir, "--methods=gmp:distribution=er", "--seeds=0"))
    assert begun[-1].distribution == "er"


def test_a_smaller_network_is_compared_with_the_whole_one(tmp_path):
    grid = Grid(tmp_path)
    cells = trainings((Variant("dense"), Variant("small_dense")), (0.75,), (0,))
    figures = {"test_accuracy": 0.5, "epoch": 1, "sparsity": 0.0, "weights": 9, "nonzeros": 9}
    for cell, flops in zip(cells, (400, 100), strict=True):
        relative = {"inference_flops": 1.0, "training_flops": 1.0, "flops_dense": flops}
        grid.finish(cell, {**figures, **relative, "seconds": 1.0})
    found = [
        (row.method, row.inference_flops, row.training_flops) for row in table.rows(grid, cells)
    ]
    assert found == [("dense", 1.0, 1.0), ("small_dense", 0.25, 0.25)]


def test_trainings_with_emptied_layers_are_named(tmp_path, capsys):
    argv = ("--methods=dense,magnitude", "--sparsities=0.9999", "--seeds=0", "--epochs=1")
    workdir = tmp_path / "study"
    main.main(flags.read([*RECIPE, "--width=0.25", *argv, f"--workdir={workdir}"]))
    [line] = [x for x in capsys.readouterr().out.splitlines() if x.startswith("warning: ")]
    layers = lines_of(workdir / "cells" / "magnitude_s0.9999_seed0" / run.RUN / files.LAYERS)
    gone = [layer["layer"] for layer in layers if layer["shape"] and layer["nonzeros"] == "0"]
    assert gone and line.startswith(
        f"warning: magnitude at 0.9999, seed 0: all of {', '.join(gone)} has been pruned"
    )
    assert [int(row["emptied"]) for row in lines(workdir / main.TRAININGS)] == [0, len(gone)]


def rows(accuracies, **fields):
    return [
        table.Row(
            **{"method": "gmp", "final_sparsity": 0.9, "sparsity": 0.9, **fields},
            seed=seed, test_accuracy=accuracy, epoch=2, weights=10, nonzeros=1,
            inference_flops=0.125, training_flops=0.25, seconds=1.0,
        )
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip


ROWS = [
    *rows([0.91, 0.92, 0.96], method="dense", final_sparsity=None, sparsity=0.0),
    *rows([0.8, 0.9, 0.85]),
    *rows([0.7], final_sparsity=0.98),
    *rows([0.9, 0.9, 0.9], method="granet"),
]


def test_markdown():
    deviation = statistics.stdev([0.91, 0.92, 0.96])
    assert table.markdown(table.means(ROWS)).splitlines() == [
        "| method | accuracy at 0.9 | train FLOPs | test FLOPs | accuracy at 0.98 | train FLOPs "
        "| test FLOPs |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| dense | 93.00 ± {100 * deviation:.2f} | 0.25× | 0.12× "
        f"| 93.00 ± {100 * deviation:.2f} | 0.25× | 0.12× |",
        "| gmp | 85.00 ± 5.00 | 0.25× | 0.12× | **70.00** | 0.25× | 0.12× |",
        "| granet | **90.00 ± 0.00** | 0.25× | 0.12× |  |  |  |",
    ]


def test_a_method_without_a_final_sparsity_says_what_it_came_to():
    found = rows([0.5], method="str", final_sparsity=None) + rows([0.25])
    lines = table.markdown(table.means(found)).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| str, 0.900 sparse", "| gmp"]


def test_figure(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda self, path, **kw: (drawn.append(self), path.touch())
    )
    figure.draw(tmp_path / "comparison", table.means(ROWS), "net on data")
    left, right = drawn[0].axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["0.9", "0.98"]
    _, labels = left.get_legend_handles_labels()
    assert labels == ["dense", "gmp", "granet"]
    heights = sorted(y for lines in left.containers for y in lines.lines[0].get_ydata())
    assert heights == pytest.approx([70, 85, 90])
    assert {x for c in right.containers for x in c.lines[0].get_xdata()} == {0.25}


def test_each_of_many_methods_has_its_own_look(tmp_path, monkeypatch):
    drawn = []

    def keep(self, path, **options):
        self.canvas.draw()
        drawn.append(self)
        path.touch()

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    names = ["dense", *training_flags.METHODS, "small_dense", "gmp:scope=global", "str:l1=1e-5"]
    found = []
    for name in names:
        fixed = name == "dense" or name.startswith("str")
        found += rows(
            [0.8], method=name, final_sparsity=None if fixed else 0.9,
            sparsity=0.0 if "dense" in name else 0.9,
        )  # fmt: skip
    figure.draw(tmp_path / "comparison", table.means(found), "net on data")
    _, right = drawn[0].axes
    [legend] = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == names
    lines = [container.lines[0] for container in right.containers]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(names) > 20
    box, of_figure = legend.get_window_extent(), drawn[0].bbox
    assert of_figure.x0 <= box.x0 and box.x1 <= of_figure.x1 and of_figure.y0 <= box.y0


def test_flags_of_a_method_reach_it_and_no_other():
    mine = flags.read(
        ["--methods=static,rigl,granet:drop_fraction=0.2", "--frequency=7", "--drop_fraction=0.4",
         "--sparsities=0.8", "--seeds=5", "--end", "0.5"]
    )  # fmt: skip
    static, rigl, granet = map(mine.of_cell, mine.cells())
    assert (static.method, static.final_sparsity, static.seed) == ("static", 0.8, 5)
    assert (rigl.drop_fraction, rigl.frequency, rigl.end) == (0.4, "7", "0.5")
    assert granet.drop_fraction == 0.2
    assert not static.tensorboard and not static.plot and not static.export_tflite
    assert (
        flags.read(["--methods=gmp", "--plot"])
        .of_cell(trainings((Variant("gmp"),), (0.5,), (0,))[0])
        .plot
    )


def test_all_methods():
    mine = flags.read(["--methods=all", "--seeds=0", "--sparsities=0.9"])
    names = [cell.variant.method for cell in mine.cells()]
    assert names[0] == "dense" and set(names) == set(training_flags.RUNS)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--methods=gmp,gramet", "--methods must be a list of any of granet, gmp, rigl, set, stat"),
        ("--methods=gmp,gramet", "Did you mean granet or mest? Received: --methods=gmp,gramet"),
        ("--methods=gmp,gmp", "--methods must name each method once"),
        ("--methods=", "--methods must name a method"),
        ("--methods=gmp:drop_fraction=0.3", "--method=gmp has no use for --drop_fraction"),
        ("--methods=gmp:nonsense=3", "gmp:nonsense=3 at 0.9, seed 0: There is no flag --nonsense"),
        ("--methods=gmp,static --drop_fraction=0.3", "--methods=gmp,static has no use for --drop_"),
        ("--methods=granet:initial_sparsity=0.95", "--initial_sparsity must not be above --final_"),
        ("--sparsities=0", "--sparsities must be a list of different sparsities in (0, 1)"),
        ("--sparsities=0.9,0.9", "must be a list of different sparsities"),
        ("--seeds=", "--seeds must be a list of different whole numbers"),
        ("--seed=1", "This study has no use for --seed. Received: --seed=1"),
        ("--strategy=mirrored", "This study has no use for --strategy"),
        ("--compare=dense", "This study has no use for --compare"),
        ("--methos=gmp", "There is no flag --methos. Did you mean --method"),
        ("--optimizer=adam --momentum=0.9", "--optimizer=adam has no use for --momentum"),
    ],
)
def test_mistakes(argv, text):
    with pytest.raises(UsageError) as raised:
        flags.read(argv.split())
    assert text in str(raised.value)
    assert "\n" not in str(raised.value) and "Received: " in str(raised.value)
