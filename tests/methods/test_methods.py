import dataclasses
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import granet_tf
from granet_tf.methods import GMP, SET, GraNet, Method, RigL, StaticSparse
from tests.support.models import bits
from tests.support.reference import keep_count

ALL_METHODS = [GraNet, GMP, RigL, SET, StaticSparse]


def mask_of(text):
    return np.array([c == "1" for c in text])


@dataclasses.dataclass(frozen=True, kw_only=True)
class BySignedWeight(RigL):
    """Drops the lowest signed weight, grows the largest |w|: as in the known answers."""

    def drop_score(self, weight, gradient, seed):
        return weight


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, "01010110"),
        (0.25, "11010100"),
        (0.5, "11001100"),
        (0.75, "10101100"),
        (1.0, "10101100"),
    ],
)
def test_regeneration_of_known_answers(fraction, expected):
    param = np.array([-9, 1, 4, -1, 5, 8, -2, 3], np.float32)
    method = BySignedWeight(
        0.5, frequency=1, end_step=10, drop_fraction=fraction, final_drop_fraction=fraction
    )
    masks, _ = method.update_masks(
        tf.constant(1), ["w"], [param], [mask_of("01010110")], [tf.constant(param)]
    )
    assert bits(masks[0]) == expected


A = np.array([0.9, -0.1, 0.4, -0.7, 0.05, 0.3], np.float32)
A_GRADIENT = np.array([0.01, 0.5, -0.2, 0.03, -0.8, 0.1], np.float32)
B = np.array([1.2, -0.2, 0.6, 0.02], np.float32)
B_GRADIENT = np.array([0.02, -0.3, 0.04, 0.9], np.float32)


def granet_at(sparsity, drop_fraction):
    return GraNet(
        sparsity,
        initial_sparsity=sparsity,
        end_step=1,
        frequency=1,
        total_steps=10,
        drop_fraction=drop_fraction,
        final_drop_fraction=drop_fraction,
    )


@pytest.mark.parametrize(
    ("drop_fraction", "a", "b"), [(0.0, "101101", "1010"), (0.5, "110110", "1001")]
)
def test_granet_prunes_globally_then_regenerates_in_each_tensor(drop_fraction, a, b):
    everything = [np.ones(6, bool), np.ones(4, bool)]
    masks, survivors = granet_at(0.4, drop_fraction).update_masks(
        tf.constant(1), ["a", "b"], [A, B], everything, [A_GRADIENT, B_GRADIENT]
    )
    assert [bits(m) for m in masks] == [a, b]
    if drop_fraction:
        # 0.9 and −0.7, and 1.2, live on; −0.1, 0.05 and 0.02 were pruned first and start anew.
        assert [bits(s) for s in survivors] == ["100100", "1000"]


def test_what_is_dropped_and_grown_in_one_update_survives():
    weight = np.array([1.0, 0.1, 0.5, 0.0], np.float32)
    gradient = np.array([0.0, 9.0, 1.0, 2.0], np.float32)
    masks, survivors = granet_at(0.25, 1 / 3).update_masks(
        tf.constant(1), ["w"], [weight], [mask_of("1110")], [gradient]
    )
    assert (bits(masks[0]), bits(survivors[0])) == ("1110", "1110")


@pytest.mark.parametrize(
    "sparsities", [(0.0, 0.1, 0.1, 0.3, 0.3, 0.5)], ids=["as tfmot's own test"]
)
def test_gmp_counts_in_the_original_semantics(sparsities):
    table = tf.constant(sparsities)
    method = GMP(0.5, schedule=lambda step: (True, table[step]))
    weight = np.linspace(1.0, 100.0, 100, dtype=np.float32)
    counts, mask = [], np.ones(100, bool)
    for step in range(6):
        [mask], _ = method.update_masks(
            tf.constant(step), ["w"], [weight], [mask], [weight], dormant_compete=True
        )
        counts.append(int(np.count_nonzero(mask)))
    assert counts == [100, 90, 90, 70, 70, 50]


def test_at_least_one_weight_of_a_tensor_is_kept():
    method = GMP(0.9999, schedule=granet_tf.ConstantSparsity(0.9999, 0))
    weight = np.linspace(1.0, 100.0, 100, dtype=np.float32)
    [mask], _ = method.update_masks(tf.constant(0), ["w"], [weight], [np.ones(100, bool)], [weight])
    assert np.flatnonzero(mask).tolist() == [99]


SHAPES = {"first": (3, 3, 3, 8), "middle": (3, 3, 8, 16), "last": (16, 10)}
SIZES = {"first": 216, "middle": 1152, "last": 160}


def nonzeros(method, step=1):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=s).astype(np.float32) for s in SHAPES.values()]
    everything = [np.ones(s, bool) for s in SHAPES.values()]
    masks, _ = method.update_masks(tf.constant(step), list(SHAPES), weights, everything, weights)
    return {path: int(np.count_nonzero(m)) for path, m in zip(SHAPES, masks, strict=True)}


def test_layer_scope_prunes_each_tensor_to_its_own_count():
    method = GMP(0.9, distribution="uniform", end_step=1, frequency=1)
    assert nonzeros(method) == {p: keep_count(n, 0.9) for p, n in SIZES.items()}


def test_gales_gmp_keeps_the_first_dense_and_the_last_at_its_cap():
    pins = {"pinned": {0: 0.0}, "capped": {-1: 0.8}}
    method = GMP(0.9, distribution="uniform", end_step=1, frequency=1, **pins)
    assert nonzeros(method) == {"first": 216, "middle": 115, "last": 32}


def test_pins_and_caps_in_global_scope_leave_the_total_as_asked():
    method = GMP(0.9, scope="global", end_step=1, frequency=1, pinned={"f*": 0.75}, capped={2: 0.5})
    found = nonzeros(method)
    assert found["first"] == 54
    assert found["last"] >= 80
    assert sum(found.values()) == 153


@pytest.mark.parametrize("options", [{}, {"scope": "global"}, {"distribution": "uniform"}])
def test_pins_and_caps_hold_where_a_schedule_goes_further_than_the_method(options):
    schedule = granet_tf.ConstantSparsity(0.9, 0, frequency=1)
    found = nonzeros(GMP(0.8, schedule=schedule, pinned={0: 0.5}, capped={-1: 0.85}, **options))
    assert found["first"] == 108
    assert found["last"] >= 24
    if "distribution" in options:
        assert (found["middle"], found["last"]) == (115, 24)  # Each by itself.
    else:
        assert abs(sum(found.values()) - 153) <= 1  # The others make up for them.


def test_a_cap_that_only_a_schedule_of_ones_own_reaches_holds():
    schedule = granet_tf.ConstantSparsity(0.9, 0, frequency=1)
    method = GMP(0.5, distribution="uniform", schedule=schedule, capped={-1: 0.6})
    assert nonzeros(method) == {"first": 22, "middle": 115, "last": 64}


def test_a_schedule_that_goes_further_than_the_method_says_is_met_overall():
    schedule = granet_tf.ConstantSparsity(0.98, 0, frequency=1)
    found = nonzeros(GMP(0.8, schedule=schedule, end_step=1, frequency=1))
    total = sum(SIZES.values())
    assert abs(sum(found.values()) - 0.02 * total) <= len(SIZES) / 2
    # What ERK leaves at 0.8 is thinned out alike in all weights.
    at_first = nonzeros(GMP(0.8, end_step=1, frequency=1))
    assert all(abs(found[p] - at_first[p] / 10) <= 1 for p in SIZES)


def test_layer_scope_with_erk_ends_at_the_erk_sparsities():
    method = GMP(0.9, distribution="erk", end_step=1, frequency=1)
    sparsities = granet_tf.masks.distributions.erdos_renyi_kernel(SHAPES, 0.9)
    assert nonzeros(method) == {p: keep_count(SIZES[p], sparsities[p]) for p in SHAPES}


@pytest.mark.parametrize("distribution", ["erk", "er", "uniform"])
def test_initial_masks_are_exact_in_count(distribution):
    masks = GraNet(0.9, initial_sparsity=0.5, distribution=distribution).initial_masks(SHAPES)
    spread = {
        "erk": granet_tf.masks.distributions.erdos_renyi_kernel,
        "er": granet_tf.masks.distributions.erdos_renyi,
        "uniform": granet_tf.masks.distributions.uniform,
    }[distribution](SHAPES, 0.5)
    counts = {path: int(np.count_nonzero(mask)) for path, mask in masks.items()}
    assert counts == {p: keep_count(SIZES[p], spread[p]) for p in SHAPES}


def test_initial_masks_depend_on_seed_and_path_only():
    shapes = {"a": (40, 40), "b": (40, 40)}
    one, again = (StaticSparse(0.5, seed=7).initial_masks(shapes) for _ in range(2))
    other = StaticSparse(0.5, seed=8).initial_masks(shapes)
    np.testing.assert_array_equal(one["a"], again["a"])
    # Two independent masks of half the entries differ in about half of them.
    for different in (one["b"], other["a"]):
        assert 0.4 < np.mean(one["a"].numpy() != different.numpy()) < 0.6


def test_initial_masks_do_not_depend_on_how_many_layers_keras_has_named():
    first = StaticSparse(0.5).initial_masks({"dense/kernel": (9, 9), "dense_1/kernel": (9, 9)})
    later = StaticSparse(0.5).initial_masks({"dense_6/kernel": (9, 9), "dense_7/kernel": (9, 9)})
    for a, b in zip(first.values(), later.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(*first.values())


def test_pins_and_caps_that_keep_too_much_are_refused():
    with pytest.raises(
        ValueError, match=r"keep at least 1152 of the 153 weights.*Received: pinned"
    ):
        GraNet(0.9, pinned={1: 0.0}).initial_masks(SHAPES)


def test_set_grows_at_random_differently_at_each_step_and_weight():
    method = SET(0.5, end_step=1.0, total_steps=1000, frequency=1, drop_fraction=1.0)
    weight, mask = np.ones(2000, np.float32), np.arange(2000) < 1000
    grown = {}
    for step, path in ((1, "a"), (2, "a"), (1, "b")):
        [new], _ = method.update_masks(tf.constant(step), [path], [weight], [mask], [weight])
        assert int(np.count_nonzero(new)) == 1000
        grown[step, path] = new.numpy()
    for other in ((2, "a"), (1, "b")):
        assert 0.4 < np.mean(grown[1, "a"] != grown[other]) < 0.6


@pytest.mark.parametrize("method", [RigL, SET])
def test_a_method_takes_at_most_15_lines_beyond_its_docstring(method):
    source = inspect.getsource(method).replace(f'"""{method.__doc__}"""', "")
    lines = [line for line in source.splitlines() if line.strip()]
    # Decorators and the class line are the form, not the method.
    body = [line for line in lines if not line.startswith(("@", "class"))]
    assert len(body) <= 15, body


@pytest.mark.parametrize("method", ALL_METHODS)
def test_config_round_trip(method):
    made = method(0.8, pinned={0: 0.0, "*dense*": 0.5}, capped={-1: 0.8}, seed=3, total_steps=70)
    config = keras.saving.serialize_keras_object(made)
    assert keras.saving.deserialize_keras_object(config) == made


def test_paper_defaults():
    granet = GraNet().resolve(1000)
    assert (granet.final_sparsity, granet.initial_sparsity, granet.scope) == (0.9, 0.0, "global")
    schedule = granet.make_schedule()
    assert (schedule.begin_step, schedule.end_step, schedule.frequency) == (0, 500, 10)
    assert (schedule.drop_fraction, schedule.final_drop_fraction) == (0.5, 0.005)
    assert (GMP().scope, GMP().distribution) == ("layer", "erk")
    assert (RigL().drop_fraction, RigL().end_step, RigL().distribution) == (0.3, 0.75, "erk")
    assert (SET().drop_fraction, SET().distribution) == (0.3, "er")


def test_durations_are_steps_or_fractions_of_training():
    assert GraNet(begin_step=10, end_step=0.25).resolve(1000).steps("end_step") == 250
    assert GraNet(end_step=333).resolve(1000).steps("end_step") == 333
    assert GraNet(end_step=np.int64(333)).resolve(1000).steps("end_step") == 333
    assert GraNet(total_steps=5).resolve(1000).total_steps == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraNet(1.0), r"`final_sparsity`.*Received: final_sparsity=1\.0$"),
        (lambda: GraNet(90), r"`final_sparsity`.*Received: final_sparsity=90$"),
        (lambda: GraNet(0.5, initial_sparsity=0.6), r"initial_sparsity=0\.6, final_sparsity=0\.5$"),
        (lambda: GraNet(scope="globl"), r"`scope` .*\['global', 'layer'\].*scope='globl'$"),
        (lambda: GraNet(distribution="erkk"), r"`distribution`.*'erk', 'uniform'.*='erkk'$"),
        (lambda: GraNet(begin_step=0.6, end_step=0.5), r"begin_step=0\.6, end_step=0\.5$"),
        (lambda: GraNet(end_step=1.5), r"fraction of training in \[0, 1\].*end_step=1\.5$"),
        (lambda: GraNet(begin_step=-1), r"`begin_step`.*begin_step=-1$"),
        (lambda: GraNet(frequency=0), r"`frequency`.*whole number.*Received: frequency=0$"),
        (lambda: GraNet(drop_fraction=2.0), r"`drop_fraction`.*drop_fraction=2\.0$"),
        (lambda: GraNet(pinned={0: 1.0}), r"`pinned\[0\]`.*pinned\[0\]=1\.0$"),
        (lambda: GraNet(total_steps=0), r"`total_steps`.*total_steps=0$"),
        (lambda: GraNet().make_schedule(), r"length of training is not known.*call fit\(\)"),
        (
            lambda: StaticSparse(0.5, pinned={"nope*": 0.0}).initial_masks(SHAPES),
            r"key of `pinned`.*\['first', 'middle', 'last'\].*Received: pinned=\{'nope\*': 0\.0\}$",
        ),
        (
            lambda: StaticSparse(0.5, pinned={3: 0.0}).initial_masks(SHAPES),
            r"3 prunable weights.*Received: pinned=\{3: 0\.0\}$",
        ),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_method_without_a_schedule_says_so():
    with pytest.raises(NotImplementedError, match="Method must implement make_schedule"):
        Method().make_schedule()


@pytest.mark.parametrize(
    ("method", "needs"),
    [
        (granet_tf.GraNet(0.5), True),
        (granet_tf.RigL(0.5), True),
        (granet_tf.SET(0.5), False),  # grows at random
        (granet_tf.GMP(0.5), False),
        (granet_tf.StaticSparse(0.5), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_methods_need_the_dense_gradient(method, needs):
    assert method.needs_gradient is needs


@pytest.mark.parametrize("calls_super", [False, True])
def test_an_own_update_masks_is_what_updates(calls_super):
    class KeepsFirst(granet_tf.GMP):
        """Keeps the first weights, whatever they are."""

        def update_masks(self, step, paths, weights, masks, gradients, **options):
            if calls_super:  # Ranks by place.
                places = [
                    -tf.reshape(tf.range(float(w.shape.num_elements())) + 1.0, w.shape)
                    for w in weights
                ]
                lasts, _ = super().update_masks(
                    step, paths, [1.0 / p for p in places], masks, gradients, **options
                )
                return lasts, lasts
            first = [np.arange(w.shape.num_elements()).reshape(w.shape) < 4 for w in weights]
            return [tf.constant(f) for f in first], [tf.constant(f) for f in first]

    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    schedule = granet_tf.ConstantSparsity(0.75, 1, frequency=1)
    model = granet_tf.wrap(net, KeepsFirst(schedule=schedule))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 4)), batch_size=1, verbose=0)
    mask = model.pruned[0].mask.numpy()
    np.testing.assert_array_equal(mask, [[True] * 4, [False] * 4, [False] * 4, [False] * 4])
    assert np.count_nonzero(net.layers[0].kernel) == 4
