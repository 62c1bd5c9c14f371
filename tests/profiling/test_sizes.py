"""Parameters, non-zeros and bytes."""

import gzip

import keras
import numpy as np
import pytest
from keras import layers

from tfprune.profiling import profile
from tfprune.profiling.sizes import GzipSize, TensorSize


def dense_model(values, dtype="float32"):
    layer = layers.Dense(values.shape[1], use_bias=False, dtype=dtype)
    model = keras.Sequential([keras.Input(values.shape[:1]), layer])
    layer.kernel.assign(values)
    return model


def test_sparse_bytes_are_a_bit_per_position_and_the_values():
    values = np.zeros((8, 8), "float32")
    values[0, :3] = 1.0
    report = profile(dense_model(values))
    assert (report.parameters, report.nonzeros, report.sparsity) == (64, 3, 61 / 64)
    assert (report.bytes.dense, report.bytes.sparse) == (256, 8 + 3 * 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (TensorSize(64, 64, 256), 256),  # A bit mask would only add to a dense tensor.
        (TensorSize(9, 0, 36), 2),
        (TensorSize(0, 0, 0), 0),
        (TensorSize(16, 4, 32), 2 + 4 * 2),
    ],
)
def test_sparse_bytes_never_exceed_dense_ones(size, expected):
    assert size.sparse == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_bytes_follow_the_stored_dtype(dtype):
    values = np.arange(64, dtype="float32").reshape(8, 8)
    report = profile(dense_model(values, dtype))
    assert report.bytes.dense == 64 * {"float64": 8, "float32": 4}.get(dtype, 2)
    assert report.nonzeros == 63
    assert 0 < report.bytes.gzip < report.bytes.dense + 64


def test_gzip_is_the_size_of_a_real_gzip_of_the_weights():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(700, 600)).astype("float32"), np.zeros((5, 5), "float32")]
    stream = GzipSize()
    for array in arrays:
        stream.add(array)
    whole = gzip.compress(b"".join(array.tobytes() for array in arrays), compresslevel=6)
    assert stream.finish() == len(whole)


def test_gzip_can_be_left_out():
    report = profile(dense_model(np.ones((2, 2), "float32")), gzip=False)
    assert report.bytes.gzip is None
    assert "gzip not measured" in str(report)


def test_negative_zero_is_a_zero_and_nan_is_not():
    values = np.array([[-0.0, np.nan], [0.0, 1.0]], "float32")
    assert profile(dense_model(values)).nonzeros == 2


def test_frozen_and_statistic_weights_are_parameters_but_not_trainable():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dropout(0.5)]
    )
    report = profile(model)
    assert (report.parameters, report.trainable_parameters) == (15 + 12, 15 + 6)
    model.layers[0].trainable = False
    assert profile(model).trainable_parameters == 6
