"""The table of all options of methods in docs/methods.md; `python -m granet_train.method_table`."""

from __future__ import annotations

from typing import Any

from granet_tf.masks.patterns import Element
from granet_tf.methods.parameters import parameters_of
from granet_train.method_options import METHOD_FLAGS, METHODS, MethodOptions, users_of
from granet_train.options import Option

_HEAD = ("argument", "flag", "what it is", "values", "default")
# {a default: what stands for it}
_WORDS = {"None": "the method's choice", repr({}): "none", repr(Element()): "element"}


def markdown() -> str:
    """A row for each flag of `MethodOptions`.

    Example:

    >>> [row] = [row for row in markdown().splitlines() if "--temperature" in row]
    >>> row
    '| `temperature` | `--temperature` | What the logits are divided by. | above 0 | grasp: 200.0 |'
    """
    declared = parameters_of(MethodOptions)
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(*each) for each in declared.items())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(flag: str, each: Option) -> tuple[str, ...]:
    argument = METHOD_FLAGS[flag]
    of = {name: parameters_of(METHODS[name])[argument] for name in users_of(flag)}
    texts = dict.fromkeys(parameter.help for parameter in of.values())
    return (
        f"`{argument}`",
        f"`--{flag}`",
        " ".join(texts).replace("|", "\\|"),
        ", ".join(each.choices) if each.choices else _values(each),
        _defaults({name: parameter.default for name, parameter in of.items()}),
    )


def _values(each: Option) -> str:
    texts = {"duration": "a duration", "period": "a duration above 0", "weights": "weight:sparsity"}
    ranges = (text.removeprefix("must be ") for _, text in each.rules)
    return texts.get(each.unit) or next(ranges, "True or False")


def _defaults(of: dict[str, Any]) -> str:
    """The default of each method, once if it is that of all."""
    users: dict[str, list[str]] = {}
    for name, default in of.items():
        text = default if isinstance(default, str) else repr(default)
        users.setdefault(_WORDS.get(text, text), []).append(name)
    if len(users) == 1 and len(of) > 1:
        return next(iter(users))
    return "; ".join(f"{', '.join(names)}: {default}" for default, names in users.items())


if __name__ == "__main__":
    print(markdown(), end="")
