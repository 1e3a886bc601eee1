"""How images are usually normalized: by mean and standard deviation of ImageNet's pixels."""

from __future__ import annotations

_COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GRAY = ((0.449,), (0.226,))


def normalization_of(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, or one for all, on the scale of 0 to 1.

    Example:

    >>> normalization_of(1)
    ((0.449,), (0.226,))
    """
    return _COLOUR if channels == 3 else _GRAY
