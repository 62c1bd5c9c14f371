"""TensorFlow's own FLOP counter, read off the graph, as the independent second opinion."""

import keras
import pytest
import tensorflow as tf
from keras import layers

from tfprune.profiling import profile

PRODUCTS = ["MatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "DepthwiseConv2dNative"]


def tf_flops(model, op_types=(".*",)):
    function = tf.function(lambda *x: model(*x, training=False), autograph=False)
    specs = [tf.TensorSpec((1, *x.shape[1:]), x.dtype) for x in model.inputs]
    graph = function.get_concrete_function(*specs).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    options["account_type_regexes"] = list(op_types)
    return tf.compat.v1.profiler.profile(graph, cmd="op", options=options).total_float_ops


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((7,), layers.Dense(5)),
        ((6, 7), layers.Dense(5)),
        ((9, 8, 3), layers.Conv2D(4, 3)),
        ((9, 8, 3), layers.Conv2D(4, 3, strides=2, padding="same")),
        # Even sizes: on a CPU a dilated convolution runs on maps padded to the dilation rate.
        ((10, 8, 3), layers.Conv2D(4, 3, dilation_rate=2, use_bias=False)),
        ((9, 8, 3), layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
        ((9, 8, 3), layers.SeparableConv2D(4, 3, strides=2, use_bias=False)),
        ((9, 3), layers.Conv1D(4, 3, use_bias=False)),
        ((9, 3), layers.DepthwiseConv1D(3, use_bias=False)),
        ((9, 3), layers.SeparableConv1D(4, 3, use_bias=False)),
        # Kernel equal to the stride: the one case where TensorFlow's formula is exact.
        ((4, 4, 3), layers.Conv2DTranspose(5, 2, strides=2, use_bias=False)),
        ((9, 5), layers.SimpleRNN(6, unroll=True)),
        ((9, 5), layers.LSTM(6, unroll=True)),
        ((9, 5), layers.GRU(6, unroll=True)),
        ((9, 5), layers.Bidirectional(layers.LSTM(6, unroll=True))),
        ((4, 8, 8, 3), layers.TimeDistributed(layers.Conv2D(4, 3))),
    ],
    ids=lambda value: value.name if isinstance(value, layers.Layer) else str(value),
)
def test_macs_of_a_layer_are_half_the_flops_of_its_products_in_the_graph(shape, layer):
    model = keras.Sequential([keras.Input(shape), layer])
    products = [*PRODUCTS, "Conv2DBackpropInput"]
    assert 2 * profile(model).macs == tf_flops(model, products)


def test_flops_of_a_convolutional_network_equal_those_of_the_graph():
    x = keras.Input((16, 16, 3))
    y = layers.Conv2D(8, 3, padding="same")(x)
    y = layers.Add()([y, layers.DepthwiseConv2D(3, padding="same")(y)])
    y = layers.MaxPooling2D(2)(y)
    y = layers.Flatten()(layers.AveragePooling2D(2)(y))
    model = keras.Model(x, layers.Dense(10)(y))
    assert profile(model).flops == tf_flops(model)


def test_macs_of_mobilenet_equal_those_of_the_graph():
    model = keras.applications.MobileNet((64, 64, 3), alpha=0.25, weights=None, classes=10)
    assert 2 * profile(model, gzip=False).macs == tf_flops(model, PRODUCTS)
