import keras
import numpy as np
import pytest

import tfprune
from tests.structured.cuts import residual_data, residual_net
from tfprune.errors import InvalidArgumentError
from tfprune.structured import carry_optimizer, history_of


@pytest.fixture
def net():
    return residual_net()


@pytest.fixture
def data():
    return residual_data()


@pytest.mark.parametrize("name", ["adam", "sgd", "adafactor"])
def test_optimizer_state_of_what_stays_is_carried_over(net, data, name):
    optimizer = keras.optimizers.get(name)
    if name == "sgd":
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    net.compile(optimizer, "mse")
    net.fit(*data, verbose=0)
    small = tfprune.shrink(net, 0.5)
    carried = carry_optimizer(net, small, history_of(small))
    assert int(carried.iterations) == int(optimizer.iterations) == 2
    [axis] = [a for a in history_of(small).axes if a.name == "stem/kernel:3"]
    kept = np.delete(np.arange(16), axis.removed)
    slots = [getattr(optimizer, n, None) for n in ("_momentums", "momentums", "_velocities")]
    for attribute in ("_momentums", "momentums", "_velocities"):
        old, new = getattr(optimizer, attribute, None), getattr(carried, attribute, None)
        if old:
            np.testing.assert_array_equal(new[0], keras.ops.take(old[0], kept, axis=3))
    assert any(slots) or name == "adafactor"
    small.compile(carried, "mse")
    small.fit(*data, verbose=0)


def test_an_optimizer_that_never_ran_has_nothing_to_carry(net):
    small = tfprune.shrink(net, 0.5)
    with pytest.raises(InvalidArgumentError, match="has no optimizer state"):
        carry_optimizer(net, small, history_of(small))
