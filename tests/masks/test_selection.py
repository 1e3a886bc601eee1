from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from granet_tf.masks import joined
from granet_tf.masks.patterns import Element
from granet_tf.masks.selection import count, count_each, rank, select, top_of_each
from granet_tf.masks.units import Units
from tests.support.models import bits
from tests.support.reference import top_k

pytestmark = pytest.mark.optimized

compiled = tf.function(select, jit_compile=True)
in_graph = tf.function(select)
# The most units that a small weight has. So all are small, none, or some; small ones are ranked by
# other histograms, together or one after the other.
SMALL = [1 << 18, 0, 1000]


def test_global_magnitude_ranks_all_tensors_together():
    a, b = np.abs([0.1, 0.9, -0.2, 0.5]), np.array([0.7, 0.8])
    masks = select([a, b], [np.ones(4, bool), np.ones(2, bool)], 4)
    assert [bits(m) for m in masks] == ["0101", "11"]


def test_ties_go_to_the_lower_index():
    [mask] = select([np.full(8, 3.0)], [np.ones(8, bool)], 4)
    assert bits(mask) == "11110000"


def test_ties_go_to_the_earlier_tensor():
    masks = select([np.ones(3), np.ones(3)], [np.ones(3, bool)] * 2, 4)
    assert [bits(m) for m in masks] == ["111", "100"]


def test_ineligible_entries_are_never_chosen():
    eligible = [np.array([False, True, False, True])]
    assert bits(select([np.array([9.0, -1.0, 8.0, -2.0])], eligible, 1)[0]) == "0100"
    assert bits(select([np.array([9.0, -1.0, 8.0, -2.0])], eligible, 9)[0]) == "0101"


def test_zero_of_them_is_none():
    assert bits(select([np.ones(5)], [np.ones(5, bool)], 0)[0]) == "00000"


def test_extremes_of_float32_are_ordered():
    tiny, huge = 1e-45, 3.4e38
    score = np.array([0.0, tiny, -tiny, huge, -huge, np.inf, -np.inf], np.float32)
    ranked = [3, 1, 0, 2, 4, 6]
    for k, last in enumerate([5, *ranked], start=1):
        expected = np.isin(np.arange(7), [5, *ranked][:k])
        assert bits(select([score], [np.ones(7, bool)], k)[0]) == bits(expected), last


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=3),
    levels=st.sampled_from([2, 5, 10**6]),
    share=st.floats(0.0, 1.1),
    small=st.sampled_from(SMALL),
)
def test_agrees_with_sorting(seed, sizes, levels, share, small):
    rng = np.random.default_rng(seed)
    scores = [(rng.integers(-levels, levels, n) / 7.0 + 0.0).astype(np.float32) for n in sizes]
    eligible = [rng.random(n) < 0.7 for n in sizes]
    k = int(share * sum(sizes))
    expected = top_k(scores, eligible, k)
    with mock.patch.object(joined, "_SMALL", small):
        masks = select(scores, eligible, k)
    for mask, reference in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, reference)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    levels=st.sampled_from([2, 5, 10**6]),
    small=st.sampled_from(SMALL),
)
def test_each_weight_for_itself_agrees_with_sorting(seed, sizes, levels, small):
    rng = np.random.default_rng(seed)
    scores, growth = (
        [(rng.integers(-levels, levels, n) / 7.0 + 0.0).astype(np.float32) for n in sizes]
        for _ in "ab"
    )
    active = [rng.random(n) < 0.7 for n in sizes]
    k = [int(rng.random() * n) for n in sizes]
    names, patterns = [str(i) for i in range(len(sizes))], [(Element(), Element())] * len(sizes)
    with mock.patch.object(joined, "_SMALL", small):
        [units] = Units.of(names, patterns, [tf.constant(each) for each in active])
        ranking = rank(units.pool([tf.constant(score) for score in scores]), units.active)
        best = top_of_each(ranking, tf.constant(k))
        exchanged = units.exchange(
            [ranking], units.pool(growth), tf.constant(0.3, tf.float64), units.active
        )
    assert count_each(best).numpy().tolist() == [
        min(n, each.sum()) for n, each in zip(k, active, strict=True)
    ]
    found = zip(units.expand(best), units.expand(exchanged), strict=True)
    for i, (mask, new) in enumerate(found):
        [expected] = top_k([scores[i]], [active[i]], k[i])
        np.testing.assert_array_equal(mask, expected)
        alive = active[i].sum()
        dropped = -(-3 * alive // 10)
        [kept] = top_k([scores[i]], [active[i]], alive - dropped)
        [grown] = top_k([growth[i]], [~kept], dropped)
        np.testing.assert_array_equal(new, kept | grown)


@pytest.mark.parametrize("function", [in_graph, compiled], ids=["graph", "xla"])
@pytest.mark.parametrize("k", [0, 1, 2500, 6001, 9000])
def test_the_same_in_a_graph_and_under_xla(function, k):
    rng = np.random.default_rng(k)
    # Few levels, more entries than one block of the tie search.
    scores = [tf.constant(rng.integers(0, 3, n), tf.float32) for n in (6000, 4500)]
    eligible = [tf.constant(rng.random(n) < 0.8) for n in (6000, 4500)]
    masks = function(scores, eligible, tf.constant(k))
    expected = top_k([s.numpy() for s in scores], [e.numpy() for e in eligible], k)
    for mask, reference in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, reference)


@pytest.mark.parametrize("ties", [False, True])
def test_counts_are_exact_at_25_million(ties):
    size, k = 25_502_912, 2_550_291
    score = tf.zeros(size) if ties else tf.random.stateless_normal([size], [1, 2])
    [mask] = in_graph([score], [tf.ones(size, tf.bool)], tf.constant(k))
    assert int(np.count_nonzero(mask)) == k
    if ties:
        assert mask.numpy()[:k].all()
    else:
        values = score.numpy()
        assert values[mask.numpy()].min() >= values[~mask.numpy()].max()


def test_count_does_not_round_beyond_two_to_the_24():
    assert int(count(tf.ones(2**24 + 1, tf.bool))) == 2**24 + 1
