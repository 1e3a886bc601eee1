"""Selection for XLA: of each weight, and with what fills rows up never chosen or counted."""

import numpy as np
import pytest
import tensorflow as tf

from granet_tf.masks.bisection import Rows
from granet_tf.masks.patterns import Element
from granet_tf.masks.selection import count_all, count_each, rank, top_of_each
from granet_tf.masks.units import Units
from tests.support.reference import top_k

SIZES = [(3,), (40, 60), (1024,), (1025,), (1,)]


@tf.function(jit_compile=True)
def chosen(scores, eligible, k):
    patterns = [(Element(), Element())] * len(eligible)
    [units] = Units.of([str(i) for i in range(len(eligible))], patterns, eligible)
    mask = top_of_each(rank(units.pool(scores), units.active), k)
    return mask.split(), count_each(mask), count_all(~mask)


@pytest.mark.parametrize("levels", [2, 10**6], ids=["ties", "distinct"])
def test_the_best_of_each_weight(levels):
    rng = np.random.default_rng(levels)
    scores = [(rng.integers(-levels, levels, s) / 7.0).astype("float32") for s in SIZES]
    eligible = [rng.random(s) < 0.7 for s in SIZES]
    for share in (0.0, 0.3, 1.1):
        k = [int(share * e.sum()) for e in eligible]
        masks, counts, rest = chosen(
            list(map(tf.constant, scores)), list(map(tf.constant, eligible)), tf.constant(k)
        )
        for mask, score, allowed, number in zip(masks, scores, eligible, k, strict=True):
            [expected] = top_k([score.ravel()], [allowed.ravel()], number)
            np.testing.assert_array_equal(mask, expected.reshape(score.shape))
        assert counts.numpy().tolist() == [
            min(n, e.sum()) for n, e in zip(k, eligible, strict=True)
        ]
        assert rest == sum(e.size for e in eligible) - counts.numpy().sum()


def test_regeneration_under_xla_is_that_of_eager_execution():
    rng = np.random.default_rng(0)
    masks = [tf.constant(rng.random(s) < 0.4) for s in SIZES[1:4]]
    scores, growth = ([rng.normal(size=m.shape).astype("float32") for m in masks] for _ in "ab")
    patterns, half = [(Element(), Element())] * 3, tf.constant(0.5, tf.float64)

    def exchanged():
        [units] = Units.of("abc", patterns, masks)
        tiers = (rank(units.pool(scores), units.active),)
        return units.expand(units.exchange(tiers, units.pool(growth), half, units.active))

    compiled = tf.function(exchanged, jit_compile=True)()
    for ours, theirs, before in zip(compiled, exchanged(), masks, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.count_nonzero(ours) == np.count_nonzero(before)


def test_one_segment_of_all_takes_ties_in_order():
    rows = Rows.of([2, 1025])
    keys = tf.zeros(3 * 1024, tf.int32)
    mask = rows.top(keys, tf.ones_like(keys, tf.bool), tf.constant(4, tf.int64)).numpy()
    # Two of the first weight, which fills its row up, and two of the second.
    assert np.flatnonzero(mask).tolist() == [0, 1, 1024, 1025]


def test_the_smallest_and_the_largest_keys():
    keys = tf.constant([tf.int32.max, tf.int32.min + 1, 0] + [0] * 1021)
    rows, eligible = Rows.of([3]), tf.ones(1024, tf.bool)
    for k, expected in [(0, []), (1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (9, [0, 1, 2])]:
        mask = rows.top(keys, eligible, tf.constant([k], tf.int64)).numpy()
        assert np.flatnonzero(mask).tolist() == expected
