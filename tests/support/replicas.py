"""What replicas hold."""

import numpy as np


def assert_replicas_agree(strategy, pruned_weights):
    for pruned in pruned_weights:
        for variable in (pruned.mask, pruned.variable):
            first, second = strategy.experimental_local_results(variable.value)
            np.testing.assert_array_equal(first.numpy(), second.numpy())
