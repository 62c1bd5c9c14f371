import warnings

import keras
import numpy as np
import pytest

import tfprune
from tests.structured.channel_zoo import transformer
from tests.structured.cuts import residual_data, residual_net
from tfprune.callbacks import ShrinkSchedule
from tfprune.errors import InvalidArgumentError, NotPrunedError
from tfprune.structured import history_of, verify

layers = keras.layers


@pytest.fixture
def net():
    return residual_net()


@pytest.fixture
def data():
    return residual_data()


def test_channels_are_masked_step_by_step_and_cut_to_the_same_model(net, data):
    net.compile("adam", "mse")
    shrink = ShrinkSchedule(0.5, end_epoch=1)
    history = net.fit(*data, epochs=3, callbacks=[shrink], verbose=0).history
    assert history["channels"] == [18.0, 12.0, 12.0]
    small = shrink.shrunk()
    assert [small.get_layer(name).filters for name in ("stem", "branch")] == [8, 8]
    np.testing.assert_allclose(small(data[0]), net(data[0]), rtol=1e-4, atol=1e-5)
    assert verify(net, small, history_of(small)).difference < 2e-5
    assert isinstance(net.get_layer("branch").kernel.constraint, keras.constraints.MaxNorm)
    # Held in every step, not only at the end: momenta would have moved them.
    head = net.layers[-2].kernel.numpy()
    assert (np.abs(head).sum(axis=1) == 0).sum() == 8


def test_widths_stay_rounded_while_they_shrink(net, data):
    net.compile("adam", "mse")
    target = tfprune.targets.Parameters(0.4)
    shrink = ShrinkSchedule(target, round_to=4, scope="global", end_epoch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # So few widths miss the target.
        history = net.fit(*data, epochs=3, callbacks=[shrink], verbose=0).history
        small = shrink.shrunk()
    assert history["parameters"] == sorted(history["parameters"], reverse=True)
    assert history["parameters"][-1] == small.count_params()
    assert small.get_layer("stem").filters % 4 == 0


def test_masks_hold_with_averages_and_several_steps_at_a_time(net, data):
    net.compile(keras.optimizers.Adam(use_ema=True), "mse", steps_per_execution=2)
    shrink = ShrinkSchedule(0.5, end_epoch=0)
    net.fit(*data, epochs=2, batch_size=16, callbacks=[shrink], verbose=0)
    np.testing.assert_allclose(shrink.shrunk()(data[0]), net(data[0]), rtol=1e-4, atol=1e-5)


def test_heads_of_a_transformer_are_masked_too():
    model = transformer(lambda: layers.MultiHeadAttention(4, 4))()
    model.compile("sgd", "mse")
    tokens = np.random.default_rng(0).integers(1, 20, (32, 6))
    shrink = ShrinkSchedule(0.5)
    model.fit(tokens, np.ones((32, 3)), epochs=2, callbacks=[shrink], verbose=0)
    small = shrink.shrunk()
    assert small.get_layer("multi_head_attention").num_heads == 2
    np.testing.assert_allclose(small(tokens), model(tokens), rtol=1e-4, atol=1e-5)


def test_a_schedule_that_does_not_fit_is_refused(net, data):
    net.compile("adam", "mse")
    with pytest.raises(InvalidArgumentError, match="The run has 2 epochs"):
        net.fit(*data, epochs=2, callbacks=[ShrinkSchedule(0.5, end_epoch=2)], verbose=0)
    with pytest.raises(InvalidArgumentError, match="out of reach"):
        net.fit(*data, callbacks=[ShrinkSchedule(0.1, max_ratio=0.5)], verbose=0)
    with pytest.raises(InvalidArgumentError, match="`end_epoch` not before it"):
        ShrinkSchedule(0.5, begin_epoch=3, end_epoch=1)
    with pytest.raises(NotPrunedError, match="pass this callback to `fit` first"):
        ShrinkSchedule(0.5).shrunk()
