"""Flags of granet-train that a comparison passes on to its trainings, and whether one uses them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from granet_train.flag_checks import USES, check_use
from granet_train.flagfiles import Arguments

# What a training writes unless it is asked for more: figures and models.
DEFAULTS = (Arguments(("--notensorboard", "--noexport_tflite", "--noplot"), "by default"),)
OF_METHODS = frozenset().union(*USES["method"].values())


def check_used(methods: Collection[str], owner: str, rest: Sequence[Arguments]) -> None:
    """A flag that none of the methods has a use for is a mistake, if it was typed.

    Args:
        methods: Their names.
        owner: The flag that names them, with its value.
        rest: What is passed on.

    Raises:
        UsageError: If there is one.

    Example:

    >>> check_used(["gmp"], "--methods=gmp", [Arguments(("--drop_fraction=0.3",), "a.flags")])
    """
    used = frozenset().union(*(USES["method"][method] for method in methods))
    typed = {
        token.lstrip("-").partition("=")[0]
        for arguments in rest
        if not arguments.place
        for token in arguments.tokens
        if token.startswith("-")
    }
    check_use(typed, owner, OF_METHODS, used)
