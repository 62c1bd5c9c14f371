"""Random functional models for the fuzz test: any operation on any tensors made before."""

from __future__ import annotations

import keras
import numpy as np

layers, ops = keras.layers, keras.ops

_SIZE = 5


class GraphMaker:
    """Builds one model from the choices that `choose(options)` makes.

    Args:
        choose: returns one of a list of options.
    """

    def __init__(self, choose):
        self.choose = choose
        self.tensors = []

    def model(self, steps):
        inputs = keras.Input((_SIZE, _SIZE, 3))
        self.tensors = [
            layers.Conv2D(self.width(), 1)(inputs),
            layers.Conv2D(6, 3, padding="same")(inputs),
        ]
        makers = [self.conv, self.depthwise, self.norm, self.activation, self.add, self.multiply]
        makers += [self.concat, self.piece, self.split, self.gate, self.pool, self.shuffle]
        makers += [self.grouped, self.inline, self.nested, self.shared, self.mixing, self.separable]
        for _ in range(steps):
            self.tensors += self.choose(makers)()
        heads = [layers.GlobalAveragePooling2D()(self.tensors[-1])]
        if self.choose([True, False]):
            heads.append(layers.Flatten()(self.choose(self.tensors)))
        outputs = [layers.Dense(2)(head) for head in heads]
        return keras.Model(inputs, outputs)

    def width(self):
        return self.choose([2, 4, 6, 7])

    def tensor(self):
        return self.choose(self.tensors[-4:])

    def alike(self, x):
        """Return a tensor of the same width, made for it if there is none."""
        found = [y for y in self.tensors if y.shape == x.shape and y is not x]
        return self.choose(found) if found else layers.Conv2D(x.shape[-1], 1)(x)

    def conv(self):
        activation = self.choose([None, "relu", "sigmoid", "softplus"])
        size = self.choose([1, 3])
        return [
            layers.Conv2D(self.width(), size, padding="same", activation=activation)(self.tensor())
        ]

    def depthwise(self):
        multiplier = self.choose([1, 2])
        return [
            layers.DepthwiseConv2D(3, padding="same", depth_multiplier=multiplier)(self.tensor())
        ]

    def separable(self):
        return [layers.SeparableConv2D(self.width(), 3, padding="same")(self.tensor())]

    def norm(self):
        return [layers.BatchNormalization()(self.tensor())]

    def activation(self):
        name = self.choose(["relu", "relu6", "tanh", "hard_sigmoid", "swish", "elu"])
        return [layers.Activation(name)(self.tensor())]

    def add(self):
        x = self.tensor()
        return [layers.Add()([x, self.alike(x)])]

    def multiply(self):
        x = self.tensor()
        kind = self.choose([layers.Multiply, layers.Maximum, layers.Average, layers.Subtract])
        return [kind()([x, self.alike(x)])]

    def concat(self):
        return [layers.Concatenate()([self.tensor(), self.choose(self.tensors)])]

    def piece(self):
        x = self.tensor()
        half = max(x.shape[-1] // 2, 1)
        return [
            self.choose([lambda: x[..., :half], lambda: x[..., half - 1 :], lambda: x[..., ::-1]])()
        ]

    def split(self):
        x = self.tensor()
        return (
            list(ops.split(x, 2, axis=-1)) if x.shape[-1] % 2 == 0 and x.shape[-1] > 3 else [x * 2]
        )

    def gate(self):
        x = self.tensor()
        pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
        width = self.choose([1, x.shape[-1]])
        return [x * layers.Conv2D(width, 1, activation="sigmoid")(pooled)]

    def pool(self):
        kind = self.choose([layers.MaxPooling2D, layers.AveragePooling2D])
        return [kind(3, strides=1, padding="same")(self.tensor())]

    def shuffle(self):
        x = self.tensor()
        if x.shape[-1] % 2:
            return [ops.abs(x)]
        x = layers.Reshape((_SIZE, _SIZE, 2, x.shape[-1] // 2))(x)
        x = layers.Permute((1, 2, 4, 3))(x)
        return [layers.Reshape((_SIZE, _SIZE, -1))(x)]

    def grouped(self):
        x = self.tensor()
        groups = 2 if x.shape[-1] % 2 == 0 else x.shape[-1]
        return [layers.Conv2D(2 * groups, 3, groups=groups, padding="same")(x)]

    def inline(self):
        x = self.tensor()
        return [
            self.choose(
                [
                    lambda: ops.relu(x) + 1.0,
                    lambda: ops.where(x > 0, x, self.alike(x)),
                    lambda: ops.clip(x, -1.0, 1.0) * x,
                    lambda: ops.square(x) - ops.exp(-x),
                    lambda: x + np.arange(x.shape[-1], dtype="float32"),
                ]
            )()
        ]

    def nested(self):
        x = self.tensor()
        width = x.shape[-1]
        if self.choose([True, False]):
            inner = keras.Sequential(
                [keras.Input((_SIZE, _SIZE, width)), layers.Conv2D(width, 1), layers.ReLU()]
            )
        else:
            y = keras.Input((_SIZE, _SIZE, width))
            inner = keras.Model(y, layers.PReLU(shared_axes=[1, 2])(y) + layers.Conv2D(width, 1)(y))
        return [inner(inner(x)) if self.choose([True, False]) else inner(x)]

    def shared(self):
        x = self.tensor()
        layer = layers.Conv2D(self.width(), 1)
        return [layer(x), layer(self.alike(x))]

    def mixing(self):
        x = self.tensor()
        return [
            self.choose(
                [
                    lambda: layers.Softmax()(x),
                    lambda: layers.LayerNormalization()(x),
                    lambda: x - ops.mean(x, axis=-1, keepdims=True),
                    lambda: layers.GroupNormalization(x.shape[-1])(x),
                    lambda: ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0))),
                ]
            )()
        ]
