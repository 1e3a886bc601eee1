"""The plots: what they show, and that it can be read."""

import itertools
import math

import pytest

from granet_train import figures as look
from granet_train import plot
from granet_train.results import Epoch, Update

STEPS = 22


def epoch(run, number, accuracy=0.9, sparsity=0.0, flops=1.0):
    return Epoch(
        run, number, number * STEPS, 1.0, 100.0, 0.1, 0.3, 0.9, None, None, 0.3, accuracy,
        sparsity, 10, flops, 0.5,
    )  # fmt: skip


def update(run, step, sparsity, flops):
    return Update(run, step, step / STEPS, 1, 1, 0.1, 10, sparsity, flops)


def comparison(epochs=20):
    """Six runs of which five end at the same sparsity and almost the same accuracy."""
    for i, run in enumerate(["granet", "dense", "gmp", "rigl", "set", "static"]):
        for number in range(1, epochs + 1):
            accuracy = 0.99 - math.exp(-number / 3) - 0.001 * i
            sparsity = 0.0 if run == "dense" else 0.9 * min(1.0, number / 10)
            yield epoch(run, number, accuracy, sparsity, 1 - 0.8 * sparsity - 0.002 * i)


@pytest.fixture
def drawn(monkeypatch):
    """The figures, as they are saved."""
    figures, save = [], look.Figure.savefig
    monkeypatch.setattr(
        look.Figure, "savefig", lambda self, path: (figures.append(self), save(self, path))
    )
    return figures


def assert_labels_are_readable(figure, count):
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        boxes = [text.get_window_extent(renderer) for text in axes.texts]
        assert len(boxes) == count
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        for box in boxes:
            assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def labels(axes):
    """From top to bottom."""
    texts = sorted(axes.texts, key=lambda text: -text.xy[1])
    return [text.get_text() for text in texts]


def test_training(tmp_path, drawn):
    plot.draw_training(tmp_path / "training.png", list(comparison()), "net on data")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    [figure] = drawn
    assert_labels_are_readable(figure, 6)
    accuracy, sparsity = figure.axes
    assert labels(accuracy)[:2] == ["granet  98.9%", "dense  98.8%"]
    assert labels(sparsity) == [
        *(f"{run}  90.0%" for run in ("granet", "gmp", "rigl", "set", "static")),
        "dense  0.0%",
    ]
    styles = {line.get_label().split()[0]: line.get_linestyle() for line in accuracy.lines}
    assert [run for run, style in styles.items() if style == "--"] == ["dense"]
    assert len({line.get_color() for line in accuracy.lines}) == 6


def test_flops(tmp_path, drawn):
    epochs = list(comparison())
    updates = [update("granet", step, step / 500, 1 - step / 500) for step in range(0, 440, 9)]
    plot.draw_flops(tmp_path / "flops.png", epochs, updates, "net on data")
    [figure] = drawn
    assert_labels_are_readable(figure, 6)
    flops, sparsity = figure.axes
    assert labels(flops)[0] == "dense  99.8%"
    assert labels(sparsity)[-1] == "dense  0.0%"
    assert {line.get_drawstyle() for line in flops.lines} == {"steps-post"}
    # One run is drawn from update to update, the others from epoch to epoch.
    steps = {*range(0, 440, 9), *(STEPS * number for number in range(1, 21))}
    assert list(flops.lines[0].get_xdata()) == pytest.approx([s / STEPS for s in sorted(steps)])
    assert list(flops.lines[1].get_xdata()) == list(range(21))


def test_more_runs_than_colors(tmp_path):
    epochs = [epoch(f"run{i}", 1, sparsity=0.5) for i in range(9)]
    plot.draw_training(tmp_path / "training.png", epochs, "one epoch")
    assert (tmp_path / "training.png").exists()


def test_a_curve_follows_the_updates():
    epochs = [epoch("gmp", 1, 0.5, 0.3, 0.7), epoch("gmp", 2, 0.5, 0.4, 0.6)]
    updates = [update("gmp", 0, 0.1, 0.9), update("gmp", 11, 0.3, 0.7), update("gmp", 33, 0.4, 0.6)]
    curve = plot.over_training(epochs, updates, "inference_flops")
    assert list(zip(curve.epochs, curve.values, strict=True)) == [
        (0, 0.9), (0.5, 0.7), (1, 0.7), (1.5, 0.6), (2, 0.6),
    ]  # fmt: skip
    assert not curve.is_dense


def test_a_curve_without_updates_is_what_it_was_from_the_start():
    curve = plot.over_training([epoch("static", 1, 0.5, 0.9, 0.2)], [], "sparsity")
    assert (list(curve.epochs), list(curve.values)) == ([0, 1], [0.9, 0.9])


@pytest.mark.parametrize(
    "places", [[0.5], [0.5, 0.5, 0.5], [0.0, 0.01, 0.98, 1.0], [1.0] * 6, [0.2, 0.25, 0.9]]
)
def test_labels_move_apart_in_order_and_stay_on_the_panel(places):
    moved = plot.spread(places, gap=0.1)
    assert all(b - a >= 0.1 - 1e-12 for a, b in itertools.pairwise(moved))
    assert min(moved) >= -1e-12 and max(moved) <= 1.0 + 1e-12
    far_apart = all(b - a >= 0.1 for a, b in itertools.pairwise(places))
    assert not far_apart or moved == pytest.approx(places)
