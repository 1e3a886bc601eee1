"""FLOPs from masks: the published fractions, `count_flops`, and numbers worked out by hand."""

import keras
import numpy as np
import pytest
from keras import layers

import granet_tf
from granet_tf.masks import distributions
from granet_train import cost, models
from tests.support import resnet50

SHAPES = {name: shape for name, shape, _ in resnet50.KERNELS}


@pytest.fixture(scope="module")
def resnet():
    """What ResNet-50 v1.5 costs."""
    return cost.Cost.of(models.make("resnet50", (224, 224, 3), 1000))


def nonzeros(resnet, sparsities):
    """By weight path, from sparsities by layer name."""
    paths = [path for layer in resnet.layers for path in layer.weights]
    names = {path.split("/")[-2]: path for path in paths}
    assert names.keys() == SHAPES.keys()
    return {
        names[name]: round(np.prod(shape) * (1 - sparsities[name]))
        for name, shape in SHAPES.items()
    }


def set_mask(pruned, count):
    size = pruned.mask.shape.num_elements()
    mask = (np.arange(size) < count).reshape(pruned.mask.shape)
    pruned.mask.assign(mask)
    pruned.variable.assign(mask.astype("float32"))  # Dormant weights are 0.


# ResNet-50


def test_dense_resnet50(resnet):
    assert resnet.dense == resnet.inference({}) == 8_178_569_216
    # 100 epochs of ImageNet; the paper has 3.2e18.
    assert resnet.training({}, steps=100 * 1_281_167) == 3 * 8_178_569_216 * 128_116_700
    assert resnet.training({}, steps=100 * 1_281_167) == pytest.approx(3.2e18, rel=0.02)


@pytest.mark.parametrize(
    ("sparsity", "expected"), [(0.8, 0.4138), (0.9, 0.2418), (0.95, 0.1217), (0.965, 0.0852)]
)
def test_static_erk(resnet, sparsity, expected):
    masks = nonzeros(resnet, distributions.erdos_renyi_kernel(SHAPES, sparsity))
    assert resnet.inference(masks) / resnet.dense == pytest.approx(expected, abs=1e-4)
    # Nothing else is spent on training.
    spent = resnet.training(masks, steps=1000)
    assert resnet.relative(spent, 1000) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("sparsity", "expected"), [(0.8, 0.2231), (0.9, 0.1260)])
def test_uniform_with_the_first_layer_dense(resnet, sparsity, expected):
    masks = nonzeros(resnet, distributions.uniform(SHAPES, sparsity, {"stem": 0.0}))
    assert resnet.inference(masks) / resnet.dense == pytest.approx(expected, abs=1e-4)


def test_a_dense_gradient_each_period_costs_what_rigl_says(resnet):
    masks = nonzeros(resnet, distributions.erdos_renyi_kernel(SHAPES, 0.8))
    dense, sparse, period = resnet.dense, resnet.inference(masks), 99
    # Evci et al., 2020, appendix H
    expected = (3 * sparse * period + 2 * sparse + dense) / (period + 1)
    spent = resnet.training(masks, steps=period + 1, dense_gradients=1)
    assert spent / (period + 1) == pytest.approx(expected, rel=1e-12)


# Small models


def sequential():
    stack = [
        layers.Conv2D(4, 3, name="conv"),
        layers.SeparableConv2D(6, 2, name="separable"),
        layers.AveragePooling2D(5),
        layers.Flatten(),
        layers.Dense(5, name="head"),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *stack])


def recurrent():
    stack = [layers.LSTM(3, return_sequences=True), layers.GRU(4), layers.Dense(2)]
    return keras.Sequential([keras.Input((7, 5)), *stack])


def attention():
    x = keras.Input((6, 8))
    return keras.Model(x, layers.Dense(3)(layers.MultiHeadAttention(2, 4)(x, x)))


def shared():
    x, layer = keras.Input((4,)), layers.Dense(4)
    return keras.Model(x, layers.Dense(2)(layer(layer(layer(x)))))


class Towers(keras.Model):
    """Two weights of the same path."""

    def __init__(self):
        super().__init__()
        self.left = keras.Sequential([layers.Dense(6, name="dense")], name="tower")
        self.right = keras.Sequential([layers.Dense(3, name="dense")], name="tower")

    def call(self, inputs):
        return self.right(self.left(inputs))


def towers():
    model = Towers()
    model(np.ones((1, 4), "float32"))
    return model


MODELS = [sequential, recurrent, attention, shared, towers]


@pytest.mark.parametrize("make", MODELS)
def test_equals_a_count_of_the_model(make):
    model = make()
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape, "float32"))
    sparse = granet_tf.wrap(model)
    counted = cost.Cost.of(sparse)
    assert counted.dense == granet_tf.count_flops(sparse).dense
    for seed in range(3):
        rng = np.random.default_rng(seed)
        for pruned in sparse.pruned:
            set_mask(pruned, rng.integers(pruned.mask.shape.num_elements() + 1))
        found = cost.active_weights(sparse)
        assert len(found) == len(sparse.pruned)
        assert sum(found.values()) == sparse.nonzeros
        report = granet_tf.count_flops(sparse)
        assert counted.inference(found) == report.sparse
        assert counted.report(found) == report


def test_by_hand():
    counted = cost.Cost.of(sequential())
    head = counted.layers[-1].weights[0]
    assert head.split("/")[-2:] == ["head", "kernel"]
    # conv 3·3·3·4 at 6·6; separable (2·2·4 + 4·6) at 5·5; pooling 5·5·6; head 6·5
    assert counted.dense == 2 * (108 * 36 + 40 * 25 + 150 + 30) == 10_136
    assert counted.inference({head: 12}) == 10_136 - 2 * 18
    assert counted.training({head: 12}) == 3 * 10_100
    assert counted.training({head: 12}, steps=4, dense_gradients=1) == 3 * 4 * 10_100 + 36
    assert counted.relative(counted.training({}, steps=7), 7) == 1.0


def test_a_weight_that_has_just_grown_costs():
    sparse = granet_tf.wrap(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    [pruned] = sparse.pruned
    set_mask(pruned, 5)
    pruned.variable.assign(np.zeros((4, 3)))
    assert cost.Cost.of(sparse).inference(cost.active_weights(sparse)) == 2 * 5
    assert granet_tf.count_flops(sparse).sparse == 0


def test_a_model_that_costs_nothing():
    counted = cost.Cost.of(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    assert (counted.dense, counted.training({}, 5), counted.relative(0, 5)) == (0, 0, 1.0)


def test_a_dense_model_has_no_masks():
    assert cost.active_weights(shared()) == {}


def test_active_weights_of_a_mirrored_model(mirrored):
    with mirrored.scope():
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    sparse = granet_tf.wrap(model, granet_tf.StaticSparse(0.75))
    assert list(cost.active_weights(sparse).values()) == [8]
