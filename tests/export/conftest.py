"""Tiny models and data that the export tests share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).reshape(-1, 8, 8, 1).astype("float32"), labels


@pytest.fixture(scope="session")
def trained_cnn(digits):
    """A classifier of the digits that has learned something: int8 must keep its predictions."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(8, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images, labels = digits
    model.fit(images[:1500], labels[:1500], epochs=6, batch_size=64, verbose=0)
    assert model.evaluate(images[1500:], labels[1500:], verbose=0)[1] > 0.8
    return model


@pytest.fixture(scope="session")
def dense():
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(8), keras.layers.Dense(3)], name="dense"
    )


@pytest.fixture(scope="session")
def two_inputs():
    """Dict inputs in an order that is not the sorted one, integer ids, dict outputs."""
    import keras

    keras.utils.set_random_seed(0)
    values = keras.Input((4,), name="values")
    ids = keras.Input((3,), dtype="int32", name="ids")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(11, 2)(ids))
    joined = keras.layers.Concatenate()([keras.layers.Dense(4)(values), embedded])
    outputs = {"score": keras.layers.Dense(1)(joined), "class": keras.layers.Dense(3)(joined)}
    return keras.Model({"values": values, "ids": ids}, outputs, name="two_inputs")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
