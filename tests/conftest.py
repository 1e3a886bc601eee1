"""Settings that must be in place before TensorFlow starts: two logical CPUs, quiet logs."""

import collections
import gc
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest

from granet_train.quiet_tensorflow import without_notes
from tests.support.longest import LONGEST
from tests.support.thinned import EVERY

with without_notes():
    import keras
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

# Keras and the converter to LiteRT collect garbage again and again, which among the graphs of all
# tests takes a second each time. Python does it by itself, when it has to.
gc.collect = lambda generation=2: 0

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow what `make test` leaves out of long crossings, and puts long files first; see
    `thinned` and `longest` in tests/support."""
    places = {f"tests/{path}": place for place, path in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.split("::")[0], len(places)))
    seen = collections.Counter()
    for item in items:
        test = item.nodeid.split("[")[0].removeprefix("tests/")
        # Of what is not slow anyway.
        if test in EVERY and item.get_closest_marker("slow") is None:
            if seen[test] % EVERY[test]:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """`make test` has graphs optimised only for tests that are marked so, as that takes a fifth of
    the time. `make test-all` has it done for all."""
    quick = item.config.option.markexpr == "not slow"
    off = quick and item.get_closest_marker("optimized") is None
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": off})


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, whatever ran before it."""
    with pytest.MonkeyPatch.context() as patch:
        if not drew_eagerly():
            # Making each operation's kernel anew for each test takes a tenth of the time.
            patch.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", lambda handle: None)
        keras.backend.clear_session(free_memory=False)  # A collection before each test takes long.
        keras.utils.set_random_seed(0)


def drew_eagerly():
    """Whether there may be kernels of `tf.random`, which go on where they were, since the seed was
    set last: each has drawn its own seed from that."""
    state = context.context()
    return state._seed is None or state._rng.getstate() != random.Random(state._seed).getstate()


@pytest.fixture
def float64():
    """So that nothing but the algorithm can differ from the reference."""
    for dtype in ("float64", "float32"):
        keras.config.set_floatx(dtype)
        # Keras keeps the policy that it once made of the float type.
        keras.config.set_dtype_policy(dtype)
        if dtype == "float64":
            yield


@pytest.fixture
def with_xla():
    """Keras leaves `jit_compile` out while operations are to be deterministic, as granet-train asks
    of the process that a test of it ran in before."""
    before = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    yield
    if before:
        config.enable_op_determinism()


@pytest.fixture(scope="session")
def mirrored():
    """Two replicas. One strategy a process: TensorFlow mixes up the collectives of a second one."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
