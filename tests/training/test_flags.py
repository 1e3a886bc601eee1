"""Flags: what is asked for reaches the run, and what cannot be meant is told at once."""

import dataclasses
import inspect
import json
import subprocess
import sys
import zipfile
from fractions import Fraction

import keras
import pytest

import granet_tf
from granet_tf import methods
from granet_tf.masks import scopes
from granet_tf.masks.patterns import names as pattern_names
from granet_train import (
    command_line,
    durations,
    flag_checks,
    flag_help,
    flags,
    models,
    optimizers,
    options,
)
from granet_train.durations import TrainingLength
from granet_train.errors import TrainingStopped, UsageError
from tests.support import ROOT


def wrong(*argv):
    """The error that a command line gives."""
    with pytest.raises(UsageError) as raised:
        flags.parse(argv)
    text = str(raised.value)
    assert "\n" not in text and "Received: " in text
    return text


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return f"--flagfile={path}"


# Mistakes. Each is one line that names the flag, says what it must be and what it was.


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--metod=gmp", "There is no flag --metod. Did you mean --method or --model? Received: --"),
        ("--nodowload", "There is no flag --nodowload. Did you mean --download? Received: --nodow"),
        ("--qqq", "There is no flag --qqq. See --help. Received: --qqq"),
        ("--flagfiel=a", "There is no flag --flagfiel. Did you mean --flagfile?"),
        ("--method=gm", "--method must be one of granet, gmp, rigl, set, static, magnitude, snip"),
        ("--strategy=tpus", "--strategy must be one of none, mirrored, multiworker, tpu. Received"),
        ("--model=vgg-19", "--model must be a network of granet_tf or of keras.applications. Did "),
        ("--model=vgg-19", "Did you mean vgg19 or VGG16? Received: --model=vgg-19"),
        ("--model=none", "keras.applications. See --help. Received: --model=none"),
        ("--epochs=ten", "--epochs must be an integer. Received: --epochs=ten"),
        ("--epochs=1.5", "--epochs must be an integer. Received: --epochs=1.5"),
        ("--epochs", "--epochs must be an integer. Received: --epochs without a value"),
        ("--learning_rate=fast", "--learning_rate must be a number. Received: --learning_rate=fas"),
        ("--xla=perhaps", "--xla must be true or false. Received: --xla=perhaps"),
        ("granet", "Everything is a flag here, such as --method=granet. Received: granet"),
        ("--epochs=3 now --seed=1", "such as --method=granet. Received: now"),
        (
            "--compare=dense,foo",
            "--compare must be a list of any of granet, gmp, rigl, set, static",
        ),
        (
            "--final_sparsity=1",
            "--final_sparsity must be a fraction of zeros in [0, 1). Received: ",
        ),
        ("--final_sparsity=90", "Received: --final_sparsity=90.0"),
        ("--final_sparsity=nan", "--final_sparsity must be a fraction of zeros in [0, 1)"),
        ("--initial_sparsity=-0.1", "--initial_sparsity must be a fraction of zeros in [0, 1)"),
        ("--begin=soon", '--begin must be optimizer steps ("500"), a fraction of training ("0.5")'),
        ("--end=-1", "--end must be optimizer steps"),
        ("--frequency=0", "--frequency must be longer than nothing: optimizer steps"),
        ("--frequency=often", "--frequency must be longer than nothing: optimizer steps"),
        ("--drop_fraction=1.5", "--drop_fraction must be in [0, 1]. Received: --drop_fraction=1.5"),
        ("--final_drop_fraction=-1", "--final_drop_fraction must be in [0, 1]"),
        ("--pinned=0.5", "--pinned must be a list of weight:sparsity, each weight once"),
        ("--pinned=0:1.0", "--pinned must be a list of weight:sparsity"),
        ("--capped=0:0.5,0:0.6", "each weight once"),
        ("--capped=a:b", "Received: --capped=a:b"),
        ("--dataset=", "--dataset must not be empty"),
        ("--data_dir= --dataset=cifar10", "--data_dir must not be empty"),
        ("--image_size=0", "--image_size must be 1 or more"),
        ("--validation_fraction=1", "--validation_fraction must be in [0, 1)"),
        ("--width=0", "--width must be above 0"),
        ("--seed=-1", "--seed must be a whole number from 0 to 4294967295"),
        ("--seed=4294967296", "--seed must be a whole number from 0 to 4294967295"),
        ("--epochs=0", "--epochs must be 1 or more. Received: --epochs=0"),
        ("--schedule_multiplier=0", "--schedule_multiplier must be above 0"),
        ("--schedule_multiplier=inf", "--schedule_multiplier must be above 0"),
        ("--batch_size=0", "--batch_size must be 1 or more. Received: --batch_size=0"),
        ("--learning_rate=0", "--learning_rate must be above 0"),
        ("--learning_rate=nan", "--learning_rate must be above 0. Received: --learning_rate=nan"),
        ("--learning_rate_per=0", "--learning_rate_per must be 1 or more"),
        (
            "--learning_rate_schedule=step --milestones=",
            "--milestones must be a list of one or mor",
        ),
        ("--learning_rate_schedule=step --milestones=80,x", "Received: --milestones=80,x"),
        ("--warmup=long", "--warmup must be optimizer steps"),
        ("--momentum=1.1", "--momentum must be in [0, 1]"),
        ("--weight_decay=-1e-4", "--weight_decay must be 0 or more"),
        (
            "--label_smoothing=1",
            "--label_smoothing must be in [0, 1). Received: --label_smoothing=",
        ),
        ("--steps_per_loop=0", "--steps_per_loop must be 1 or more"),
        ("--workdir=", "--workdir must not be empty"),
        ("--checkpoint_every=0e", "--checkpoint_every must be longer than nothing"),
        ("--keep_checkpoints=0", "--keep_checkpoints must be 1 or more"),
        ("--connect_timeout=0", "--connect_timeout must be above 0"),
    ],
)
def test_a_flag_by_itself(argv, text):
    assert text in wrong(*argv.split())


MULTIWORKER = "--strategy=multiworker"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        # What a choice has no use for.
        (
            "--method=static --drop_fraction=0.5 --scope=layer --end=0.5",
            "for --drop_fraction, --end",
        ),
        (
            "--method=dense --mask_only",
            "--method=dense has no use for --mask_only. Received: --meth",
        ),
        ("--method=rigl --initial_sparsity=0.5", "--method=rigl has no use for --initial_sparsity"),
        ("--method=gmp --drop_fraction=0.5", "--method=gmp has no use for --drop_fraction"),
        ("--method=dense --pinned=0:0.0", "--method=dense has no use for --pinned"),
        ("--optimizer=adam --momentum=0.9", "--optimizer=adam has no use for --momentum"),
        ("--optimizer=rmsprop --nesterov", "--optimizer=rmsprop has no use for --nesterov"),
        ("--milestones=10e,20e", "--learning_rate_schedule=cosine has no use for --milestones"),
        ("--dataset=digits --download", "--dataset=digits has no use for --download"),
        ("--dataset=synthetic --skip_corrupt", "--dataset=synthetic has no use for --skip_corrupt"),
        ("--dataset=synthetic --data_dir=a", "--dataset=synthetic has no use for --data_dir"),
        ("--tpu=local", "--strategy=none has no use for --tpu"),
        ("--strategy=mirrored --tpu_zone=a", "--strategy=mirrored has no use for --tpu_zone"),
        ("--workers=a:1 --worker_index=0", "--strategy=none has no use for --worker_index, --work"),
        ("--strategy=tpu --tpu=local --workers=a:1", "--strategy=tpu has no use for --workers"),
        ("--strategy=mirrored --connect_timeout=5", "has no use for --connect_timeout"),
        # What must not stand together.
        (
            "--initial_sparsity=0.6 --final_sparsity=0.5",
            "pruning only removes. Received: --initial",
        ),
        (
            "--begin=0.6 --end=0.5",
            "--begin must not be after --end. Received: --begin=0.6 --end=0.5",
        ),
        ("--begin=20e --end=0.5", "Received: --begin=20e --end=0.5"),
        (
            "--nesterov --momentum=0",
            "--nesterov needs a --momentum above 0. Received: --nesterov --",
        ),
        ("--nesterov", "--nesterov needs a --momentum above 0. Received: --nesterov"),
        ("--select_on=validation", "--select_on=validation needs a --validation_fraction above 0"),
        ("--strategy=tpu", "--strategy=tpu needs --tpu: the name of a TPU, or local for one of"),
        (
            MULTIWORKER,
            "--strategy=multiworker needs both --workers, the same list on every host, and",
        ),
        (f"{MULTIWORKER} --workers=a:1,b:2", "needs both --workers"),
        (f"{MULTIWORKER} --worker_index=0", "needs both --workers"),
        (
            f"{MULTIWORKER} --workers=a:1,b:2 --worker_index=2",
            "--worker_index must be below the num",
        ),
        (f"{MULTIWORKER} --workers=a:1,b:2 --worker_index=-1", "--worker_index must be 0 or more"),
        (
            f"{MULTIWORKER} --workers=a:1,a:1 --worker_index=0",
            "a list of host:port, each once. Rec",
        ),
        (f"{MULTIWORKER} --workers=a,b --worker_index=0", "--workers must be a list of host:port"),
        (
            "--xla --strategy=mirrored",
            "--xla must not be given with --strategy=mirrored or multiwork",
        ),
        (
            "--warmup=30e --epochs=30",
            "--warmup must be shorter than training. Received: --warmup=30e",
        ),
        ("--warmup=1.0", "--warmup must be shorter than training"),
        (
            "--learning_rate_schedule=step --milestones=0.5,0.25",
            "--milestones must rise and lie with",
        ),
        ("--learning_rate_schedule=step --milestones=0.5,0.5", "--milestones must rise"),
        ("--learning_rate_schedule=step --milestones=10e,0.25", "--milestones must rise"),
        ("--learning_rate_schedule=step --milestones=0", "--milestones must rise"),
        (
            "--learning_rate_schedule=step --milestones=20e,30e",
            "Received: --milestones=20e,30e --ep",
        ),
        (
            "--learning_rate_schedule=step --milestones=0.5,1.0",
            "after its beginning and before its",
        ),
        ("--schedule_multiplier=0.33", "make a whole number of epochs. Received: 0.33 × 30 epochs"),
    ],
)
def test_flags_that_contradict_each_other(argv, text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if argv.endswith("--milestones=0"):
        # Steps are compared when the length of training is known.
        values, _ = flags.parse(argv.split())
        with pytest.raises(UsageError, match=r"steps 0, 300$") as raised:
            flags.check_length(values, TrainingLength(30, 10))
        assert text in str(raised.value)
    else:
        assert text in wrong(*argv.split())


@pytest.mark.parametrize(
    "argv",
    [
        "--validation_fraction=0.1",
        "--select_on=validation --validation_fraction=0.1",
        "--select_on=test",
        "--xla",
        "--xla --strategy=tpu --tpu=local",
        "--precision=float16",
        "--precision=float16 --strategy=mirrored",
        "--strategy=tpu --tpu=my-tpu --tpu_zone=a --tpu_project=b",
        f"{MULTIWORKER} --workers=a:1,b.c:65535 --worker_index=1",
        f"{MULTIWORKER} --workers=[::1]:1,127.0.0.1:2 --worker_index=0",
        "--dataset=cifar10 --download --data_dir=a --skip_corrupt",
        "--dataset=something_new:1.0.0",
        "--method=rigl --final_drop_fraction=0.1",
        "--learning_rate_schedule=constant --warmup=5e",
        "--learning_rate_schedule=step --milestones=5e,0.5,300",
        "--epochs=30 --schedule_multiplier=0.1",
        "--model=MobileNetV2 --width=0.5",
        "--optimizer=rmsprop --momentum=0.9",
        "--nesterov --momentum=0.9",
    ],
)
def test_what_may_stand_together(argv):
    flags.parse(argv.split())


def test_workers_may_stand_in_the_environment(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {}}')
    flags.parse([MULTIWORKER])
    assert "needs both" in wrong(MULTIWORKER, "--workers=a:1,b:2")


# What is known only with the data.


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("--begin=10e --end=5 --epochs=20", "Received: --begin=10e --end=5, that is steps 220, 5"),
        ("--warmup=440 --epochs=20", "--epochs=20, that is steps 440, 440"),
        ("--learning_rate_schedule=step --milestones=100,2e --epochs=20", "steps 100, 44, 440"),
        ("--learning_rate_schedule=step --milestones=0.5,500 --epochs=20", "steps 220, 500, 440"),
        ("--learning_rate_schedule=step --milestones=0.5,0.501 --epochs=20", "steps 220, 220, 440"),
        (
            "--frequency=0.001 --epochs=20",
            "--frequency must be at least one step, but training has ",
        ),
        (
            "--checkpoint_every=0.01e --epochs=20",
            "440 steps, 22 an epoch. Received: --checkpoint_ev",
        ),
    ],
)
def test_flags_against_the_length_of_training(argv, text):
    values, _ = flags.parse(argv.split())
    with pytest.raises(UsageError) as raised:
        flags.check_length(values, TrainingLength(20, 22))
    assert text in str(raised.value)


def test_what_the_method_does_not_use_is_not_checked(tmp_path):
    values, _ = flags.parse([f"--flagfile={ROOT}/configs/digits_granet.flags", "--method=dense"])
    flags.check_length(values, TrainingLength(1, 1))
    values, _ = flags.parse([write(tmp_path / "a.flags", "--frequency=0.001"), "--method=dense"])
    flags.check_length(values, TrainingLength(1, 1))


# Flagfiles.


def test_flagfile_is_overridden_by_what_follows(tmp_path):
    file = write(
        tmp_path / "a.flags",
        "# why", "", "--method=gmp  # this one", "--final_sparsity=0.5", "--nesterov",
        "  --momentum=0.9",
    )  # fmt: skip
    values, given = flags.parse([file, "--final_sparsity=0.7"])
    assert (values.method, values.final_sparsity, values.nesterov) == ("gmp", 0.7, True)
    assert given == {"method", "final_sparsity", "nesterov", "momentum"}
    values, _ = flags.parse(["--final_sparsity=0.7", file])
    assert values.final_sparsity == 0.5
    values, _ = flags.parse(["--flagfile", file.partition("=")[2], "--seed", "3"])
    assert (values.final_sparsity, values.seed) == (0.5, 3)


def test_another_method_leaves_out_what_the_flagfile_says_for_the_first(tmp_path):
    file = write(tmp_path / "a.flags", "--method=granet", "--drop_fraction=0.4")
    values, given = flags.parse([file, "--method=gmp"])
    assert given == {"method"}
    assert "drop_fraction" not in flags.method_parameters("gmp", values, TrainingLength(1, 1))
    assert "--method=gmp has no use for --drop_fraction" in wrong(
        file, "--method=gmp", "--drop_fraction=0.3"
    )
    both = write(tmp_path / "b.flags", "--method=gmp", "--drop_fraction=0.4")
    assert "--method=gmp has no use for --drop_fraction" in wrong(both)


@pytest.mark.parametrize(
    ("lines", "argv"),
    [
        (["--learning_rate_schedule=step", "--milestones=5e"], "--learning_rate_schedule=cosine"),
        (["--optimizer=sgd", "--momentum=0.9", "--nesterov"], "--optimizer=adam"),
        (["--strategy=tpu", "--tpu=local"], "--strategy=none"),
        (["--dataset=cifar10", "--data_dir=a"], "--dataset=digits"),
    ],
)
def test_other_choices_leave_out_what_the_flagfile_says_for_the_first(lines, argv, tmp_path):
    file = write(tmp_path / "a.flags", *lines)
    flags.parse([file])
    flags.parse([file, argv])
    assert "has no use for" in wrong(file, argv, *lines[1:])
    # Only what depends on that choice is left out.
    assert "--method=dense has no use for --end" in wrong(
        write(tmp_path / "b.flags", *lines, "--method=dense", "--end=0.5"), argv
    )


def test_flagfiles_include_others_relative_to_themselves(tmp_path, monkeypatch):
    write(tmp_path / "base" / "first.flags", "--epochs=7", "--seed=1", "--flagfile=second.flags")
    write(tmp_path / "base" / "second.flags", "--batch_size=9")
    write(tmp_path / "rows" / "a.flags", "--flagfile=../base/first.flags", "--seed=2")
    for folder, path in [
        (tmp_path, "rows/a.flags"),
        (tmp_path / "rows", "a.flags"),
        (tmp_path / "base", "../rows/a.flags"),
        (ROOT, str(tmp_path / "rows" / "a.flags")),
    ]:
        monkeypatch.chdir(folder)
        values, _ = flags.parse([f"--flagfile={path}"])
        assert (values.epochs, values.seed, values.batch_size) == (7, 2, 9)
    # Twice is no circle.
    flags.parse([f"--flagfile={path}"] * 2)


def test_flagfiles_in_a_circle(tmp_path):
    file = write(tmp_path / "a.flags", "--seed=1", "--flagfile=b.flags")
    write(tmp_path / "b.flags", "--flagfile=a.flags")
    a, b = tmp_path / "a.flags", tmp_path / "b.flags"
    assert wrong(file) == (
        f"Flagfiles must not include one another in a circle: {a} -> {b} -> {a}. "
        f"Received: --flagfile=a.flags ({b}, line 1)"
    )


def test_mistakes_in_flagfiles_name_file_and_line(tmp_path):
    a = tmp_path / "a.flags"
    inner = write(tmp_path / "inner.flags", "# one", "", "--epochs=x")
    assert wrong(inner).endswith(f"Received: --epochs=x ({tmp_path / 'inner.flags'}, line 3)")
    assert wrong(write(a, "--flagfile=inner.flags")).endswith("inner.flags, line 3)")
    assert wrong(write(a, "--metod=gmp")).endswith(f"Received: --metod=gmp ({a}, line 1)")
    assert wrong(write(a, "--seed=1", "--epochs=0")).endswith(f"Received: --epochs=0 ({a}, line 2)")
    for line in ("epochs=5", "--epochs 5", "-- epochs=5", "- 5", "// old"):
        assert wrong(write(a, line)) == (
            "A flagfile holds one flag a line, written --name=value, and comments that begin with "
            f"#. Received: {line!r} ({a}, line 1)"
        )


def test_flagfiles_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert wrong("--flagfile=nowhere.flags") == (
        f"Cannot read the flagfile {tmp_path}/nowhere.flags: No such file or directory. "
        "Received: --flagfile=nowhere.flags"
    )
    file = write(tmp_path / "rows" / "a.flags", "", "--flagfile=../nowhere.flags")
    assert wrong(file) == (
        f"Cannot read the flagfile {tmp_path}/nowhere.flags: No such file or directory. "
        f"Received: --flagfile=../nowhere.flags ({tmp_path}/rows/a.flags, line 2)"
    )
    assert f"{tmp_path}: Is a directory" in wrong(f"--flagfile={tmp_path}")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "binary: not a text file in UTF-8" in wrong("--flagfile=binary")
    assert "--flagfile needs the path of a file" in wrong("--flagfile")
    assert "--flagfile needs the path of a file" in wrong("--flagfile=")


# What the flags come to.


def test_choices_are_those_of_the_library():
    def choices(name):
        return set(options.define(flags.Options)[name].parser.enum_values)

    assert choices("scope") == set(scopes.SCOPES)
    assert choices("distribution") == set(methods.DISTRIBUTIONS)
    assert choices("method") == set(flags.RUNS)
    assert choices("pattern") == set(pattern_names.PATTERNS)


@pytest.mark.parametrize("name", flags.METHODS)
def test_each_method_uses_the_flags_that_it_has_parameters_for(name):
    method = flags.METHODS[name]
    fields = {field.name for field in dataclasses.fields(method) if field.init}
    known = {flag for flag, field in flags.METHOD_FLAGS.items() if field in fields}
    of_filters = {"prune_outputs", "criterion", "round_to", "shrink_at"}
    known |= of_filters if "pattern" in known else set()
    # Some methods mean one of the semantics.
    known |= {"mask_only"} if method.keeps_values is None else set()
    known |= {"track_explored", "max_bytes", "max_flops", "max_latency_ms"}
    assert flag_checks.USES["method"][name] - {"masks_from"} == known


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_optimizer_uses_the_flags_that_it_has_parameters_for(name):
    of = getattr(keras.optimizers, optimizers.OPTIMIZERS[name])
    known = {"momentum", "nesterov"} & set(inspect.signature(of).parameters)
    assert flag_checks.USES["optimizer"][name] == known


def test_durations_and_parameters_reach_the_methods():
    values, _ = flags.parse(
        [
            "--begin=10", "--end=0.5", "--frequency=2e", "--compare=rigl,dense", "--scope=layer",
            "--pattern=litert", "--pinned=0:0.0", "--capped=-1:0.8,*/fc/kernel:0.75", "--seed=3",
        ]
    )  # fmt: skip
    length = TrainingLength(epochs=40, steps_per_epoch=22)
    granet = flags.method_parameters("granet", values, length)
    assert granet == {
        "seed": 3,
        "begin_step": 10,
        "end_step": 440,
        "frequency": 44,
        "scope": "layer",
        "pinned": {0: 0.0},
        "capped": {-1: 0.8, "*/fc/kernel": 0.75},
        "pattern": "litert",
    }
    made = granet_tf.GraNet(**granet)
    assert (made.final_sparsity, made.end_step) == (0.9, 440)
    assert set(flags.method_parameters("static", values, length)) == {
        "seed", "scope", "pinned", "capped", "pattern",
    }  # fmt: skip


def test_learning_rate_in_steps():
    values, _ = flags.parse(
        [
            "--learning_rate_schedule=step", "--learning_rate=0.1", "--learning_rate_per=256",
            "--batch_size=1024", "--milestones=30e,60e,90e", "--warmup=5e", "--epochs=100",
            "--schedule_multiplier=2.5",
        ]
    )  # fmt: skip
    length = TrainingLength.stretched(values.epochs, 1251, values.schedule_multiplier)
    flags.check_length(values, length)
    course = flags.course(values, length)
    assert course.highest == pytest.approx(0.4)
    assert (course.steps, course.warmup) == (250 * 1251, round(12.5 * 1251))
    assert course.milestones == (75 * 1251, 150 * 1251, 225 * 1251)


def test_twins_are_named_once():
    values, _ = flags.parse(["--method=gmp", "--compare=dense,gmp,dense"])
    assert flags.runs(values) == ("gmp", "dense")


def test_flags_can_be_written_down():
    values, _ = flags.parse(["--compare=dense", "--pinned=0:0.0"])
    written = flags.as_dict(values)
    assert (written["compare"], written["pinned"]) == (["dense"], ["0:0.0"])
    assert written["epochs"] == 30 and written["data_dir"] is None
    assert not {"help", "helpfull", "flagfile"} & set(written)


# Durations.


@pytest.mark.parametrize(
    ("text", "parsed", "steps"),
    [
        ("0", (0, "steps"), 0),
        ("500", (500, "steps"), 500),
        ("0.0", (0, "training"), 0),
        ("0.5", (Fraction(1, 2), "training"), 50),
        (".25", (Fraction(1, 4), "training"), 25),
        ("1.0", (1, "training"), 100),
        ("0.333", (Fraction(333, 1000), "training"), 33),
        ("3e", (3, "epochs"), 30),
        ("1epoch", (1, "epochs"), 10),
        ("30epochs", (30, "epochs"), 300),
        ("0.5e", (Fraction(1, 2), "epochs"), 5),
    ],
)
def test_durations(text, parsed, steps):
    assert durations.parse(text) == parsed
    length = TrainingLength(10, 10)
    assert length.point(text) == length.period(text) == steps


@pytest.mark.parametrize(
    ("text", "point", "period"),
    [("100", 250, 100), ("0.5", 125, 125), ("4e", 100, 40), ("0", 0, 0), ("1.0", 250, 250)],
)
def test_stretched_durations(text, point, period):
    length = TrainingLength.stretched(epochs=10, steps_per_epoch=10, multiplier=2.5)
    assert (length.epochs, length.steps) == (25, 250)
    assert (length.point(text), length.period(text)) == (point, period)


@pytest.mark.parametrize(
    ("epochs", "multiplier", "total"), [(30, 0.1, 3), (100, 2.5, 250), (3, 1.0, 3), (70, 1.1, 77)]
)
def test_the_multiplier_is_taken_as_written(epochs, multiplier, total):
    assert TrainingLength.stretched(epochs, 1, multiplier).epochs == total


@pytest.mark.parametrize(("epochs", "multiplier"), [(3, 0.5), (10, 0.25), (10, 0.0), (10, -1.0)])
def test_multipliers_that_cannot_be(epochs, multiplier):
    with pytest.raises(ValueError, match=f"Received: {multiplier} × {epochs} epochs"):
        TrainingLength.stretched(epochs, 1, multiplier)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "50%", "1e3", "e", "five", "0.5.5", "nan"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=f"Received: '{text}'"):
        durations.parse(text)


# Help, and the command line before TensorFlow.


def test_help_shows_every_flag(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = flags.help_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    names = [name.replace("--[no]", "--") for name in shown]
    assert names == [f"--{name}" for name in options.define(flags.Options) if "help" not in name]
    places = [text.index(f"\n{section}:\n") for section in flags.Options.SECTIONS]
    assert places == sorted(places)
    for name in models.NETWORKS:
        assert name in text


def test_help_says_choices_and_defaults_once():
    text = " ".join(flags.help_text().split())
    assert "One of last, validation, test. Default: last." in text
    assert "--milestones Durations after which the step schedule falls. Default: 0.5,0.75." in text
    assert "--[no]augment Whether training images are cropped and flipped. Default: yes." in text
    assert "--data_dir Where tensorflow_datasets keeps its data. --[no]download" in text
    assert "<" not in text and "None" not in text


def test_help_fits_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = flag_help.text_of(flags.Options, section="How sparse")
    assert max(map(len, text.partition("How sparse:")[2].splitlines())) <= 60


@pytest.mark.parametrize("flag", ["--help", "--helpfull", "--helpshort"])
def test_help_comes_before_any_complaint(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.read(["--epochs=0", flag])
    assert stopped.value.code is None
    assert capsys.readouterr().out == flags.help_text()


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (UsageError("No. Received: x"), 2, "error: No. Received: x\n"),
        (TrainingStopped("NaN."), 1, "error: NaN.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_in_one_line(error, code, printed, capsys):
    with pytest.raises(SystemExit) as stopped, command_line.errors_in_one_line():
        raise error
    assert stopped.value.code == code
    assert capsys.readouterr().err == printed


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


CONSOLE_SCRIPT = ("-c", "from granet_train.commands import train; train()")


@pytest.mark.parametrize("command", [CONSOLE_SCRIPT, ("-m", "granet_train")])
@pytest.mark.parametrize(
    ("flag", "code", "out", "error"),
    [
        ("--help", 0, "granet-train trains a network sparse", ""),
        ("--metod=gmp", 2, "", "error: There is no flag --metod."),
    ],
)
def test_answers_before_data_are_touched(command, flag, code, out, error):
    done = run("-X", "importtime", *command, flag)
    lines = done.stderr.splitlines()
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    said = [line for line in lines if not line.startswith("import time:")]
    assert "granet_train.flags" in imported
    assert not {"sklearn.datasets", "tensorflow_datasets"} & imported
    assert done.returncode == code
    assert done.stdout.startswith(out) and bool(done.stdout) == bool(out)
    assert len(said) == bool(error) and "".join(said).startswith(error)


def test_no_flags_at_all():
    values, given = flags.parse([])
    assert (values.method, values.model, given) == ("granet", "small_cnn", frozenset())


# Methods.

NOISY = '''
"""A method that nothing names."""

import dataclasses

import keras

from granet_tf.methods.parameters import parameter
from granet_tf.methods.rigl import SET
from granet_tf.schedules import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Noisy(SET):
    """SET with noise."""

    noise: float = parameter(0.1, "How much noise there is.", at_least=0, below=1)
    wait: int | float = parameter(0, "How long it waits.", at_least=0, unit="duration")
'''
WITH_NOISY = """
import json, sys
import granet_tf.methods

granet_tf.methods.__path__.append(sys.argv[1])
from granet_train import flags, main
from granet_train.errors import UsageError
from granet_train.studies.compare import flags as compare

said = {}
for line in json.load(sys.stdin):
    command, *argv = line.split()
    try:
        {"granet-train": flags.parse, "granet-compare": compare.read}[command](argv)
    except UsageError as error:
        said[line] = str(error)
help = flags.help_text()
main.cli(sys.argv[2:])
print(json.dumps([said, help]))
"""


def test_a_method_has_its_flags_by_existing(tmp_path):
    errors = {
        "granet-train --method=noisy --noise=1": "--noise must be in [0, 1). Received: --noise=1.0",
        "granet-train --method=noisy --wait=soon": "--wait must be optimizer steps",
        "granet-train --method=gmp --noise=0.5": "--method=gmp has no use for --noise.",
        "granet-train --method=noisi": "--method must be one of granet, gmp, rigl",
        "granet-compare --methods=noisy:nois=0.5": "noisy:nois=0.5 at 0.9, seed 0: There is",
        "granet-compare --methods=noisy:noise=0.5,dense": "",
    }
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "noisy.py").write_text(NOISY)
    done = subprocess.run(
        [
            *(sys.executable, "-c", WITH_NOISY, tmp_path / "methods"),
            *("--method=noisy", "--noise=0.5", "--wait=1e", "--epochs=1", "--noexport_tflite"),
            *("--noplot", "--notensorboard", f"--workdir={tmp_path / 'run'}"),
        ],
        input=json.dumps(list(errors)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said, text = json.loads(done.stdout.splitlines()[-1])
    assert set(said) == {line for line, error in errors.items() if error}
    for line, error in said.items():
        assert error.startswith(errors[line])
    text = " ".join(text.split())
    assert "One of granet, gmp" in text and "mest, noisy, snfs" in text
    assert "--noise How much noise there is. In [0, 1). For noisy." in text
    given = json.loads((tmp_path / "run" / "summary.json").read_text())["flags"]
    assert (given["method"], given["noise"], given["wait"]) == ("noisy", 0.5, "1e")
    with zipfile.ZipFile(tmp_path / "run" / "sparse.keras") as file:
        method = json.loads(file.read("config.json"))["config"]["method"]["config"]
    assert (method["noise"], method["wait"]) == (0.5, 22)
