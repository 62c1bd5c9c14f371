"""Open input sizes, and how `input_shapes` closes them."""

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.errors import InvalidArgumentError
from tfprune.profiling import profile


@pytest.fixture
def open_model():
    x = keras.Input((None, None, 3), name="image")
    return keras.Model(x, layers.Conv2D(4, 3, padding="same")(x))


@pytest.fixture
def two_inputs():
    text, image = keras.Input((None, 4), name="text"), keras.Input((3,), name="image")
    return keras.Model([text, image], [layers.LSTM(2)(text), layers.Dense(2)(image)])


def test_an_open_size_is_refused_naming_the_input_and_the_argument(open_model):
    expected = r"input 'image' has shape \(None, None, 3\).*`input_shapes=\(64, 64, 3\)`"
    with pytest.raises(InvalidArgumentError, match=expected):
        profile(open_model)


def test_every_open_input_is_named(two_inputs):
    with pytest.raises(InvalidArgumentError, match=r"input_shapes=\{'text': \(64, 4\)\}"):
        profile(two_inputs)


@pytest.mark.parametrize(
    "shapes",
    [
        (8, 6, 3),
        [8, 6, 3],
        [(8, 6, 3)],
        {"image": (8, 6, 3)},
        keras.KerasTensor((None, 8, 6, 3)),
        np.zeros((5, 8, 6, 3), "float32"),
    ],
    ids=["tuple", "list of sizes", "list of shapes", "dict", "spec", "array"],
)
def test_open_sizes_can_be_given_in_several_ways(open_model, shapes):
    assert profile(open_model, input_shapes=shapes).macs == 8 * 6 * 9 * 3 * 4


def test_inputs_left_out_of_a_dict_keep_the_models_shape(two_inputs):
    report = profile(two_inputs, input_shapes={"text": (5, 4)})
    assert report.macs == 5 * 4 * (4 + 2) * 2 + 3 * 2


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ((8, 3), r"has shape \(None, None, 3\).*gives it \(8, 3\)"),
        ((8, 8, 1), r"gives it \(8, 8, 1\)"),
        ((8, None, 3), r"sizes that the model leaves open"),
        ({"picture": (8, 8, 3)}, r"does not have: \['picture'\].*Its inputs are \['image'\]"),
        ([(8, 8, 3), (8, 8, 3)], r"one shape for each of the inputs \['image'\]"),
        ({"image": [(8, 8, 3)]}, "must give input 'image' one shape"),
        (224, "must be a shape without the batch axis"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(open_model, shapes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        profile(open_model, input_shapes=shapes)


def test_inputs_in_a_dict_or_sparse_are_traced_as_they_are():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((6,), name="b", sparse=True)}
    outputs = [layers.Dense(2)(inputs["a"]), layers.Dense(3)(inputs["b"])]
    assert profile(keras.Model(inputs, outputs)).macs == 4 * 2 + 6 * 3


def test_a_subclassed_model_can_be_given_other_shapes_and_dtypes():
    class Tagger(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.head = layers.Embedding(10, 4), layers.Dense(3)

        def call(self, tokens):
            return self.head(self.table(tokens))

    model = Tagger()
    model(np.zeros((2, 5), "int32"))
    assert profile(model).macs == 5 * 4 * 3
    assert profile(model, input_shapes=(9,)).macs == 9 * 4 * 3
    spec = keras.KerasTensor((None, 7), dtype="int64")
    assert profile(model, input_shapes=spec).macs == 7 * 4 * 3


def test_a_subclassed_model_without_known_shapes_asks_for_them():
    class Silent(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3)
            self.head.build((None, 4))
            self.built = True

        def call(self, x):
            return self.head(x)

    model = Silent()
    with pytest.raises(InvalidArgumentError, match="input shapes of model 'silent' are not known"):
        profile(model)
    assert profile(model, input_shapes=(4,)).macs == 12
    assert profile(model, input_shapes=[5, 4]).macs == 60
