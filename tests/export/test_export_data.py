"""Whatever users hold inputs in becomes the same samples, or an error that names the input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfprune.errors import InvalidArgumentError, InvalidTypeError
from tfprune.export.data import Samples, checked_samples, random_samples, read_arrays
from tfprune.export.signature import signature_of

LIMIT = 500


def read(data, model):
    signature = signature_of(model)
    arrays = read_arrays(data, signature, LIMIT, "representative_data")
    return checked_samples(arrays, signature, "representative_data")


@pytest.fixture
def x(rng):
    return rng.random((10, 4)).astype("float32")


@pytest.fixture
def ids(rng):
    return rng.integers(0, 11, (10, 3))


def test_every_container_of_one_input_gives_the_same_samples(dense, x):
    dataset = tf.data.Dataset.from_tensor_slices(x)
    labelled = tf.data.Dataset.from_tensor_slices((x, np.zeros(10))).batch(4)
    containers = [
        x,
        x.astype("float64"),
        tf.constant(x),
        [x],
        {"x": x},
        dataset.batch(4),
        labelled,
        [x[:5], x[5:]],
        (part for part in (x[:5], x[5:])),
        [(x, np.zeros(10), np.ones(10))],
        [{"x": x}],
    ]
    for container in containers:
        samples = read(container, dense)
        np.testing.assert_array_equal(samples.arrays["x"], x)
        assert samples.arrays["x"].dtype == "float32"
    assert samples.description == "10 examples of `representative_data`"


def test_every_container_of_two_inputs_gives_the_same_samples(two_inputs, x, ids):
    # `keras.tree` sorts the keys of a dict: ids come first.
    named = {"values": x, "ids": ids}
    for container in (
        named,
        [ids, x],
        [(ids, x)],
        tf.data.Dataset.from_tensor_slices(named).batch(3),
        tf.data.Dataset.from_tensor_slices((named, np.zeros(10))).batch(3),
        tf.data.Dataset.from_tensor_slices(((ids, x), np.zeros(10))).batch(3),
    ):
        samples = read(container, two_inputs)
        np.testing.assert_array_equal(samples.arrays["values"], x)
        np.testing.assert_array_equal(samples.arrays["ids"], ids)
        assert samples.arrays["ids"].dtype == "int32"


def test_endless_data_is_read_up_to_the_limit(dense, x):
    endless = tf.data.Dataset.from_tensor_slices(x).repeat().batch(8)
    assert read(endless, dense).count == LIMIT


def test_the_last_batch_is_filled_up_and_says_what_is_new(x):
    batches = list(Samples({"x": x}, "").batches(4))
    assert [rows for _, rows in batches] == [4, 4, 2]
    np.testing.assert_array_equal(batches[2][0]["x"], x[[8, 9, 0, 1]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((5, 3)), r"input 'x': expected shape \(examples, 4\).*Received: \(5, 3\)"),
        (np.zeros(4), r"expected shape \(examples, 4\).*Received: \(4,\)"),
        ([np.zeros((2, 4)), np.zeros((2, 5))], r"Received: \(2, 5\)"),
        (np.array([["a"] * 4]), r"expected dtype float32 .*Received: dtype <U1"),
        (np.full((2, 4), np.nan), "NaN or infinite values for the input 'x'"),
        ({"y": np.zeros((2, 4))}, r"must hold the inputs \['x'\]. Received: \['y'\]"),
        ({"x": np.float32(1)}, "same number of examples"),
        ([], "holds no examples"),
        (np.zeros((0, 4)), "holds no examples"),
        ([[1.0, 2.0]], "one array for each of the inputs"),
    ],
)
def test_data_that_does_not_fit_one_input_is_an_error(dense, data, message):
    with pytest.raises(InvalidArgumentError, match=message):
        read(data, dense)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"values": np.zeros((2, 4)), "ids": np.zeros((2, 3))}, "'ids': expected dtype int32"),
        ({"values": np.zeros((2, 4)), "ids": np.zeros((3, 3), int)}, "same number of examples"),
        ({"values": np.zeros((2, 4))}, r"Received: \['values'\]"),
        (np.zeros((2, 4)), "one array for each of the inputs"),
        ([(np.zeros((2, 3), int), np.zeros((2, 4)), np.zeros((2, 4)), 0)], "of 4"),
    ],
)
def test_data_that_does_not_fit_two_inputs_is_an_error(two_inputs, data, message):
    with pytest.raises(InvalidArgumentError, match=message):
        read(data, two_inputs)


@pytest.mark.parametrize("data", ["images", 3])
def test_what_holds_no_arrays_is_a_type_error(dense, data):
    with pytest.raises(InvalidTypeError, match="must be an array, a list or dict"):
        read(data, dense)


def test_random_integers_stay_below_the_embedding(two_inputs):
    samples = random_samples(two_inputs, signature_of(two_inputs), 200, seed=0)
    assert set(np.unique(samples.arrays["ids"])) == set(range(1, 11))
    again = random_samples(two_inputs, signature_of(two_inputs), 200, seed=0)
    np.testing.assert_array_equal(samples.arrays["values"], again.arrays["values"])
    assert samples.description == "200 examples of random inputs (seed 0)"


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("int32", 1, 1), ("uint8", 1, 255), ("bool", 0, 1)]
)
def test_random_values_fit_the_dtype(dtype, low, high):
    model = keras.Sequential([keras.Input((50,), dtype=dtype), keras.layers.Dense(1)])
    (array,) = random_samples(model, signature_of(model), 50, seed=0).arrays.values()
    assert (array.min(), array.max()) == (low, high)
    assert array.dtype == dtype


def test_random_images_fill_the_range_that_the_model_rescales():
    model = keras.Sequential(
        [keras.Input((20,)), keras.layers.Rescaling(1 / 127.5, offset=-1), keras.layers.Dense(1)]
    )
    (array,) = random_samples(model, signature_of(model), 50, seed=0).arrays.values()
    assert 127 < array.min() < array.max() < 256
    assert 0 <= array.min() / 127.5 - 1 < array.max() / 127.5 - 1 <= 1
