"""What a layer is predicted to cost."""

import math

import numpy as np
import pytest

from tfprune.errors import InvalidArgumentError
from tfprune.export.sparse_runtime.compiler import layer_cost


def kernel(shape, sparsity):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape) * (rng.random(shape) >= sparsity)


def test_zeros_make_a_layer_cheaper_inside_and_not_outside():
    costs = [layer_cost(kernel((3, 3, 64, 64), s), (14, 14)) for s in (0.0, 0.7, 0.9, 0.97)]
    inside = [cost.sparse_ms for cost in costs]
    assert inside == sorted(inside, reverse=True)
    assert len({cost.dense_ms for cost in costs}) == 1
    assert inside[0] > costs[0].dense_ms > inside[2]


def test_whole_taps_of_zeros_save_more_than_the_same_number_anywhere():
    scattered = kernel((3, 3, 64, 64), 8 / 9)
    tap = np.zeros((3, 3, 64, 64))
    tap[1, 1] = 1.0
    assert layer_cost(tap, (14, 14)).sparse_ms < layer_cost(scattered, (14, 14)).sparse_ms / 2


def test_what_has_no_form_inside_costs_infinity_there():
    cost = layer_cost(kernel((3, 3, 8, 8), 0.9), (14, 14), padding="valid")
    assert math.isinf(cost.sparse_ms)
    assert "leave out the border" in cost.reason
    assert math.isfinite(layer_cost(kernel((3, 3, 8, 8), 0.9), (14, 14), strides=(2, 2)).sparse_ms)


def test_arguments_that_make_no_sense():
    with pytest.raises(InvalidArgumentError, match="Received: 'full'"):
        layer_cost(kernel((3, 3, 8, 8), 0.9), (14, 14), padding="full")
