"""Parameters of methods are declared once; ranges, errors and docstrings agree with that."""

import ast
import dataclasses
import inspect
import math
import re
import types
from collections.abc import Mapping

import numpy as np
import pytest

import granet_tf
from granet_tf.methods import Method, all_methods
from granet_tf.methods.at_initialization.base import AtInitialization, FromBatches, InRounds
from granet_tf.methods.parameters import Parameter, parameter, parameters_of
from granet_tf.methods.periodic import Periodic
from granet_tf.methods.replacing import Replacing
from granet_train import flags

METHODS = all_methods()
BASES = [Method, Periodic, Replacing, AtInitialization, InRounds, FromBatches]
NAN, INF = math.nan, math.inf

# {number: what is allowed, what is below and what is above}
SPARSITY = ([0, 0.0, 0.5], [-0.001, -1], [1, 1.0, 90])
MOMENT = ([0, 0.0, 0.001], [-1, -0.001], [1.001, 100.0])
LENGTH = ([1, 0.001, 1.0], [0, 0.0, -1, -0.5], [1.001, 100.0])
PERIOD = ([1, np.int64(7), 10**9], [0, -5], [])
SHARE = ([0, 0.0, 1, 1.0, np.float32(0.5)], [-0.001], [1.001, 30])
NOT_NEGATIVE = ([0, 0.0, 1e9], [-1e-9, -1], [])
POSITIVE = ([1e-9, 1, 1e9], [0, 0.0, -1e-9], [])
COUNT = ([1, np.int32(3)], [0, -1], [])
RANGES = {
    "final_sparsity": ([*SPARSITY[0], 0.999], *SPARSITY[1:]),
    "initial_sparsity": SPARSITY,
    "backward_sparsity": SPARSITY,
    "growth_momentum": ([0, 0.0, 0.999], [-0.001], [1, 1.0]),
    "seed": ([0, -1, 2**40], [], []),
    "total_steps": ([1, 10**9], [0, -1], []),
    "begin_step": MOMENT,
    "end_step": ([1.0, 10**9], *MOMENT[1:]),
    "sparse_phase": LENGTH,
    "dense_phase": LENGTH,
    "frequency": PERIOD,
    "power": POSITIVE,
    "drop_fraction": SHARE,
    "final_drop_fraction": SHARE,
    "exploration_decay": NOT_NEGATIVE,
    "gradient_weight": NOT_NEGATIVE,
    "l1": NOT_NEGATIVE,
    "noise_temperature": NOT_NEGATIVE,
    "prune_threshold": POSITIVE,
    "threshold_tolerance": NOT_NEGATIVE,
    "threshold_init": ([-3200, 0.0], [], []),
    "threshold_decay": NOT_NEGATIVE,
    "rounds": COUNT,
    "batches": COUNT,
    "samples": COUNT,
    "iterations": COUNT,
    "temperature": POSITIVE,
}
# Nothing is pruned later.
ABOVE_0 = ([0.001, 0.999], [0, 0.0, -0.1], [1.0])
AT_INITIALIZATION = ("magnitude", "snip", "grasp", "synflow", "sis")
RANGES_OF_ONE = {(name, "final_sparsity"): ABOVE_0 for name in AT_INITIALIZATION}
MAY_BE_NONE = {
    "total_steps": set(METHODS),
    "frequency": {"granet", "gmp", "dpf", "st3", "rigl", "set", "itop", "mest", "snfs", "dsr"},
    "backward_sparsity": {"top_kast"},
}
WHOLE = {"seed", "total_steps", "frequency", "rounds", "batches", "samples", "iterations"}
NO_NUMBERS = {
    *(
        "scope",
        "distribution",
        "pinned",
        "capped",
        "pattern",
        "schedule",
        "input_shape",
        "normalized",
    ),
}


def taken(method_class):
    return [field.name for field in dataclasses.fields(method_class) if field.init]


NUMBERS = [
    (name, field) for name in METHODS for field in taken(METHODS[name]) if field not in NO_NUMBERS
]


def range_of(name, field):
    return RANGES_OF_ONE.get((name, field), RANGES[field])


def refused(name, field, value):
    text = rf"^`{field}` .+ Received: {field}={re.escape(repr(value))}$"
    with pytest.raises(ValueError, match=text):
        METHODS[name](**{field: value})


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_numbers_in_range_are_taken(name, field):
    inside, _, _ = range_of(name, field)
    for value in inside:
        assert getattr(METHODS[name](**{field: value}), field) == value


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_numbers_out_of_range_are_refused(name, field):
    _, below, above = range_of(name, field)
    for value in [*below, *above]:
        refused(name, field, value)


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_what_is_no_such_number_is_refused(name, field):
    for value in [NAN, INF, -INF, np.float32("nan"), "0.5", "1", "", True, False, [1], 1j, {}]:
        refused(name, field, value)
    if field in WHOLE:
        refused(name, field, 1.5)
        refused(name, field, 1.0)
    if name in MAY_BE_NONE.get(field, ()):
        METHODS[name](**{field: None})
    else:
        refused(name, field, None)


@pytest.mark.parametrize("field", ["pinned", "capped"])
def test_each_sparsity_of_a_map_is_checked(field):
    assert getattr(granet_tf.RigL(**{field: {0: 0, "a*": 0.999}}), field)["a*"] == 0.999
    for value in [-0.1, 1.0, NAN, "0.5", None, True]:
        text = rf"^`{field}\[-1\]` is the fraction of zeros and must be in \[0, 1\)\. Received: "
        with pytest.raises(ValueError, match=text + rf"{field}\[-1\]={value!r}$"):
            granet_tf.RigL(**{field: {0: 0.5, -1: value}})
    for value in [0.5, None, [(0, 0.5)]]:
        with pytest.raises(ValueError, match=rf"^`{field}` must be a mapping .* Received: {field}"):
            granet_tf.RigL(**{field: value})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"total_steps": 1.5}, "`total_steps` must be a whole number of steps > 0. Received: "),
        ({"frequency": True}, "`frequency` must be a whole number of steps > 0. Received: "),
        ({"seed": "a"}, "`seed` must be a whole number. Received: seed='a'"),
        ({"drop_fraction": NAN}, "`drop_fraction` must be a finite number in [0, 1]. Received: "),
        ({"begin_step": "0"}, "`begin_step` must be a number of optimizer steps (int) or a fracti"),
        ({"scope": None}, "`scope` must be one of ['global', 'layer']. Received: scope=None"),
    ],
)
def test_errors_say_what_was_expected(arguments, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        granet_tf.RigL(**arguments)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: granet_tf.ACDC(sparse_phase=2.0), "or a fraction of training in (0, 1] (float)."),
        (lambda: granet_tf.STR(threshold_init=INF), "`threshold_init` must be a finite number. Re"),
        (lambda: granet_tf.DeepR(l1=-1), "`l1` must be >= 0. Received: l1=-1"),
        (lambda: granet_tf.DeepR(l1="a"), "`l1` must be a finite number >= 0. Received: l1='a'"),
        (lambda: granet_tf.SNIP(rounds=0), "`rounds` must be a whole number >= 1. Received: "),
        (lambda: granet_tf.DSR(prune_threshold=0), "`prune_threshold` must be above 0. Received:"),
        (lambda: granet_tf.SNFS(growth_momentum=1), "`growth_momentum` must be in [0, 1). Receiv"),
        (lambda: parameter(0, "", unit="hours"), "`unit` must be one of ['number', 'whole', 'zer"),
    ],
)
def test_more_errors(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()


# What is declared.


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: granet_tf.GMP(0.5, patern="filter"),
            "`patern` is no parameter of GMP. Did you mean"
            r" `pattern`\? It has `begin_step`, `capped`, .*. Received: patern='filter'",
        ),
        (
            lambda: granet_tf.STR(xyzzy=1),
            "`xyzzy` is no parameter of STR. It has `seed`, "
            "`threshold_decay`, `threshold_init`, `total_steps`. Received: xyzzy=1",
        ),
    ],
)
def test_a_mistyped_parameter_is_answered_with_the_nearest(make, text):
    with pytest.raises(TypeError, match=text):
        make()


def test_a_constructor_of_ones_own_takes_what_it_likes():
    class Own(granet_tf.RigL):
        def __init__(self, percent):
            super().__init__(percent / 100)

    assert Own(percent=80).final_sparsity == 0.8


def test_the_tables_above_name_every_parameter():
    assert {field for _, field in NUMBERS} == set(RANGES)
    everything = {field for method in METHODS.values() for field in taken(method)}
    assert everything == set(RANGES) | NO_NUMBERS


@pytest.mark.parametrize("name", METHODS)
def test_every_field_is_declared(name):
    declared, method = parameters_of(METHODS[name]), METHODS[name]()
    assert list(declared) == taken(METHODS[name])
    for field, each in declared.items():
        assert re.fullmatch(r"[A-Z][^.]*\.", each.help), each.help
        assert each.default == getattr(method, field)
        is_number = each.unit is not None and Mapping not in each.kinds
        assert is_number == (field not in NO_NUMBERS)
        assert (each.choices is not None) == (field in ("scope", "distribution"))
        if is_number:
            may_be_none = name in MAY_BE_NONE.get(field, ())
            assert (types.NoneType in each.kinds) == may_be_none


def test_what_is_noted_of_a_parameter():
    sparsity = parameters_of(granet_tf.GMP)["initial_sparsity"]
    assert sparsity == Parameter(
        "Fraction of zeros before training.",
        at_least=0,
        below=1,
        unit="zeros",
        kinds=(float,),
        default=0.0,
    )
    declared = parameters_of(granet_tf.RigL)
    assert declared["frequency"].kinds == (int, types.NoneType)
    assert declared["begin_step"].kinds == (int, float)
    assert declared["begin_step"].unit == "duration"
    assert declared["seed"].unit == "whole"
    assert declared["drop_fraction"].unit == "number"
    assert declared["distribution"].choices == ("er", "erk", "uniform")


def test_a_subclass_may_give_another_default_and_no_more():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Often(granet_tf.RigL):
        frequency: int | None = 2
        hidden: float = 0.5

    ours, theirs = parameters_of(Often), parameters_of(granet_tf.RigL)
    assert ours["frequency"] == dataclasses.replace(theirs["frequency"], default=2)
    assert Often().frequency == 2
    with pytest.raises(ValueError, match="`frequency` must be a whole number"):
        Often(frequency=0)
    assert set(ours) == set(theirs)  # What is a plain field is nobody's business.
    assert set(parameters_of(granet_tf.STR)) == {
        *("seed", "total_steps", "threshold_init", "threshold_decay"),
    }


def test_a_subclass_may_declare_anew():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Narrow(granet_tf.RigL):
        drop_fraction: float = parameter(0.1, "Little.", above=0, at_most=0.2)

    with pytest.raises(ValueError, match=r"`drop_fraction` must be in \(0, 0\.2\]\. Received: "):
        Narrow(drop_fraction=0.3)
    assert parameters_of(granet_tf.RigL)["drop_fraction"].at_most == 1


# What is written about it.


def documented(method_class):
    """Names in the section Args of its docstring."""
    [args] = re.findall(r"Args:\n(.*?)(?:\n\n|\Z)", inspect.getdoc(method_class) + "\n", re.DOTALL)
    return set(re.findall(r"^ {4}(\w+):", args, re.MULTILINE))


def declared_by(method_class):
    """The parameters that the class itself declares, or gives another default."""
    return set(inspect.get_annotations(method_class)) & set(parameters_of(method_class))


@pytest.mark.parametrize("method_class", [*METHODS.values(), *BASES])
def test_docstrings_name_the_parameters(method_class):
    own = method_class.__dict__["__dataclass_fields__"]
    new = {name for name in declared_by(method_class) if own[name].metadata}
    assert new <= documented(method_class) <= set(parameters_of(method_class))


def test_rigl_is_short():
    tree = ast.parse(inspect.getsource(granet_tf.RigL)).body[0]
    assert ast.get_docstring(tree)
    docstring = range(tree.body[0].lineno, tree.body[0].end_lineno + 1)
    lines = inspect.getsource(granet_tf.RigL).splitlines()
    code = [line for n, line in enumerate(lines, 1) if line.strip() and n not in docstring]
    assert len(code) <= 15


# Which methods there are.


NAMES = {
    "granet": "GraNet",
    "gmp": "GMP",
    "rigl": "RigL",
    "set": "SET",
    "static": "StaticSparse",
    "magnitude": "MagnitudeAtInit",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "acdc": "ACDC",
    "deep_r": "DeepR",
    "dpf": "DPF",
    "dsr": "DSR",
    "itop": "ITOP",
    "mest": "MEST",
    "snfs": "SNFS",
    "sis": "SIS",
    "st3": "ST3",
    "str": "STR",
    "top_kast": "TopKAST",
}


def test_methods_are_found_by_looking():
    assert {name: kind.__name__ for name, kind in METHODS.items()} == NAMES
    assert flags.METHODS == METHODS
    for kind in METHODS.values():
        assert kind is getattr(granet_tf, kind.__name__)
