import keras
import numpy as np
import pytest

import tfprune
from tests.structured.cuts import residual_data, residual_net
from tfprune.regularization import GroupSparsity


@pytest.fixture
def net():
    return residual_net()


@pytest.fixture
def data():
    return residual_data()


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
