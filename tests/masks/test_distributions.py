"""Sparsities of layers, against published numbers and arithmetic by hand."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from granet_tf.masks import distributions
from tests.support import resnet50

THREE = {"a": (2, 4), "b": (3, 6), "c": (2, 4, 6)}
RESNET50 = {name: shape for name, shape, _ in resnet50.KERNELS}
RESNET50_FLOPS = {name: 2 * math.prod(shape) * hw**2 for name, shape, hw in resnet50.KERNELS}
BOTH = [distributions.erdos_renyi, distributions.erdos_renyi_kernel]
ALL = [distributions.uniform, *BOTH]


def resnet50_flops_ratio(sparsities):
    pooling = 2 * 7 * 7 * 2048
    sparse = sum((1 - sparsities[name]) * flops for name, flops in RESNET50_FLOPS.items())
    return (sparse + pooling) / (sum(RESNET50_FLOPS.values()) + pooling)


def nonzeros(shapes, sparsities):
    return sum(math.prod(shapes[name]) * (1 - sparsity) for name, sparsity in sparsities.items())


# Erdős–Rényi-Kernel


@pytest.mark.parametrize(
    ("shapes", "sparsity", "power", "expected"),
    [
        (THREE, 0.5, 1, {"a": 0, "b": 13 / 42, "c": 0.6547619}),
        (THREE, 0.8, 1, {"a": 5 / 9, "b": 19 / 27, "c": 23 / 27}),
        (THREE, 0.5, 2, {"a": 0, "b": 1 / 30, "c": 0.7583333}),
        ({"a": (2, 4), "c": (3, 6, 7), "d": (7, 4)}, 0.5, 1, {"a": 0, "c": 0.6428571, "d": 0}),
    ],
)
def test_erk_gives_the_published_sparsities(shapes, sparsity, power, expected):
    result = distributions.erdos_renyi_kernel(shapes, sparsity, power=power)
    assert result == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("sparsity", "dense"), [(0.8, 8), (0.9, 1), (0.95, 0)])
def test_erk_leaves_this_many_kernels_of_resnet50_dense(sparsity, dense):
    result = distributions.erdos_renyi_kernel(RESNET50, sparsity)
    assert sum(s == 0 for s in result.values()) == dense


def test_erk_at_80_percent_keeps_the_1x1_kernels_of_stage_1_of_resnet50_dense():
    result = distributions.erdos_renyi_kernel(RESNET50, 0.8)
    assert {name for name, sparsity in result.items() if sparsity == 0} == {
        "stage1_block1_conv1",
        "stage1_block1_conv3",
        "stage1_block1_shortcut",
        "stage1_block2_conv1",
        "stage1_block2_conv3",
        "stage1_block3_conv1",
        "stage1_block3_conv3",
        "stage2_block1_conv1",
    }


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (
            0.8,
            {
                "stem": 0.1428,
                "stage1_block1_conv2": 0.6381,
                "stage2_block1_conv2": 0.8231,
                "stage4_block3_conv2": 0.9565,
                "head": 0.8518,
            },
        ),
        (0.9, {"stem": 0.5800, "stage4_block3_conv2": 0.9787, "head": 0.9274}),
    ],
)
def test_erk_gives_the_published_sparsities_of_resnet50(sparsity, expected):
    result = distributions.erdos_renyi_kernel(RESNET50, sparsity)
    assert {name: round(result[name], 4) for name in expected} == expected


@pytest.mark.parametrize(
    ("sparsity", "ratio"), [(0.8, 0.4138), (0.9, 0.2418), (0.95, 0.1217), (0.965, 0.0852)]
)
def test_erk_costs_this_fraction_of_the_flops_of_resnet50(sparsity, ratio):
    result = distributions.erdos_renyi_kernel(RESNET50, sparsity)
    assert resnet50_flops_ratio(result) == pytest.approx(ratio, abs=1e-4)


# Erdős–Rényi


@pytest.mark.parametrize(
    ("shapes", "sparsity", "expected"),
    [
        (THREE, 0.5, {"a": 0.2071429, "b": 0.4714286, "c": 0.5595238}),
        ({"a": (8, 6), "b": (4, 3)}, 0.7, {"a": 0.7361111, "b": 0.4722222}),
        ({"a": (80, 4), "b": (20, 20)}, 0.8, {"a": 0.6951613, "b": 0.8838710}),
        ({"a": (2, 6), "b": (2, 3)}, 0.8, {"a": 0.7435897, "b": 0.6794872}),
    ],
)
def test_erdos_renyi_gives_the_published_sparsities(shapes, sparsity, expected):
    result = distributions.erdos_renyi(shapes, sparsity)
    assert result == pytest.approx(expected, abs=1e-6)


def test_erdos_renyi_ignores_the_spatial_dimensions():
    # Both have a ratio of 16/64, so both get the overall sparsity.
    shapes = {"conv": (3, 3, 8, 8), "dense": (8, 8)}
    assert distributions.erdos_renyi(shapes, 0.75) == pytest.approx({"conv": 0.75, "dense": 0.75})


def test_one_dimensional_weights_are_dense_beside_large_ones():
    # sum / prod of one dimension is 1, the largest ratio there is.
    shapes = {"scale": (10,), "dense": (100, 100)}
    result = distributions.erdos_renyi(shapes, 0.9)
    assert result == pytest.approx({"scale": 0, "dense": 0.9009})


# Uniform


def test_uniform_gives_every_layer_the_same():
    assert distributions.uniform(THREE, 0.7) == {"a": 0.7, "b": 0.7, "c": 0.7}


def test_uniform_does_not_make_up_for_pinned_layers():
    assert distributions.uniform(THREE, 0.7, pinned={"b": 0.1}) == {"a": 0.7, "b": 0.1, "c": 0.7}


@pytest.mark.parametrize(("sparsity", "ratio"), [(0.8, 0.2231), (0.9, 0.1260)])
def test_uniform_with_a_dense_first_layer_costs_this_fraction_of_resnet50(sparsity, ratio):
    result = distributions.uniform(RESNET50, sparsity, pinned={"stem": 0.0})
    assert resnet50_flops_ratio(result) == pytest.approx(ratio, abs=1e-4)


# Pinned layers


def test_the_rest_absorb_what_a_pinned_layer_does():
    # 74 weights, 37 nonzeros: c keeps 12, so a and b share 25 of their 26; a is full with 8.
    result = distributions.erdos_renyi_kernel(THREE, 0.5, pinned={"c": 0.75})
    assert result == pytest.approx({"a": 0, "b": 1 / 18, "c": 0.75})


def test_a_pinned_layer_keeps_its_value_exactly():
    result = distributions.erdos_renyi_kernel(THREE, 0.5, pinned={"b": 0.123456789})
    assert result["b"] == 0.123456789
    assert list(result) == ["a", "b", "c"]


def test_all_layers_may_be_pinned_if_they_add_up():
    pinned = {"a": 0.25, "b": 0.75}
    shapes = {"a": (4, 4), "b": (4, 4)}
    assert distributions.erdos_renyi(shapes, 0.5, pinned=pinned) == pinned


@pytest.mark.parametrize("distribution", ALL)
def test_no_sparsity_is_dense_everywhere(distribution):
    assert distribution(RESNET50, 0.0) == dict.fromkeys(RESNET50, 0.0)


# What holds for any shapes

shape_maps = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("distribution", BOTH)
@given(shapes=shape_maps, percent=st.integers(0, 99), power=st.sampled_from([0.5, 1.0, 2.0]))
def test_the_overall_number_of_nonzeros_is_as_asked(distribution, shapes, percent, power):
    result = distribution(shapes, percent / 100, power=power)
    expected = sum(
        math.prod(shape) - math.prod(shape) * percent // 100 for shape in shapes.values()
    )
    assert nonzeros(shapes, result) == pytest.approx(expected)
    assert list(result) == list(shapes)
    assert all(0 <= sparsity < 1 for sparsity in result.values())


@pytest.mark.parametrize("distribution", BOTH)
@given(shapes=shape_maps, percent=st.integers(0, 99), pin=st.integers(0, 99))
def test_pinning_keeps_the_overall_number_of_nonzeros(distribution, shapes, percent, pin):
    first = next(iter(shapes))
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    try:
        result = distribution(shapes, percent / 100, pinned={first: pin / 100})
    except ValueError:
        # Only if the others would have to be more than full, or empty.
        rest = sum(sizes.values()) - sizes[first]
        left = sum(n - n * percent // 100 for n in sizes.values())
        left -= sizes[first] - sizes[first] * pin // 100
        assert not (1 <= left <= rest)
    else:
        assert result[first] == pin / 100
        expected = sum(n - n * percent // 100 for n in sizes.values())
        # The pinned layer rounds to whole weights.
        assert nonzeros(shapes, result) == pytest.approx(expected, abs=1)
        assert all(0 <= sparsity < 1 for sparsity in result.values())


# Errors


@pytest.mark.parametrize("distribution", ALL)
@pytest.mark.parametrize(
    ("shapes", "sparsity", "pinned", "message"),
    [
        (
            {},
            0.5,
            {},
            "Argument `shapes` must have at least one weight. Received: shapes={}",
        ),
        (
            {"a": ()},
            0.5,
            {},
            "Argument `shapes` must map each name to a shape of one or more positive dimensions. "
            "Received: shapes['a']=()",
        ),
        (
            {"a": (3, 0)},
            0.5,
            {},
            "Argument `shapes` must map each name to a shape of one or more positive dimensions. "
            "Received: shapes['a']=(3, 0)",
        ),
        (
            THREE,
            1.2,
            {},
            "Argument `sparsity` must be in the range [0, 1). Received: sparsity=1.2",
        ),
        (
            THREE,
            1.0,
            {},
            "Argument `sparsity` must be in the range [0, 1). Received: sparsity=1.0",
        ),
        (
            THREE,
            -0.1,
            {},
            "Argument `sparsity` must be in the range [0, 1). Received: sparsity=-0.1",
        ),
        (
            THREE,
            math.nan,
            {},
            "Argument `sparsity` must be in the range [0, 1). Received: sparsity=nan",
        ),
        (
            THREE,
            0.5,
            {"d": 0.5},
            "Argument `pinned` must only name weights that are in `shapes`, ['a', 'b', 'c']. "
            "Received: pinned={'d': 0.5}",
        ),
        (
            THREE,
            0.5,
            {"a": 1.0},
            "Argument `pinned` must hold sparsities in the range [0, 1). "
            "Received: pinned={'a': 1.0}",
        ),
    ],
)
def test_bad_arguments_raise(distribution, shapes, sparsity, pinned, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        distribution(shapes, sparsity, pinned=pinned)


@pytest.mark.parametrize("distribution", BOTH)
@pytest.mark.parametrize("power", [0, -1.0, math.inf, math.nan])
def test_a_power_that_is_not_positive_raises(distribution, power):
    message = f"Argument `power` must be a finite number above 0. Received: power={power}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        distribution(THREE, 0.5, power=power)


@pytest.mark.parametrize("distribution", BOTH)
@pytest.mark.parametrize(
    ("sparsity", "pinned", "message"),
    [
        (
            0.1,
            {"c": 0.9},
            "the layers that are not pinned have 26 weights, and 64 of them would have to be "
            "nonzero. Received: sparsity=0.1, pinned={'c': 0.9}",
        ),
        (
            0.9,
            {"c": 0.0},
            "the layers that are not pinned have 26 weights, and -40 of them would have to be "
            "nonzero. Received: sparsity=0.9, pinned={'c': 0.0}",
        ),
        (
            0.5,
            {"a": 0.5, "b": 0.5, "c": 0.75},
            "the layers that are not pinned have 0 weights, and 12 of them would have to be "
            "nonzero. Received: sparsity=0.5, pinned={'a': 0.5, 'b': 0.5, 'c': 0.75}",
        ),
    ],
)
def test_pinned_layers_that_make_the_total_impossible_raise(
    distribution, sparsity, pinned, message
):
    message = f"Argument `pinned` makes the overall sparsity impossible: {message}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        distribution(THREE, sparsity, pinned=pinned)
