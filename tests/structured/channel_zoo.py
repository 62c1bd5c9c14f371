"""Small models, one for each kind of wiring: what is cut in them, and why the rest is frozen."""

from __future__ import annotations

import keras
import numpy as np

layers, ops = keras.layers, keras.ops


def residual_conv():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, name="stem")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.Conv2D(12, 3, padding="same", name="up")(x)
    x = layers.Add()([x, layers.Conv2D(8, 1, name="down")(y)])
    return keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))


def grouped_convs():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, groups=4)(layers.Conv2D(12, 3)(inputs))
    x = layers.Conv2D(8, 3, groups=8, padding="same")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.SeparableConv2D(6, 1, depth_multiplier=2)(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def channels_first():
    first = {"data_format": "channels_first"}
    inputs = keras.Input((3, 9, 9))
    x = layers.Conv2D(8, 3, padding="same", **first)(inputs)
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.DepthwiseConv2D(3, padding="same", **first)(x)
    x = layers.SeparableConv2D(6, 1, **first)(x)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D(**first)(x)))


def channel_shuffle():
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((6, 6, 3, 4))(layers.Conv2D(12, 3)(inputs))
    x = layers.Reshape((6, 6, 12))(layers.Permute((1, 2, 4, 3))(x))
    x = ops.relu(layers.Conv2D(8, 1)(x) * 2 + 1)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def slices_and_splits():
    inputs = keras.Input((6,))
    x = layers.Dense(12, "relu")(inputs)
    first, second = ops.split(x, 2, axis=-1)
    y = layers.Dense(6)(x[..., :5])
    z = first * ops.sigmoid(second)
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([y, z])))


def squeeze_excite():
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(10, 3, activation="swish")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    x = layers.Multiply()([x, layers.Conv2D(10, 1, activation="sigmoid")(gate)])
    x = layers.Multiply()([x, layers.Conv2D(1, 1)(x)])
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(x)))


def nested_models():
    inner = keras.Sequential(
        [keras.Input((8, 8, 6)), layers.Conv2D(6, 3, padding="same"), layers.BatchNormalization()],
        name="inner",
    )
    x = keras.Input((8, 8, 6))
    y = layers.Conv2D(6, 1)(x)
    two = keras.Model(x, [layers.ReLU()(y + x), layers.Conv2D(5, 1)(y)], name="two")
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 1)(inputs)
    a, b = two(inner(inner(x)))
    c, d = two(a)
    x = layers.Flatten()(layers.Concatenate()([a, b, c, d]))
    return keras.Model({"image": inputs}, {"out": layers.Dense(2)(x)})


def recurrent():
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(20, 10, mask_zero=True)(inputs)
    x = layers.LSTM(8, return_sequences=True)(x)
    x = layers.GRU(7, return_sequences=True)(x)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    x = layers.Bidirectional(layers.GRU(4, reset_after=False), merge_mode="sum")(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def recurrent_states():
    inputs = keras.Input((7, 4))
    x, hidden, cell = layers.LSTM(6, return_state=True, return_sequences=True)(inputs)
    y = layers.LSTM(6)(x, initial_state=[hidden, cell])
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([y, layers.SimpleRNN(5)(x)])))


def time_distributed():
    inputs = keras.Input((4, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(6, 3, activation="relu"))(inputs)
    x = layers.TimeDistributed(layers.BatchNormalization())(x)
    x = layers.LSTM(5)(layers.TimeDistributed(layers.Flatten())(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def transformer(attention):
    def build():
        tokens = keras.Input((6,), dtype="int32")
        positions = ops.zeros_like(tokens) + ops.arange(6)
        x = layers.Embedding(20, 12, mask_zero=True)(tokens) + layers.Embedding(6, 12)(positions)
        for _ in range(2):
            x = layers.LayerNormalization()(x + attention()(x, x))
            y = layers.Dense(12)(layers.Dropout(0.1)(layers.Dense(20, "gelu")(x)))
            x = layers.LayerNormalization()(x + y)
        return keras.Model(tokens, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))

    return build


def group_norm():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.GroupNormalization(4)(layers.Conv2D(12, 3)(inputs)))
    x = layers.GroupNormalization(-1)(layers.Conv2D(8, 3)(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def einsum():
    inputs = keras.Input((5, 8))
    x = layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="de")(inputs)
    x = layers.EinsumDense("abde,def->abf", (None, 10), bias_axes="f", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2)(layers.EinsumDense("...x,xy->...y", 7)(x)))


def mixer():
    inputs = keras.Input((5, 8))
    x = layers.Dense(9)(inputs)
    y = layers.Dense(5)(layers.Dense(6, "relu")(layers.Permute((2, 1))(x)))
    x = layers.Dense(4)(x + layers.Permute((2, 1))(y))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def transposed_and_more():
    inputs = keras.Input((5, 5, 8))
    x = layers.UpSampling2D()(layers.Conv2DTranspose(9, 3, strides=2)(inputs))
    x = layers.Cropping2D()(layers.ZeroPadding2D()(x))
    x = layers.AveragePooling2D(2)(layers.PReLU(shared_axes=[1, 2])(x))
    x = layers.PReLU()(layers.Conv1D(6, 2)(ops.mean(x, axis=1)))
    x = layers.Lambda(lambda t: ops.clip(t, 0.0, 6.0))(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def conditions():
    inputs = keras.Input((6, 6, 3))
    a, b = layers.Conv2D(8, 1)(inputs), layers.Conv2D(8, 1)(inputs)
    x = layers.Maximum()([ops.where(a > 0, a, b * a), a])
    x = layers.Resizing(4, 4)(ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 2))))
    x = ops.round(layers.Conv2D(4, 1)(x) * 10)
    heads = [layers.Dense(2)(layers.Flatten()(x)), layers.Dense(3)(layers.GlobalMaxPooling2D()(b))]
    return keras.Model(inputs, heads)


def siamese():
    first, second = layers.Dense(6, "relu"), layers.Dense(8)
    inputs = [keras.Input((8,)), keras.Input((8,))]
    a, b = (second(layers.Dense(8)(first(x))) for x in inputs)
    return keras.Model(inputs, layers.Dense(2)(ops.abs(a - b)))


def manual_attention():
    inputs = keras.Input((5, 8))
    x = layers.Dense(9)(inputs)
    query, key, value = layers.Dense(6)(x), layers.Dense(6)(x), layers.Dense(7)(x)
    weights = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))))
    return keras.Model(inputs, layers.Dense(2)(ops.matmul(weights, value)))


def mixing():
    inputs = keras.Input((6,))
    x = layers.Softmax()(layers.Dense(8)(layers.Dense(8, "softmax")(inputs)))
    x = layers.LayerNormalization()(layers.Dense(6)(x))
    x = layers.UnitNormalization()(layers.Dense(5)(x))
    x = layers.Dense(5)(x) + np.ones(5, "float32")
    x = layers.Dense(5)(x)
    return keras.Model(inputs, layers.Dense(2)(x - ops.mean(x, axis=-1, keepdims=True)))


ZOO = {
    "residual convolutions": residual_conv,
    "grouped, depthwise and separable convolutions": grouped_convs,
    "channels first": channels_first,
    "channel shuffle": channel_shuffle,
    "slices and splits": slices_and_splits,
    "squeeze and excite, open sizes": squeeze_excite,
    "nested models and dicts": nested_models,
    "recurrent layers": recurrent,
    "recurrent states": recurrent_states,
    "time distributed": time_distributed,
    "multi-head attention": transformer(lambda: layers.MultiHeadAttention(3, 5, value_dim=4)),
    "gated attention": transformer(lambda: layers.MultiHeadAttention(3, 4, use_gate=True)),
    "group-query attention": transformer(lambda: layers.GroupQueryAttention(6, 4, 2)),
    "group normalization": group_norm,
    "einsum": einsum,
    "mixer": mixer,
    "transposed convolution and PReLU": transposed_and_more,
    "conditions, padding, resizing": conditions,
    "shared layers": siamese,
    "attention by hand": manual_attention,
}
