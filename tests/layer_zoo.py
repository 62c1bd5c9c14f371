"""Every Keras layer with a kernel, with an input that fits it: the table of the contract tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

layers = keras.layers


@dataclass(frozen=True)
class Example:
    """A layer, the shape of its inputs without the batch, and how many kernels it has.

    Args:
        make: makes the layer.
        shape: shape of one input example.
        kernels: number of weights that are pruned without being asked.
        integers: whether the input is token ids.
        self_attention: whether the layer is called as `layer(x, x)`.
    """

    make: Callable[[], keras.layers.Layer]
    shape: tuple[int, ...]
    kernels: int = 1
    integers: bool = False
    self_attention: bool = False

    def batch(self, size: int = 4) -> np.ndarray:
        """Return a random batch."""
        rng = np.random.default_rng(0)
        if self.integers:
            return rng.integers(0, 10, size=(size, *self.shape))
        return rng.normal(size=(size, *self.shape)).astype("float32")

    def model(self) -> keras.Model:
        """Return a model of this layer alone."""
        inputs = keras.Input(self.shape, dtype="int32" if self.integers else "float32")
        layer = self.make()
        arguments = (inputs, inputs) if self.self_attention else (inputs,)
        return keras.Model(inputs, layer(*arguments))


class OwnBlock(keras.layers.Layer):
    """A user's block: kernels in sublayers, one of them in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(6, name="first")
        self.rest = [layers.Dense(6, name="second"), layers.LayerNormalization(name="norm")]

    def build(self, shape):
        self.first.build(shape)
        for layer in self.rest:
            layer.build((*shape[:-1], 6))

    def call(self, x, training=None):
        x = self.first(x)
        for layer in self.rest:
            x = layer(x)
        return x


class OwnPrunable(keras.layers.Layer):
    """A user's layer that names its prunable weights itself."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], 6), name="matrix")
        self.offset = self.add_weight(shape=(6,), name="offset")

    def call(self, x):
        return keras.ops.matmul(x, self.matrix) + self.offset

    def get_prunable_weights(self):
        return [self.matrix]


class Reader(layers.Layer):
    """Reads the kernel of another layer, transposed."""

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs)
        self.source = source

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.source.kernel))


keras.saving.register_keras_serializable("layer_zoo")(OwnBlock)
keras.saving.register_keras_serializable("layer_zoo")(OwnPrunable)

ZOO = {
    "Dense": Example(lambda: layers.Dense(6), (5,)),
    "EinsumDense": Example(lambda: layers.EinsumDense("abc,cd->abd", (None, 6)), (3, 5)),
    "Conv1D": Example(lambda: layers.Conv1D(6, 3), (7, 5)),
    "Conv2D": Example(lambda: layers.Conv2D(6, 3, groups=2), (7, 7, 4)),
    "Conv3D": Example(lambda: layers.Conv3D(4, 2), (4, 4, 4, 3)),
    "Conv1DTranspose": Example(lambda: layers.Conv1DTranspose(6, 3), (7, 5)),
    "Conv2DTranspose": Example(lambda: layers.Conv2DTranspose(6, 3, strides=2), (5, 5, 4)),
    "Conv3DTranspose": Example(lambda: layers.Conv3DTranspose(3, 2), (3, 3, 3, 4)),
    "SeparableConv1D": Example(lambda: layers.SeparableConv1D(6, 3), (7, 5)),
    "SeparableConv2D": Example(lambda: layers.SeparableConv2D(6, 3), (7, 7, 5)),
    "DepthwiseConv1D": Example(lambda: layers.DepthwiseConv1D(3), (7, 5), kernels=0),
    "DepthwiseConv2D": Example(lambda: layers.DepthwiseConv2D(3), (7, 7, 5), kernels=0),
    "Embedding": Example(lambda: layers.Embedding(10, 6, mask_zero=True), (5,), integers=True),
    "ReversibleEmbedding": Example(lambda: layers.ReversibleEmbedding(10, 6), (5,), integers=True),
    "LSTM": Example(lambda: layers.LSTM(6), (4, 5), kernels=2),
    "GRU": Example(lambda: layers.GRU(6, return_sequences=True), (4, 5), kernels=2),
    "SimpleRNN": Example(lambda: layers.SimpleRNN(6), (4, 5), kernels=2),
    "RNN of cells": Example(
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]), (4, 5), kernels=4
    ),
    "ConvLSTM1D": Example(lambda: layers.ConvLSTM1D(3, 2), (3, 6, 2), kernels=2),
    "ConvLSTM2D": Example(lambda: layers.ConvLSTM2D(3, 2), (3, 5, 5, 2), kernels=2),
    "Bidirectional": Example(lambda: layers.Bidirectional(layers.LSTM(3)), (4, 5), kernels=4),
    "TimeDistributed": Example(lambda: layers.TimeDistributed(layers.Dense(6)), (3, 5)),
    "MultiHeadAttention": Example(
        lambda: layers.MultiHeadAttention(2, 4), (5, 6), kernels=4, self_attention=True
    ),
    "GroupQueryAttention": Example(
        lambda: layers.GroupQueryAttention(4, 4, 2), (5, 6), kernels=4, self_attention=True
    ),
    "SpectralNormalization": Example(lambda: layers.SpectralNormalization(layers.Dense(6)), (5,)),
    "a user's block": Example(OwnBlock, (5,), kernels=2),
    "a user's layer": Example(OwnPrunable, (5,)),
}
