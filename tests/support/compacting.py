"""Models to compact, with random weights and dead channels, and what must hold of the result."""

import keras
import numpy as np

import granet_tf
from granet_tf import compaction
from granet_tf.compaction.resizing import moved, resized
from granet_tf.structured.dependency_groups import dependencies
from keras_layers.known_layers import layout_of


def sequential(shape, *rest):
    return keras.Sequential([keras.Input(shape), *rest])


def fill(model, rng, zero=()):
    """Random weights and statistics; `zero` are pairs of layer and output channels to empty."""
    for variable in model.weights:
        value = rng.normal(size=variable.shape) * 0.5
        variable.assign(abs(value) + 0.1 if variable.name == "moving_variance" else value)
    for name, channels in zero:
        silence(model.get_layer(name), outputs=channels)


def silence(layer, outputs=(), inputs=()):
    """Sets to zero all that leads to some outputs, or from some inputs; biases stay."""
    kernel = layer.kernel.numpy()
    kernel[..., list(outputs)] = 0
    kernel[..., list(inputs), :] = 0
    layer.kernel.assign(kernel)


def same_outputs(model, small, x):
    before, after = (keras.tree.flatten(m(x, training=False)) for m in (model, small))
    for a, b in zip(before, after, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * max(abs(a).max(), 1e-6))


def compacted(model, rng, *shape):
    """The compact model, after the checks that any model must pass."""
    before = [v.numpy() for v in model.weights]
    small = granet_tf.compact(model)
    same_outputs(model, small, rng.normal(size=(4, *(shape or model.input_shape[1:]))))
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert not {id(v) for v in model.weights} & {id(v) for v in small.weights}
    return small


def kept(model):
    """{layer: channels kept} as `explain` has it."""
    return {row.layer: row.kept for row in compaction.explain(model).rows}


def layers_by_weight(model):
    """{id of a weight: the layer that has it}, however deep inside."""
    return {
        id(weight): layer
        for layer in model._flatten_layers()
        for weight in layer._trainable_variables + layer._non_trainable_variables
    }


def without_groups(model, ids):
    """What is left of a model without these dependency groups, whose weights are set to 0."""
    found, owners = dependencies(model), layers_by_weight(model)
    assert not set(ids) & found.reasons.keys()
    for key, member in found.members().items():
        layer = owners[key]
        axes = layout_of(layer, member.weight).outputs
        zero_at(member, ids, [a % len(member.weight.shape) for a in axes])
    for member in found.offsets().values():
        zero_at(member, ids, range(len(member.weight.shape)))
    stays = np.ones(found.count, bool)
    stays[list(ids)] = False
    plan = found.plan(stays)
    small = resized(model, plan)
    # Training goes on with the same values, each from its place in the larger model.
    values = {move.new.path: move.values() for move in moved(model, plan)[1]}
    for weight in small.weights:
        np.testing.assert_array_equal(values[weight.path], weight.numpy())
    return small


def zero_at(member, ids, axes):
    """Sets to 0 the outputs of a weight, in `axes`, that lead to one of `ids`."""
    value = member.weight.numpy()
    shape = [size if axis in axes else 1 for axis, size in enumerate(value.shape)]
    member.weight.assign(np.where(np.isin(member.ids, list(ids)).reshape(shape), 0, value))


def check_compacted(graph):
    """A random graph computes the same when compact, and nothing in it is dead any more."""
    model, x = graph.model()
    small = granet_tf.compact(model)
    same_outputs(model, small, x)
    assert granet_tf.compact(small).count_params() == small.count_params()


def check_random_groups(graph):
    """Any groups that can go may be set to 0 together, and the model without them is the same."""
    model, x = graph.model()
    fill(model, graph.rng)
    found = dependencies(model)
    ids = {int(each) for member in found.members().values() for each in member.ids}
    free = sorted(ids - found.reasons.keys())
    small = without_groups(model, graph.rng.permutation(free)[: len(free) // 2].tolist())
    same_outputs(model, small, x)
    assert small.count_params() < model.count_params()
