"""An extension of griffe, which reads docstrings for the site: examples become blocks of code."""

import re

import griffe

_EXAMPLE = re.compile(
    r"(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*)(?:\n(?:^>>> .*\n?(?:^(?!\s*$).*\n?)*))*", re.M
)


def fenced(docstring: str) -> str:
    """The same with doctests in fences, as Markdown takes `>>>` for a quotation."""
    return _EXAMPLE.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", docstring)


class Examples(griffe.Extension):
    def on_instance(self, *, obj, **kwargs):
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
