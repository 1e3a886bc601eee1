"""Units of recurrent layers, in one direction and in both, and dense layers at each step."""

import keras
import numpy as np
import pytest

import granet_tf
from granet_tf import compaction
from granet_tf.structured.dependency_groups import dependencies
from tests.support.compacting import (
    check_compacted,
    check_random_groups,
    compacted,
    fill,
    kept,
    same_outputs,
    sequential,
    silence,
    without_groups,
)
from tests.support.random_graphs import RandomRecurrence

layers = keras.layers
GATES = {layers.SimpleRNN: 1, layers.GRU: 3, layers.LSTM: 4}
CANDIDATE = {layers.SimpleRNN: 0, layers.GRU: 2, layers.LSTM: 2}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def silence_units(layer, units, *, inputs=True, states=True, bias=True):
    """Sets to zero what leads to the candidates of units; other gates stay as they are."""
    cell, gates = layer.cell, GATES[type(layer)]
    weights = [cell.kernel] * inputs + [cell.recurrent_kernel] * states
    for weight in [*weights, *([cell.bias] if bias and cell.bias is not None else [])]:
        value = weight.numpy().reshape(*weight.shape[:-1], gates, layer.units)
        value[..., CANDIDATE[type(layer)], units] = 0
        weight.assign(value.reshape(weight.shape))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("sequences", [True, False])
def test_units_that_stay_zero_go(rng, kind, sequences):
    model = sequential(
        (5, 3), kind(6, return_sequences=sequences, name="rnn"), layers.Dense(2, name="head")
    )
    fill(model, rng)
    layer = model.get_layer("rnn")
    silence_units(layer, [1, 4])
    before = layer.cell.kernel.numpy()
    small = compacted(model, rng).get_layer("rnn")
    assert (small.units, small.return_sequences) == (4, sequences)
    gates = before.reshape(3, GATES[kind], 6)[..., [0, 2, 3, 5]]
    np.testing.assert_array_equal(small.cell.kernel.numpy(), gates.reshape(3, -1))
    assert small.cell.recurrent_kernel.shape == (4, 4 * GATES[kind])
    assert kept(model) == {"rnn": 4, "head": 2}


@pytest.mark.parametrize("kind", GATES)
def test_a_unit_that_is_fed_by_another_stays(rng, kind):
    """Units 0 and 1 have no inputs: 0 has a bias, and 1 reads it; 2 and 3 read only each other."""
    model = sequential((5, 3), kind(5, name="rnn"), layers.Dense(2, name="head"))
    fill(model, rng)
    layer = model.get_layer("rnn")
    silence_units(layer, [0], states=False, bias=False)
    silence_units(layer, [1], states=False)
    silence_units(layer, [2, 3])
    gates, candidate = GATES[kind], CANDIDATE[kind]
    recurrent = layer.cell.recurrent_kernel.numpy().reshape(5, gates, 5)
    recurrent[[2, 3], candidate, [3, 2]] = 1.0
    layer.cell.recurrent_kernel.assign(recurrent.reshape(5, -1))
    assert compacted(model, rng).get_layer("rnn").units == 3


@pytest.mark.parametrize("kind", GATES)
def test_units_that_nobody_reads_go(rng, kind):
    """The first is read by the head, and reads the second at the next step; no one the third."""
    model = sequential((5, 3), kind(3, name="rnn"), layers.Dense(2, name="head"))
    fill(model, rng)
    silence(model.get_layer("head"), inputs=[1, 2])
    cell = model.get_layer("rnn").cell
    recurrent = cell.recurrent_kernel.numpy().reshape(3, -1, 3)
    recurrent[2, :, :2] = 0
    cell.recurrent_kernel.assign(recurrent.reshape(3, -1))
    assert compacted(model, rng).get_layer("rnn").units == 2


@pytest.mark.parametrize("kind", GATES)
def test_constants_move_into_the_bias(rng, kind):
    model = sequential(
        (5, 3), layers.Dense(4, "sigmoid", name="before"), kind(3, name="rnn"), layers.Dense(2)
    )
    fill(model, rng, zero=[("before", [0, 2])])
    small = compacted(model, rng)
    assert small.get_layer("before").units == 2
    assert small.get_layer("rnn").cell.kernel.shape == (2, 3 * GATES[kind])


def test_both_directions_keep_equally_many(rng):
    model = sequential(
        (5, 3),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="concat"),
        layers.Bidirectional(layers.GRU(4), merge_mode="sum", name="sum"),
        layers.Dense(2, name="head"),
    )
    fill(model, rng)
    concat, summed = (model.get_layer(name) for name in ("concat", "sum"))
    silence_units(concat.forward_layer, [0, 1])
    silence_units(concat.backward_layer, [3])
    silence_units(summed.forward_layer, [0, 1])
    silence_units(summed.backward_layer, [1, 2])
    small = compacted(model, rng)
    assert kept(model) == {"concat": 6, "sum": 3, "head": 2}
    concat = small.get_layer("concat")
    assert (concat.forward_layer.units, concat.backward_layer.units) == (3, 3)
    assert concat.backward_layer.go_backwards


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.LSTM(4, activation="sigmoid"), "makes something else of 0"),
        (lambda: layers.GRU(4, stateful=True), "from batch to batch"),
        (lambda: layers.RNN(layers.GRUCell(4)), "there is no rule for a RNN"),
        (lambda: layers.Bidirectional(layers.RNN(layers.GRUCell(4))), "a RNN inside it"),
    ],
)
def test_where_units_stay(rng, layer, reason):
    inputs = keras.Input((5, 3), batch_size=4)
    model = keras.Model(inputs, layers.Dense(2, name="head")(layer()(inputs)))
    fill(model, rng)
    silence(model.get_layer("head"), inputs=[0, 1])
    assert granet_tf.compact(model).count_params() == model.count_params()
    [(_, why)] = compaction.explain(model).opaque
    assert reason in why


def test_states_that_are_given_or_returned(rng):
    sequence, state = keras.Input((5, 3)), keras.Input((4,))
    given = layers.GRU(4, name="given")(sequence, initial_state=state)
    x, _ = layers.GRU(4, return_state=True, name="returned")(sequence)
    model = keras.Model([sequence, state], layers.Dense(2)(layers.Add()([given, x])))
    assert dict(compaction.explain(model).opaque) == {
        "given": "it takes more than one tensor",
        "returned": "it returns its states",
    }


def test_a_dense_layer_at_each_step(rng):
    model = sequential(
        (5, 3),
        layers.TimeDistributed(layers.Dense(6, "sigmoid"), name="first"),
        layers.TimeDistributed(layers.Dense(4, use_bias=False), name="second"),
        layers.GRU(2, name="gru"),
    )
    fill(model, rng)
    silence(model.get_layer("first").layer, outputs=[1, 2])  # constant: sigmoid(bias)
    silence(model.get_layer("second").layer, outputs=[3])
    small = compacted(model, rng)
    first, second = (small.get_layer(name).layer for name in ("first", "second"))
    assert (first.units, second.units, second.use_bias) == (4, 3, True)
    assert kept(model) == {"first": 4, "second": 3, "gru": 2}


def test_groups_of_units(rng):
    model = sequential(
        (5, 3),
        layers.LSTM(2, return_sequences=True, name="lstm"),
        layers.Bidirectional(layers.GRU(2), name="both"),
        layers.Dense(2, name="head"),
    )
    fill(model, rng)
    found = dependencies(model)
    cell = model.get_layer("lstm").cell
    both = [model.get_layer("both").forward_layer.cell, model.get_layer("both").backward_layer.cell]
    first, second = found.members()[id(cell.kernel)].ids[:2]
    for weight in (cell.kernel, cell.recurrent_kernel):
        assert found.members()[id(weight)].ids.tolist() == [first, second] * 4
    assert found.offsets()[id(cell.bias)].ids.tolist() == [first, second] * 4
    one, other = found.members()[id(both[0].kernel)].ids[:2]
    for each in both:
        for weight in (each.kernel, each.recurrent_kernel):
            assert found.members()[id(weight)].ids.tolist() == [one, other] * 3
        assert found.offsets()[id(each.bias)].ids.tolist() == [one, other] * 6
    assert {found.why_not(w) for w in model.weights if "kernel" in w.path} == {
        None,
        "it is an output of the model",
    }
    small = without_groups(model, [int(first), int(other)])
    same_outputs(model, small, rng.normal(size=(4, 5, 3)))
    assert small.get_layer("lstm").units == 1
    assert small.get_layer("both").output.shape == (None, 2)


@pytest.mark.parametrize("seed", range(6))
def test_outputs_of_random_recurrence(seed):
    check_compacted(RandomRecurrence(seed))


@pytest.mark.parametrize("seed", range(3))
def test_random_groups_of_units(seed):
    check_random_groups(RandomRecurrence(seed))
