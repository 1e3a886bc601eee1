"""Durations as people write them, "500", "0.5" or "30epochs", and their length in steps."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

SYNTAX = 'optimizer steps ("500"), a fraction of training ("0.5") or epochs ("30e", "30epochs")'

_STEPS = re.compile(r"\d+")
_FRACTION = re.compile(r"\d*\.\d+|\d+\.")
_EPOCHS = re.compile(r"(\d+|\d*\.\d+)(?:e|epochs?)")


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


@dataclasses.dataclass(frozen=True)
class TrainingLength:
    """How long a run is, which gives a meaning to fractions and epochs.

    Attributes:
        epochs: Number of epochs, as trained: stretched already.
        steps_per_epoch: Optimizer steps of an epoch.
        multiplier: By how much the schedule is stretched.
    """

    epochs: int
    steps_per_epoch: int
    multiplier: Fraction = Fraction(1)

    @classmethod
    def stretched(cls, epochs: int, steps_per_epoch: int, multiplier: float) -> TrainingLength:
        """`epochs` × `multiplier` epochs (the paper's GraNet_2.5× trains for 250 instead of 100).

        Raises:
            ValueError: If that is no whole number of epochs.

        Example:

        >>> TrainingLength.stretched(epochs=100, steps_per_epoch=20018, multiplier=2.5).epochs
        250
        """
        exact = exactly(multiplier)
        if exact <= 0 or (total := epochs * exact).denominator != 1:
            raise ValueError(
                "must be above 0 and make a whole number of epochs. "
                f"Received: {multiplier} × {epochs} epochs"
            )
        return cls(int(total), steps_per_epoch, exact)

    @property
    def steps(self) -> int:
        """Length of training in optimizer steps."""
        return self.epochs * self.steps_per_epoch

    def point(self, text: str) -> int:
        """The step of a point in training ("30e" from its start), or of the length up to it.

        It moves with the multiplier: steps and epochs are multiplied, and a fraction is one of the
        whole, stretched training. Rounded to the nearest step.

        Raises:
            ValueError: If the text is no duration.

        Example:

        >>> length = TrainingLength.stretched(epochs=20, steps_per_epoch=22, multiplier=2)
        >>> [length.point(text) for text in ("500", "0.5", "10e")]
        [1000, 440, 440]
        """
        amount, unit = parse(text)
        return round(amount * (1 if unit == "training" else self.multiplier) * self._unit(unit))

    def period(self, text: str) -> int:
        """The steps of a period, such as that of mask updates.

        The multiplier leaves steps and epochs as they are, so that a longer training has more
        periods. Rounded to the nearest step.

        Raises:
            ValueError: If the text is no duration.

        Example:

        >>> length = TrainingLength.stretched(epochs=20, steps_per_epoch=22, multiplier=2)
        >>> [length.period(text) for text in ("500", "0.5", "10e")]
        [500, 440, 220]
        """
        amount, unit = parse(text)
        return round(amount * self._unit(unit))

    def _unit(self, name: str) -> int:
        return {"steps": 1, "training": self.steps, "epochs": self.steps_per_epoch}[name]


def exactly(number: float) -> Fraction:
    """The number as it was written: 0.1 is a tenth, not the nearest float.

    Example:

    >>> exactly(0.1)
    Fraction(1, 10)
    """
    return Fraction(str(number))
