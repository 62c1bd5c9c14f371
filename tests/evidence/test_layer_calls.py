"""Watching layers, and the matrices that their kernels are multiplied with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.errors import UnsupportedModelError
from tfprune.evidence import Probe
from tfprune.evidence.layer_calls import observe, run_watched, watch_layers
from tfprune.evidence.layer_inputs import find_input_view, input_matrix, output_matrix
from tfprune.pruned_weight import PrunedWeight
from tfprune.selection import select_weights

layers = keras.layers


def weights_of(model, include=None):
    return [
        PrunedWeight(c.variable, c.layout, owners=c.owners)
        for c in select_weights(model, include)
        if c.reason is None
    ]


def model_of(layer, shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def batch_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def watched(model, x):
    """All calls of the layers with kernels: a list of `(layer, inputs, outputs)`."""
    calls = []
    found = [weight.layer for weight in weights_of(model)]
    run_watched(model, x, found, lambda *call: calls.append(call))
    return calls


def kernel_matrix(weight):
    taps, inputs, outputs = weight.layout.taps_shape
    return weight.layout.to_taps(weight.values()).reshape(taps * inputs, outputs)


FEED_FORWARD = {
    "Dense": (lambda: layers.Dense(6), (5,)),
    "Dense on sequences": (lambda: layers.Dense(6), (3, 4, 5)),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cd->abd", (None, 6)), (3, 5)),
    "EinsumDense, kernel order": (lambda: layers.EinsumDense("abc,dc->adb", (6, 3)), (3, 5)),
    "EinsumDense, two inputs": (lambda: layers.EinsumDense("abcd,ecd->abe", (3, 6)), (3, 2, 5)),
    "EinsumDense, swapped": (lambda: layers.EinsumDense("abcd,dec->abe", (3, 6)), (3, 2, 5)),
    "EinsumDense, heads": (lambda: layers.EinsumDense("abc,cde->abde", (3, 2, 4)), (3, 5)),
    "EinsumDense, swapped heads": (lambda: layers.EinsumDense("abc,ecd->adbe", (2, 3, 4)), (3, 5)),
    "EinsumDense, ellipsis": (lambda: layers.EinsumDense("...x,xy->...y", 6), (3, 2, 5)),
    "EinsumDense, summed axis": (lambda: layers.EinsumDense("abc,cd->ad", 6), (3, 5)),
    "Conv1D": (lambda: layers.Conv1D(6, 3, use_bias=False), (7, 5)),
    "Conv1D causal": (
        lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2, use_bias=False),
        (7, 5),
    ),
    "Conv2D": (lambda: layers.Conv2D(6, (3, 2), use_bias=False), (7, 6, 4)),
    "Conv2D same": (lambda: layers.Conv2D(6, (4, 3), padding="same", use_bias=False), (7, 6, 4)),
    "Conv2D same strided": (
        lambda: layers.Conv2D(6, (3, 2), strides=(2, 3), padding="same", use_bias=False),
        (8, 7, 4),
    ),
    "Conv2D stride over the kernel": (
        lambda: layers.Conv2D(6, 1, strides=2, padding="same", use_bias=False),
        (7, 6, 4),
    ),
    "Conv2D dilated": (
        lambda: layers.Conv2D(6, 3, dilation_rate=(2, 1), padding="same", use_bias=False),
        (7, 6, 4),
    ),
    "Conv3D": (
        lambda: layers.Conv3D(4, 2, strides=(1, 2, 1), padding="same", use_bias=False),
        (4, 5, 4, 3),
    ),
    "SeparableConv1D": (
        lambda: layers.SeparableConv1D(6, 3, padding="same", use_bias=False),
        (7, 5),
    ),
    "SeparableConv2D": (
        lambda: layers.SeparableConv2D(6, 3, strides=2, depth_multiplier=2, use_bias=False),
        (7, 7, 5),
    ),
}


@pytest.mark.parametrize("name", FEED_FORWARD)
def test_the_input_matrix_times_the_kernel_is_the_output(name):
    make, shape = FEED_FORWARD[name]
    model = model_of(make(), shape)
    [weight] = weights_of(model)
    [(layer, inputs, outputs)] = watched(model, batch_of(4, *shape))
    product = input_matrix(weight, inputs) @ kernel_matrix(weight)
    assert layer is weight.layer
    np.testing.assert_allclose(product, output_matrix(weight, outputs), rtol=1e-4, atol=1e-5)


def test_the_rows_of_the_matrices_are_in_the_order_of_the_output():
    model = model_of(layers.Conv2D(6, 3, padding="same", use_bias=False), (5, 4, 2))
    [weight] = weights_of(model)
    [(_, inputs, outputs)] = watched(model, batch_of(3, 5, 4, 2))
    product = input_matrix(weight, inputs) @ kernel_matrix(weight)
    np.testing.assert_allclose(product.reshape(3, 5, 4, 6), outputs, rtol=1e-4, atol=1e-5)


def lstm_step(z, carry):
    i, f, c, o = np.split(z, 4, axis=-1)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    carry = sigmoid(f) * carry + sigmoid(i) * np.tanh(c)
    return sigmoid(o) * np.tanh(carry)


RECURRENT = {
    "LSTM": (lambda: layers.LSTM(6), (4, 5)),
    "unrolled LSTM": (lambda: layers.LSTM(6, unroll=True), (4, 5)),
    "backward LSTM": (lambda: layers.LSTM(6, go_backwards=True), (4, 5)),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(3, 2, strides=2), (3, 6, 2)),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(3, 2, padding="same"), (3, 5, 4, 2)),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_both_kernels_of_an_lstm_explain_every_one_of_its_steps(name):
    make, shape = RECURRENT[name]
    model = model_of(make(), shape)
    kernel, recurrent = weights_of(model)
    calls = watched(model, batch_of(4, *shape))
    # The trial step that Keras takes before its loop is not one of them.
    assert len(calls) == shape[0]
    bias = kernel.layer.bias.numpy()
    for cell, inputs, outputs in calls:
        z = input_matrix(kernel, inputs) @ kernel_matrix(kernel) + bias
        z = z + input_matrix(recurrent, inputs) @ kernel_matrix(recurrent)
        carry = inputs[1][1].numpy().reshape(len(z), -1)
        units = output_matrix(kernel, outputs)
        assert cell is kernel.layer is recurrent.layer
        np.testing.assert_allclose(lstm_step(z, carry), units, rtol=1e-4, atol=1e-5)


def test_both_kernels_of_a_simple_rnn_and_of_a_gru_see_inputs_and_state():
    simple = layers.SimpleRNN(3, activation=None, use_bias=False)
    gru = layers.GRU(6, use_bias=False)
    model = keras.Sequential([keras.Input((4, 5)), layers.RNN([simple.cell, gru.cell])])
    weights = weights_of(model)
    calls = watched(model, batch_of(2, 4, 5))
    # Stacked cells are called once more by Keras, to size masks for dropout.
    assert [call[0] for call in calls] == [simple.cell, gru.cell] * 4
    for cell, inputs, outputs in calls:
        kernel, recurrent = (weight for weight in weights if weight.layer is cell)
        x = input_matrix(kernel, inputs) @ kernel_matrix(kernel)
        h = input_matrix(recurrent, inputs) @ kernel_matrix(recurrent)
        if cell is simple.cell:
            expected = x + h
        else:
            update, reset = (1 / (1 + np.exp(-(x + h)[:, i : i + 6])) for i in (0, 6))
            state = input_matrix(recurrent, inputs)
            expected = update * state + (1 - update) * np.tanh(x[:, 12:] + reset * h[:, 12:])
        np.testing.assert_allclose(expected, output_matrix(kernel, outputs), rtol=1e-4, atol=1e-5)


def test_the_steps_of_a_recurrent_layer_are_reported_in_order():
    model = model_of(layers.Bidirectional(layers.SimpleRNN(2, use_bias=False)), (3, 5))
    x = batch_of(2, 3, 5)
    calls = watched(model, x)
    for step, (_, (inputs, _), _) in enumerate(calls[:3] + calls[:2:-1]):
        np.testing.assert_array_equal(inputs, x[:, step % 3])
    assert len(calls) == 6


def test_a_layer_that_is_called_twice_is_reported_twice():
    shared = layers.Dense(3)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, shared(shared(inputs)))
    (_, first, between), (_, second, _) = watched(model, batch_of(2, 3))
    np.testing.assert_array_equal(first, batch_of(2, 3))
    np.testing.assert_array_equal(between, second)


def test_layers_inside_of_nested_models_and_other_layers_are_reported():
    inputs = keras.Input((4, 6))
    x = layers.TimeDistributed(layers.Dense(6, name="distributed"))(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.Sequential([layers.Dense(5, name="nested")])(x)
    model = keras.Model(inputs, layers.SpectralNormalization(layers.Dense(2, name="normed"))(x))
    names = [layer.name for layer, _, _ in watched(model, batch_of(2, 4, 6))]
    assert names == [
        *["distributed"] * 4,
        *["query", "key", "value", "attention_output"],
        "nested",
        "normed",
    ]


def test_nothing_of_the_model_changes():
    model = keras.Sequential(
        [
            keras.Input((4, 5), batch_size=2),
            layers.LSTM(3, stateful=True, return_sequences=True, dropout=0.5),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, activity_regularizer="l2"),
        ]
    )
    before = [variable.numpy() for variable in model.variables]
    assert len(watched(model, batch_of(2, 4, 5))) == 5
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert all("call" not in vars(part) for part in model._flatten_layers())
    assert vars(model.layers[0])["use_cudnn"] == "auto"
    assert model.losses == []


def test_layers_are_released_when_something_fails(dense_net):
    def fail(layer, inputs, outputs):
        raise KeyError(layer.name)

    with pytest.raises(KeyError, match="d1"), watch_layers(dense_net, dense_net.layers, fail):
        dense_net(batch_of(2, 8))
    assert not any("call" in vars(layer) for layer in dense_net.layers)


def test_shapes_are_inferred_without_a_report(dense_net):
    calls = []
    with watch_layers(dense_net, dense_net.layers, lambda *call: calls.append(call)):
        dense_net(keras.Input((8,)))
    assert calls == []


def test_observe_reports_each_weight_on_each_batch(dense_net):
    seen = []
    probe = Probe(dense_net, weights_of(dense_net), batch_of(40, 8))
    observe(probe, lambda index, inputs, outputs: seen.append((index, len(inputs))))
    assert seen == [(0, 32), (1, 32), (0, 8), (1, 8)]


@pytest.mark.filterwarnings("ignore:Even though:UserWarning")  # tf.data stays in graphs anyway.
def test_layers_that_the_data_does_not_reach_or_that_run_in_a_graph_are_named(dense_net):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.net = dense_net
            self.unused = layers.Dense(2, name="unused")
            self.unused.build((None, 3))

        @tf.function
        def call(self, x):
            return self.net(x)

    model = Own()
    model(batch_of(1, 8))
    probe = Probe(model, weights_of(model), batch_of(4, 8))
    for new_shape in (False, True):
        with pytest.raises(UnsupportedModelError, match=r"not called.*d1/k.*d2/k.*unused/k"):
            observe(probe, lambda index, inputs, outputs: None)
        probe = Probe(model, probe.weights, batch_of(5 + new_shape, 8))
    tf.config.run_functions_eagerly(True)
    try:
        with pytest.raises(
            UnsupportedModelError, match=r"not called.*\['unused/kernel'\].*exclude"
        ):
            observe(probe, lambda index, inputs, outputs: None)
    finally:
        tf.config.run_functions_eagerly(False)


def test_rows_are_drawn_without_replacement_and_by_seed():
    model = model_of(layers.Conv2D(2, 3), (6, 6, 1))
    [weight] = weights_of(model)
    x = np.arange(72, dtype="float32").reshape(2, 6, 6, 1)
    every = {tuple(row) for row in input_matrix(weight, x)}
    drawn = input_matrix(weight, x, max_rows=10, seed=3)
    assert drawn.shape == (10, 9)
    assert len({tuple(row) for row in drawn} & every) == 10
    np.testing.assert_array_equal(drawn, input_matrix(weight, x, max_rows=10, seed=3))
    assert (drawn != input_matrix(weight, x, max_rows=10, seed=4)).any()
    generator = np.random.default_rng(0)
    first, second = (input_matrix(weight, x, max_rows=10, seed=generator) for _ in range(2))
    assert (first != second).any()
    assert input_matrix(weight, x, max_rows=1000).shape == (32, 9)


def test_the_order_of_the_data_axes_does_not_matter():
    x = batch_of(2, 6, 7, 3)
    matrices = []
    for data_format, array in (("channels_last", x), ("channels_first", np.moveaxis(x, -1, 1))):
        conv = layers.Conv2D(2, 3, strides=2, padding="same", data_format=data_format)
        conv.build(array.shape)
        [weight] = weights_of(conv)
        matrices.append((input_matrix(weight, array), output_matrix(weight, array)))
    np.testing.assert_array_equal(*[inputs for inputs, _ in matrices])
    np.testing.assert_array_equal(*[outputs for _, outputs in matrices])


def test_sixteen_bit_inputs_are_read_as_float32():
    model = model_of(layers.Dense(3, dtype="mixed_bfloat16"), (5,))
    [weight] = weights_of(model)
    [(_, inputs, _)] = watched(model, batch_of(2, 5))
    matrix = input_matrix(weight, inputs)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, batch_of(2, 5), rtol=1e-2)


UNSUPPORTED = {
    "grouped": (lambda: layers.Conv2D(6, 3, groups=2), (7, 7, 4)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (7, 7, 4)),
    "transposed": (lambda: layers.Conv2DTranspose(6, 3), (7, 7, 4)),
    "grouped einsum": (lambda: layers.EinsumDense("abc,bcd->abd", (3, 6)), (3, 5)),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_kernel_that_no_single_matrix_explains_is_refused(name):
    make, shape = UNSUPPORTED[name]
    layer = make()
    layer.build((None, *shape))
    [weight] = weights_of(layer, include=lambda _: True)
    with pytest.raises(UnsupportedModelError, match=rf"{weight.path} \({type(layer).__name__}\)"):
        input_matrix(weight, batch_of(2, *shape))


def test_the_recurrent_kernel_of_an_old_style_gru_and_a_bias_have_no_view():
    gru = layers.GRU(3, reset_after=False)
    gru.build((None, 4, 5))
    kernel, recurrent = weights_of(gru)
    assert find_input_view(kernel) is not None
    assert find_input_view(recurrent) is None
    dense = layers.Dense(3)
    dense.build((None, 4))
    [bias] = weights_of(dense, include=dense.bias.path)
    assert find_input_view(bias) is None
