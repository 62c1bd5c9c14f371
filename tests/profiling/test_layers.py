"""One table over the layer classes: dense and effective MACs of each."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfprune.profiling import profile


def model_of(shape, layer):
    return keras.Sequential([keras.Input(shape), layer])


# Layer, shape of one example, MACs by hand.
WEIGHTED = {
    "Dense": (lambda: layers.Dense(5), (7,), 35),
    "EinsumDense": (lambda: layers.EinsumDense("abc,cde->abde", (4, 2, 3)), (4, 5), 4 * 5 * 2 * 3),
    "EinsumDense ellipsis": (
        lambda: layers.EinsumDense("...x,xy->...y", 3, bias_axes="y"),
        (4, 5),
        4 * 5 * 3,
    ),
    "Conv1D": (lambda: layers.Conv1D(4, 3, padding="causal"), (9, 2), 9 * 3 * 2 * 4),
    "Conv2D": (lambda: layers.Conv2D(4, 3, strides=2), (9, 9, 2), 16 * 9 * 2 * 4),
    "Conv2D groups": (lambda: layers.Conv2D(6, 3, groups=2), (9, 8, 4), 42 * 9 * 4 * 6 // 2),
    "Conv3D": (lambda: layers.Conv3D(4, 2), (3, 4, 5, 2), 2 * 3 * 4 * 8 * 2 * 4),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(4, 3, strides=2), (5, 2), 5 * 3 * 2 * 4),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3, strides=2), (5, 5, 2), 25 * 9 * 8),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(4, 2), (2, 3, 4, 2), 24 * 8 * 2 * 4),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), (9, 2), 7 * 3 * 2),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), (9, 9, 2), 49 * 9 * 2),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(4, 3), (9, 2), 7 * (3 * 2 + 2 * 4)),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3), (9, 9, 2), 49 * (9 * 2 + 2 * 4)),
    "SimpleRNN": (lambda: layers.SimpleRNN(4), (6, 3), 6 * (3 + 4) * 4),
    "LSTM": (lambda: layers.LSTM(4), (6, 3), 6 * 4 * (3 + 4) * 4),
    "GRU": (lambda: layers.GRU(4, reset_after=False), (6, 3), 6 * 3 * (3 + 4) * 4),
    "RNN of a cell": (lambda: layers.RNN(layers.LSTMCell(4)), (6, 3), 6 * 4 * (3 + 4) * 4),
    "RNN of stacked cells": (
        lambda: layers.RNN([layers.GRUCell(4), layers.LSTMCell(5)]),
        (6, 3),
        6 * (3 * (3 + 4) * 4 + 4 * (4 + 5) * 5),
    ),
    "ConvLSTM1D": (lambda: layers.ConvLSTM1D(4, 3), (6, 9, 2), 6 * 7 * 3 * (2 + 4) * 16),
    "ConvLSTM3D": (lambda: layers.ConvLSTM3D(2, 2), (2, 3, 3, 3, 1), 2 * 8 * 8 * (1 + 2) * 8),
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(4)),
        (6, 3),
        2 * 6 * 4 * (3 + 4) * 4,
    ),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(4)), (6, 3), 6 * 3 * 4),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(4)), (3,), 12),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_macs_of_a_layer_are_as_by_hand(name):
    make, shape, macs = WEIGHTED[name]
    model = model_of(shape, make())
    report = profile(model)
    assert report.macs == macs
    assert report.parameters == model.count_params()
    assert report.uncounted == ()
    assert report.flops >= 2 * macs


@pytest.mark.parametrize("name", WEIGHTED)
def test_effective_macs_fall_with_the_zeros_of_each_kernel(name):
    make, shape, macs = WEIGHTED[name]
    model = model_of(shape, make())
    for weight in model.weights:
        weight.assign(ops.ones(weight.shape))
    assert profile(model).effective_macs == macs
    for weight in model.weights:
        if "kernel" in weight.path:
            halved = np.ones(weight.shape, "float32").ravel()
            halved[::2] = 0
            weight.assign(halved.reshape(weight.shape))
    report = profile(model)
    # Kernels of odd size lose one more than half.
    assert report.effective_macs == pytest.approx(macs / 2, rel=0.2)
    assert report.macs == macs
    assert report.effective_flops == report.flops - 2 * (report.macs - report.effective_macs)


def test_each_kernel_of_a_layer_weighs_by_its_own_zeros():
    layer = layers.SeparableConv2D(4, 3)
    model = model_of((9, 9, 2), layer)
    layer.pointwise_kernel.assign(ops.zeros((1, 1, 2, 4)))
    assert profile(model).effective_macs == 49 * 9 * 2


@pytest.mark.parametrize(
    ("make", "shape", "flops"),
    [
        (layers.BatchNormalization, (4, 4, 3), 2 * 48),
        (lambda: layers.Normalization(mean=0.0, variance=1.0), (3,), 2 * 3),
        (lambda: layers.Rescaling(2.0), (3,), 2 * 3),
        (layers.LayerNormalization, (5, 3), 8 * 15),
        (lambda: layers.GroupNormalization(3), (5, 3), 8 * 15),
        (layers.RMSNormalization, (5, 3), 4 * 15),
        (layers.UnitNormalization, (5, 3), 3 * 15),
        (layers.ReLU, (3,), 3),
        (layers.PReLU, (3,), 3),
        (lambda: layers.Activation("gelu"), (3,), 3),
        (lambda: layers.Activation("linear"), (3,), 0),
        (lambda: layers.MaxPooling2D(2), (4, 4, 3), 2 * 2 * 3 * 4),
        (lambda: layers.AveragePooling1D(2), (4, 3), 2 * 3 * 2),
        (layers.GlobalAveragePooling2D, (4, 4, 3), 48),
        (lambda: layers.AdaptiveMaxPooling2D(2), (4, 4, 3), 48),
        (lambda: layers.Dropout(0.5), (3,), 0),
        (lambda: layers.UpSampling2D(2), (4, 4, 3), 0),
    ],
)
def test_elementwise_layers_count_flops_and_no_macs(make, shape, flops):
    report = profile(model_of(shape, make()))
    assert (report.flops, report.macs) == (flops, 0)
    assert report.uncounted == ()


@pytest.mark.parametrize(
    ("merge", "flops"),
    [
        (layers.Add(), 2 * 5),
        (layers.Multiply(), 2 * 5),
        (layers.Average(), 3 * 5),
        (layers.Concatenate(), 0),
    ],
)
def test_merges_count_an_operation_per_further_input(merge, flops):
    inputs = [keras.Input((5,)) for _ in range(3)]
    assert profile(keras.Model(inputs, merge(inputs))).flops == flops


@pytest.mark.parametrize(
    ("combine", "macs"),
    [
        (lambda a, b: layers.Dot(axes=(2, 2))([a, b]), 3 * 5 * 4),
        (lambda a, b: layers.Dot(axes=-1, normalize=True)([a, b]), 3 * 5 * 4),
        (lambda a, b: a @ ops.transpose(b, (0, 2, 1)), 3 * 5 * 4),
        (lambda a, b: ops.einsum("bij,bkj->bik", a, b), 3 * 5 * 4),
        (lambda a, b: layers.Attention()([a, b]), 3 * 5 * (4 + 4)),
        (lambda a, b: layers.Attention(score_mode="concat")([a, b]), 3 * 5 * 4),
        (lambda a, b: layers.AdditiveAttention()([a, b]), 3 * 5 * (4 + 4)),
        (lambda a, b: layers.AdditiveAttention(use_scale=False)([a, b]), 3 * 5 * 4),
    ],
)
def test_products_of_two_activations_are_macs_that_zeros_cannot_save(combine, macs):
    a, b = keras.Input((3, 4)), keras.Input((5, 4))
    report = profile(keras.Model([a, b], combine(a, b)))
    assert report.macs == report.effective_macs == macs


def test_inline_arithmetic_of_a_functional_model_is_counted():
    x = keras.Input((4,))
    assert profile(keras.Model(x, x * x + x)).flops == 8


# Keras's own, while it quantizes.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_lora_and_quantized_kernels_are_counted():
    layer = layers.Dense(4)
    model = model_of((8,), layer)
    layer.enable_lora(2)
    assert profile(model).effective_macs == 32
    quantized = model_of((8,), layers.Dense(4, kernel_initializer="ones"))
    quantized.layers[0].quantize("int8")
    report = profile(quantized)
    assert (report.macs, report.effective_macs, report.layers[0].calls) == (32, 32, 1)
    assert report.bytes.dense == 32 + 4 * 4 + 4 * 4


def test_channels_first_counts_the_same():
    last = model_of((9, 8, 3), layers.Conv2D(4, 3))
    first = model_of((3, 9, 8), layers.Conv2D(4, 3, data_format="channels_first"))
    assert profile(first).macs == profile(last).macs
