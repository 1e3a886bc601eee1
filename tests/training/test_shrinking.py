"""granet-train --shrink_at: the run goes on in a smaller network, also from its checkpoints."""

import keras
import pytest

from granet_train import command_line, files, flags
from granet_train.errors import Interrupted, UsageError
from granet_train.progress import Progress
from tests.support.short_runs import QUIET, SHORT, accuracy, checkpoint_steps, run, summary, table

# Pruning ends at step 10 of 20, an epoch has 5 steps.
COMMAND = (
    *(*SHORT, *QUIET, "--width=0.25", "--method=gmp", "--frequency=3"),
    *("--pattern=coupled_filter", "--scope=layer", "--distribution=uniform"),
    *("--final_sparsity=0.5", "--shrink_at=0.25,12", "--steps_per_loop=1"),
)


def test_a_run_goes_on_in_a_smaller_network(tmp_path, monkeypatch):
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    run(*COMMAND, f"--workdir={whole}")
    record = summary(whole)["runs"]["gmp"]
    stripped = keras.saving.load_model(whole / "stripped.keras")
    filters = [x.filters for x in stripped.layers if isinstance(x, keras.layers.Conv2D)]
    # A quarter of 32, 64 and 128 channels, and half of that.
    assert filters == [4, 8, 16]
    assert accuracy(stripped) == pytest.approx(record["test_accuracy"], abs=1e-6)
    sparse = keras.saving.load_model(whole / "sparse.keras")
    assert [each.step for each in sparse.shape_history] == [5, 12]
    assert accuracy(sparse) == pytest.approx(record["test_accuracy"], abs=1e-6)
    # Sparsity and FLOPs are relative to the network with all channels.
    assert 0.7 < record["sparsity"] < 0.8
    assert record["inference_flops"] < 0.3
    assert record["weights"] == 9 * (8 + 8 * 16 + 16 * 32)
    assert record["sparsity"] == pytest.approx(1 - record["nonzeros"] / record["weights"])
    # As many images as in the dense training that it is a fraction of.
    absolute = 3 * record["flops_dense"] * 20 * 256 * record["training_flops"]
    assert record["training_flops_absolute"] == pytest.approx(absolute)
    epochs = [float(row["sparsity"]) for row in table(whole / files.METRICS)]
    assert epochs == sorted(epochs)

    # Stopped after the second shrink, and taken up again: the same in the end.
    stop_at(monkeypatch, step=16)
    with pytest.raises(Interrupted):
        run(*COMMAND, f"--workdir={halted}", "--checkpoint_every=5")
    monkeypatch.undo()
    assert checkpoint_steps(halted / files.CHECKPOINTS / "gmp")[-1] == 15
    assert "gmp: going on after step 15 of 20" in run(
        *COMMAND, f"--workdir={halted}", "--checkpoint_every=5"
    )
    assert table(halted / files.METRICS) == table(whole / files.METRICS)
    again = summary(halted)["runs"]["gmp"]
    assert again["test_accuracy"] == record["test_accuracy"]
    assert again["training_flops"] == pytest.approx(record["training_flops"])


def stop_at(monkeypatch, step):
    """Has a run stopped once it has done some steps."""
    progress = Progress.progress

    def stopping(self, done, figures):
        progress(self, done, figures)
        if done >= step:
            raise Interrupted("stopped by the test")

    monkeypatch.setattr(Progress, "progress", stopping)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--shrink_at=0.5"], r"--shrink_at is for --pattern=coupled_filter.*Received"),
        (["--round_to=8"], r"--round_to is for --pattern=coupled_filter or filter.*Received"),
        (
            ["--criterion=taylor", "--pattern=element"],
            r"--criterion is for .*Received: --criterion=taylor --pattern=element",
        ),
        (["--pattern=coupled_filter", "--shrink_at=half"], r"--shrink_at must be a list"),
    ],
)
def test_what_does_not_fit_is_told(argv, message):
    with pytest.raises(UsageError, match=message):
        command_line.read(argv)


def test_criterion_and_multiples_reach_the_pattern():
    from granet_train.durations import TrainingLength
    from granet_train.run import method_of

    values, _ = flags.parse(["--pattern=coupled_filter", "--criterion=taylor", "--round_to=8"])
    length = TrainingLength(4, 10)
    pattern = method_of("granet", values, length, length).pattern
    assert (pattern.coupled, pattern.criterion, pattern.round_to) == (True, "taylor", 8)
