"""Methods as records: equal if their parameters are, printed and saved by them."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable
from typing import Any, Self

import keras


class Record:
    """To be mixed into a dataclass that may have `pinned` and `capped` weights.

    Written once, as what a dataclass generates for each method takes time whenever it is imported.
    """

    def __new__(cls, *args, **kwargs):
        known = {field.name for field in dataclasses.fields(cls) if field.init}
        unknown = [name for name in kwargs if name not in known]
        if unknown and not known_to_init(cls, unknown):
            raise unknown_parameter(cls.__name__, unknown[0], kwargs[unknown[0]], known)
        return super().__new__(cls)

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    __hash__ = None  # Pins and caps are dicts.

    def __repr__(self):
        values = ", ".join(f"{name}={value!r}" for name, value in self._values().items())
        return f"{type(self).__qualname__}({values})"

    def _values(self):
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def get_config(self) -> dict[str, Any]:
        fields = (f.name for f in dataclasses.fields(self) if f.init)
        config = {name: getattr(self, name) for name in fields}
        # JSON has no integer keys, so that maps travel as lists of pairs.
        for name in ("pinned", "capped"):
            if name in config:
                config[name] = [list(pair) for pair in config[name].items()]
        return {k: keras.saving.serialize_keras_object(v) for k, v in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = {k: keras.saving.deserialize_keras_object(v) for k, v in config.items()}
        for name in ("pinned", "capped"):
            if name in config:
                config[name] = dict(config[name])
        return cls(**config)


def known_to_init(cls: type, names: Iterable[str]) -> bool:
    """Whether a constructor, which may be a user's own, takes all of these names.

    Example:

    >>> known_to_init(granet_tf.GMP, ["pattern"]), known_to_init(granet_tf.GMP, ["patern"])
    (True, False)
    """
    parameters = inspect.signature(cls.__init__).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return takes_any or all(name in parameters for name in names)


def unknown_parameter(method: str, name: str, value: Any, known: Iterable[str]) -> TypeError:
    """The error for a parameter that a method does not have, with the nearest of those it has.

    Example:

    >>> print(unknown_parameter("GMP", "sed", 1, ["seed"]))
    `sed` is no parameter of GMP. Did you mean `seed`? It has `seed`. Received: sed=1
    """
    known = sorted(known)
    near = [f" Did you mean `{each}`?" for each in difflib.get_close_matches(name, known, 1)]
    names = ", ".join(f"`{each}`" for each in known)
    return TypeError(
        f"`{name}` is no parameter of {method}.{''.join(near)} It has {names}. "
        f"Received: {name}={value!r}"
    )
