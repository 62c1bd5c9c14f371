"""Packing arrays: every bit comes back, in about the bytes that information theory asks for."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from tfprune.errors import InvalidArgumentError
from tfprune.export.packing import choose_form, pack, quantize, unpack

FORMS = [(p, v) for p in ("all", "mask", "gaps") for v in ("planes", "codebook")]


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


def sparse(sparsity, size=200_000, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size).astype("float32") * np.float32(0.05)
    return np.where(rng.random(size) < sparsity, np.float32(0), values)


def entropy_bytes(sparsity, size):
    """The bytes of a mask at its entropy, and of 32 bits per value."""
    kept = 1 - sparsity
    mask = -kept * np.log2(kept) - sparsity * np.log2(sparsity)
    return size * (mask + 32 * kept) / 8


@given(
    array=arrays.arrays(
        st.sampled_from(["float16", "float32", "float64", "int8", "uint8", "int32", "int64"]),
        arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=8),
    )
)
def test_every_bit_comes_back(array):
    result = unpack(pack(array))
    assert result.dtype == array.dtype
    assert result.shape == array.shape
    np.testing.assert_array_equal(bits(result), bits(array))


@pytest.mark.parametrize("form", FORMS)
@given(kept=st.integers(0, 200), size=st.integers(200, 3000), seed=st.integers(0, 99))
def test_every_form_holds_every_pattern_of_zeros(form, kept, size, seed):
    rng = np.random.default_rng(seed)
    array = np.zeros(size, "float32")
    array[rng.choice(size, kept, replace=False)] = rng.normal(size=kept)
    np.testing.assert_array_equal(unpack(pack(array, form)), array)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zeros", [0, 254, 255, 256, 510, 511, 1000])
def test_gaps_of_every_length(form, zeros):
    array = np.zeros(zeros + 2, "float32")
    array[0] = array[-1] = 1.5
    np.testing.assert_array_equal(unpack(pack(array, form)), array)


@pytest.mark.parametrize("form", FORMS)
def test_negative_zero_and_nan_keep_their_bits(form):
    array = np.array([0.0, -0.0, np.nan, -np.inf, 1e-45], "float32")
    np.testing.assert_array_equal(bits(unpack(pack(array, form))), bits(array))


@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.8, 0.9, 0.95, 0.98])
def test_weights_take_less_than_nine_tenths_of_the_plain_bound(sparsity):
    array = sparse(sparsity)
    assert pack(array).nbytes < 0.9 * entropy_bytes(sparsity, array.size)


def test_few_different_values_take_a_byte_each_at_most():
    array = np.random.default_rng(0).choice(np.float32([-1, 0, 0.3, 2]), 10_000)
    assert choose_form(array) == ("all", "codebook")
    assert pack(array).nbytes < 10_000 / 3


def test_dense_weights_are_not_larger_than_before():
    array = sparse(0.0)
    assert choose_form(array) == ("all", "planes")
    assert pack(array).nbytes < 0.9 * array.nbytes


def test_a_codebook_too_large_is_refused():
    with pytest.raises(InvalidArgumentError, match="256"):
        pack(np.arange(300, dtype="int32"), ("all", "codebook"))


@pytest.mark.parametrize("shape", [(20, 6), (3, 3, 4, 6), (3, 3, 6, 1)])
def test_int8_codes_are_within_half_a_step_per_channel(shape):
    array = np.random.default_rng(0).normal(size=shape).astype("float32")
    codes, scales = quantize(array)
    assert scales.size == 6
    assert np.abs(codes).max() == 127
    assert (np.abs(codes * scales - array) <= scales / 2 * 1.001).all()
