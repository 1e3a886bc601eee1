"""What many tests run with: both modes, and the simplest schedules."""

import functools

import pytest

import granet_tf

MODES = pytest.mark.parametrize("mask_only", [False, True], ids=["zero", "mask_only"])
# GMP of the original, which prunes all weights alike, so that each one's count is known.
uniform_gmp = functools.partial(granet_tf.GMP, distribution="uniform")
HALF = granet_tf.ConstantSparsity(0.5, 0, frequency=1)
# Due long after these trainings end: masks stay all True.
NEVER = granet_tf.GMP(0.9, begin_step=10_000, end_step=20_000, total_steps=30_000)
