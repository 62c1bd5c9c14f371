"""The measured models, written once for Keras 3 and tf_keras: each function gets the module."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def small_cnn(keras: ModuleType) -> Any:
    """Build a CNN of 33,882 parameters for 28x28 grey images and 10 classes (logits)."""
    layers = keras.layers
    inputs = hidden = keras.Input((28, 28, 1))
    for number, filters in enumerate((16, 32, 64), start=1):
        hidden = layers.Conv2D(
            filters, 3, strides=2, padding="same", use_bias=False, name=f"conv{number}"
        )(hidden)
        hidden = layers.BatchNormalization(momentum=0.9, name=f"norm{number}")(hidden)
        hidden = layers.ReLU(name=f"relu{number}")(hidden)
    hidden = layers.Flatten(name="flatten")(hidden)
    return keras.Model(inputs, layers.Dense(10, name="logits")(hidden), name="small_cnn")


def resnet50(keras: ModuleType) -> Any:
    """Build ResNet50 with random weights for 64x64 colour images and 10 classes (logits)."""
    return keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )


def lstm(keras: ModuleType) -> Any:
    """Build an LSTM of 128 units over the 28 rows of an image, 10 classes (logits)."""
    layers = keras.layers
    inputs = keras.Input((28, 28))
    hidden = layers.LSTM(128, name="lstm")(inputs)
    return keras.Model(inputs, layers.Dense(10, name="logits")(hidden), name="lstm")
