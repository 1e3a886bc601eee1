"""What a person sees of a run: how far it is, how well it does, and what became of the masks."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from granet_train.bar_line import BarLine, duration, fitting, time_left
from granet_train.listeners import Listener
from granet_train.results import Epoch, Update
from granet_train.terminal import Screen

_REFRESH = 0.1  # seconds
_LINES = 10  # a run, where the line cannot be rewritten, or epochs are short
_LONG = 10.0  # seconds: an epoch that takes as long gets a line of its own

_FORMATS = {"images/s": "{:,.0f} images/s"}


class Progress(Listener):
    """Rewrites one line on a terminal; elsewhere prints about ten lines a run.

    On a terminal each epoch leaves a line above it; of epochs of less than ten seconds, about ten
    do. Elsewhere each mask update is a line of its own. `verbose` shows all there is.

    Args:
        stream: Where to write; None is stdout.
        clock: Tells the time in seconds.
        advice: What to do about a weight that has been pruned away: function of the run's name and
            the weight's path.
        verbose: Whether each epoch and each mask update is a line on a terminal, too.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        advice: Callable[[str, str], str] = lambda run, path: "",
        verbose: bool = False,
    ):
        self.screen = Screen(stream)
        self.clock, self.advice, self.verbose = clock, advice, verbose

    def begin(self, run, epochs, steps_per_epoch, step):
        self.run, self.epochs, self.steps_per_epoch = run, epochs, steps_per_epoch
        self.steps = epochs * steps_per_epoch
        self.first = self.last = step
        self.started = self.line_at = self.clock()
        self.shown = -math.inf
        self.figures: dict[str, float] = {}
        self.weights: int | None = None

    def progress(self, step, figures):
        self.figures |= figures
        if self.screen.rewrites:
            if self.clock() - self.shown >= _REFRESH:
                self._show(step)
        # Where epochs are few they are long, and a line at the end of each is not enough.
        elif self.epochs < _LINES and step % self.steps_per_epoch and self._tenth_since(step):
            self._show(step)

    def update(self, update: Update):
        if update.step == 0:
            return
        if self.weights is None:
            self.weights = update.nonzeros + update.pruned
        if self.verbose or not self.screen.rewrites:
            self.screen.print(update_line(update, self.steps, self.weights))

    def emptied(self, path: str):
        self.screen.print(
            f"warning: {self.run}: all of {path} has been pruned: nothing passes through it any "
            f"more. {self.advice(self.run, path)}".rstrip()
        )

    def epoch(self, epoch: Epoch):
        self.figures |= {
            "loss": epoch.loss,
            "accuracy": epoch.accuracy,
            "sparsity": epoch.sparsity,
            "images/s": epoch.images_per_second,
            "test": epoch.test_accuracy,
        }
        last = epoch.step == self.steps
        due = last or self.verbose or self.epochs <= _LINES or self._tenth_since(epoch.step)
        if not self.screen.rewrites:
            if due:
                self._show(epoch.step, f"took {duration(epoch.seconds)}" if last else None)
            return
        if last:
            self.screen.close(erase=True)
        if due or self.clock() - self.line_at >= _LONG:
            self.line_at, self.last = self.clock(), epoch.step
            self.screen.print(EpochLine(epoch, self.epochs))
        if not last:
            self._show(epoch.step)

    def close(self):
        self.screen.close()

    def _tenth_since(self, step: int) -> bool:
        return step * _LINES // self.steps > self.last * _LINES // self.steps

    def _show(self, step: int, clock: str | None = None):
        self.shown = self.clock()
        if clock is None:
            done, to_do = step - self.first, self.steps - step
            clock = f"{time_left(self.shown - self.started, done, to_do)} left"
        epochs_done = step / self.steps_per_epoch
        line = run_line(self.run, epochs_done, self.epochs, clock, self.figures)
        self.screen.show(line)
        if not self.screen.rewrites:
            self.last = step


def run_line(
    run: str, epochs_done: float, epochs: int, clock: str, figures: Mapping[str, float]
) -> BarLine:
    """How far a run is.

    Args:
        run: Its name.
        epochs_done: Epochs done, the current one in part.
        epochs: Epochs in all.
        clock: What to say about time.
        figures: What to show, the most important first.

    Example:

    >>> figures = {"loss": 0.25, "sparsity": 0.875, "images/s": 987.6}
    >>> print(run_line("gmp", 1, 4, "9:59 left", figures))
    gmp     █████░░░░░░░░░░░░░░░  epoch 1/4  9:59 left  loss 0.2500  sparsity 0.8750  988 images/s
    """
    current = min(math.ceil(epochs_done), epochs)
    told = [_FORMATS.get(n, n + " {:.4f}").format(x) for n, x in figures.items()]
    return BarLine(epochs_done / epochs, (_epoch_of(current, epochs), clock, *told), f"{run:<6}")


@dataclasses.dataclass(frozen=True)
class EpochLine:
    """What a terminal keeps of an epoch.

    Attributes:
        epoch: Its figures. On a narrow terminal the last are left out.
        epochs: Epochs in all.
    """

    epoch: Epoch
    epochs: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        epoch = self.epoch
        texts = [
            f"{epoch.run:<6}",
            _epoch_of(epoch.epoch, self.epochs),
            f"test {epoch.test_accuracy:.4f}",
            f"sparsity {epoch.sparsity:.4f}",
            f"loss {epoch.loss:.4f}",
            f"accuracy {epoch.accuracy:.4f}",
            f"{epoch.images_per_second:,.0f} images/s",
            duration(epoch.seconds),
        ]
        yield Text(fitting(texts, options.max_width - 1), no_wrap=True, overflow="crop")


def _epoch_of(epoch: int, epochs: int) -> str:
    return f"epoch {epoch:>{len(str(epochs))}}/{epochs}"


def update_line(update: Update, steps: int, weights: int) -> str:
    """What a mask update did, in columns as wide as `steps` and `weights` can ask for.

    Example:

    >>> update = Update("granet", 12_000, 6.0, 1_234, 567, 0.2, 1_688, 0.8312, 0.3)
    >>> print(update_line(update, steps=90_000, weights=10_000))
    step 12,000  pruned 1,234   regenerated 567     sparsity 0.8312
    """
    step, count = len(f"{steps:,}"), len(f"{weights:,}")
    return (
        f"step {update.step:>{step},}  pruned {update.pruned:<{count},}  "
        f"regenerated {update.regenerated:<{count},}  sparsity {update.sparsity:.4f}"
    )
