"""Exact rewrites: a turned model, or one with another head, computes what the original does."""

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import given, settings

from tfprune.errors import UnsupportedModelError
from tfprune.export.sparse_runtime.rewrites import settle_head, turn

layers = keras.layers


def randomized(model, seed=0):
    """Give all weights random values; statistics stay positive."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        values = rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1]) or 1)
        weight.assign(values if len(weight.shape) > 1 else 1 + np.abs(values))
    return model


def difference(model, other, size, seed=1):
    x = np.random.default_rng(seed).random((2, *size, 3), "float32")
    expected, found = (net(x, training=False).numpy() for net in (model, other))
    return np.abs(expected - found).max() / np.abs(expected).max()


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(9, 16), st.integers(9, 16)),
    kernel=st.sampled_from([1, 2, 3, 5, (3, 1), (2, 5)]),
    strides=st.sampled_from([1, 2, 3]),
    padding=st.sampled_from(["same", "valid", ((0, 1), (0, 1)), ((2, 0), (1, 3))]),
    depthwise=st.booleans(),
)
def test_convolutions_of_every_size_and_padding(size, kernel, strides, padding, depthwise):
    inputs = x = keras.Input((*size, 3))
    if not isinstance(padding, str):
        x, padding = layers.ZeroPadding2D(padding)(x), "valid"
    if depthwise:
        x = layers.DepthwiseConv2D(kernel, strides, padding, depth_multiplier=2)(x)
    else:
        x = layers.Conv2D(4, kernel, strides, padding)(x)
    model = randomized(keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.ReLU()(x))))
    assert difference(model, turn(model), size) < 1e-5


@pytest.mark.parametrize("top", [True, False])
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0"])
def test_keras_applications(name, top):
    options = {} if top else {"include_top": False, "pooling": "avg"}
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), **options)
    model = randomized(model)
    assert difference(model, turn(model), (64, 64)) < 1e-5


def test_a_sequential_model_and_several_inputs():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, 2, "same"),
            layers.SeparableConv2D(5, 3, padding="same"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    assert difference(model, turn(model), (8, 8)) < 1e-5
    image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="extra")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, 2, "same")(image))
    model = keras.Model({"image": image, "extra": extra}, layers.Concatenate()([pooled, extra]))
    rng = np.random.default_rng(0)
    x = {"image": rng.random((2, 8, 8, 3)), "extra": rng.random((2, 2))}
    np.testing.assert_allclose(turn(model)(x), model(x), atol=1e-6)


def test_1x1_convolutions_behind_the_last_pooling_become_dense():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="map")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = x * layers.Conv2D(4, 1, activation="sigmoid", name="gate")(gate)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    outputs = layers.Flatten()(layers.Conv2D(5, 1, activation="relu", name="head")(x))
    model = keras.Model(inputs, outputs)
    settled = settle_head(model)
    assert isinstance(settled.get_layer("head"), layers.Dense)
    assert isinstance(settled.get_layer("gate"), layers.Conv2D)
    assert difference(model, settled, (8, 8)) < 1e-5
    assert difference(model, turn(model), (8, 8)) < 1e-5
    assert settle_head(settled) is None


def test_the_original_stays_as_it_is():
    model = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), alpha=0.35)
    before = model.get_weights()
    turn(model)
    assert all(map(np.array_equal, before, model.get_weights()))
    assert model.get_layer("Conv1").padding == "same"


def test_what_cannot_be_turned_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UnsupportedModelError, match="class of its own"):
        turn(Own())
    inputs = keras.Input((4,))
    with pytest.raises(UnsupportedModelError, match="no input of images"):
        turn(keras.Model(inputs, layers.Dense(2)(inputs)))
