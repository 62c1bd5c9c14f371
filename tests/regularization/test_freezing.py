import itertools

import keras
import numpy as np
import pytest

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.regularization import ClipRange, FreezeWeights, constrain

X = np.diag([1.0, 0.1, 0.0]).astype("float32")
Y = np.full((3, 2), 2.0, "float32")


class History(keras.callbacks.Callback):
    """Keeps the first kernel after every step."""

    def on_train_begin(self, logs=None):
        self.values = [self.kernel()]

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(self.kernel())

    def kernel(self):
        return self.model.layers[0].kernel.numpy()


def linear(policy="float32"):
    dense = keras.layers.Dense(2, use_bias=False, name="dense", dtype=policy)
    model = keras.Sequential([keras.Input((3,)), dense])
    model.set_weights([np.array([[1.0, 0.5], [1.0, 0.5], [1.0, 0.5]])])
    return model


def compiled(model, optimizer=None, **arguments):
    # Weight decay moves every weight, with a gradient or without.
    model.compile(optimizer or keras.optimizers.AdamW(0.01, weight_decay=0.1), "mse", **arguments)
    return model


def fit(model, *callbacks, epochs=6):
    """Train with one step an epoch."""
    history = History()
    model.fit(X, Y, epochs=epochs, shuffle=False, verbose=0, callbacks=[history, *callbacks])
    return history.values


def gradient(kernel):
    """Return the gradient of the mean squared error of three examples and two outputs."""
    return X.T @ (2 * (X @ kernel - Y)) / Y.size


@pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}], ids=str)
def test_weights_with_a_small_gradient_keep_their_bits(arguments):
    model = compiled(linear(), **arguments)
    small = np.abs(gradient(model.layers[0].kernel.numpy())) < 0.1
    assert small.tolist() == [[False] * 2, [True] * 2, [True] * 2]
    values = fit(model, FreezeWeights(0.1, data=(X, Y), frequency=1, patience=2))
    # Steps 2 and 3 begin with a look, so what step 2 has made of the small ones stays.
    for before, after in itertools.pairwise(values[2:]):
        assert np.array_equal(before[small], after[small])
        assert (before[~small] != after[~small]).all()
    assert (values[0] != values[1]).all()
    assert (values[1] != values[2]).all()


def test_the_threshold_of_a_layer_is_a_multiple_of_its_mean():
    model = compiled(linear())
    size = np.abs(gradient(model.layers[0].kernel.numpy()))
    assert ((size / size.mean() < 0.5) == [[False] * 2, [True] * 2, [True] * 2]).all()
    callback = FreezeWeights(0.5, "layer", data=(X, Y), frequency=1, patience=1)
    model.fit(X * 1e-3, Y, verbose=0, epochs=2, callbacks=[callback])
    assert callback.frozen == pytest.approx(4 / 6)


def test_the_global_threshold_is_for_the_gradient_as_it_is():
    first, second = keras.layers.Dense(2, name="d1"), keras.layers.Dense(2, name="d2")
    model = compiled(keras.Sequential([keras.Input((3,)), first, second]))
    callback = FreezeWeights(1e9, data=(X, Y), frequency=1, patience=1, exclude="d2")
    frozen = model.fit(X, Y, verbose=0, epochs=3, callbacks=[callback]).history["frozen"]
    assert frozen == [0.0, 1.0, 1.0]
    assert callback._weights[0].variable is first.kernel


def test_the_looks_come_at_their_frequency_and_in_a_row():
    callback = FreezeWeights(1e9, data=(X, Y), frequency=2, patience=2)
    model = compiled(linear())
    frozen = model.fit(X, Y, verbose=0, epochs=6, callbacks=[callback]).history["frozen"]
    assert frozen == [0, 0, 0, 0, 1, 1]


def test_a_look_that_finds_the_gradient_large_starts_the_count_again():
    class Swing(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.layers[0].kernel.assign(np.full((3, 2), 0.0 if epoch % 2 else 20.0))

    model = compiled(linear(), keras.optimizers.SGD(0.0))
    callback = FreezeWeights(1.0, data=(X, Y), frequency=1, patience=2)
    frozen = model.fit(X, Y, verbose=0, epochs=6, callbacks=[Swing(), callback]).history["frozen"]
    assert frozen == pytest.approx([0, 0, 4 / 6, 4 / 6, 4 / 6, 4 / 6])


def test_nothing_of_it_is_left_after_the_run():
    model = compiled(constrain(linear(), ClipRange(-5, 5)))
    fit(model, FreezeWeights(1e9, data=(X, Y), frequency=1, patience=1))
    kernel = model.layers[0].kernel
    assert kernel.constraint == ClipRange(-5, 5)
    values = fit(model)
    assert (values[0] != values[1]).all()


def test_a_users_own_constraint_holds_for_the_others():
    model = compiled(constrain(linear(), ClipRange(0.0, 0.75)), keras.optimizers.SGD(0.5))
    model.layers[0].kernel.assign(np.ones((3, 2)))  # Outside of the range.
    callback = FreezeWeights(0.1, data=(X, Y), frequency=1, patience=1)
    values = fit(model, callback)
    assert values[-1].max() <= 0.75
    model.layers[0].kernel.assign([[0.5, 0.5], [0.25, 0.25], [0.25, 0.25]])
    values = fit(model, FreezeWeights(0.1, data=(X, Y), frequency=1, patience=1))
    assert values[-1].tolist() == [[0.75, 0.75], values[1][1].tolist(), [0.25, 0.25]]


@pytest.mark.parametrize("freeze_first", [False, True])
def test_pruned_weights_stay_pruned_and_frozen_ones_frozen_in_either_order(freeze_first):
    model = tfprune.prune(linear(), tfprune.schedules.ConstantSparsity(0.5, begin_step=4))
    compiled(model)
    callback = FreezeWeights(0.1, data=(X, Y), frequency=1, patience=1)
    callbacks = [callback, tfprune.callbacks.UpdateMasks()]
    values = fit(model, *(callbacks if freeze_first else callbacks[::-1]))
    alive = tfprune.Pruner(model).weights[0].alive()
    assert alive.sum() == 3
    assert (values[-1][~alive] == 0).all()
    kept = alive & [[False] * 2, [True] * 2, [True] * 2]
    assert kept.any()
    assert np.array_equal(values[1][kept], values[-1][kept])
    assert (tfprune.strip(model).layers[0].kernel == values[-1]).numpy().all()
    assert tfprune.strip(model).layers[0].kernel.constraint is None
    assert callback.frozen == kept.sum() / 6


def test_averaged_weights_are_frozen_too():
    optimizer = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.5, weight_decay=0.5)
    model = compiled(linear(), optimizer)
    values = fit(model, FreezeWeights(1e9, data=(X, Y), frequency=1, patience=1))
    assert np.array_equal(values[1], values[2])
    assert np.array_equal(model.layers[0].kernel, values[1])


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_16_bit_models_are_frozen_bit_for_bit(policy):
    model = compiled(linear(policy), keras.optimizers.SGD(0.5, weight_decay=0.5))
    values = fit(model, FreezeWeights(1e9, data=(X, Y), frequency=1, patience=1))
    assert values[0].tobytes() != values[1].tobytes()
    assert values[1].tobytes() == values[-1].tobytes()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"threshold": -1}, InvalidArgumentError, "`threshold` must be finite and at least 0"),
        ({"threshold": "1"}, InvalidTypeError, "`threshold` must be a number"),
        ({"threshold": 1, "scope": "all"}, InvalidArgumentError, "'global' or 'layer'.*'all'"),
        ({"threshold": 1, "frequency": 0}, InvalidArgumentError, "`frequency` must be at least 1"),
        ({"threshold": 1, "patience": 0}, InvalidArgumentError, "`patience` must be at least 1"),
        ({"threshold": 1, "data": None}, InvalidArgumentError, "pass `data="),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        FreezeWeights(**{"data": (X, Y), **arguments})


def test_selectors_that_match_nothing_are_refused():
    with pytest.raises(InvalidArgumentError, match="include='d9'"):
        fit(compiled(linear()), FreezeWeights(1.0, data=(X, Y), include="d9"))
