"""Pictures of a sparse model: how sparse each weight is, and what became of it in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import keras

from granet_tf.reports.figures import COLORS, DENSE_COLOR, Path, new_figure, saved, tidy
from granet_tf.reports.summary import Summary, summarize
from granet_tf.wrapping.log_sparsity import KEY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW = 0.28  # Inches.


def plot_sparsity(
    model: keras.Model | Summary,
    before: keras.Model | Summary | None = None,
    *,
    to_file: Path | None = None,
) -> Figure:
    """Draws how sparse each pruned weight is, and how sparse it was before.

    Args:
        model: A model with masks, or what `granet_tf.summarize` said of one.
        before: The same of an earlier moment: keep `summarize(model)` before you train. None is
            the dense model, without zeros.
        to_file: Where to save the picture; its suffix says in which format.

    Returns:
        A figure of Matplotlib, which notebooks show.

    Raises:
        ValueError: If no weight of `model` is pruned.
        ImportError: If Matplotlib is not installed: `pip install 'granet_tf[report]'`.

    Example:

    >>> import granet_tf
    >>> layers = [keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dense(4)]
    >>> model = granet_tf.wrap(keras.Sequential(layers), granet_tf.StaticSparse(0.75))
    >>> figure = granet_tf.plot_sparsity(model)
    >>> figure.axes[0].get_xlabel()
    'sparsity'
    """
    summary = _summary(model)
    rows = [row for row in summary.rows if row.pruned]
    if not rows:
        raise ValueError(
            "`model` must have weights that are pruned: wrap it with granet_tf.wrap. "
            f"Received: model={model}"
        )
    earlier = {} if before is None else {row.path: row for row in _summary(before).rows}
    title = (
        f"{summary.nonzeros:,} of {summary.size:,} weights left, sparsity {summary.sparsity:.3f}"
    )
    figure = new_figure(title, (8, 1.2 + _ROW * len(rows)))
    axes = figure.subplots()
    places = range(len(rows))
    was = [earlier[row.path].sparsity if row.path in earlier else 0.0 for row in rows]
    axes.barh(places, [row.sparsity for row in rows], 0.6, color=COLORS[0], label="now")
    axes.scatter(was, places, color=DENSE_COLOR, marker="|", s=120, label="before", zorder=3)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            f" {row.sparsity:.3f} of {row.size:,}",
            (row.sparsity, place),
            va="center",
            fontsize=8,
            parse_math=False,
        )
    axes.set_yticks(places, [row.path for row in rows], fontsize=8, parse_math=False)
    axes.set(xlim=(0, 1.3), xlabel="sparsity", ylim=(len(rows) - 0.4, -0.6))
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    tidy(axes, grid="x")
    return saved(figure, to_file)


def plot_history(
    history: keras.callbacks.History | Mapping[str, Sequence[float]],
    *,
    to_file: Path | None = None,
) -> Figure:
    """Draws what `fit` recorded by epoch: the loss, each metric and the sparsity.

    Args:
        history: What `fit` returns, or a dict such as its `history`, with the sparsity of each
            epoch as "sparsity". Of "loss" and "val_loss" and the like, both are in one panel.
        to_file: Where to save the picture; its suffix says in which format.

    Returns:
        A figure of Matplotlib, which notebooks show.

    Raises:
        ValueError: If there is not an epoch in it.
        ImportError: If Matplotlib is not installed: `pip install 'granet_tf[report]'`.

    Example:

    >>> figure = granet_tf.plot_history({"loss": [2.0, 1.0], "sparsity": [0.5, 0.9]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'sparsity']
    """
    of_epochs = dict(getattr(history, "history", history))
    if KEY not in of_epochs and getattr(history, KEY, None):
        of_epochs[KEY] = history.sparsity
    if not any(of_epochs.values()):
        raise ValueError(
            "`history` must have an epoch: give what `fit` returned. "
            f"Received: history={of_epochs or history}"
        )
    # The sparsity comes last.
    names = [n for n in of_epochs if not n.startswith("val_") and n != KEY]
    names += [KEY] * (KEY in of_epochs)
    figure = new_figure("Training", (7, 0.6 + 1.7 * len(names)))
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        values = of_epochs[name]
        axes.plot(range(1, len(values) + 1), values, color=COLORS[0], label="training")
        tested = of_epochs.get(f"val_{name}", ())
        if len(tested):
            # Fewer epochs than of training if validation_freq says so: they end together.
            every = len(values) // len(tested)
            epochs = range(every, every * len(tested) + 1, every)
            axes.plot(epochs, tested, color=COLORS[1], label="validation")
            axes.legend(frameon=False, fontsize=8)
        axes.set_ylabel(name)
        tidy(axes)
    panels[-1].set_xlabel("epoch")
    return saved(figure, to_file)


def _summary(model: keras.Model | Summary) -> Summary:
    return model if isinstance(model, Summary) else summarize(model)
