"""What each flag must be by itself, and what a mistyped name may have meant."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl.flags import FlagValues

from granet_train import durations, models
from granet_train.errors import UsageError
from granet_train.flag_checks import USES

_LOOK = "See --help."

Rule = tuple[Callable[[Any], bool], str]
"""What a value must satisfy, and what to say if it does not; None always passes."""


def check_each(values: FlagValues, places: Mapping[str, str]) -> None:
    """Raises UsageError at the first flag whose value cannot be meant.

    Args:
        values: The flags.
        places: {flag: where it was given}, "" for the command line.
    """
    check_rules(values, places, RULES)
    names = models.names()
    if values.model not in names:
        raise UsageError(
            "--model must be a network of granet_tf or of keras.applications. "
            f"{suggestion(values.model, names)} Received: --model={values.model}"
        )


def check_rules(values: FlagValues, places: Mapping[str, str], rules: Mapping[str, Rule]) -> None:
    """Raises UsageError at the first flag whose value breaks its rule."""
    for name, (is_right, text) in rules.items():
        value = values[name].value
        if value is not None and not is_right(value):
            shown = ",".join(value) if isinstance(value, list) else value
            place = f" ({places[name]})" if places.get(name) else ""
            raise UsageError(f"--{name} {text}. Received: --{name}={shown}{place}")


def suggestion(name: str, names: Collection[str], before: str = "") -> str:
    """A question with those of the names that `name` may be a slip of, or where to look.

    Example:

    >>> suggestion("vgg-19", ["vgg19", "resnet20"]), suggestion("foo", ["bar"])
    ('Did you mean vgg19?', 'See --help.')
    """
    # Of two that differ in case only, the first: ours come before those of Keras.
    lower = {each.lower(): each for each in reversed(list(names))}
    close = difflib.get_close_matches(name.lower(), lower, n=2)
    return f"Did you mean {' or '.join(before + lower[c] for c in close)}?" if close else _LOOK


def sparsities(items: Sequence[str]) -> dict[str | int, float]:
    """{weight: sparsity} from items such as "0:0.0" or "*/fc/kernel:0.8".

    Raises:
        ValueError: If an item is something else.

    Example:

    >>> sparsities(["0:0.0", "-1:0.8", "*/fc/kernel:0.8"])
    {0: 0.0, -1: 0.8, '*/fc/kernel': 0.8}
    """
    parsed = {}
    for item in items:
        key, _, number = item.rpartition(":")
        if not key:
            raise ValueError(f"{item!r} has no weight before a colon")
        if not _is_sparsity(sparsity := float(number)):
            raise ValueError(f"{item!r} has no sparsity after the colon")
        parsed[int(key) if re.fullmatch(r"-?\d+", key) else key] = sparsity
    return parsed


def _is_sparsity(value: float) -> bool:
    return 0.0 <= value < 1.0


def _is_fraction(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _is_above_0(value: float) -> bool:
    return 0 < value < math.inf


def _is_at_least_0(value: float) -> bool:
    return 0 <= value < math.inf


def _is_count(value: int) -> bool:
    return value >= 1


def _is_duration(text: str) -> bool:
    try:
        return bool(durations.parse(text))
    except ValueError:
        return False


def _is_period(text: str) -> bool:
    return _is_duration(text) and durations.parse(text)[0] > 0


def _are_durations(texts: Sequence[str]) -> bool:
    return bool(texts) and all(map(_is_duration, texts))


def _are_sparsities(items: Sequence[str]) -> bool:
    try:
        return len(sparsities(items)) == len(items)
    except ValueError:
        return False


def _are_addresses(texts: Sequence[str]) -> bool:
    one = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
    return len(set(texts)) == len(texts) and all(map(one.fullmatch, texts))


def _is_number(value: float) -> bool:
    return math.isfinite(value)


_SPARSITY = (_is_sparsity, "must be a fraction of zeros in [0, 1)")
_FRACTION = (_is_fraction, "must be in [0, 1]")
_ABOVE_0 = (_is_above_0, "must be above 0")
_AT_LEAST_0 = (_is_at_least_0, "must be 0 or more")
_COUNT = (_is_count, "must be 1 or more")
_DURATION = (_is_duration, f"must be {durations.SYNTAX}")
_PERIOD = (_is_period, f"must be longer than nothing: {durations.SYNTAX}")
_NAME = (bool, "must not be empty")
_WEIGHTS = (
    _are_sparsities,
    "must be a list of weight:sparsity, each weight once: its position (0 is the first, -1 the "
    'last) or a pattern of its path, such as "0:0.0,-1:0.8,*/fc/kernel:0.8"',
)

RULES: dict[str, Rule] = {
    "dataset": _NAME,
    "data_dir": _NAME,
    "image_size": _COUNT,
    "validation_fraction": (_is_sparsity, "must be in [0, 1)"),
    "width": _ABOVE_0,
    "compare": (
        lambda names: set(names) <= set(USES["method"]),
        f"must be a list of any of {', '.join(USES['method'])}",
    ),
    "seed": (lambda seed: 0 <= seed < 2**32, "must be a whole number from 0 to 4294967295"),
    "final_sparsity": _SPARSITY,
    "initial_sparsity": _SPARSITY,
    "begin": _DURATION,
    "end": _DURATION,
    "frequency": _PERIOD,
    "drop_fraction": _FRACTION,
    "final_drop_fraction": _FRACTION,
    "backward_sparsity": _SPARSITY,
    "sparse_phase": _PERIOD,
    "dense_phase": _PERIOD,
    "growth_momentum": (_is_sparsity, "must be in [0, 1)"),
    "exploration_decay": _AT_LEAST_0,
    "prune_threshold": _ABOVE_0,
    "threshold_tolerance": _AT_LEAST_0,
    "l1": _AT_LEAST_0,
    "noise_temperature": _AT_LEAST_0,
    "threshold_init": (_is_number, "must be a finite number"),
    "threshold_decay": _AT_LEAST_0,
    "pinned": _WEIGHTS,
    "capped": _WEIGHTS,
    "score_batches": _COUNT,
    "rounds": _COUNT,
    "temperature": _ABOVE_0,
    "masks_from": _NAME,
    "weights_from": _NAME,
    "epochs": _COUNT,
    "schedule_multiplier": _ABOVE_0,
    "batch_size": _COUNT,
    "learning_rate": _ABOVE_0,
    "learning_rate_per": _COUNT,
    "milestones": (_are_durations, f"must be a list of one or more durations: {durations.SYNTAX}"),
    "warmup": _DURATION,
    "momentum": _FRACTION,
    "weight_decay": _AT_LEAST_0,
    "label_smoothing": (_is_sparsity, "must be in [0, 1)"),
    "workers": (_are_addresses, "must be a list of host:port, each once"),
    "worker_index": (lambda index: index >= 0, "must be 0 or more"),
    "connect_timeout": _ABOVE_0,
    "tpu": _NAME,
    "tpu_zone": _NAME,
    "tpu_project": _NAME,
    "steps_per_loop": _COUNT,
    "workdir": _NAME,
    "checkpoint_every": _PERIOD,
    "keep_checkpoints": _COUNT,
}
