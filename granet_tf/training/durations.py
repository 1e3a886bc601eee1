"""Durations as people write them, "500", "0.5" or "30epochs", and their length in steps."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

SYNTAX = 'optimizer steps ("500"), a fraction of training ("0.5") or epochs ("30e", "30epochs")'

_STEPS = re.compile(r"\d+")
_FRACTION = re.compile(r"\d*\.\d+|\d+\.")
_EPOCHS = re.compile(r"(\d+|\d*\.\d+)(?:e|epochs?)")


@dataclasses.dataclass(frozen=True)
class TrainingLength:
    """How long a run is, which gives a meaning to fractions and epochs."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        return self.epochs * self.steps_per_epoch


def parse(text: str) -> tuple[Fraction, str]:
    """The amount and its unit: "steps", "training" or "epochs".

    Raises:
        ValueError: If the text is no duration.

    Example:

    >>> parse("500"), parse("0.5"), parse("30e")
    ((Fraction(500, 1), 'steps'), (Fraction(1, 2), 'training'), (Fraction(30, 1), 'epochs'))
    """
    text = text.strip()
    if _STEPS.fullmatch(text):
        return Fraction(text), "steps"
    if _FRACTION.fullmatch(text) and 0 <= (fraction := Fraction(text)) <= 1:
        return fraction, "training"
    if match := _EPOCHS.fullmatch(text):
        return Fraction(match[1]), "epochs"
    raise ValueError(f"must be {SYNTAX}. Received: {text!r}")


def to_steps(text: str, length: TrainingLength) -> int:
    """The duration in optimizer steps, rounded to the nearest.

    Example:

    >>> length = TrainingLength(epochs=40, steps_per_epoch=22)
    >>> [to_steps(text, length) for text in ("500", "0.5", "30e", "0.5epochs")]
    [500, 440, 660, 11]
    """
    amount, unit = parse(text)
    return round(
        amount * {"steps": 1, "training": length.steps, "epochs": length.steps_per_epoch}[unit]
    )
