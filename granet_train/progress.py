"""What a person sees of a run: how far it is, how well it does, and what became of the masks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from granet_train.listeners import Listener
from granet_train.results import Epoch, Update
from granet_train.status_line import StatusLine

_BAR = 20
_REFRESH = 0.1  # seconds
_LINES = 10  # a run, where the line cannot be rewritten

_FORMATS = {"images/s": "{:,.0f} images/s"}


class Progress(Listener):
    """Rewrites one line on a terminal; elsewhere prints about ten lines a run.

    Each mask update is a line of its own, above that.

    Args:
        stream: Where to write; None is stdout.
        clock: Tells the time in seconds.
        advice: What to do about a weight that has been pruned away: function of the run's name and
            the weight's path.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        advice: Callable[[str, str], str] = lambda run, path: "",
    ):
        self.status = StatusLine(stream)
        self.clock, self.advice = clock, advice

    def begin(self, run, epochs, steps_per_epoch, step):
        self.run, self.epochs, self.steps_per_epoch = run, epochs, steps_per_epoch
        self.steps = epochs * steps_per_epoch
        self.first = self.last = step
        self.started = self.clock()
        self.shown = -math.inf
        self.figures: dict[str, float] = {}
        self.weights: int | None = None

    def progress(self, step, figures):
        self.figures |= figures
        if self.status.rewrites:
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
        self.status.above(update_line(update, self.steps, self.weights))

    def emptied(self, path: str):
        self.status.above(
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
        if epoch.step == self.steps:
            self._show(epoch.step, f"took {_clock(epoch.seconds)}")
        elif self.status.rewrites or self.epochs <= _LINES or self._tenth_since(epoch.step):
            self._show(epoch.step)

    def close(self):
        self.status.close()

    def _tenth_since(self, step: int) -> bool:
        return step * _LINES // self.steps > self.last * _LINES // self.steps

    def _show(self, step: int, clock: str | None = None):
        self.shown, self.last = self.clock(), step
        if clock is None:
            done, to_do = step - self.first, self.steps - step
            clock = f"{time_left(self.shown - self.started, done, to_do)} left"
        epochs_done = step / self.steps_per_epoch
        self.status.show(
            line(self.run, epochs_done, self.epochs, clock, self.figures, self.status.width)
        )


def line(
    run: str,
    epochs_done: float,
    epochs: int,
    clock: str,
    figures: Mapping[str, float],
    width: int | None = None,
) -> str:
    """How far a run is.

    Args:
        run: Its name.
        epochs_done: Epochs done, the current one in part.
        epochs: Epochs in all.
        clock: What to say about time.
        figures: What to show, the most important first.
        width: How many characters there is room for: the bar gets shorter, and then the last
            figures are left out. None is no limit.

    Example:

    >>> figures = {"loss": 0.25, "sparsity": 0.875, "images/s": 987.6}
    >>> print(line("gmp", 1, 4, "9:59 left", figures))
    gmp     █████░░░░░░░░░░░░░░░  epoch 1/4  9:59 left  loss 0.2500  sparsity 0.8750  988 images/s
    >>> print(line("gmp", 1, 4, "9:59 left", figures, width=70))
    gmp     ██░░░░░░░░  epoch 1/4  9:59 left  loss 0.2500  sparsity 0.8750
    """
    head, current = f"{run:<6}", min(math.ceil(epochs_done), epochs)
    tail = [f"epoch {current:>{len(str(epochs))}}/{epochs}", clock]
    tail += [_FORMATS.get(name, name + " {:.4f}").format(x) for name, x in figures.items()]
    room = math.inf if width is None else width - len(head) - 2
    while len("  ".join(tail)) > room and len(tail) > 2:
        tail.pop()
    bar = min(_BAR, room - len("  ".join(tail)) - 2)
    if bar > 0:
        full = int(epochs_done / epochs * bar)
        head += "  " + "█" * full + "░" * (bar - full)
    return "  ".join([head, *tail])[:width]


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


def time_left(elapsed: float, done: int, to_do: int) -> str:
    """At the speed so far.

    Args:
        elapsed: Seconds since this session began.
        done: Steps of this session, not of those before it.
        to_do: Steps still to do.

    Example:

    >>> time_left(elapsed=60.0, done=100, to_do=350), time_left(3600.0, 1000, 2500)
    ('3:30', '2:30:00')
    >>> time_left(elapsed=0.0, done=0, to_do=350)
    '?'
    """
    return _clock(elapsed / done * to_do) if done else "?"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
