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


def transformer(keras: ModuleType) -> Any:
    """Build a Transformer of 56,402 parameters over the 28 rows of an image, 10 classes (logits).

    Two blocks that normalize first, with four heads. The shift of the normalization over rows and
    features, one number for each, tells the rows apart: a position embedding that tfmot accepts.
    """
    layers, width = keras.layers, 56
    inputs = keras.Input((28, 28))
    hidden = layers.Dense(width, name="embed")(inputs)
    hidden = layers.LayerNormalization(axis=(1, 2), name="positions")(hidden)
    for block in ("block1", "block2"):
        normal = layers.LayerNormalization(name=f"{block}_norm1")(hidden)
        attention = layers.MultiHeadAttention(
            4, width // 4, use_bias=False, name=f"{block}_attention"
        )
        # By keyword: the wrappers of tfmot take one positional argument.
        hidden = layers.Add(name=f"{block}_add1")([hidden, attention(normal, value=normal)])
        normal = layers.LayerNormalization(name=f"{block}_norm2")(hidden)
        wide = layers.Dense(2 * width, activation="relu", name=f"{block}_expand")(normal)
        narrow = layers.Dense(width, name=f"{block}_reduce")(wide)
        hidden = layers.Add(name=f"{block}_add2")([hidden, narrow])
    hidden = layers.LayerNormalization(name="norm")(hidden)
    hidden = layers.GlobalAveragePooling1D(name="mean")(hidden)
    return keras.Model(inputs, layers.Dense(10, name="logits")(hidden), name="transformer")
