import keras
import numpy as np
import pytest

import tfprune
from tests.structured.cuts import randomize
from tfprune.regularization import GroupSparsity

layers = keras.layers


@pytest.fixture
def net():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(16, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(16, 3, padding="same", kernel_constraint="max_norm", name="branch")(x)
    x = layers.GlobalAveragePooling2D()(x + y)
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.Dense(8, "relu")(x)))
    randomize(model)
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 6, 6, 2)).astype("float32"), rng.normal(size=(64, 3))


def test_group_sparsity_pulls_the_least_units_hardest_in_all_coupled_layers(net, data):
    stem = net.get_layer("stem")
    weak = np.ones(16)
    weak[3] = 0.5
    for layer in (stem, net.get_layer("branch")):
        layer.kernel.assign(layer.kernel * weak)
    net.compile(keras.optimizers.SGD(0.0), "mse")
    pull = GroupSparsity(0.01)
    net.fit(*data, epochs=1, callbacks=[pull], verbose=0)
    factors = pull.factors()
    units = pull._groups[0].units
    assert factors[units].argmax() == 3
    assert factors[units].max() == pytest.approx(0.16)
    assert factors[units].min() == pytest.approx(0.01)
    assert stem.kernel.regularizer is None


def test_group_sparsity_makes_what_is_cut_small(net, data):
    def lost(model):
        small = tfprune.shrink(model, 0.5)
        return float(np.mean((small(data[0]) - model(data[0])) ** 2) / np.var(model(data[0])))

    before = lost(net)
    net.compile(keras.optimizers.SGD(0.05), "mse")
    net.fit(*data, epochs=30, callbacks=[GroupSparsity(0.02)], verbose=0)
    assert lost(net) < 0.5 * before
