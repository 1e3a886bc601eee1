"""Every row is valid, has what the paper has, and comes to the paper's numbers of steps.

The numbers here were copied from the paper by hand, not from paper.csv.
"""

import re

import pytest

from granet_train import flags, learning_rates, optimizers, rows
from granet_train.durations import TrainingLength
from granet_train.studies.compare import flags as compare
from granet_train.studies.plasticity import flags as plasticity
from tests.support import ROOT

CONFIGS = ROOT / "configs"
ROWS = sorted(rows.all_rows().values(), key=lambda row: row.name)
BASES = sorted(CONFIGS.glob("base/*.flags"))
TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "imagenet2012": 1_281_167}

# Each line: CIFAR-10 at 90, 95, 98 %, CIFAR-100 at 90, 95, 98 %. "-": not in the table,
# "?": not transcribed.
CIFAR = {
    "table2": """
        vgg19    snip         93.63 93.43 92.05  72.84 71.83 58.46
        vgg19    grasp        93.30 93.04 92.19  71.95 71.23 68.90
        vgg19    synflow      93.35 93.45 92.24  71.77 71.72 70.94
        vgg19    deep_r       90.81 89.59 86.77  66.83 63.46 59.58
        vgg19    str          93.73 93.27 92.21  71.93 71.14 69.89
        vgg19    set          92.46 91.73 89.18  72.36 69.81 65.94
        vgg19    sis          93.99 93.31 93.16  72.06 71.85 71.17
        vgg19    rigl         93.38 93.06 91.98  73.13 72.14 69.82
        vgg19    granet_si05  93.73 93.66 93.38  73.30 73.18 72.04
        vgg19    gmp          93.59 93.58 93.52  73.10 72.30 72.07
        vgg19    granet_si0   93.80 93.72 93.63  73.74 73.10 72.35
        resnet50 snip         92.65 90.86 87.21  73.14 69.25 58.43
        resnet50 grasp        92.47 91.32 88.77  73.28 70.29 62.12
        resnet50 synflow      92.49 91.22 88.82  73.37 70.37 62.17
        resnet50 set          -     -     -      -     -     -
        resnet50 sis          92.81 91.69 90.11  73.81 70.62 62.75
        resnet50 rigl         94.45 93.86 93.26  76.50 76.03 75.06
        resnet50 granet_si05  94.64 94.38 94.01  77.89 77.16 77.14
        resnet50 gmp          94.34 94.52 94.19  76.91 76.42 75.58
        resnet50 granet_si0   94.49 94.44 94.34  77.29 76.71 76.10
    """,
    "table6": """
        vgg19    granet_si0_lth  93.63 93.29 92.46  72.97 71.76 69.28
        vgg19    granet_si0_lrr  93.84 93.72 93.53  73.71 73.24 72.50
        vgg19    granet_si0_2x   94.17 93.98 93.94  74.80 73.65 73.63
        resnet50 granet_si0_lth  93.96 93.70 92.94  75.74 74.31 71.99
        resnet50 granet_si0_lrr  94.55 94.39 94.20  77.40 76.90 75.75
        resnet50 granet_si0_2x   95.09 94.84 94.69  78.18 78.17 77.15
    """,
    "table9": """
        vgg19    gmp         93.28 92.76 91.64  ?     ?     66.16
        vgg19    granet_si0  93.12 92.88 91.87  ?     ?     70.14
        resnet50 gmp         94.08 94.20 93.66  77.30 76.77 75.38
        resnet50 granet_si0  94.19 94.16 93.64  77.57 77.15 76.17
    """,
}
DENSE = {
    "cifar10/vgg19": "93.85",
    "cifar100/vgg19": "73.43",
    "cifar10/resnet50": "94.75",
    "cifar100/resnet50": "78.23",
}
# Accuracy, training FLOPs, test FLOPs.
IMAGENET = """
    table3/dense                76.8
    table3/80/static            72.1 0.42 0.42
    table3/90/static            67.7 0.24 0.24
    table3/80/snip              72.0 0.23 0.23
    table3/90/snip              67.2 0.10 0.10
    table3/80/small_dense       72.1 0.23 0.23
    table3/90/small_dense       67.2 0.10 0.10
    table3/80/small_dense_5x    73.9 1.01 0.20
    table3/90/small_dense_5x    71.3 0.60 0.12
    table3/80/dsr               73.3 0.40 0.40
    table3/90/dsr               71.6 0.30 0.30
    table3/80/snfs              75.2 0.61 0.42
    table3/90/snfs              72.9 0.50 0.24
    table3/80/dpf               75.1 0.71 0.23
    table3/80/set               72.9 0.23 0.23
    table3/90/set               69.6 0.10 0.10
    table3/80/rigl              75.1 0.42 0.42
    table3/90/rigl              73.0 0.25 0.24
    table3/80/granet_si05       76.0 0.37 0.35
    table3/90/granet_si05       74.5 0.25 0.20
    table3/80/gmp               75.6 0.56 0.23
    table3/90/gmp               73.9 0.51 0.10
    table3/80/granet_si0        75.8 0.34 0.28
    table3/90/granet_si0        74.2 0.23 0.16
    table3/80/rigl_itop_2x      76.9 0.84 0.42
    table3/90/rigl_itop_2x      75.5 0.50 0.24
    table3/80/rigl_5x           77.1 2.09 0.42
    table3/90/rigl_5x           76.4 1.23 0.24
    table3/80/granet_si05_2.5x  77.1 0.85 0.34
    table3/90/granet_si05_2.5x  76.4 0.49 0.20
    table4/granet_si0           74.2 0.23 0.16
    table4/granet_si05          74.5 0.25 0.20
    table4/granet_si06          74.4 0.25 0.22
    table4/granet_si07          74.2 0.24 0.22
    table4/granet_si08          74.1 0.25 0.24
    table4/rigl                 73.0 0.25 0.24
    table5/80/rigl              75.1 0.42 0.42
    table5/80/granet_si05       76.0 0.37 0.35
    table5/90/rigl              73.0 0.25 0.24
    table5/90/granet_si05       74.5 0.25 0.20
    table5/95/rigl              69.7 0.12 0.12
    table5/95/granet_si05       72.3 0.17 0.12
    table5/96.5/rigl            67.2 0.11 0.11
    table5/96.5/granet_si05     70.5 0.15 0.09
    table8/80/gmp_original      75.6 0.56 0.23
    table8/80/gmp_zero          74.6 0.34 0.28
    table8/90/gmp_original      73.9 0.51 0.10
    table8/90/gmp_zero          73.3 0.23 0.16
"""


def papers_numbers():
    """{row: [the paper's numbers]}"""
    numbers = {f"table2/{stem}/dense": [accuracy] for stem, accuracy in DENSE.items()}
    for line in filter(str.strip, IMAGENET.splitlines()):
        stem, *cells = line.split()
        numbers[stem] = cells
    for table, text in CIFAR.items():
        for line in filter(str.strip, text.splitlines()):
            network, method, *cells = line.split()
            columns = [(d, s) for d in ("cifar10", "cifar100") for s in (90, 95, 98)]
            for (dataset, sparsity), cell in zip(columns, cells, strict=True):
                numbers[f"{table}/{dataset}/{network}/{sparsity}/{method}"] = [cell]
    return numbers


PAPER = papers_numbers()
WORDS = {"-": "not in the table", "?": "not transcribed"}


def name(path):
    return f"{path.parent.name}/{path.stem}"


def name_of(row):
    return row.name


def parsed(row, *more):
    values, _ = flags.parse([f"--row={row}", *more])
    return values


def length(values):
    steps_per_epoch = TRAINING_IMAGES[values.dataset] // values.batch_size
    return TrainingLength.stretched(values.epochs, steps_per_epoch, values.schedule_multiplier)


def method(values):
    """The method itself, so that the library checks its parameters."""
    of = flags.METHODS[values.method]
    return of(**flags.method_parameters(values.method, values, length(values)))


def test_there_is_each_row_and_no_other():
    assert {row.name for row in ROWS} == set(PAPER)
    assert sum(stem.startswith("table2/") for stem in PAPER) == 2 * 2 * (9 * 3 + 1) + 2 * 2 * 3


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_row(row):
    [number, *flops] = PAPER[row.name]
    # The number, and the deviation or FLOPs that the paper has with it.
    assert re.match(r"[\d.]+|[a-z ]+", str(row.published))[0] == WORDS.get(number, number)
    assert [str(f) for f in (row.published.training_flops, row.published.test_flops) if f] == flops
    assert row.method and (row.published.deviation is None or 0 < row.published.deviation < 1)

    values = parsed(row.name)
    assert values.workdir == f"work/{row.table}/{row.name.partition('/')[2].replace('/', '_')}"
    flags.check_length(values, length(values))
    parts = row.name.partition("/")[2].replace("/", "_").split("_")
    sparsities = [float(part) for part in parts if re.fullmatch(r"\d\d(\.5)?", part)]
    assert row.sparsity == (round(sparsities[0] / 100, 3) if sparsities else None)
    if values.method not in flags.METHODS:
        assert values.method in row.variant and "dense" in parts
        return
    if values.masks_from:
        *run, again = parts
        assert values.masks_from == values.weights_from == f"work/table2/{'_'.join(run)}"
        assert parsed(f"table2/{row.name.partition('/')[2][:-4]}").workdir == values.masks_from
        assert (again, values.method) == (
            {"start": "lth", "end": "lrr"}[values.weights_at],
            "static",
        )
        return
    assert values.method in row.variant
    made = method(values)
    if values.method == "str":
        # What comes of it is not set.
        assert made.threshold_decay == values.threshold_decay > 0
    else:
        expected = round(sparsities[0] / 100, 3) if sparsities else 0.9
        assert made.final_sparsity == values.final_sparsity == expected
    if values.method == "sis":
        dense = f"table2/{parts[0]}/{parts[1]}/dense"
        assert values.weights_from == parsed(dense).workdir and values.weights_at == "end"
    if values.dataset != "imagenet2012":
        networks = {"vgg19": "vgg19", "resnet50": "resnet50_cifar"}
        assert (values.dataset, values.model) == (parts[0], networks[parts[1]])
    if "granet" in parts:
        starts = {"si0": 0.0, "si05": 0.5, "si06": 0.6, "si07": 0.7, "si08": 0.8}
        [start] = [starts[part] for part in parts if part in starts]
        assert values.initial_sparsity == start


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_readme_has_the_row(row):
    [number, *_] = PAPER[row.name]
    found = row.name.partition("/")[2]
    stem = re.sub(r"(?<=/)(90|95|98)(?=/)|^(80|90)(?=/)", "*", found)
    tables = (CONFIGS / "README.md").read_text().split("\n## ")
    [section] = [text for text in tables if text.startswith(f"Table {row.table[-1]}:")]
    [line] = [r for r in section.splitlines() if f"`{stem}`" in r or f"`{found}`" in r]
    assert WORDS.get(number, number) in line
    assert row.published.deviation is None or str(row.published) in line


@pytest.mark.parametrize("path", [*BASES, *sorted(CONFIGS.glob("*.flags"))], ids=name)
def test_bases_are_valid_and_used(path):
    # What depends on the method stands in files that name one.
    argv = [] if "--method" in path.read_text() else ["--method=gmp"]
    flags.parse([f"--flagfile={path}", *argv])
    everything = "\n".join(each.read_text() for each in CONFIGS.rglob("*.flags"))
    recipes = {recipe for row in ROWS for recipe in row.recipes}
    assert path.parent == CONFIGS or f"{path.name}\n" in everything or path.stem in recipes


@pytest.mark.parametrize(
    ("stem", "steps", "begin", "end"),
    # 5 and 80 of 160 epochs of 390 steps; 5 and 50 of 100 epochs of 2,502.
    [("st3_cifar10", 62_400, 1_950, 31_200), ("st3_imagenet", 250_200, 12_510, 125_100)],
)
def test_other_papers(stem, steps, begin, end):
    values, _ = flags.parse([f"--flagfile={CONFIGS}/other_papers/{stem}.flags"])
    flags.check_length(values, length(values))
    made = method(values)
    assert (length(values).steps, made.begin_step, made.end_step) == (steps, begin, end)
    assert (made.scope, made.power, made.frequency) == ("global", 3, 1)
    assert (values.global_clipnorm, values.decay, values.nesterov or False) == (3, "kernels", False)
    assert f"`{stem}`" in (CONFIGS / "README.md").read_text()


def test_rows_are_short():
    assert max(len(row.overrides) for row in ROWS) <= 5
    assert max(map(len, (CONFIGS / "paper.csv").read_text().splitlines())) <= 300


# Hyper-parameters, in steps.


@pytest.mark.parametrize(
    ("stem", "end", "initial"),
    [
        ("table2/cifar10/vgg19/90/granet_si0", 42_900, 0.0),  # 110 epochs of 390
        ("table2/cifar100/resnet50/98/granet_si05", 31_200, 0.5),  # 80 epochs
        ("table2/cifar10/resnet50/95/gmp", 42_900, 0.0),
        ("table6/cifar10/vgg19/90/granet_si0_2x", 85_800, 0.0),  # 220 epochs
        ("table3/90/granet_si0", 600_540, 0.0),  # 30 epochs of 20,018
        ("table3/80/granet_si05", 600_540, 0.5),
        ("table3/80/granet_si05_2.5x", 1_501_350, 0.5),  # 75 epochs
        ("table4/granet_si07", 600_540, 0.7),
        ("table5/96.5/granet_si05", 600_540, 0.5),
        ("table8/80/gmp_zero", 600_540, 0.0),
        ("table9/cifar10/vgg19/98/granet_si0", 42_900, 0.0),
    ],
)
def test_gradual_pruning(stem, end, initial):
    made = method(parsed(stem))
    imagenet = stem[:6] in ("table3", "table4", "table5", "table8")
    assert (made.begin_step, made.end_step) == (0, end)
    assert made.frequency == (4000 if imagenet else 1000)
    assert made.initial_sparsity == initial
    assert made.scope == ("layer" if "table9" in stem else "global")
    if "granet" in stem:
        assert (made.drop_fraction, made.final_drop_fraction) == (0.5, 0.005)
    if initial:
        assert made.distribution == "erk"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("plasticity/*.flags")), ids=name)
def test_plasticity(path):
    settings = plasticity.read([f"--flagfile={path}"])
    assert settings.axes.sparsities == (0, 0.5, 0.9, 0.98)
    assert settings.axes.rates == (0.2, 0.5, 0.9, 0.98)
    assert settings.axes.regenerate == ("no", "yes")
    if settings.dataset == "cifar10":
        assert settings.axes.epochs == tuple(range(10, 160, 10))
        assert (settings.axes.recovery, settings.axes.length, settings.scope) == (30, 160, "global")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("compare/*.flags")), ids=name)
def test_compare(path):
    settings = compare.read([f"--flagfile={path}"])
    assert settings.seeds == (0, 1, 2)
    assert len({cell.name for cell in settings.cells()}) == len(settings.cells())


@pytest.mark.parametrize("name", ["rigl", "set"])
def test_sparse_to_sparse(name):
    made = method(parsed(f"table2/cifar10/vgg19/90/{name}"))
    assert (made.end_step, made.frequency, made.distribution) == (62_400, 1000, "erk")
    assert (made.drop_fraction, made.final_drop_fraction) == (0.5, 0.005)


@pytest.mark.parametrize(
    ("stem", "batches", "rounds"),
    [
        ("cifar10/vgg19/98/snip", 1, 1),
        ("cifar100/resnet50/90/grasp", 8, 1),
        ("cifar10/vgg19/98/synflow", None, 100),
    ],
)
def test_before_training(stem, batches, rounds):
    made = method(parsed(f"table2/{stem}"))
    assert (getattr(made, "batches", None), made.rounds, made.scope) == (batches, rounds, "global")
    assert getattr(made, "temperature", 200.0) == 200.0


def test_original_and_zero_gmp():
    original, zero = parsed("table8/90/gmp_original"), parsed("table8/90/gmp_zero")
    assert (original.mask_only, zero.mask_only) == (True, False)
    made = method(original)
    assert (made.scope, made.distribution) == ("layer", "uniform")
    assert (made.pinned, made.capped) == ({0: 0.0}, {-1: 0.8})
    assert (made.begin_step, made.end_step) == (700_630, 1_501_350)
    appended = parsed(
        "table2/cifar10/vgg19/90/gmp", f"--flagfile={CONFIGS}/base/gmp_original.flags"
    )
    assert appended.mask_only and method(appended).capped == {-1: 0.8}


def test_uniform():
    values = parsed("table9/cifar100/resnet50/95/gmp")
    assert (method(values).scope, method(values).distribution) == ("layer", "uniform")
    assert not values.mask_only and not values.pinned and not values.capped


@pytest.mark.parametrize(
    ("stem", "steps", "milestones", "warmup"),
    [
        ("table2/cifar10/vgg19/dense", 62_400, (31_200, 46_800), 0),
        ("table6/cifar100/vgg19/90/granet_si0_2x", 124_800, (62_400, 93_600), 0),
        ("table3/dense", 2_001_800, (600_540, 1_201_080, 1_801_620), 100_090),
        (
            "table3/80/granet_si05_2.5x",
            5_004_500,
            (1_501_350, 3_002_700, 4_504_050),
            250_225,
        ),
        (
            "table3/90/rigl_5x",
            10_009_000,
            (3_002_700, 6_005_400, 9_008_100),
            500_450,
        ),
    ],
)
def test_learning_rate(stem, steps, milestones, warmup):
    values = parsed(stem)
    course = flags.course(values, length(values))
    assert course == learning_rates.Course(0.1, steps, warmup, milestones)
    rate = learning_rates.make(values.learning_rate_schedule, course)
    at = [milestones[0] - 1, milestones[0], milestones[-1] - 1, milestones[-1], steps - 1]
    lowest = 0.1 / 10 ** len(milestones)
    assert [float(rate(step)) for step in at] == pytest.approx(
        [0.1, 0.01, 10 * lowest, lowest, lowest], rel=1e-6
    )


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_recipe(row):
    values = parsed(row.name)
    cifar = values.dataset != "imagenet2012"
    assert (values.batch_size, values.epochs) == ((128, 160) if cifar else (64, 100))
    assert values.weight_decay == (5e-4 if cifar else 1e-4)
    assert values.decay == ("all" if cifar else "kernels")
    assert values.label_smoothing == (0.0 if cifar else 0.1)
    made = optimizers.make(
        values.optimizer, 0.1, {"momentum": values.momentum, "nesterov": values.nesterov}
    )
    assert (made.momentum, made.nesterov, made.weight_decay) == (0.9, cifar, None)
    assert values.seed == 0 and values.select_on == "last" and values.augment


def test_stretched_to_an_eighth():
    """The command for a short run in the README of configs."""
    values = parsed(
        "table2/cifar10/vgg19/90/granet_si0", "--schedule_multiplier=0.125", "--frequency=125"
    )
    made, course = method(values), flags.course(values, length(values))
    assert (made.end_step, made.frequency) == (round(13.75 * 390), 125)
    assert (course.steps, course.milestones) == (20 * 390, (3900, 5850))
