"""What errors of the commands advise can be done: they name flags that the command has."""

import ast
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
import granet_train
from granet_tf.reasons import reason_of
from granet_train import advice, command_line, flagfiles, flags, options
from granet_train.data import Wording
from granet_train.errors import UsageError
from granet_train.export_command import data as export_data
from granet_train.export_command import flags as export_flags
from granet_train.export_command import main as export
from granet_train.export_command import models
from granet_train.studies.compare import flags as compare_flags
from granet_train.studies.plasticity import flags as plasticity_flags
from tests.support.short_runs import QUIET, SHORT, run

PACKAGES = [Path(package.__file__).parent for package in (granet_tf, granet_train)]
FLAG = re.compile(r"--(?:\[no\])?([a-z]\w*)")
TRAIN = {*options.define(flags.Options), *flagfiles.NAMES}
EXPORT = set(options.define(export_flags.Options))
# {folder or module: the flags that its commands have}; the first that fits.
ALLOWED = {
    "export_command": EXPORT,
    "studies/compare": TRAIN | set(options.define(compare_flags.Options)),
    "studies/plasticity": TRAIN | set(options.define(plasticity_flags.Options)),
    # What all studies have.
    "studies": TRAIN
    | (set(options.define(compare_flags.Options)) & set(options.define(plasticity_flags.Options))),
    # In words of whoever asks for data: granet-train, granet-export, or a function.
    "data/interface.py": TRAIN,
    "data": set(),
    "": TRAIN,
}
# The library names none.
NONE = {"": set()}
ALLOWED_IN = dict(zip(PACKAGES, (NONE, ALLOWED), strict=True))
# What is no flag of the command: of another one, any one at all, a variable of a style sheet.
NO_FLAGS = ("tensorboard --logdir", "a run with --dataset=", "written --name=value", ":root {")


def texts(path):
    """All strings of a module but docstrings, f-strings in pieces."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
    ]


def test_commands_name_flags_that_they_have():
    wrong, seen = {}, set()
    for package, path in [(p, path) for p in PACKAGES for path in sorted(p.rglob("*.py"))]:
        place = path.relative_to(package).as_posix()
        allowed = next(
            names for start, names in ALLOWED_IN[package].items() if place.startswith(start)
        )
        shown = [text for text in texts(path) if not any(other in text for other in NO_FLAGS)]
        named = {name for text in shown for name in FLAG.findall(text)}
        seen |= named
        missing = {name for name in named if {name, name.removeprefix("no")}.isdisjoint(allowed)}
        if missing:
            wrong[place] = missing
    assert wrong == {}
    assert {"download", "data_dir", "workdir", "format", "jobs"} <= seen


@pytest.mark.parametrize(
    ("wording", "allowed"),
    [
        (Wording(), TRAIN),
        (export_data._WORDING, EXPORT),
        (export_data._WORDING_OF_RUN, EXPORT | {"dataset"}),  # The run's own.
    ],
)
def test_data_are_asked_for_in_flags_of_the_command(wording, allowed):
    named = set(FLAG.findall(" ".join(vars(wording).values())))
    assert named and named <= allowed


def test_arguments_of_the_library_have_flags():
    assert set(FLAG.findall(" ".join(flags.BY_PARAMETER.values()))) <= TRAIN
    assert set(FLAG.findall(" ".join(export_flags.ARGUMENTS.values()))) <= EXPORT


def test_the_parameters_of_a_method_are_flags(tmp_path):
    argv = ("--method=itop", "--frequency=1000", f"--workdir={tmp_path}")
    with pytest.raises(UsageError) as error:
        run(*SHORT, *QUIET, *argv)
    message = str(error.value)
    assert message.startswith("--method=itop: --frequency must be shorter than training")
    assert "`" not in message and "--frequency=1000" in message


def test_warnings_of_the_library_name_flags(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    text = "Lower the method's `end_step` or `frequency`, or use scope='layer'."
    for arguments, said in [
        ((), "warning: Lower the method's --end or --frequency, or use --scope=layer.\n"),
        ((export_flags.ARGUMENTS,), f"warning: {text}\n"),
    ]:
        command_line.run(lambda values: None, lambda argv: None, [], *arguments)
        assert warnings.formatwarning(UserWarning(text), UserWarning, "file", 1) == said


# granet-export


def image_model(path, shape=(8, 8, 3)):
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Conv2D(8, 3), keras.layers.GlobalAveragePooling2D()]
    )
    model.layers[0].kernel.assign(model.layers[0].kernel * (np.arange(8) < 2))
    model.save(path)
    return f"--model={path}"


def error_of(capsys, *arguments):
    """The one line that is printed."""
    with pytest.raises(SystemExit) as stopped:
        export.cli([*arguments, "--nolatency"])
    printed = capsys.readouterr().err
    assert stopped.value.code == 2 and printed.count("\n") == 1
    return printed.removeprefix("error: ").rstrip("\n")


def named_flags(message):
    return set(FLAG.findall(message))


def test_a_set_that_is_not_on_disk(tmp_path, capsys):
    message = error_of(
        capsys,
        image_model(tmp_path / "m.keras"),
        *("--data=cifar10", f"--data_dir={tmp_path}"),
    )
    assert "--download fetches it" in message
    assert named_flags(message) <= EXPORT


def test_a_set_that_there_is_not(tmp_path, capsys):
    message = error_of(capsys, image_model(tmp_path / "m.keras"), "--data=cifer10")
    assert "Images in a folder for each class are --data=folder --data_dir=DIR." in message
    assert message.endswith("Received: --data=cifer10")
    assert named_flags(message) <= EXPORT


def test_int8_without_data(tmp_path, capsys):
    message = error_of(capsys, image_model(tmp_path / "m.keras"), "--format=int8")
    assert "representative_data" not in message and "--data" in message
    assert message.endswith("Received: --format=int8 without --data")


def test_data_for_another_model(tmp_path, capsys):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.save(tmp_path / "m.keras")
    message = error_of(capsys, f"--model={tmp_path / 'm.keras'}", "--data=digits")
    assert "representative_data" not in message
    assert message.endswith("Received: --data=digits for inputs of shape (None, 8)")


def test_data_of_another_shape(tmp_path, capsys):
    message = error_of(capsys, image_model(tmp_path / "m.keras"), "--data=digits")
    assert "sample_inputs" not in message and message.startswith("--data must have the shape")


def test_a_difference_that_is_too_large(tmp_path, capsys):
    model = image_model(tmp_path / "m.keras")
    message = error_of(capsys, model, "--format=float16", "--tolerance=0")
    assert "pass a larger --tolerance. Received: --tolerance=0.0" in message


def test_a_place_where_nothing_can_be_written(tmp_path, capsys):
    model = image_model(tmp_path / "m.keras")
    message = error_of(capsys, model, f"--output={tmp_path / 'no' / 'm.tflite'}")
    assert "Received: --output=" in message


def test_open_dimensions_take_the_size_of_the_data(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.png").write_bytes(tf.io.encode_png(np.ones((5, 7, 1), np.uint8)).numpy())
    model = image_model(tmp_path / "m.keras", (None, None, 1))
    for source, shape in [
        ([], "1×32×32×1"),
        (["--data=digits", "--samples=4"], "1×8×8×1"),
        ([f"--data={folder}"], "1×224×224×1"),
    ]:
        export.cli([model, *source, "--nolatency", f"--saved_model={tmp_path / 'served'}"])
        assert shape in capsys.readouterr().out


@keras.saving.register_keras_serializable("tests")
class Halved(keras.layers.Layer):
    def call(self, inputs):
        return inputs / 2


def model_with_an_own_layer(path, wrapped):
    inputs = x = keras.Input((8, 8, 3))
    for _ in range(6):
        x = keras.layers.Conv2D(4, 3, padding="same")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(Halved()(x)))
    (granet_tf.wrap(model) if wrapped else model).save(path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_layer_that_cannot_be_loaded_is_named(tmp_path, monkeypatch, wrapped):
    path = tmp_path / "own.keras"
    model_with_an_own_layer(path, wrapped)
    known = keras.saving.get_custom_objects()
    monkeypatch.delitem(known, next(name for name in known if name.endswith(">Halved")))
    monkeypatch.setattr(f"{__name__}.Halved", None)
    with pytest.raises(UsageError) as error:
        models.load(str(path))
    message = str(error.value)
    assert "Could not locate class 'Halved'" in message
    assert "exported in Python, where they are known: by granet_tf.export_tflite" in message
    assert message.endswith(f"Received: --model={path}") and len(message) < 700


class Beta(keras.layers.Layer):
    """What LiteRT and its converter lack."""

    def call(self, inputs):
        return tf.math.betainc(abs(inputs), abs(inputs), 0.5 * tf.ones_like(inputs))


def test_the_layer_that_cannot_be_converted_is_named(tmp_path):
    layers = [keras.layers.Dense(4) for _ in range(5)]
    model = keras.Sequential([keras.Input((4,)), *layers, Beta(name="own_beta")])
    with pytest.raises(ValueError, match=r"'tf.Betainc' op is .*\(in .*own_beta.*Received: model="):
        granet_tf.export_tflite(model, tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one\n\n  two. ", "one two"),
        ("", "ValueError"),
        ("\x1b[1m{{function_node x}} Shapes differ [Op:Conv2D]\x1b[0m", "Shapes differ"),
        (
            "Exception encountered when calling Own.call().\n\nWhy\n\nArguments received by "
            "Own.call():\n  • args=(1,)",
            "Exception encountered when calling Own.call(). Why",
        ),
        (
            "<class 'A'> could not be deserialized properly.\n\nconfig={'a': 1}.\n\nException "
            "encountered: <class 'B'> could not be.\n\nconfig={}.\n\nException encountered: Why",
            "Why",
        ),
        (
            '<unknown>:0: error: loc(callsite(fused["Beta:", "m/own/Beta@f_1"] at x)): no Beta\n'
            '<unknown>:0: note: loc(fused["m"]): called from',
            "no Beta (in m/own/Beta)",
        ),
    ],
)
def test_reasons(text, said):
    assert reason_of(ValueError(text)) == said


def test_a_long_reason_keeps_both_ends():
    reason = reason_of(ValueError("begin " + "x" * 5000 + " end"))
    assert reason.startswith("begin x") and reason.endswith("x end") and len(reason) < 620


# granet-train


@pytest.mark.parametrize(("method", "masks"), [("granet", True), ("dense", False)])
def test_advice_to_train_longer_can_be_followed(method, masks):
    values, _ = flags.parse([f"--method={method}", "--workdir=work/a"])
    text = advice.to_train_longer(values)
    given = re.findall(r"--\w+=[\w/]+", text)
    assert ("--masks_from=work/a" in given) == masks
    again, _ = flags.parse([f"--method={method}", *given, "--workdir=work/b"])
    assert again.weights_from == "work/a"
    assert again.method == ("static" if masks else "dense")
