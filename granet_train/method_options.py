"""The options that methods bring: what the library declares of their parameters, as flags.

A parameter is a flag of the same name, but for those of `_NAMES`; methods with a parameter of the
same name share one. A flag that is not given leaves a method its own default.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from granet_tf.masks.patterns import Pattern
from granet_tf.masks.patterns.names import PATTERNS
from granet_tf.methods import Method, all_methods
from granet_tf.methods.parameters import Parameter, field_of, parameters_of
from granet_train.durations import TrainingLength
from granet_train.flag_rules import sparsities
from granet_train.options import Option

SPARSE = "How sparse"

# Those of the paper come first, in its order; the others by name.
_FIRST = ("granet", "gmp", "rigl", "set", "static", "magnitude", "snip", "grasp", "synflow")
_FOUND = all_methods()
METHODS: dict[str, type[Method]] = {
    name: _FOUND[name] for name in dict.fromkeys([*_FIRST, *sorted(_FOUND)])
}

# {parameter: flag} where they differ: the library counts in steps, a flag in any unit.
_NAMES = {"begin_step": "begin", "end_step": "end", "batches": "score_batches"}
# Decided by training as a whole.
_OF_TRAINING = ("seed", "total_steps")
# Users of a flag that are no methods.
_MORE_USERS = {"final_sparsity": ("small_dense",)}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a parameter is written as a flag.

    Attributes:
        kind: Type of the flag's value.
        unit: What it counts, or what a text is.
        help: What --help says of that.
        choices: The names to choose from.
        read: Makes the parameter of the flag's value and the length of training.
    """

    kind: type
    unit: str | None = None
    help: str = ""
    choices: tuple[str, ...] | None = None
    read: Callable[[Any, TrainingLength], Any] = lambda value, length: value


_MOMENT = Form(str, "duration", "A duration.", read=lambda text, length: length.point(text))
_LENGTH = dataclasses.replace(_MOMENT, unit="period")
_PERIOD = dataclasses.replace(_LENGTH, read=lambda text, length: length.period(text))
_WEIGHTS = Form(
    tuple,
    "weights",
    "Written as in 0:0.0,-1:0.8,*/fc/kernel:0.8; what is before the colon is a position (0 is the "
    "first, -1 the last) or a pattern of the path.",
    read=lambda items, length: sparsities(items),
)
_FORMS = {"duration": _MOMENT, "period": _PERIOD}


def form_of(declared: Parameter) -> Form | None:
    """How a parameter is written; None of what cannot be, such as a function.

    Example:

    >>> form_of(parameters_of(METHODS["rigl"])["frequency"]).read("2e", TrainingLength(30, 10))
    20
    """
    if declared.choices is not None:
        return Form(str, choices=declared.choices)
    if Mapping in declared.kinds:
        return _WEIGHTS
    if Pattern in declared.kinds:
        return Form(str, choices=tuple(PATTERNS))
    if declared.unit == "duration" and declared.above is not None:
        return _LENGTH
    plain = (Form(kind, declared.unit) for kind in (bool, float, int) if kind in declared.kinds)
    return _FORMS.get(declared.unit) or next(plain, None)


def _flags_of(method: type[Method]) -> dict[str, str]:
    return {
        _NAMES.get(name, name): name
        for name, declared in parameters_of(method).items()
        if name not in _OF_TRAINING and form_of(declared) is not None
    }


# {method: {flag: parameter}}
FLAGS_OF = {name: _flags_of(method) for name, method in METHODS.items()}
# {flag: parameter}
METHOD_FLAGS: dict[str, str] = functools.reduce(operator.or_, FLAGS_OF.values(), {})
# {parameter: flag, as it is written}
BY_PARAMETER = {parameter: f"--{flag}" for flag, parameter in METHOD_FLAGS.items()}


def users_of(flag: str) -> tuple[str, ...]:
    """The methods that have a use for a flag.

    Example:

    >>> users_of("rounds")
    ('snip', 'grasp', 'synflow')
    """
    return tuple(name for name, own in FLAGS_OF.items() if flag in own)


def arguments(name: str, values: Any, length: TrainingLength) -> dict[str, Any]:
    """Arguments for the method: those of the flags that were given, durations in steps.

    Args:
        name: Of the method.
        values: The options; those that were not given are None, or empty.
        length: Of training.
    """
    declared = parameters_of(METHODS[name])
    given = {
        parameter: getattr(values, flag)
        for flag, parameter in FLAGS_OF[name].items()
        if getattr(values, flag) not in (None, ())
    }
    return {k: form_of(declared[k]).read(value, length) for k, value in given.items()}


def _option(flag: str) -> tuple[Option, type]:
    """What most methods declare, and what others say otherwise; and the type of its value."""
    declared = {name: parameters_of(METHODS[name])[METHOD_FLAGS[flag]] for name in users_of(flag)}
    users = {
        text: [name for name, each in declared.items() if each.help == text]
        for text in (each.help for each in declared.values())
    }
    usual, *others = sorted(users, key=lambda text: -len(users[text]))
    most = declared[users[usual][0]]
    form = form_of(most)
    made = Option(
        "",
        **{name: getattr(most, name) for name in ("at_least", "above", "at_most", "below")},
        unit=form.unit,
        choices=form.choices,
        section=SPARSE,
        only_for={"method": (*declared, *_MORE_USERS.get(flag, ()))},
    )
    sentences = [
        usual,
        *(f"{', '.join(users[text])}: {text[0].lower()}{text[1:]}" for text in others),
        *([f"In {made.interval}."] if made.interval and form.kind is float else []),
        *([form.help] if form.help else []),
        *([f"For {', '.join(declared)}."] if len(declared) < len(METHODS) / 2 else []),
    ]
    return dataclasses.replace(made, help=" ".join(sentences)), form.kind


def _field(flag):
    made, kind = _option(flag)
    if kind is tuple:
        return flag, tuple[str, ...], field_of(made, ())
    return flag, kind | None, field_of(made, None)


MethodOptions = dataclasses.make_dataclass(
    "MethodOptions", map(_field, METHOD_FLAGS), frozen=True, kw_only=True
)
MethodOptions.__doc__ = "The options of all methods."
