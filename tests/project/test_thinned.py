"""Tests whose cases `make test` thins out exist, and have cases; so do files that come first."""

import ast

import pytest

from tests.support import ROOT
from tests.support.longest import LONGEST
from tests.support.thinned import EVERY


@pytest.mark.parametrize("test", EVERY)
def test_it_is_there_and_has_cases(test):
    path, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    [found] = [node for node in tree.body if getattr(node, "name", None) == name]
    assert found.decorator_list and EVERY[test] > 1


def test_files_that_come_first_exist():
    assert all((ROOT / "tests" / path).is_file() for path in LONGEST)
    assert len({*LONGEST}) == len(LONGEST)
