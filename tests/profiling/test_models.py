"""Whole models: sharing, nesting, wrappers, subclasses, loops, and what is refused."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfprune.errors import InvalidArgumentError, InvalidTypeError, UnsupportedModelError
from tfprune.profiling import Work, profile, register_macs
from tfprune.profiling.report import NO_RULE, NOT_CALLED, UNKNOWN_SHAPES


def test_a_shared_layer_counts_its_parameters_once_and_its_macs_per_call():
    a, b, shared = keras.Input((4,)), keras.Input((4,)), layers.Dense(3)
    (row,) = profile(keras.Model([a, b], [shared(a), shared(b)])).layers
    assert (row.calls, row.parameters, row.macs) == (2, 15, 24)


def test_a_nested_model_shared_by_two_branches_counts_per_call():
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="d")], name="encoder")
    a, b = keras.Input((4,)), keras.Input((4,))
    report = profile(keras.Model([a, b], layers.Add(name="sum")([encoder(a), encoder(b)])))
    assert [(row.path, row.macs) for row in report.layers] == [("encoder/d", 24), ("sum", 0)]


def test_tied_weights_of_two_layers_are_parameters_of_the_first():
    first = layers.Dense(4, use_bias=False)
    first.build((None, 4))

    class Tied(layers.Dense):
        def build(self, input_shape):
            self._kernel, self.bias = kernel, None

    kernel = first.kernel
    report = profile(keras.Sequential([keras.Input((4,)), first, Tied(4)]))
    assert [(row.parameters, row.macs) for row in report.layers] == [(16, 16), (0, 16)]
    assert report.parameters == 16


def test_time_distributed_layers_count_every_step():
    inner = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3, name="c")], name="m")
    model = keras.Sequential([keras.Input((5, 6, 6, 1)), layers.TimeDistributed(inner, name="t")])
    (row,) = profile(model).layers
    assert (row.path, row.calls, row.macs) == ("t/m/c", 5, 5 * 16 * 9 * 2)


class Block(layers.Layer):
    """A user's own composite: sublayers in a list, one of them used twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = [layers.Dense(4, name="a"), layers.Dense(4, name="b")]

    def build(self, input_shape):
        for step in self.steps:
            step.build(input_shape)

    def call(self, x):
        for step in self.steps:
            x = step(x)
        return self.steps[0](x)


def test_a_users_own_layer_is_counted_by_its_sublayers():
    model = keras.Sequential([keras.Input((4,)), Block(name="block")])
    report = profile(model)
    rows = [(row.path, row.calls, row.macs) for row in report.layers]
    assert rows == [("block/a", 2, 32), ("block/b", 1, 16)]
    assert report.uncounted == ()


class OwnWeight(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], name="scale")

    def call(self, x):
        return x * self.scale


def test_a_layer_with_weights_and_no_rule_is_listed_and_not_guessed():
    model = keras.Sequential([keras.Input((4,)), OwnWeight(name="own"), layers.Dense(2)])
    report = profile(model)
    assert report.uncounted == ("own",)
    assert (report.layers[0].macs, report.layers[0].note) == (None, NO_RULE)
    assert report.layers[0].effective_flops is None
    assert (report.parameters, report.macs) == (14, 8)
    assert f"note: own: {NO_RULE}" in str(report)


def test_a_registered_rule_counts_the_class_and_its_subclasses():
    class Scaled(OwnWeight):
        pass

    class ScaledAgain(Scaled):
        pass

    @register_macs(Scaled)
    def count(layer, call):
        return [Work(macs=call.output_elements, kernel=layer.scale)]

    layer = ScaledAgain()
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.scale.assign([0.0, 1.0, 2.0, 0.0])
    report = profile(model)
    assert (report.macs, report.effective_macs, report.uncounted) == (4, 2, ())
    with pytest.raises(InvalidArgumentError, match="Scaled has a MAC rule already"):
        register_macs(Scaled)
    with pytest.raises(InvalidTypeError, match="takes layer classes"):
        register_macs("Dense")


class OwnCell(layers.Layer):
    """An RNN cell without a rule, made of sublayers that have one."""

    state_size = 4

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.outer = layers.Dense(4, name="inner"), layers.Dense(4, name="outer")

    def build(self, input_shape):
        self.inner.build(input_shape)
        self.outer.build((None, 4))

    def call(self, x, states):
        y = ops.tanh(self.inner(x) + self.outer(states[0]))
        return y, [y]


@pytest.mark.parametrize("unroll", [True, False])
def test_a_users_own_cell_counts_once_per_step(unroll):
    cells = [OwnCell(name="cell"), layers.LSTMCell(5, name="lstm")]
    for cell, macs in ((cells[0], (3 + 4) * 4), (cells, (3 + 4) * 4 + 4 * (4 + 5) * 5)):
        model = keras.Sequential([keras.Input((6, 3)), layers.RNN(cell, unroll=unroll)])
        report = profile(model)
        assert report.macs == 6 * macs
        assert report.layers[0].calls == 6


def test_a_cell_used_inside_and_outside_of_an_rnn_counts_both():
    class Forecast(keras.Model):
        def __init__(self):
            super().__init__()
            self.cell = layers.LSTMCell(4)
            self.warmup = layers.RNN(self.cell, return_state=True)

        def call(self, x):
            y, *state = self.warmup(x)
            for _ in range(3):
                y, state = self.cell(y[:, :2], state)
            return y

    model = Forecast()
    model(ops.zeros((1, 5, 2)))
    report = profile(model)
    assert report.macs == (5 + 3) * 4 * (2 + 4) * 4
    assert report.parameters == model.count_params()


def test_a_subclassed_model_is_profiled_with_the_shapes_it_was_built_with():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.unused = layers.Dense(3), layers.Dense(2), layers.Dense(9)
            self.unused.build((None, 7))

        def call(self, x, training=False):
            return self.b(self.a(x["left"]) + x["right"])

    model = Two()
    model({"left": ops.zeros((8, 4)), "right": ops.zeros((8, 3))})
    report = profile(model)
    assert report.macs == 12 + 6
    assert report.layers[-1].note == NOT_CALLED
    assert report.uncounted == ()


def test_a_subclassed_model_with_several_arguments_takes_them_by_name():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def build(self, x_shape, y_shape):
            self.dense.build(x_shape)

        def call(self, x, y):
            return self.dense(x) + self.dense(y)

    model = Pair()
    model(ops.zeros((8, 4)), ops.zeros((8, 4)))
    assert profile(model).macs == 24
    assert profile(model, input_shapes={"x": (5, 4), "y": (5, 4)}).macs == 5 * 24


def test_a_fixed_batch_is_counted_per_example():
    x = keras.Input(batch_shape=(8, 6, 3))
    model = keras.Model(x, layers.LSTM(4, stateful=True)(x))
    assert profile(model).macs == 6 * 4 * (3 + 4) * 4


def test_a_shape_known_only_at_run_time_makes_a_layer_uncounted():
    class Filtered(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, x):
            return self.dense(tf.boolean_mask(x, x[:, 0] > 0))

    model = Filtered()
    model(ops.ones((2, 4)))
    report = profile(model)
    assert (report.uncounted, report.layers[0].note) == (("dense",), UNKNOWN_SHAPES)


def test_profiling_leaves_the_model_as_it_was():
    class Regularized(layers.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return x

    model = keras.Sequential(
        [keras.Input((4,)), Regularized(), layers.BatchNormalization(), layers.Dropout(0.5)]
    )
    before = [weight.numpy() for weight in model.weights]
    attributes = [set(vars(layer)) for layer in model.layers]
    profile(model)
    profile(model)
    assert model.losses == []
    assert [set(vars(layer)) for layer in model.layers] == attributes
    for old, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, weight.numpy())


def test_a_failing_trace_leaves_no_hook_behind():
    class Failing(layers.Layer):
        failing = False

        def call(self, x):
            if self.failing:
                raise RuntimeError("as asked")
            return x

    layer = Failing()
    model = keras.Sequential([keras.Input((4,)), layer, layers.Dense(2)])
    layer.failing = True
    with pytest.raises(RuntimeError, match="as asked"):
        profile(model)
    assert all("call" not in vars(part) for part in model.layers)


def test_calls_from_another_thread_are_not_counted():
    dense = layers.Dense(2)

    class Meanwhile(layers.Layer):
        def call(self, x):
            other = threading.Thread(target=lambda: dense(np.zeros((1, 4), "float32")))
            other.start()
            other.join()
            return x

    model = keras.Sequential([keras.Input((4,)), Meanwhile(), dense])
    assert profile(model).layers[0].calls == 1


def test_models_that_cannot_be_profiled_are_refused_with_a_remedy():
    with pytest.raises(UnsupportedModelError, match=r"is not built.*model\.build\(input_shape\)"):
        profile(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(InvalidTypeError, match=r"must be a Keras model.*Received: 3 of type int"):
        profile(3)
    with pytest.raises(InvalidTypeError, match="put it into one"):
        profile(layers.Dense(3))
    legacy = type("Sequential", (), {"__module__": "tf_keras.src.engine.sequential"})
    mine = type("Mine", (legacy,), {"__module__": "my_models"})
    for model in (legacy(), mine()):
        with pytest.raises(UnsupportedModelError, match=r"tfprune\.compat\.tfmot\.convert"):
            profile(model)


def test_shape_inference_inside_of_a_call_is_not_counted():
    class Container(layers.Layer):
        """Not built before the trace: Keras infers its shapes by calling it once more."""

        def __init__(self, inner):
            super().__init__()
            self.drop, self.inner = layers.Dropout(0.1), inner

        def call(self, x):
            return self.inner(self.drop(x))

    class Explicit(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)
            self.block = Container(layers.ReLU())

        def build(self, input_shape):
            self.dense.build(input_shape)

        def call(self, x):
            return self.block(self.dense(x))

    model = Explicit()
    model.build((None, 4))
    assert profile(model).flops == 2 * 12 + 3 + 3


def test_a_sublayer_that_is_not_built_is_refused_by_its_path():
    class Lazy(keras.Model):
        def __init__(self):
            super().__init__()
            self.late = layers.Dense(3, name="late")

        def build(self, input_shape):
            self.built = True

        def call(self, x):
            return self.late(x)

    model = Lazy()
    model.build((None, 4))
    with pytest.raises(UnsupportedModelError, match="Layer 'late' is not built"):
        profile(model)
