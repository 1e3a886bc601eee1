"""--max_bytes and its like: a sparsity that follows from a budget."""

import json

import keras
import pytest

import granet_tf
from granet_train import flags
from granet_train import main as training
from granet_train.errors import UsageError


def run(workdir, *more):
    training.cli(
        [
            *("--dataset=digits", "--model=small_cnn", "--width=0.25", "--epochs=1"),
            *("--method=static", "--scope=layer", f"--workdir={workdir}"),
            *("--notensorboard", "--noplot", "--noexport_tflite", *more),
        ]
    )


def test_the_trained_network_meets_its_budget(tmp_path, capsys):
    run(tmp_path, "--max_flops=20000")
    model = keras.models.load_model(tmp_path / "stripped.keras")
    assert 0.98 * 20_000 <= granet_tf.count_flops(model).sparse <= 20_000
    found = json.loads((tmp_path / "run.json").read_text())["final_sparsity"]
    printed = capsys.readouterr().out
    assert f"The budget is met at --final_sparsity={found:g}." in printed

    # Another session of the same command.
    run(tmp_path, "--max_flops=20000")
    assert "This run is finished" in capsys.readouterr().out


def test_the_file_meets_its_budget(tmp_path):
    run(tmp_path, "--max_bytes=9000")
    model = keras.models.load_model(tmp_path / "stripped.keras")
    report = granet_tf.export_tflite(model, tmp_path / "m.tflite")
    assert 0.97 * 9000 <= report.sparse_bytes <= 9000


def test_a_budget_that_nothing_meets_is_told_in_flags(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "--max_flops=3")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert error.startswith("error: No sparsity meets this budget: at 0.999 it is still")
    assert error.rstrip().endswith("--max_flops=3")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            ["--max_bytes=9", "--final_sparsity=0.5"],
            "--max_bytes must be given alone: the final sparsity follows from it. "
            "Received: --max_bytes=9 --final_sparsity=0.5",
        ),
        (["--max_bytes=9", "--max_flops=9"], "--max_bytes must be given alone.*--max_flops=9"),
        (["--max_bytes=0"], "--max_bytes must be .*Received: --max_bytes=0"),
        (["--method=dense", "--max_bytes=9"], "--max_bytes"),
    ],
)
def test_mistakes(given, text):
    with pytest.raises(UsageError, match=text):
        flags.parse(given)
