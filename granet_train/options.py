"""Options of a command: fields of a frozen dataclass, from which flags and their checks are made.

An option is a `granet_tf.methods.parameters.Parameter` that also says how it is written. absl reads
the flags, `read` checks them, and what comes out is an instance of the dataclass.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import NoneType
from typing import Any

from absl import flags
from absl.flags import FlagValues

from granet_tf.methods.parameters import Parameter, field_of, parameters_of
from granet_train import flagfiles
from granet_train.errors import UsageError
from granet_train.flag_rules import TEXTS, Rule, suggestion
from granet_train.flagfiles import Arguments

HELP = ("help", "helpshort", "helpfull")


@dataclasses.dataclass(frozen=True)
class Option(Parameter):
    """One option.

    Attributes:
        unit: What a number counts, or one of `granet_train.flag_rules.TEXTS`: what a text is.
        section: What --help puts above it, one of the `SECTIONS` of the dataclass; "" is the first.
        rule: What its value must satisfy besides.
        only_for: {another option: values of that one that have a use for this one}.
    """

    section: str = ""
    rule: Rule | None = None
    only_for: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> type:
        """Of its value: bool, int, float, str, or tuple, whose items are str."""
        return next(kind for kind in self.kinds if kind is not NoneType)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All that its value must satisfy."""
        own = () if self.rule is None else (self.rule,)
        if self.unit in TEXTS:
            return (TEXTS[self.unit], *own)
        return (*self._of_numbers(), *own) if self.kind in (int, float) else own

    @property
    def interval(self) -> str:
        """What its bounds leave, such as "[0, 1)"; "" unless there are two."""
        low = self.above if self.at_least is None else self.at_least
        high = self.below if self.at_most is None else self.at_most
        return "" if low is None or high is None else self._interval(self.at_most)

    def _of_numbers(self):
        if self.interval and self.unit == "whole":
            text = f"must be a whole number from {self.at_least} to {self.at_most}"
        elif self.interval:
            zeros = "a fraction of zeros " if self.unit == "zeros" else ""
            text = f"must be {zeros}in {self.interval}"
        elif self.at_least is not None:
            text = f"must be {self.at_least} or more"
        elif self.above is not None:
            text = f"must be above {self.above}"
        else:
            text = "must be a finite number"
        return ((lambda value: math.isfinite(value) and self._is_within(value), text),)


def option(
    default: Any,
    help: str,
    *,
    unit: str | None = None,
    choices: Sequence[str] | None = None,
    **more: Any,
) -> Any:
    """A field that is an option.

    Args:
        default: Its value where it is not given; None is "as the method or the optimizer has it".
        help: What it is.
        unit: What a number counts, or what a text is.
        choices: The names to choose from.
        **more: Other attributes of `Option`.

    Example:

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Options:
    ...     SECTIONS = ("How",)
    ...     epochs: int = option(30, "Length of training.", at_least=1)
    >>> options, *_ = read(Options, [Arguments(("--epochs=5",))])
    >>> options
    Options(epochs=5)
    """
    names = None if choices is None else tuple(choices)
    return field_of(Option(help, unit=unit, choices=names, **more), default)


def define(options: type) -> FlagValues:
    """New flags at their defaults, section by section.

    Args:
        options: A dataclass of options; its `SECTIONS` are those of --help, in order.
    """
    values = FlagValues()
    values.set_gnu_getopt(True)  # Else nothing after "--epochs 5" would be read.
    values.mark_as_parsed()  # A command may be asked for without any.
    for members in in_sections(options).values():
        for name, each in members.items():
            _define(name, each, values)
    for name in HELP:
        flags.DEFINE_bool(name, False, "Show this text.", values)
    return values


def in_sections(options: type) -> dict[str, dict[str, Option]]:
    """{section: {name: option}}; options of no section are in the first."""
    found = {section: {} for section in options.SECTIONS}
    for name, each in parameters_of(options).items():
        found[each.section or options.SECTIONS[0]][name] = each
    return found


_DEFINERS: dict[type, Callable] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}


def _define(name, each, values):
    default = list(each.default) if isinstance(each.default, tuple) else each.default
    if each.choices is not None and each.kind is str:
        flags.DEFINE_enum(name, default, list(each.choices), each.help, values)
    else:
        _DEFINERS[each.kind](name, default, each.help, flag_values=values)


@dataclasses.dataclass
class Reading:
    """A command line that is being read.

    Attributes:
        options: The dataclass of its options.
        command: Its name.
        example: A flag of it.
        places: {flag that was given: where}, "" for the command line itself.
        typed: Those given on the command line itself.
    """

    options: type
    command: str = "granet-train"
    example: str = "--method=granet"
    places: dict[str, str] = dataclasses.field(default_factory=dict)
    typed: set[str] = dataclasses.field(default_factory=set)

    def __post_init__(self):
        self.values = define(self.options)

    def take(self, arguments: Arguments, *, known_only: bool = False) -> list[str]:
        """Sets the flags that the arguments name; returns the arguments that are left.

        Args:
            arguments: What to read.
            known_only: Whether flags that there are not are left, too.

        Raises:
            UsageError: On a flag that cannot be read, or on what is none.
        """
        before = {name: self.values[name].present for name in self.values}
        try:
            rest = self.values([self.command, *arguments.tokens], known_only=known_only)[1:]
        except flags.Error as error:
            raise UsageError(_explained(error, self.values, arguments)) from error
        if rest and not known_only:
            raise UsageError(
                f"Everything is a flag here, such as {self.example}. Received: {' '.join(rest)}"
            )
        changed = [name for name in before if self.values[name].present > before[name]]
        self.places.update(dict.fromkeys(changed, arguments.place))
        self.typed.update(() if arguments.place else changed)
        return rest

    @property
    def wants_help(self) -> bool:
        """Whether --help was among it."""
        return any(self.values[name].value for name in HELP)

    def checked(self) -> Any:
        """The options, each checked by itself.

        Raises:
            UsageError: At the first whose value cannot be meant.
        """
        made = made_of(self.options, {name: self.values[name].value for name in self.values})
        for name, each in parameters_of(self.options).items():
            value = getattr(made, name)
            for is_right, text in () if value is None else each.rules:
                if not is_right(value):
                    place = f" ({self.places[name]})" if self.places.get(name) else ""
                    raise UsageError(f"--{name} {text}. Received: --{name}={written(value)}{place}")
        return made


def read(options: type, arguments: Sequence[Arguments], **more: str) -> tuple[Any, Reading]:
    """The options that arguments come to, and how they were read.

    Nothing is checked where the user asked for help.

    Args:
        options: A dataclass of options.
        arguments: From `flagfiles.expand`.
        **more: Other attributes of `Reading`.

    Raises:
        UsageError: On anything that cannot be meant.
    """
    reading = Reading(options, **more)
    for each in arguments:
        reading.take(each)
    return (options() if reading.wants_help else reading.checked()), reading


def wants_help(options: type, argv: Sequence[str]) -> bool:
    """Whether --help is on the command line, or in a flagfile.

    Example:

    >>> from granet_train.flags import Options
    >>> wants_help(Options, ["--seed=3", "--help"])
    True
    """
    reading = Reading(options)
    for each in flagfiles.expand(argv):
        reading.take(each)
    return reading.wants_help


def made_of(options: type, values: Mapping[str, Any]) -> Any:
    """An instance of the dataclass, from those of the values that it has options for.

    Example:

    >>> from granet_train.flags import Options
    >>> made_of(Options, {"seed": 3, "compare": ["dense"], "of_another_version": 1}).compare
    ('dense',)
    """
    known = {name: values[name] for name in parameters_of(options) if name in values}
    return options(**{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})


def as_dict(made: Any) -> dict[str, Any]:
    """{name: value} of all options, by name, to be written down."""
    values = {name: getattr(made, name) for name in sorted(parameters_of(type(made)))}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def written(value: Any) -> str:
    """A value as it is given on the command line.

    Example:

    >>> written(("0.5", "0.75")), written(30)
    ('0.5,0.75', '30')
    """
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _explained(error: flags.Error, values: FlagValues, arguments: Arguments) -> str:
    """absl's error in our words: the flag, what was expected, what was received and where."""
    place = f" ({arguments.place})" if arguments.place else ""
    if isinstance(error, flags.UnrecognizedFlagError):
        name = error.flagname
        received = next(t for t in arguments.tokens if t.lstrip("-").startswith(name))
        return unknown(name, [*values, *flagfiles.NAMES], f"{received}{place}")
    # absl says "flag --NAME=VALUE: why" or "Missing value for flag --NAME".
    text = " ".join(str(error).split())
    if match := re.match(r"flag --(\w+)=(.*?): |Missing value for flag --?(\w+)", text):
        name, value = match[1] or match[3], match[2]
        received = f"--{name} without a value" if value is None else f"--{name}={value}"
        return f"--{name} must be {_expected(values[name])}. Received: {received}{place}"
    return f"{text}. Received: {' '.join(arguments.tokens)}{place}"


def unknown(name: str, known: Collection[str], received: str) -> str:
    """What is said of a flag that there is not."""
    return f"There is no flag --{name}. {suggestion(name, known, before='--')} Received: {received}"


def _expected(flag: flags.Flag) -> str:
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        return f"one of {', '.join(choices)}"
    return "true or false" if flag.boolean else flag.parser.syntactic_help
