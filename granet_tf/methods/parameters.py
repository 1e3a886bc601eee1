"""What a parameter of a method is: its help, range and unit, declared once, with the field.

`parameter` makes the field. From what it notes, `check` validates a method, and flags and tables
can be made. A subclass that has another default says only that: `frequency: int = 100`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

_KEY = "granet_tf"


@dataclasses.dataclass(frozen=True)
class Unit:
    """What a number counts, and how an error says what it should have been.

    Attributes:
        is_one: Whether a value is such a number, whatever the bounds.
        out_of_bounds: What is said of a number beyond its bounds.
        expected: What is said of anything else.
        above: How a lone bound that is not allowed itself is put.
    """

    is_one: Callable[[Any], bool]
    out_of_bounds: str
    expected: str
    above: str = ">"


def _is_whole(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_finite(value):
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_duration(value):
    return _is_whole(value) or (_is_finite(value) and 0.0 <= value <= 1.0)


_ZEROS = "is the fraction of zeros and must be {bounds}"
_WHOLE = "must be a whole number {bounds}"
_STEPS = "must be a whole number of steps {bounds}"
_DURATION = (
    "must be a number of optimizer steps (int) or a fraction of training in {fractions} (float)"
)

UNITS: dict[str, Unit] = {
    "number": Unit(_is_finite, "must be {bounds}", "must be a finite number {bounds}", "above"),
    "whole": Unit(_is_whole, _WHOLE, _WHOLE),
    "zeros": Unit(_is_finite, _ZEROS, _ZEROS),
    "steps": Unit(_is_whole, "must be {bounds} steps", _STEPS),
    # Steps from one update to the next.
    "period": Unit(_is_whole, _STEPS, _STEPS),
    # A moment or a length of time: steps, or as a float a fraction of training.
    "duration": Unit(_is_duration, "must be {bounds}", _DURATION),
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a method.

    Attributes:
        help: What it is, in a sentence.
        at_least: The lowest value; None is no such bound.
        above: What it must be above.
        at_most: The highest value.
        below: What it must be below.
        unit: What a number counts, of `UNITS`; None if it is no number. Of a mapping, range and
            unit are those of its values.
        choices: The names to choose from; None if it is no name.
        kinds: The types that its annotation allows.
        default: What it is where it is not given.
    """

    help: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    unit: str | None = None
    choices: tuple[str, ...] | None = None
    kinds: tuple[Any, ...] = ()
    default: Any = None

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError if `value` is none that the parameter `name` can have.

        Example:

        >>> Parameter("A share.", at_least=0, below=1, unit="number").check("share", 1.5)
        Traceback (most recent call last):
        ValueError: `share` must be in [0, 1). Received: share=1.5
        """
        if value is None and types.NoneType in self.kinds:
            return
        if self.choices is not None:
            self._check_choice(name, value)
        elif self.unit is None:
            return
        elif Mapping in self.kinds:
            _refuse_unless(
                isinstance(value, Mapping), name, "must be a mapping {weight: value}", value
            )
            for key, each in value.items():
                self._check_number(f"{name}[{key!r}]", each)
        else:
            self._check_number(name, value)

    def _check_choice(self, name, value):
        is_right = value in self.choices or (Callable in self.kinds and callable(value))
        _refuse_unless(is_right, name, f"must be one of {list(self.choices)}", value)

    def _check_number(self, name, value):
        unit = UNITS[self.unit]
        is_one = unit.is_one(value)
        text = unit.out_of_bounds if is_one else unit.expected
        text = text.format(bounds=self._bounds(unit), fractions=self._interval(1)).rstrip()
        _refuse_unless(is_one and self._is_within(value), name, text, value)

    def _is_within(self, value):
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def _bounds(self, unit):
        signs = {">=": self.at_least, unit.above: self.above, "<=": self.at_most, "<": self.below}
        given = [f"{sign} {bound}" for sign, bound in signs.items() if bound is not None]
        return f"in {self._interval(self.at_most)}" if len(given) == 2 else "".join(given)

    def _interval(self, at_most):
        low = f"({self.above}" if self.at_least is None else f"[{self.at_least}"
        return f"{low}, {self.below})" if at_most is None else f"{low}, {at_most}]"


def _refuse_unless(is_right, name, expected, value):
    if not is_right:
        raise ValueError(f"`{name}` {expected}. Received: {name}={value!r}")


def parameter(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    default_factory: Any = dataclasses.MISSING,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    unit: str | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """A field of a method, with all that is to be known of it.

    The annotation says the rest: whether a number is whole, whether None is allowed. It is looked
    at when the first method is made, so its names must be those of the module.

    Args:
        default: Its value where it is not given.
        help: What it is, in a sentence.
        default_factory: What makes the default, if that can change, such as `dict`.
        at_least: The lowest value.
        above: What it must be above.
        at_most: The highest value.
        below: What it must be below.
        unit: What a number counts, of `UNITS`; None for one that counts nothing.
        choices: The names to choose from.

    Raises:
        ValueError: On another unit.

    Example:

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Noisy(granet_tf.RigL):
    ...     noise: float = parameter(0.1, "How much noise there is.", at_least=0)
    >>> Noisy(noise=-1.0)
    Traceback (most recent call last):
    ValueError: `noise` must be >= 0. Received: noise=-1.0
    """
    if unit is not None and unit not in UNITS:
        raise ValueError(f"`unit` must be one of {list(UNITS)}. Received: unit={unit!r}")
    names = None if choices is None else tuple(choices)
    declared = Parameter(help, at_least, above, at_most, below, unit, names)
    return field_of(declared, default, default_factory)


def field_of(
    declared: Parameter, default: Any, default_factory: Any = dataclasses.MISSING
) -> dataclasses.Field:
    """The field of a dataclass that `parameters_of` finds `declared` with.

    For whoever has more to say of a parameter than `parameter` takes, in a subclass of `Parameter`.

    Example:

    >>> field_of(Parameter("How many."), 3).default
    3
    """
    return dataclasses.field(
        default=default, default_factory=default_factory, metadata={_KEY: declared}
    )


def parameters_of(method_class: type) -> dict[str, Parameter]:
    """{name: parameter} of all that `method_class` takes and that was declared by `parameter`.

    A field that a subclass only gives another default keeps help and range. What a subclass fixes,
    by `init=False`, is no parameter of it.

    Example:

    >>> parameters_of(granet_tf.RigL)["frequency"].default
    100
    >>> "final_sparsity" in parameters_of(granet_tf.STR)
    False
    """
    return dict(_parameters(method_class))


def check(method: Any) -> None:
    """Raises ValueError unless every declared parameter has a value that it can have.

    Example:

    >>> check(granet_tf.RigL(0.5))
    """
    for name, declared in _parameters(type(method)).items():
        declared.check(name, getattr(method, name))


@functools.cache
def _parameters(method_class):
    found = {}
    for field in dataclasses.fields(method_class):
        declared, kinds = _declaration(method_class, field.name)
        if declared is None or not field.init:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        found[field.name] = dataclasses.replace(
            declared, unit=declared.unit or _plain_unit(kinds), kinds=kinds, default=default
        )
    return found


def _declaration(method_class, name):
    """The nearest declaration of a field, and the types that its annotation allows."""
    for owner in method_class.__mro__:
        field = vars(owner).get("__dataclass_fields__", {}).get(name)
        if name in vars(owner).get("__annotations__", {}) and _KEY in getattr(
            field, "metadata", {}
        ):
            return field.metadata[_KEY], _kinds(inspect.get_annotations(owner, eval_str=True)[name])
    return None, ()


def _kinds(annotation):
    """The types in an annotation, without what they hold: `Mapping` of `Mapping[str, float]`."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    each = typing.get_args(annotation) if is_union else (annotation,)
    return tuple(typing.get_origin(kind) or kind for kind in each)


def _plain_unit(kinds):
    """Of a number that counts nothing."""
    return "number" if float in kinds else "whole" if int in kinds else None
