"""Inputs get names and sizes that artifacts can hold, whatever structure the model takes."""

import keras
import numpy as np
import pytest

from tfprune.errors import InvalidArgumentError, UnsupportedModelError
from tfprune.export.signature import signature_of


def shapes(signature):
    return {spec.name: spec.shape for spec in signature.specs}


def test_names_become_identifiers_that_are_unique():
    names = ["_a", "a", "b c-d", "1"]
    inputs = [keras.Input((2,), name=name) for name in names]
    signature = signature_of(keras.Model(inputs, keras.layers.Add()(inputs)))
    assert [spec.name for spec in signature.specs] == ["a", "a_1", "b_c_d", "input_1"]
    assert [spec.keras_name for spec in signature.specs] == names


def test_nested_inputs_are_packed_as_the_model_takes_them():
    a, b, c = (keras.Input((size,), name=f"t{size}") for size in (1, 2, 3))
    model = keras.Model([a, [b, c]], keras.layers.Concatenate()([a, b, c]))
    signature = signature_of(model)
    packed = signature.pack({"t1": "A", "t2": "B", "t3": "C"})
    assert keras.tree.flatten(packed) == ["A", "B", "C"]
    assert [len(packed), len(packed[1])] == [2, 2]


def test_open_sizes_are_taken_from_input_shape():
    image = keras.Input((None, None, 3), name="image")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    for given in ((8, 6, 3), [(8, 6, 3)], {"image": (8, 6, 3)}):
        assert shapes(signature_of(model, input_shape=given)) == {"image": (8, 6, 3)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"these are open: 'image' \(None, None, 3\)"),
        ((8, 6, 1), r"does not fit the input 'image': expected \(None, None, 3\)"),
        ((8, 6), "does not fit the input 'image'"),
        ((8, None, 3), "must give a shape for each|these are open"),
        ({"picture": (8, 6, 3)}, r"unknown inputs \['picture'\]; the model has \['image'\]"),
        ([(8, 6, 3), (1,)], "a shape for each of the inputs"),
    ],
)
def test_an_input_shape_that_does_not_fit_is_an_error(given, message):
    image = keras.Input((None, None, 3), name="image")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(InvalidArgumentError, match=message):
        signature_of(model, input_shape=given)


def test_a_model_with_a_batch_size_of_its_own_needs_that_one():
    model = keras.Sequential([keras.Input(batch_shape=(4, 2), name="x"), keras.layers.Dense(1)])
    with pytest.raises(InvalidArgumentError, match="'x' was built for a batch of 4"):
        signature_of(model)
    assert signature_of(model, batch_size=4).batch_size == 4


def test_sparse_and_string_inputs_are_refused_by_name():
    sparse = keras.Input((4,), sparse=True, name="sparse")
    with pytest.raises(UnsupportedModelError, match=r"dense numeric inputs.*'sparse' \(sparse\)"):
        signature_of(keras.Model(sparse, keras.layers.Dense(1)(sparse)))
    text = keras.Input((1,), dtype="string", name="text")
    with pytest.raises(UnsupportedModelError, match=r"'text' \(string\)"):
        signature_of(keras.Model(text, text))


class Block(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs["a"] + inputs["b"])


def test_a_subclassed_model_is_read_from_its_first_call():
    model = Block()
    model({"a": np.zeros((7, 3)), "b": np.zeros((7, 3))})
    assert shapes(signature_of(model)) == {"a": (3,), "b": (3,)}


def test_a_subclassed_model_that_was_never_called_is_refused():
    model = Block()
    model.built = True
    with pytest.raises(UnsupportedModelError, match="must have been called once"):
        signature_of(model)
