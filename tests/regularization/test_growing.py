import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfprune
from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.regularization import GroupLasso, GrowingRegularization
from tfprune.regularization.growing import GrowingPenalty
from tfprune.regularization.step_callback import state_variable
from tfprune.schedules import ConstantSparsity

layers = keras.layers


def linear(values, regularizer=None, policy="float32"):
    """Return a model whose loss does not depend on its weights when its inputs are zero."""
    dense = layers.Dense(
        np.shape(values)[1], use_bias=False, kernel_regularizer=regularizer, dtype=policy
    )
    model = keras.Sequential([keras.Input((len(values),)), dense])
    model.set_weights([np.array(values)])
    return model


def compiled(model, **arguments):
    model.compile(keras.optimizers.SGD(0.5), "mse", **arguments)
    return model


def fit(model, callback, epochs=2, **arguments):
    """Train for four steps an epoch on zeros, so that only the penalties move the weights."""
    size = model.input_shape[1]
    x, y = np.zeros((8, size)), np.zeros((8, model.output_shape[1]))
    arguments = {"batch_size": 2, "verbose": 0, "callbacks": [callback], **arguments}
    return model.fit(x, y, epochs=epochs, **arguments)


def expected(values, doomed, factors):
    values = np.array(values)
    for factor in factors:
        values = np.where(doomed, values * (1 - 0.5 * factor), values)
    return values


def test_the_penalty_by_hand():
    factor, doomed = state_variable((), "float32", "factor"), state_variable((3,), "bool", "doomed")
    factor.assign(0.5)
    doomed.assign([True, False, True])
    weight = keras.ops.array([2.0, 3.0, -4.0])
    assert float(GrowingPenalty(factor, doomed, None)(weight)) == 5.0  # 1/2 * 0.5 * (4 + 16)
    own = keras.regularizers.L1(1.0)
    assert float(GrowingPenalty(factor, doomed, own)(weight)) == 14.0


WEIGHTS = [[4.0, -1.0, 2.0], [-0.5, 3.0, 0.25]]
SMALL = [[False, True, False], [True, False, True]]


@pytest.mark.parametrize(
    "arguments", [{}, {"jit_compile": True}, {"steps_per_execution": 2}], ids=str
)
def test_the_small_weights_decay_faster_and_faster_and_the_others_not_at_all(arguments):
    model = compiled(linear(WEIGHTS), **arguments)
    fit(model, GrowingRegularization(0.5, delta=0.25, frequency=2, ceiling=0.7))
    values = expected(WEIGHTS, SMALL, [0, 0, 0.25, 0.25, 0.5, 0.5, 0.7, 0.7])
    assert np.allclose(model.get_weights()[0], values, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_16_bit_weights_decay_too(policy):
    model = compiled(linear(WEIGHTS, keras.regularizers.L1(0.0), policy))
    fit(model, GrowingRegularization(0.5, delta=0.25, frequency=2, ceiling=0.7))
    values = expected(WEIGHTS, SMALL, [0, 0, 0.25, 0.25, 0.5, 0.5, 0.7, 0.7])
    kernel = keras.ops.convert_to_numpy(keras.ops.cast(model.layers[0].kernel, "float32"))
    assert np.allclose(kernel, values, rtol=0.02)


def test_the_growth_fits_the_run_by_default():
    model = compiled(linear(WEIGHTS))
    fit(model, GrowingRegularization(0.5, frequency=2))  # 6 of 8 steps: three increases
    thirds = [0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1]
    assert np.allclose(model.get_weights()[0], expected(WEIGHTS, SMALL, thirds), rtol=1e-6)


def test_whole_units_are_picked_by_the_pattern():
    model = compiled(linear(WEIGHTS))
    fit(model, GrowingRegularization(0.3, pattern="filter", delta=0.5, frequency=4, ceiling=0.5))
    doomed = [[False, False, True], [False, False, True]]
    values = expected(WEIGHTS, doomed, [0] * 4 + [0.5] * 4)
    assert np.allclose(model.get_weights()[0], values, rtol=1e-6)


def test_a_resumed_run_goes_on_where_it_was():
    model = compiled(linear(WEIGHTS))
    fit(model, GrowingRegularization(0.5, delta=0.25, frequency=2, ceiling=0.7), initial_epoch=1)
    assert np.allclose(
        model.get_weights()[0], expected(WEIGHTS, SMALL, [0.5, 0.5, 0.7, 0.7]), rtol=1e-6
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_of_unknown_length_is_counted():
    def batches():
        for _ in range(4):
            yield np.zeros((2, 2)), np.zeros((2, 3))

    model = compiled(linear(WEIGHTS))
    arguments = {"shuffle": False, "verbose": 0}
    with pytest.raises(InvalidArgumentError, match="`steps_per_epoch` to `fit`, or `delta`"):
        model.fit(batches(), callbacks=[GrowingRegularization(0.5)], **arguments)
    data = tf.data.Dataset.from_generator(
        batches, output_signature=(tf.TensorSpec((2, 2)), tf.TensorSpec((2, 3)))
    )
    grow = GrowingRegularization(0.5, delta=0.25, frequency=2, ceiling=0.7)
    model.fit(data, epochs=2, callbacks=[grow], **arguments)
    values = expected(WEIGHTS, SMALL, [0, 0, 0.25, 0.25, 0.5, 0.5, 0.7, 0.7])
    assert np.allclose(model.get_weights()[0], values, rtol=1e-6)


def test_a_users_own_regularizer_counts_and_comes_back():
    own = keras.regularizers.L2(0.125)
    model = compiled(linear(WEIGHTS, own))
    fit(model, GrowingRegularization(0.5, delta=0.5, frequency=4, ceiling=0.5))
    values = expected(WEIGHTS, np.ones((2, 3)), [0.25] * 4)
    values = np.where(SMALL, values * (1 - 0.5 * 0.75) ** 4, values * (1 - 0.5 * 0.25) ** 4)
    assert np.allclose(model.get_weights()[0], values, rtol=1e-5)
    assert model.layers[0].kernel.regularizer is own


def test_nothing_of_it_is_left_after_the_run():
    model = compiled(linear(WEIGHTS))
    fit(model, GrowingRegularization(0.5, frequency=2))
    assert not model.losses
    values = model.get_weights()[0]
    assert model.evaluate(np.zeros((2, 2)), np.zeros((2, 3)), verbose=0) == 0
    history = fit(model, keras.callbacks.Callback())
    assert history.history["loss"] == [0, 0]
    assert np.array_equal(model.get_weights()[0], values)


def test_nothing_is_left_behind_by_a_run_that_was_interrupted():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = compiled(linear(WEIGHTS))
    with pytest.raises(KeyboardInterrupt):
        fit(model, None, callbacks=[GrowingRegularization(0.5, frequency=2), Stop()])
    fit(model, GrowingRegularization(0.5, frequency=2))
    assert model.layers[0].kernel.regularizer is None


def test_the_training_step_is_traced_once():
    traces = []

    class Counting(layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), Counting()])
    compiled(model)
    traces.clear()
    fit(model, keras.callbacks.Callback(), epochs=1)
    usual = len(traces)
    compiled(model)
    traces.clear()
    fit(model, GrowingRegularization(0.5, frequency=1), epochs=3)
    assert len(traces) == usual


def test_a_checkpoint_taken_meanwhile_is_a_plain_model(tmp_path):
    model = compiled(linear(WEIGHTS, GroupLasso(0.1)))
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "net.keras")
    fit(model, None, callbacks=[GrowingRegularization(0.5, frequency=2), checkpoint])
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    assert loaded.layers[0].kernel.regularizer == GroupLasso(0.1)


@pytest.mark.parametrize("grow_first", [False, True])
def test_update_masks_prunes_what_was_pressed_in_either_order(grow_first):
    model = tfprune.prune(linear(WEIGHTS), ConstantSparsity(0.5, begin_step=8))
    compiled(model)
    callbacks = [GrowingRegularization(0.5, frequency=1), tfprune.callbacks.UpdateMasks()]
    fit(model, None, callbacks=callbacks if grow_first else callbacks[::-1])
    assert np.array_equal(model.layers[0].kernel == 0, SMALL)
    factors = [min(i / 6, 1) for i in range(8)]
    assert np.allclose(
        np.where(SMALL, 0, expected(WEIGHTS, SMALL, factors)), model.layers[0].kernel, rtol=1e-5
    )


def test_pruning_after_it_costs_almost_nothing():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    dense = [layers.Dense(64, activation="relu", name="d1"), layers.Dense(10, name="d2")]
    model = keras.Sequential([keras.Input((64,)), *dense])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def accuracy(net):
        net.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])
        return net.evaluate(x, y, verbose=0)[1]

    def pruned():
        return tfprune.prune_once(model, 0.7, pattern="filter", include="d1")

    accuracy(model)
    model.fit(x, y, batch_size=128, epochs=10, verbose=0)
    before, at_once = accuracy(model), accuracy(pruned())
    grow = GrowingRegularization(0.7, pattern="filter", include="d1", frequency=5)
    model.fit(x, y, batch_size=128, epochs=8, callbacks=[grow], verbose=0)
    assert before > 0.95
    assert at_once < 0.7
    assert accuracy(pruned()) > 0.95
    assert abs(accuracy(pruned()) - accuracy(model)) < 0.01


def test_a_growth_that_the_run_is_too_short_for_is_told():
    model = compiled(linear(WEIGHTS))
    with pytest.warns(UserWarning, match="8 steps, .* ceiling of 1 after 40: it ends at 0.1"):
        fit(model, GrowingRegularization(0.5, delta=0.1, frequency=4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sparsity": 80}, InvalidArgumentError, "fraction in"),
        ({"sparsity": 0.5, "delta": 0}, InvalidArgumentError, "`delta` must be finite and above 0"),
        ({"sparsity": 0.5, "ceiling": -1}, InvalidArgumentError, "`ceiling` must be finite and"),
        ({"sparsity": 0.5, "frequency": 0}, InvalidArgumentError, "`frequency` must be at least 1"),
        ({"sparsity": 0.5, "frequency": 1.5}, InvalidTypeError, "`frequency` must be an int"),
        ({"sparsity": 0.5, "criterion": "movement"}, InvalidArgumentError, "sums over training"),
        ({"sparsity": 0.5, "criterion": "taylor"}, InvalidArgumentError, "pass `data="),
        ({"sparsity": 0.5, "pattern": "2:8"}, InvalidArgumentError, "2:8 has sparsity 0.75"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        GrowingRegularization(**arguments)


def test_selectors_that_match_nothing_are_refused():
    with pytest.raises(InvalidArgumentError, match="include='d9'"):
        fit(compiled(linear(WEIGHTS)), GrowingRegularization(0.5, include="d9"))
